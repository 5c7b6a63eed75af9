#pragma once
// The HTTP/1.1 client to one upstream, one per worker: pool, DNS cache, TLS, every wait bounded. Not thread-safe: it
// lives on the thread of its executor. Never follows redirects, never decompresses.

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>

#include "core/cancel.hpp"
#include "core/deadline.hpp"
#include "core/error.hpp"
#include "core/text_parts.hpp"
#include "net/hooks.hpp"
#include "net/http_types.hpp"
#include "net/options.hpp"

namespace ganglion::net {

// Every view must live until send() returns. Host, Content-Length and Connection are the client's own.
struct UpstreamRequest {
  Method method = Method::post;
  std::string_view path;  // appended to the base URL's prefix; starts with '/'
  std::span<const Header> headers;
  core::TextParts body;
  // When every connection is in use: urgent requests get the next free one first, and may use those kept for them.
  bool urgent = false;
  bool whole = false;  // the answer begins when it is complete: whole_timeout is its limit, not first_byte_timeout
  std::chrono::milliseconds slot_wait{0};  // the longest wait for a connection; 0: connect_timeout
  // Asked before the request is sent a second time (see send()); an error ends it with that. Null: nobody is asked.
  const std::function<core::Result<void>()>* before_resend = nullptr;
};

class UpstreamConnection;
struct UpstreamPool;

// An answer being received. Destroying it before its end closes the socket at once; after a clean end of a framed body
// the connection goes back to the pool. The CancelSource given to send() must outlive it.
class UpstreamResponse {
 public:
  UpstreamResponse(std::shared_ptr<UpstreamPool> pool, std::unique_ptr<UpstreamConnection> connection);
  ~UpstreamResponse();
  UpstreamResponse(const UpstreamResponse&) = delete;
  UpstreamResponse& operator=(const UpstreamResponse&) = delete;

  int status() const;
  std::span<const Header> headers() const;  // valid until the first next()/read_all()
  std::string_view header(std::string_view name) const { return find_header(headers(), name); }
  // The body's end is told by its framing (Content-Length, chunked, or no body). False: it ends with the connection,
  // so a cut cannot be told from the end; such an answer is neither cached nor trusted to be complete.
  bool framed() const;
  bool ended() const;  // the clean end was seen: next() will return the empty view without waiting

  // The next bytes as they arrived (<= core::kStreamBufferBytesMax, chunked coding removed), valid until the next call.
  // Empty: the clean end. Errors: upstream_timeout (idle), upstream_closed, upstream_protocol, deadline_exceeded,
  // cancelled. After the end or an error it must not be called again.
  boost::asio::awaitable<core::Result<std::string_view>> next();
  // The whole rest; upstream_protocol over bytes_max. The view is valid until destruction.
  boost::asio::awaitable<core::Result<std::string_view>> read_all(std::size_t bytes_max);
  // All that is wanted has been read (a stream's [DONE]), but the body's end may still be on its way, in a packet of
  // its own. Destruction then waits for it behind the caller's back, kEndWait at most, so that the connection can be
  // used again; any other byte of the body closes it.
  void expect_end() { end_expected_ = true; }

 private:
  std::shared_ptr<UpstreamPool> pool_;
  std::unique_ptr<UpstreamConnection> connection_;
  bool end_expected_ = false;
};

class UpstreamClient {
 public:
  // Throws std::invalid_argument for a base_url or CA file that cannot be used.
  UpstreamClient(boost::asio::any_io_executor executor, const UpstreamOptions& options, UpstreamHooks& hooks);
  ~UpstreamClient();  // idle connections close; answers being received live on
  UpstreamClient(const UpstreamClient&) = delete;
  UpstreamClient& operator=(const UpstreamClient&) = delete;

  // Sends one request and waits for the head of its answer, whatever its status. Takes a pooled connection where one is
  // alive; one that dies under the request before any response byte is replaced by a new connection once (for a POST
  // this is the known keep-alive race; hooks.retried() counts it, request.before_resend is asked). Waits up to
  // slot_wait for a free one of connections_max, urgent requests before others, each in order. Errors:
  // upstream_connect, upstream_timeout (first byte), upstream_closed, upstream_protocol, overloaded (no slot),
  // deadline_exceeded, cancelled.
  boost::asio::awaitable<core::Result<std::unique_ptr<UpstreamResponse>>> send(const UpstreamRequest& request,
                                                                               core::Deadline deadline,
                                                                               core::CancelSource& cancel);

  std::size_t idle_connections() const;
  std::size_t open_connections() const;

 private:
  std::shared_ptr<UpstreamPool> pool_;
};

}  // namespace ganglion::net
