// See cache/flight.hpp.

#include "cache/flight.hpp"

#include "cache/recording_state.hpp"

namespace ganglion::cache {

Flight::Flight(std::size_t keep_bytes_max) : recording_(std::make_shared<Recording>(keep_bytes_max, nullptr)) {}

std::unique_ptr<Recorder> Flight::record(const boost::asio::any_io_executor& executor) {
  return std::make_unique<Recorder>(recording_, executor);
}

std::unique_ptr<Reader> Flight::follow(const boost::asio::any_io_executor& executor) {
  return Recording::attach(recording_, executor);
}

}  // namespace ganglion::cache
