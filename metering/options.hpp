#pragma once
// Prices and the ledger, as the operator writes them.

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace ganglion::metering {

// Price of one model in neurons, or in USD where the provider publishes that. Amounts are exact decimals ("606061",
// "0.6"), parsed into integer nano-neurons.
struct ModelPrice {
  std::string model;                       // resolved model name, or "*" for every model without its own entry
  std::string unit = "neurons";            // "neurons" or "usd"
  std::string per_1m_input_tokens;         // "" is not priced
  std::string per_1m_cached_input_tokens;  // "": as input
  std::string per_1m_output_tokens;
  std::string per_request;
  std::string per_gpu_second;
};

struct PricingOptions {
  std::string schedule = "cloudflare-2026";                 // built-in base: "launch-2023" or "cloudflare-2026"
  std::optional<std::string> usd_per_1000_neurons_regular;  // overrides the schedule's
  std::optional<std::string> usd_per_1000_neurons_fast;
  std::vector<ModelPrice> models;             // operator's own prices, before the schedule's table
  std::uint64_t daily_free_neurons = 10'000;  // per tenant, reset 00:00 UTC; 0: none
};

struct LedgerOptions {
  std::string directory = "data/ledger";
  std::chrono::microseconds commit_interval_max{
      5'000};  // group commit: the longest a terminal record waits for company
  std::uint64_t segment_bytes = 64ULL * 1024 * 1024;
  std::chrono::hours retention{0};  // full segments older than this are dropped once summed up; 0: kept
};

}  // namespace ganglion::metering
