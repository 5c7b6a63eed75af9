// See codec_property.hpp.

#include "tests/fuzz/codec_property.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "api/openai_response.hpp"
#include "api/tags.hpp"
#include "cache/purge_log.hpp"
#include "cache/semantic_journal.hpp"
#include "config/describe.hpp"
#include "config/loader.hpp"
#include "core/assert.hpp"
#include "core/log.hpp"
#include "gateway/alert_journal.hpp"
#include "gateway/embed.hpp"
#include "gateway/purge_admin.hpp"
#include "idempotency/database.hpp"
#include "idempotency/key.hpp"
#include "metering/anchors.hpp"
#include "metering/decimal.hpp"
#include "metering/price_book.hpp"

namespace ganglion::fuzz {
namespace {

constexpr std::size_t kBytesMax = 64 * 1024;

// A folder of this process's own, in memory where there is one.
const std::string& scratch() {
  static const std::string kFolder = [] {
    const char* const root = std::filesystem::is_directory("/dev/shm") ? "/dev/shm" : "/tmp";
    std::string folder = std::string{root} + "/ganglion-fuzz-" + std::to_string(::getpid());
    std::filesystem::create_directories(folder);
    return folder;
  }();
  return kFolder;
}

std::string file_with(const char* name, std::string_view bytes) {
  const std::string path = scratch() + "/" + name;
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  GW_ASSERT(fd >= 0 && ::write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
  ::close(fd);
  return path;
}

core::WallTime wall() {
  return core::WallTime{std::chrono::seconds{1'767'225'600}};
}

}  // namespace

void check_config(std::string_view yaml) {
  if (yaml.size() > kBytesMax) return;
  const config::LoadOptions options{.env = [](std::string_view name) -> std::optional<std::string> {
                                      if (name.starts_with("NO")) return std::nullopt;
                                      return std::string{"value-0123456789abcdef"};
                                    },
                                    .check_files = false};
  const auto loaded = config::load_text(yaml, "/fuzz.yaml", options);
  if (!loaded) {
    GW_ASSERT(!loaded.error().empty());
    GW_ASSERT(!config::format(loaded.error()).empty());
    return;
  }
  const std::string shown = config::describe_redacted(*loaded);
  GW_ASSERT(nlohmann::json::accept(shown));
  GW_ASSERT(shown.find("value-0123456789abcdef") == std::string::npos ||
            yaml.find("value-0") != std::string_view::npos || yaml.find("${") != std::string_view::npos);
  const auto again = config::load_text(yaml, "/fuzz.yaml", options);
  GW_ASSERT(again && again->hash == loaded->hash);
  GW_ASSERT(config::changed_not_reloadable(*loaded, *again).empty());
}

void check_labels(std::string_view header) {
  const auto tags = api::parse_tags(header);
  if (!tags) {
    GW_ASSERT(tags.error().kind == core::ErrorKind::invalid_value && !tags.error().message.empty());
    return;
  }
  GW_ASSERT(tags->size() <= api::kTagsMax);
  std::set<std::string> names;
  for (const api::Tag& tag : *tags) {
    GW_ASSERT(!tag.name.empty() && tag.name.size() <= api::kTagNameBytesMax &&
              tag.value.size() <= api::kTagValueBytesMax);
    GW_ASSERT(names.insert(tag.name).second);
    GW_ASSERT(api::find_tag(*tags, tag.name) != nullptr);
  }
  std::string written;
  api::append_tags_json(written, *tags);
  GW_ASSERT(nlohmann::json::accept(written));
  const auto back = api::parse_tags(written);
  GW_ASSERT(back && *back == *tags);
}

void check_purge(std::string_view body) {
  const auto same = [](const cache::PurgeScope& scope) {
    const auto back = cache::scope_from_text(cache::to_text(scope));
    GW_ASSERT(back && *back == scope);
  };
  if (const auto scope = gateway::parse_purge(body))
    same(*scope);
  else
    GW_ASSERT(!scope.error().message.empty());
  if (const auto scope = cache::scope_from_text(body)) {
    // Bytes that are no UTF-8 are replaced when it is written; the second time nothing is.
    const auto once = cache::scope_from_text(cache::to_text(*scope));
    GW_ASSERT(once);
    same(*once);
  }
}

void check_embedding(std::string_view body) {
  if (const auto read = gateway::read_embedding(body)) {
    GW_ASSERT(!read->vector.empty());
    for (const float value : read->vector) GW_ASSERT(std::isfinite(value));
  } else {
    GW_ASSERT(read.error().kind == core::ErrorKind::upstream_protocol);
  }
  const auto facts = api::scan_answer(body);
  if (!facts || facts->usage_object.empty()) return;
  std::string out;
  const std::string_view priced = api::inject_neurons(body, *facts, "0.5", out);
  const auto again = api::scan_answer(priced);
  GW_ASSERT(again && again->choices == facts->choices && again->error == facts->error);
}

void check_prices(std::string_view text) {
  for (const unsigned decimals : {0U, 3U, 9U}) {
    const auto value = metering::parse_decimal(text, decimals);
    if (!value) continue;
    const std::string written = metering::format_decimal(*value, decimals);
    const auto back = metering::parse_decimal(written, decimals);
    GW_ASSERT(back && *back == *value);
  }
  // Fields of a price list, one a line.
  std::vector<std::string> fields;
  for (std::string_view rest = text; !rest.empty() && fields.size() < 8;) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    fields.emplace_back(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  fields.resize(8);
  metering::PricingOptions options{.schedule = fields[0].empty() ? "cloudflare-2026" : fields[0],
                                   .models = {{.model = fields[1].empty() ? "m" : fields[1],
                                               .unit = fields[2].empty() ? "usd" : fields[2],
                                               .per_1m_input_tokens = fields[3],
                                               .per_1m_output_tokens = fields[4],
                                               .per_request = fields[5],
                                               .per_gpu_second = fields[6]}}};
  const auto made = metering::PriceBook::make(options);
  if (!made) return;
  const metering::PriceBook& book = **made;
  const auto charge =
      book.price(options.models.front().model, api::Tier::regular,
                 {.input_tokens = 1'000'000, .output_tokens = 1'000'000, .requests = 1, .gpu_us = 1'000'000});
  const auto none = book.price(options.models.front().model, api::Tier::regular, {});
  GW_ASSERT(none.exact <= charge.exact && charge.nano_neurons >= 0);
}

void check_anchors(std::string_view file) {
  if (file.size() > kBytesMax) return;
  const metering::LedgerId id{1, 2, 3};
  const auto list = metering::parse_anchors(file, id);
  GW_ASSERT(list.good_bytes <= file.size() && list.bytes == file.size());
  GW_ASSERT(list.problem.empty() == (list.good_bytes == file.size()));
  // What is good is good by itself, and cut anywhere it has no segment that the whole has not.
  const auto good = metering::parse_anchors(file.substr(0, list.good_bytes), id);
  GW_ASSERT(good.problem.empty() && good.segments.size() == list.segments.size() && good.tip == list.tip);
  const auto half = metering::parse_anchors(file.substr(0, list.good_bytes / 2), id);
  for (const auto& [epoch, anchor] : half.segments) {
    GW_ASSERT(list.segments.contains(epoch));
    GW_ASSERT(list.segments.at(epoch).sha256 == anchor.sha256);
  }
}

void check_alert_journal(std::string_view file) {
  if (file.size() > kBytesMax) return;
  core::set_log_level(core::LogLevel::off);
  const std::string path = file_with("alerts.jsonl", file);
  std::vector<std::string> first;
  for (int round = 0; round < 2; ++round) {
    const auto journal = gateway::AlertJournal::open(path, wall());
    if (!journal) {
      GW_ASSERT(round == 0);  // what was written anew is readable
      return;
    }
    std::vector<std::string> ids;
    for (const auto& pending : journal->pending()) ids.push_back(pending.id + "\n" + pending.body);
    if (round == 0)
      first = ids;
    else
      GW_ASSERT(ids == first);
  }
}

void check_semantic_journal(std::string_view file) {
  if (file.size() > kBytesMax) return;
  core::set_log_level(core::LogLevel::off);
  const std::string path = file_with("semantic", file);
  std::size_t handed = 0;
  {
    cache::SemanticJournal journal(path, cache::StoreSecret{}, 1'000);
    if (!journal.load(wall(), [&](const cache::SemanticRecord& record) {
          GW_ASSERT(record.vector.size() <= cache::SemanticJournal::kDimensionsMax);
          ++handed;
        }))
      return;
  }
  std::size_t again = 0;
  cache::SemanticJournal journal(path, cache::StoreSecret{}, 1'000);
  GW_ASSERT(journal.load(wall(), [&](const cache::SemanticRecord&) { ++again; }));
  GW_ASSERT(again == handed);
}

void check_idempotency(std::string_view bytes) {
  if (bytes.size() > kBytesMax) return;
  const bool key = idempotency::check_key(bytes).has_value();
  GW_ASSERT(!key || (bytes.size() <= idempotency::kKeyBytesMax && !bytes.empty()));
  if (bytes.size() < 100) return;  // no database
  for (const char* suffix : {"-wal", "-journal", "-shm"}) ::unlink((scratch() + "/keys" + suffix).c_str());
  const std::string path = file_with("keys", bytes);
  auto database = idempotency::Database::open(path);
  if (!database) return;
  const auto rows = (*database)->keys();
  if (!rows) return;
  for (const auto& row : *rows) {
    [[maybe_unused]] const auto answer = (*database)->answer(row.key);
    [[maybe_unused]] const auto moved = (*database)->set_state(row.key, idempotency::KeyState::lost);
  }
}

}  // namespace ganglion::fuzz
