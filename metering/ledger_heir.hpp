#pragma once
// Who writes the ledger once this process has handed it over: the process that replaces it. Requests and records travel
// as the ledger's own payloads (record_codec.hpp).

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "core/error.hpp"

namespace ganglion::metering {

// Thread-safe. Every call ends, with ledger_unavailable once the other process is gone.
class LedgerHeir {
 public:
  virtual ~LedgerHeir() = default;
  // Block for the answer. `payload`: of an intent record; the sequence that it got.
  virtual core::Result<std::uint64_t> intent(std::string_view payload) = 0;
  virtual core::Result<void> attempt(std::string_view payload) = 0;
  // `payload`: of a terminal record, which names its intent (0: a request that was never dispatched). `done` is called
  // once, on any thread, when the record is durable.
  virtual void terminal(std::string_view payload, std::function<void(core::Result<void>)> done) = 0;
};

}  // namespace ganglion::metering
