#pragma once
// What net tells the outside as it happens: plain counters for the gateway's metrics, and the one question it asks
// (the body of an error answer). Called on worker threads, several at once: implementations are thread-safe, quick,
// and do not throw. They outlive every server and client that holds them.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/cancel.hpp"
#include "core/error.hpp"

namespace ganglion::net {

struct ErrorBody {
  std::string content_type = "text/plain";
  std::string text;
};

class ServerHooks {
 public:
  virtual ~ServerHooks() = default;
  // The body for an answer that net gives by itself (400, 408, 413, 414, 431, 503, and 500 when a handler failed).
  virtual ErrorBody error_body(const core::Error& error) { return {.text = error.message + "\n"}; }

  virtual void connection_opened() {}
  virtual void connection_closed() {}
  virtual void connection_rejected() {}  // over connections_max
  virtual void accept_failed(int /*errno_value*/) {}
  virtual void tls_handshake_failed() {}
  virtual void tls_reloaded(bool /*ok*/) {}
  virtual void request_begun() {}
  virtual void request_ended(std::uint64_t /*bytes_in*/, std::uint64_t /*bytes_out*/) {}
  virtual void request_refused(core::ErrorKind /*kind*/) {}  // answered by net itself; the handler was not called
  virtual void exchange_cancelled(core::CancelReason /*reason*/) {}
  virtual void handler_threw() {}
};

enum class UpstreamFailure : std::uint8_t { connect, timeout, closed, protocol, pool_full };

class UpstreamHooks {
 public:
  virtual ~UpstreamHooks() = default;
  virtual void connected(double /*seconds*/) {}            // a new connection, TLS included
  virtual void reused() {}                                 // a request went out on a pooled connection
  virtual void stale() {}                                  // a pooled connection was found dead before use
  virtual void retried() {}                                // a pooled connection died under a request: sent again
  virtual void failed(UpstreamFailure /*failure*/) {}      //
  virtual void connections(int /*open*/, int /*idle*/) {}  // deltas, so that several workers add up
  virtual void waiting(bool /*urgent*/, int /*delta*/) {}  // requests that wait for a connection
  virtual void dns_lookup(bool /*ok*/, bool /*stale_used*/) {}
};

}  // namespace ganglion::net
