#pragma once
// Prices and the ledger, as the operator writes them.

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/secret.hpp"

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

// Prices from an instant on. What it does not name stays as it was before; `models`, if not empty, replaces the whole
// list.
struct PriceChange {
  std::chrono::microseconds from{0};  // since 1970-01-01 UTC
  std::optional<std::string> schedule;
  std::optional<std::string> usd_per_1000_neurons_regular;
  std::optional<std::string> usd_per_1000_neurons_fast;
  std::optional<std::uint64_t> daily_free_neurons;
  std::vector<ModelPrice> models;
};

struct PricingOptions {
  std::string schedule = "cloudflare-2026";                 // built-in base: "launch-2023" or "cloudflare-2026"
  std::optional<std::string> usd_per_1000_neurons_regular;  // overrides the schedule's
  std::optional<std::string> usd_per_1000_neurons_fast;
  std::vector<ModelPrice> models;             // operator's own prices, before the schedule's table
  std::uint64_t daily_free_neurons = 10'000;  // per tenant, reset 00:00 UTC; 0: none
  std::vector<PriceChange> changes;           // by time
};

enum class OnExceed : std::uint8_t { cut, finish };

// A limit on what may be spent in a window, by the requests that fit every selector that is set.
struct BudgetOptions {
  std::string name;     // unique
  std::string key;      // key id; "": any
  std::string tenant;   // "": any
  std::string gateway;  // "": any
  std::string model;    // "": any
  std::string tag;      // "team" or "team=red", of the header cf-aig-metadata; "": any
  // "": one budget for all that fit. "key", "tenant", "gateway", "model" or "tag": a budget of this size for each.
  std::string per;
  std::string limit_neurons;  // exact decimals, exactly one of the two is set
  std::string limit_usd;
  std::string window = "month";  // see parse_window()
  OnExceed on_exceed = OnExceed::cut;
  std::vector<std::uint32_t> alerts{50, 80, 100};  // percent
};

// What is reserved for a request before it is dispatched, where the request itself does not say.
struct ReserveOptions {
  std::uint64_t output_max = 16'384;   // tokens of an answer, where neither request nor model sets a maximum
  std::uint64_t stream_step = 0;       // a stream without a maximum reserves so many at a time; 0: output_max at once
  std::uint64_t media_tokens = 8'192;  // prompt tokens of an image, sound or file
};

// Where alerts of budgets are sent.
struct BudgetAlertOptions {
  std::string webhook;  // URL; "": nowhere
  core::Secret secret;  // signs each call
  std::uint32_t attempts_max = 20;
  std::chrono::milliseconds backoff_base{1'000};  // before the second call; doubled from then on
  std::uint32_t queue_max = 1'000;  // alerts that wait to be sent; past it new ones are dropped and counted
};

struct LedgerOptions {
  std::string directory = "data/ledger";
  std::chrono::microseconds commit_interval_max{
      5'000};  // group commit: the longest a terminal record waits for company
  std::uint64_t segment_bytes = 64ULL * 1024 * 1024;
  std::uint64_t reserve_bytes = 16ULL * 1024 * 1024;  // of each segment kept for the ends of running requests
  std::chrono::hours retention{0};  // full segments older than this are dropped once summed up; 0: kept
};

}  // namespace ganglion::metering
