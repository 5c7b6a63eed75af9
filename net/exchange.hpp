#pragma once
// One request and its response on a server connection. Made by the server, lent to the handler for its run; all of it
// on the worker's thread.
//
// Client gone: the peer's FIN, RST or TLS close_notify cancels cancel() with client_gone as soon as the kernel tells
// us. A half-close (shutdown(SHUT_WR) after a whole request) is a FIN and counts as gone, because it cannot be told
// from a close; an answer that needs no waiting is still sent.

#include <boost/asio/awaitable.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>

#include "core/cancel.hpp"
#include "core/clock.hpp"
#include "core/deadline.hpp"
#include "core/error.hpp"
#include "net/held_body.hpp"
#include "net/http_types.hpp"

namespace ganglion::net {

class Connection;

class Exchange {
 public:
  explicit Exchange(Connection& connection) : connection_(connection) {}
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  const RequestHead& head() const;
  std::string_view peer_address() const;  // IP literal without port
  bool tls() const;
  core::SteadyTime received_at() const;  // when the head was complete

  // The whole body, de-chunked; owned by the exchange. May be called again (same view). Sends 100 Continue first where
  // the client waits for it. Errors: payload_too_large (nothing is read past the cap), request_timeout (slower than
  // body_rate_min after 10 s), malformed_http (framing), cancelled, deadline_exceeded, shutting_down. After an error
  // one may still respond(); the connection then closes.
  boost::asio::awaitable<core::Result<std::string_view>> read_body(std::size_t bytes_max);
  // The body that was read, for use beyond the exchange: a long one is shared, a short one copied.
  HeldBody hold_body() const;

  // Cancelled with client_gone, slow_client (no byte taken within write_timeout), deadline or shutdown. After deadline
  // or shutdown an error answer may still be written, with at most a second for the client to take it.
  core::CancelSource& cancel();
  void set_deadline(core::Deadline deadline);  // cancels with CancelReason::deadline, within 40 ms after it

  // A whole answer in one gathered write. For HEAD the body is counted but not sent. At most one of respond,
  // respond_held and start_stream is called, once.
  // Errors of all writing calls: cancelled (client gone or too slow; nothing more can be sent), deadline_exceeded or
  // shutting_down (the wait was called off; the answer is incomplete and the connection closes).
  boost::asio::awaitable<core::Result<void>> respond(const ResponseHead& head, std::string_view body);

  // The same, with the last body byte held back until `gate` is done: the client cannot have a complete answer before
  // it. When the gate fails, the answer is cut (abort()) and the gate's error returned.
  boost::asio::awaitable<core::Result<void>> respond_held(const ResponseHead& head, std::string_view body,
                                                          boost::asio::awaitable<core::Result<void>> gate);

  // Starts a streamed answer (chunked; close-delimited to HTTP/1.0; plain where head.content_length is set) and flushes
  // head, `first` and `more` in one write.
  boost::asio::awaitable<core::Result<void>> start_stream(const ResponseHead& head, std::string_view first = {},
                                                          std::string_view more = {});
  // Sends one piece, which may lie in two places; done when the kernel has taken it, so the caller is slowed to the
  // client's pace. Not empty.
  boost::asio::awaitable<core::Result<void>> write(std::string_view bytes, std::string_view more = {});
  // Ends the stream cleanly (sends `last` before the terminating chunk, in the same write). With a content_length that
  // was not filled it cuts instead.
  boost::asio::awaitable<core::Result<void>> finish(std::string_view last = {});
  // Ends a started answer without its terminator: the connection closes and the client sees a broken body.
  void abort();

  bool started() const;             // the head of an answer was handed out
  bool finished() const;            // the answer is complete
  std::uint64_t bytes_in() const;   // body bytes read, as on the wire
  std::uint64_t bytes_out() const;  // body bytes taken by the kernel, framing not counted

 private:
  Connection& connection_;
};

// One per worker. Must respond; where it returns without, or throws before it started, the client gets 500.
using Handler = std::function<boost::asio::awaitable<void>(Exchange&)>;

}  // namespace ganglion::net
