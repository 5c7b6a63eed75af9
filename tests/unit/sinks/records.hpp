#pragma once
// Records as a ledger gives them, made up.

#include <string>
#include <vector>

#include "metering/record.hpp"

namespace ganglion::sinks {

inline constexpr const char* kLedger = "0b0e7a52-7c1f-4a4b-9d7e-3d4f6a5b6c7d";

inline metering::LedgerRecord record(std::uint64_t sequence,
                                     std::chrono::hours since_1970 = std::chrono::hours{490'872}) {
  metering::LedgerRecord out;
  out.sequence = sequence;
  out.time = since_1970;
  out.request_id = "r" + std::to_string(sequence);
  out.tenant = "acme";
  out.key_id = "key-1";
  out.gateway = "default";
  out.model = "demo-chat";
  out.reason = "stop";
  out.units = {.input_tokens = 11, .output_tokens = 5, .requests = 1};
  out.nano_neurons = 1'500'000'000;
  out.exact = metering::NeuronParts{metering::kPartsPerNeuron} * 3 / 2;
  out.schedule = "s";
  out.http_status = 200;
  out.attempts.push_back({.backend = "up", .http_status = 200});
  return out;
}

inline std::vector<metering::LedgerRecord> records(std::uint64_t first, std::uint64_t last) {
  std::vector<metering::LedgerRecord> out;
  for (std::uint64_t sequence = first; sequence <= last; ++sequence) out.push_back(record(sequence));
  return out;
}

}  // namespace ganglion::sinks
