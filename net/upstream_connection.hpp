#pragma once
// One connection to an upstream: connects, sends a request, receives an answer piece by piece. Internal to net.

#include <sys/uio.h>

#include <array>
#include <boost/asio/awaitable.hpp>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "core/cancel.hpp"
#include "core/deadline.hpp"
#include "core/error.hpp"
#include "net/buffer_pool.hpp"
#include "net/http1_chunk.hpp"
#include "net/http1_response.hpp"
#include "net/http_client.hpp"
#include "net/stream.hpp"
#include "net/timer_wheel.hpp"

namespace ganglion::net {

struct UpstreamPool;

class UpstreamConnection final : private Stream::PeerListener {
 public:
  explicit UpstreamConnection(UpstreamPool& pool);  // takes a slot
  UpstreamConnection(const UpstreamConnection&) = delete;
  UpstreamConnection& operator=(const UpstreamConnection&) = delete;
  ~UpstreamConnection();  // closes, gives the slot back

  bool connected() const { return stream_.has_value(); }
  // Resolves, tries the addresses in turn, TLS; all within connect_timeout.
  boost::asio::awaitable<core::Result<void>> connect(core::Deadline deadline, core::CancelSource& cancel);
  // Sends the request and receives the answer's head. `cancel` is watched until the connection is idle again.
  boost::asio::awaitable<core::Result<void>> exchange(const UpstreamRequest& request, core::Deadline deadline,
                                                      core::CancelSource& cancel);
  boost::asio::awaitable<core::Result<std::string_view>> next();
  boost::asio::awaitable<core::Result<std::string_view>> read_all(std::size_t bytes_max);

  const http1::ResponseParser& head() const { return parser_; }
  bool framed() const { return kind_ != http1::BodyKind::until_close; }
  bool ended() const { return ended_; }
  bool nothing_received() const { return received_ == 0; }
  bool reusable() const;
  // The body may still end well: framed, nothing went wrong, the connection is to be kept.
  bool may_end() const;
  // The request is over for whoever sent it: neither its cancel source nor its deadline counts any more.
  void forget_request(core::Deadline deadline);
  void go_idle();
  bool alive_while_idle();  // liveness check before reuse

 private:
  enum class Stop : std::uint8_t { none, cancelled, deadline, connect, first_byte, idle };

  void on_hangup() override;
  void expired();
  void stop(Stop why);
  // The wait at hand may last until now + limit, and never past the deadline.
  void limit(std::chrono::nanoseconds limit, Stop why);
  boost::asio::awaitable<bool> wait(Io::Kind kind);
  core::Error stopped_error() const;
  std::unexpected<core::Error> closed(const char* what);
  std::unexpected<core::Error> protocol(const char* what);

  boost::asio::awaitable<core::Result<void>> connect_to(const boost::asio::ip::address& address, core::Deadline until);
  boost::asio::awaitable<core::Result<void>> handshake();
  core::Result<void> make_head(const UpstreamRequest& request);
  using Pieces = std::array<iovec, 1 + core::TextParts::kPartsMax>;
  std::span<iovec> pieces_of(const UpstreamRequest& request, Pieces& storage) const;
  bool send_now(const UpstreamRequest& request);
  boost::asio::awaitable<core::Result<void>> send(const UpstreamRequest& request);
  boost::asio::awaitable<core::Result<void>> receive_head();
  core::Result<void> begin_body(bool head_request);
  boost::asio::awaitable<core::Result<std::size_t>> receive(Stop why, std::chrono::nanoseconds limit);
  std::string_view take_sized();
  core::Result<std::string_view> take_chunked();
  void compact();

  UpstreamPool& pool_;
  std::optional<Stream::Socket> connecting_;
  std::optional<Stream> stream_;
  TimerWheel::Entry timer_;
  std::optional<core::CancelRegistration> on_cancel_;
  core::Deadline deadline_;
  std::chrono::milliseconds begin_limit_{0};  // until the answer at hand begins
  Stop armed_ = Stop::none;
  Stop stopped_ = Stop::none;
  bool idle_ = false;
  bool hung_up_ = false;

  std::string out_;
  std::size_t sent_ = 0;  // bytes that the kernel took at once
  bool send_failed_ = false;

  BufferPool::Buffer in_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  std::size_t read_max_ = SIZE_MAX;  // bytes taken off the socket at once
  std::uint64_t received_ = 0;       // bytes of this exchange
  http1::ResponseParser parser_;
  http1::BodyKind kind_ = http1::BodyKind::none;
  http1::ChunkDecoder chunks_;
  std::uint64_t left_ = 0;
  bool ended_ = false;
  bool failed_ = false;
  unsigned unyielded_ = 0;  // reads since this coroutine last gave way
  std::string whole_;       // read_all of a body that came in pieces
};

}  // namespace ganglion::net
