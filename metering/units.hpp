#pragma once
// What is metered: unit counts of one request, and the neurons they cost as an exact number. No floating point here.

#include <cstdint>
#include <string_view>

#include "api/types.hpp"

namespace ganglion::metering {

// Counts of one request, or sums of many. One request never carries more than kUnitsPerRequestMax of a kind.
struct Units {
  std::uint64_t input_tokens = 0;         // cached ones included
  std::uint64_t cached_input_tokens = 0;  // of input_tokens
  std::uint64_t output_tokens = 0;
  std::uint64_t requests = 0;
  std::uint64_t gpu_us = 0;                 // accelerator time in microseconds
  std::uint64_t llm_responses = 0;          // operations that the launch-2023 schedule counts
  std::uint64_t image_classifications = 0;  // same
  std::uint64_t embeddings = 0;             // same; one per vector answered
  friend bool operator==(const Units&, const Units&) = default;
  Units& operator+=(const Units& other);
};

inline constexpr std::uint64_t kUnitsPerRequestMax = 1'000'000'000'000;

// The units of one answer: requests = 1; one LLM response for chat and completions; `vectors` embeddings for
// embeddings.
Units units_of(api::Endpoint endpoint, const api::Usage& usage, std::uint64_t vectors = 0);

// Neurons as an integer count of parts. 1 nano-neuron = 11,869,000,000 parts (1,000,000 x 11 x 13 x 83): the smallest
// number that makes every rate an integer: prices per 1,000,000 tokens, 1,000/130, 1,000/830 and 1,000/1,250 neurons an
// operation, and USD prices at USD 0.011 per 1,000 neurons. So sums are exact and are rounded once, when shown.
using NeuronParts = unsigned __int128;
inline constexpr std::uint64_t kPartsPerNanoNeuron = 11'869'000'000;
inline constexpr std::uint64_t kPartsPerNeuron = 11'869'000'000ULL * 1'000'000'000ULL;

// Half up; saturates at the type's maximum.
api::NanoNeurons round_to_nano(NeuronParts parts);

enum class PriceSource : std::uint8_t { schedule, operator_price, fallback, free };
std::string_view name(PriceSource source);

// What one request costs.
struct Charge {
  api::NanoNeurons nano_neurons = 0;      // `exact` rounded half up: what headers and usage objects show
  NeuronParts exact = 0;                  // what invoices add up
  std::uint64_t usd_pico_per_neuron = 0;  // 1e-12 USD per neuron of the request's tier: 0.011 per 1,000 is 11,000,000
  std::string_view schedule;              // "cloudflare-2026/1"; static storage
  PriceSource source = PriceSource::free;
};

}  // namespace ganglion::metering
