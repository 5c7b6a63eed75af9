#pragma once
// What a request is, in native types: shared words of every layer from the codecs to the ledger. No I/O, no JSON.

#include <cstdint>
#include <optional>
#include <string_view>

namespace ganglion::api {

enum class Endpoint : std::uint8_t { chat_completions, completions, embeddings, models, kCount };

constexpr std::string_view name(Endpoint e) {
  switch (e) {
    case Endpoint::chat_completions:
      return "chat_completions";
    case Endpoint::completions:
      return "completions";
    case Endpoint::embeddings:
      return "embeddings";
    case Endpoint::models:
      return "models";
    case Endpoint::kCount:
      break;
  }
  return "unknown";
}

// Service tiers: regular runs wherever there is spare capacity; fast is served first.
enum class Tier : std::uint8_t { regular, fast };
inline constexpr std::size_t kTierCount = 2;
constexpr std::string_view name(Tier t) {
  return t == Tier::fast ? "fast" : "regular";
}
constexpr std::optional<Tier> parse_tier(std::string_view text) {
  if (text == "regular") return Tier::regular;
  if (text == "fast") return Tier::fast;
  return std::nullopt;
}

// What an answer used. Counts are exact unless `estimated`.
struct Usage {
  std::uint64_t input_tokens = 0;         // all prompt tokens, cached ones included
  std::uint64_t cached_input_tokens = 0;  // of input_tokens, those that a provider's prompt cache served
  std::uint64_t output_tokens = 0;        // reasoning tokens included
  bool estimated = false;                 // counted by us because the upstream reported none
  friend bool operator==(const Usage&, const Usage&) = default;
};

// Neurons are counted in integer nano-neurons: 1 neuron = 1e9. 2^63 nano-neurons are 9.2e9 neurons a record.
using NanoNeurons = std::int64_t;
inline constexpr NanoNeurons kNanoPerNeuron = 1'000'000'000;

}  // namespace ganglion::api
