#pragma once
// One place that terminal records are sent to. Blocking; one thread at a time, except interrupt(). What is exactly once
// is the effect: a sink may be given a record again after a failure, and must make that count for nothing - by its own
// position, kept in one piece with the records, or by the id (ledger id, sequence) that the record carries.

#include <cstdint>
#include <span>

#include "core/error.hpp"
#include "metering/record.hpp"

namespace ganglion::sinks {

class Sink {
 public:
  virtual ~Sink() = default;

  // Gets ready (connects, makes tables, repairs a torn tail) and says up to which sequence everything has been taken
  // for good; 0: nothing. Called first, and again after each failure.
  virtual core::Result<std::uint64_t> open() = 0;

  // Takes all of them for good. They follow the position in order and without gaps; `upto` is the new position (records
  // without interest for sinks may lie behind the last one). After an error it is unknown what was taken: open() tells.
  // Error::retry_after, where set, is how long the other side wants to be left alone.
  virtual core::Result<void> deliver(std::span<const metering::LedgerRecord> records, std::uint64_t upto) = 0;

  // Any thread: a call that waits for the other side fails soon. For the end of the process.
  virtual void interrupt() {}

  // Gives up what keeps another process from taking over; open() takes it again. Beside no other call.
  virtual void release() {}
};

}  // namespace ganglion::sinks
