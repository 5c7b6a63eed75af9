#pragma once
// A flight outside the table of single_flight.hpp, for whoever keeps a table of his own: the call's recorder for the
// leader, a reader for each who follows. Thread-safe.

#include <boost/asio/any_io_executor.hpp>
#include <memory>

#include "cache/recording.hpp"

namespace ganglion::cache {

class Flight {
 public:
  // keep_bytes_max: see recording.hpp.
  explicit Flight(std::size_t keep_bytes_max);
  // The leader's end; once.
  std::unique_ptr<Recorder> record(const boost::asio::any_io_executor& executor);
  // From the first byte. nullptr: too late (it failed, outgrew keep_bytes_max, or everyone had left).
  std::unique_ptr<Reader> follow(const boost::asio::any_io_executor& executor);

 private:
  std::shared_ptr<Recording> recording_;
};

}  // namespace ganglion::cache
