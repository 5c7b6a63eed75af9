// The handler's view of a connection: forwards.

#include "net/exchange.hpp"

#include "net/connection.hpp"

namespace ganglion::net {

using boost::asio::awaitable;

const RequestHead& Exchange::head() const {
  return connection_.parser_.head();
}

std::string_view Exchange::peer_address() const {
  return connection_.peer_;
}

bool Exchange::tls() const {
  return connection_.stream_.tls();
}

core::SteadyTime Exchange::received_at() const {
  return connection_.received_at_;
}

HeldBody Exchange::hold_body() const {
  return connection_.hold_body();
}

awaitable<core::Result<std::string_view>> Exchange::read_body(std::size_t bytes_max) {
  return connection_.read_body(bytes_max);
}

core::CancelSource& Exchange::cancel() {
  return *connection_.cancel_;
}

void Exchange::set_deadline(core::Deadline deadline) {
  connection_.deadline_timer_.arm(deadline.at());
}

awaitable<core::Result<void>> Exchange::respond(const ResponseHead& head, std::string_view body) {
  return connection_.respond(head, body);
}

awaitable<core::Result<void>> Exchange::respond_held(const ResponseHead& head, std::string_view body,
                                                     awaitable<core::Result<void>> gate) {
  return connection_.respond_held(head, body, std::move(gate));
}

awaitable<core::Result<void>> Exchange::start_stream(const ResponseHead& head, std::string_view first,
                                                     std::string_view more) {
  return connection_.start_stream(head, first, more);
}

awaitable<core::Result<void>> Exchange::write(std::string_view bytes, std::string_view more) {
  return connection_.write(bytes, more);
}

awaitable<core::Result<void>> Exchange::finish(std::string_view last) {
  return connection_.finish(last);
}

void Exchange::abort() {
  connection_.abort();
}

bool Exchange::started() const {
  return connection_.started_;
}

bool Exchange::finished() const {
  return connection_.finished_;
}

std::uint64_t Exchange::bytes_in() const {
  return connection_.bytes_in_;
}

std::uint64_t Exchange::bytes_out() const {
  return connection_.bytes_out_;
}

}  // namespace ganglion::net
