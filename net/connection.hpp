#pragma once
// One client connection: reads heads, runs the handler for each request in order, writes answers, decides what may
// follow. Owned by its own coroutine run(). Internal to net; handlers see it as Exchange.

#include <boost/asio/awaitable.hpp>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "net/http1_chunk.hpp"
#include "net/http1_request.hpp"
#include "net/server_worker.hpp"
#include "net/stream.hpp"

namespace ganglion::net {

class Connection final : private Stream::PeerListener {
 public:
  enum class Admission : std::uint8_t { accepted, adopted, over_cap, over_address_cap };  // the last two: refused

  // `received`: what another process has read of the connection and not used; of an adopted one.
  Connection(std::shared_ptr<Worker> worker, Stream::Socket socket, std::string peer, Admission admission,
             Counted counted, AddressCount::Place place = {}, std::string_view received = {});
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection();

  static boost::asio::awaitable<void> run(std::unique_ptr<Connection> self);

  static void count_rejected(ServerShared& shared, Admission admission);

  void close_if_idle();    // draining: between requests it ends now
  void give_if_idle();     // to the process that takes over; else after the request that runs
  void cancel_shutdown();  // the drain window is over

 private:
  friend class Exchange;
  enum class Phase : std::uint8_t { starting, idle, reading_head, exchange, closing };
  enum class Next : std::uint8_t { request, refused, closed, given };
  using Answered = boost::asio::awaitable<core::Result<void>>;

  // connection.cpp: the life of the connection
  boost::asio::awaitable<void> live();
  boost::asio::awaitable<bool> handshake();
  boost::asio::awaitable<Next> read_head();
  boost::asio::awaitable<bool> held();  // false: the connection is another process's now
  bool gives() const;
  bool last_request() const;  // the connection ends with the request at hand
  boost::asio::awaitable<bool> serve();
  boost::asio::awaitable<void> send_error(const core::Error& error);
  boost::asio::awaitable<void> close_gracefully();
  boost::asio::awaitable<bool> wait(Io::Kind kind);  // false: cancelled or timed out
  void begin_exchange();
  void end_exchange();
  void on_hangup() override;
  void on_cancelled(core::CancelReason reason);
  void probe_tls();
  void arm(std::chrono::nanoseconds limit);
  core::Error cancel_error() const;

  // connection_body.cpp: the request's body
  boost::asio::awaitable<core::Result<std::string_view>> read_body(std::size_t bytes_max);
  HeldBody hold_body() const;
  boost::asio::awaitable<core::Result<std::string_view>> read_sized(std::uint64_t size);
  boost::asio::awaitable<core::Result<std::string_view>> read_chunked(std::size_t bytes_max);
  boost::asio::awaitable<core::Result<std::size_t>> read_some(char* to, std::size_t size, core::SteadyTime started);
  core::Result<std::string_view> body_failed(core::Error error);
  bool body_disposable() const;
  std::optional<bool> settle_now();
  boost::asio::awaitable<bool> settle_body();
  void keep_leftover(std::string_view leftover);
  void grow_body(std::size_t capacity_min, std::size_t capacity_max);

  // connection_answer.cpp: the answer
  Answered respond(const ResponseHead& head, std::string_view body);
  Answered respond_held(const ResponseHead& head, std::string_view body, Answered gate);
  Answered start_stream(const ResponseHead& head, std::string_view first, std::string_view more);
  Answered write(std::string_view bytes, std::string_view more);
  Answered finish(std::string_view last);
  void abort();
  void begin_answer(const ResponseHead& head, http1::ResponseFraming framing, std::uint64_t length);
  Answered write_stream(std::string_view head, std::string_view bytes, std::string_view more, bool last);
  std::span<iovec> write_now(std::span<iovec> pieces);
  Answered write_all(std::span<iovec> pieces);
  core::Result<void> write_failed();

  std::shared_ptr<Worker> worker_;
  Stream stream_;
  const std::string peer_;
  const Admission admission_;
  const Counted counted_;
  const AddressCount::Place address_place_;
  std::size_t place_ = 0;  // in worker_->open
  Exchange exchange_{*this};
  TimerWheel::Entry io_timer_;        // the limit of the wait at hand: handshake, head, idle, body, write, linger
  TimerWheel::Entry deadline_timer_;  // the exchange's deadline
  TimerWheel::Entry probe_timer_;     // TLS: looks for close_notify while a handler works
  Phase phase_ = Phase::starting;
  bool io_expired_ = false;
  bool peer_gone_ = false;
  unsigned unyielded_ = 0;  // requests since this coroutine last gave way

  // Bytes received and not consumed, from the head's first byte on. The buffer never moves while a head is in use.
  BufferPool::Buffer in_;
  std::size_t in_used_ = 0;
  http1::RequestParser parser_;

  // The exchange.
  std::optional<core::CancelSource> cancel_;
  std::optional<core::CancelRegistration> on_cancel_;
  core::SteadyTime received_at_;

  enum class Body : std::uint8_t { unread, reading, read, failed };
  Body body_state_ = Body::unread;
  std::string_view body_view_;
  core::Error body_error_;
  std::shared_ptr<char[]> body_;  // bodies that did not fit behind their head; see hold_body
  std::size_t body_size_ = 0;
  std::size_t body_capacity_ = 0;
  BufferPool::Buffer raw_;  // chunked input
  std::size_t raw_begin_ = 0;
  std::size_t raw_end_ = 0;
  std::uint64_t bytes_in_ = 0;
  bool continue_sent_ = false;

  bool started_ = false;
  bool finished_ = false;
  bool broken_ = false;      // nothing more can be sent
  bool aborted_ = false;     // the answer was cut on purpose
  bool keep_alive_ = false;  // decided when the answer's head was made
  bool body_allowed_ = true;
  bool chunked_out_ = false;
  std::optional<std::uint64_t> length_left_;  // of a streamed answer with Content-Length
  std::uint64_t bytes_out_ = 0;
  std::string out_;  // the head being written
};

}  // namespace ganglion::net
