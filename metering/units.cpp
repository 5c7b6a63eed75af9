// See metering/units.hpp.

#include "metering/units.hpp"

#include <algorithm>
#include <limits>

namespace ganglion::metering {

Units& Units::operator+=(const Units& other) {
  input_tokens += other.input_tokens;
  cached_input_tokens += other.cached_input_tokens;
  output_tokens += other.output_tokens;
  requests += other.requests;
  gpu_us += other.gpu_us;
  llm_responses += other.llm_responses;
  image_classifications += other.image_classifications;
  embeddings += other.embeddings;
  return *this;
}

Units units_of(api::Endpoint endpoint, const api::Usage& usage, std::uint64_t vectors) {
  // What a provider reports is not believed past any bound: 2^64 - 1 would overflow sums and databases.
  const auto bounded = [](std::uint64_t count) { return std::min(count, kUnitsPerRequestMax); };
  Units units{.input_tokens = bounded(usage.input_tokens),
              .cached_input_tokens = bounded(std::min(usage.cached_input_tokens, usage.input_tokens)),
              .output_tokens = bounded(usage.output_tokens),
              .requests = 1};
  if (endpoint == api::Endpoint::chat_completions || endpoint == api::Endpoint::completions) units.llm_responses = 1;
  if (endpoint == api::Endpoint::embeddings) units.embeddings = vectors;
  return units;
}

api::NanoNeurons round_to_nano(NeuronParts parts) {
  NeuronParts nano = parts / kPartsPerNanoNeuron;
  if (parts % kPartsPerNanoNeuron >= kPartsPerNanoNeuron / 2) ++nano;
  constexpr auto kMax = std::numeric_limits<api::NanoNeurons>::max();
  return nano > static_cast<NeuronParts>(kMax) ? kMax : static_cast<api::NanoNeurons>(nano);
}

std::string_view name(PriceSource source) {
  switch (source) {
    case PriceSource::schedule:
      return "schedule";
    case PriceSource::operator_price:
      return "operator";
    case PriceSource::fallback:
      return "fallback";
    case PriceSource::free:
      break;
  }
  return "free";
}

}  // namespace ganglion::metering
