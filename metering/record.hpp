#pragma once
// What the ledger writes: who asked (Subject), how it ended (Terminal), and the decoded forms that readers get. The
// byte format is in record_codec.hpp and docs/ledger.md.

#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "api/tags.hpp"
#include "core/clock.hpp"
#include "metering/units.hpp"

namespace ganglion::metering {

// Who asked for what. Views are borrowed for the call; each is cut at kNameBytesMax.
struct Subject {
  std::string_view request_id;
  std::string_view tenant;
  std::string_view key_id;  // id of the key, never the key
  std::string_view gateway;
  std::string_view model;  // resolved name, the one that is priced
  api::Endpoint endpoint = api::Endpoint::chat_completions;
  api::Tier tier = api::Tier::regular;
  std::span<const api::Tag> tags;  // at most kTagsMax are kept
};
inline constexpr std::size_t kNameBytesMax = 255;

enum class Outcome : std::uint8_t {
  completed,       // the whole answer was produced
  cancelled,       // the client left; what was produced is billed
  upstream_error,  // no backend gave an answer, or it broke
  gateway_error,   // we failed
  rejected,        // refused before dispatch (limits, budget, queue)
  cache_hit,       // answered from the cache
  aborted,         // found open at recovery: the process died in between
  kCount
};
std::string_view name(Outcome outcome);

// One dispatch to a backend. At most kAttemptsMax are listed.
struct Attempt {
  std::string_view backend;
  int http_status = 0;      // 0: none arrived
  std::string_view reason;  // "" for the one that answered, else why it did not ("upstream_connect")
};
inline constexpr std::size_t kAttemptsMax = 16;

// How the request ended. Exactly one per admitted request.
struct Terminal {
  Outcome outcome = Outcome::completed;
  std::string_view reason;  // error name or finish cause, "" if none
  Units units;
  bool estimated = false;  // units counted by us, not reported by the upstream
  Charge charge;
  int http_status = 0;  // what the client got; 0: nothing
  std::chrono::microseconds latency{0};
  std::span<const Attempt> attempts;
};

// A tenant's neurons of the running UTC day.
struct DayTotal {
  NeuronParts regular = 0;
  NeuronParts fast = 0;
};

// A terminal record as read back.
struct LedgerRecord {
  std::uint64_t sequence = 0;
  std::chrono::microseconds time{0};  // wall clock since 1970-01-01 UTC
  std::string request_id, tenant, key_id, gateway, model;
  api::Endpoint endpoint = api::Endpoint::chat_completions;
  api::Tier tier = api::Tier::regular;
  api::Tags tags;
  Outcome outcome = Outcome::completed;
  std::string reason;
  Units units;
  bool estimated = false;
  api::NanoNeurons nano_neurons = 0;
  NeuronParts exact = 0;
  std::uint64_t usd_pico_per_neuron = 0;
  std::string schedule;
  PriceSource price_source = PriceSource::free;
  int http_status = 0;
  std::chrono::microseconds latency{0};
  struct Try {
    std::string backend;
    int http_status = 0;
    std::string reason;
  };
  std::vector<Try> attempts;
};

}  // namespace ganglion::metering
