// See metering/schedules/schedules.hpp. Prices are published facts; the fast tier of cloudflare-2026, which Cloudflare
// no longer sells, keeps its launch price.

#include "metering/schedules/schedules.hpp"

namespace ganglion::metering {
namespace {

constexpr ScheduleRow kCloudflare2026[] = {
#include "metering/schedules/cloudflare_2026.inc"
};

constexpr Schedule kSchedules[] = {
    {.option = "launch-2023",
     .id = "launch-2023/1",
     .usd_per_1000_regular = "0.01",
     .usd_per_1000_fast = "0.125",
     .operations = {.llm_responses_per_1000 = 130, .image_classifications_per_1000 = 830, .embeddings_per_1000 = 1250},
     .rows = {}},
    {.option = "cloudflare-2026",
     .id = "cloudflare-2026/1",
     .usd_per_1000_regular = "0.011",
     .usd_per_1000_fast = "0.125",
     .operations = {},
     .rows = kCloudflare2026},
};

}  // namespace

std::span<const Schedule> schedules() {
  return kSchedules;
}

}  // namespace ganglion::metering
