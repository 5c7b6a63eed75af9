// The request's body: read when the handler asks, disposed of when it did not. See connection.hpp.

#include <algorithm>
#include <cstring>

#include "net/connection.hpp"

namespace ganglion::net {

namespace asio = boost::asio;
using core::CancelReason;
using core::ErrorKind;
using namespace std::chrono_literals;

namespace {

// A body that nobody read is read and dropped up to this; past it closing is cheaper.
constexpr std::uint64_t kUnreadBodyBytesMax = 64 * 1024;
constexpr auto kUnreadBodyLimit = 1s;
constexpr std::size_t kBodyBytesKept = 64 * 1024;  // capacity kept for the connection's next request

}  // namespace

core::Result<std::string_view> Connection::body_failed(core::Error error) {
  body_state_ = Body::failed;
  body_error_ = std::move(error);
  return std::unexpected(body_error_);
}

asio::awaitable<core::Result<std::string_view>> Connection::read_body(std::size_t bytes_max) {
  if (body_state_ == Body::read) co_return body_view_;
  if (body_state_ == Body::failed) co_return std::unexpected(body_error_);
  const RequestHead& head = parser_.head();
  const std::size_t at_hand = in_used_ - parser_.head_bytes();
  if (head.content_length.value_or(0) > bytes_max) {
    co_return body_failed(core::make_error(ErrorKind::payload_too_large, "the request body is over the cap"));
  }
  if (!head.chunked && at_hand >= head.content_length.value_or(0)) {
    // The common case: the body came along with its head and is used where it lies.
    body_state_ = Body::read;
    bytes_in_ = head.content_length.value_or(0);
    body_view_ = {in_.get() + parser_.head_bytes(), static_cast<std::size_t>(bytes_in_)};
    co_return body_view_;
  }
  body_state_ = Body::reading;
  if (head.expect_continue && at_hand == 0) {
    static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
    continue_sent_ = true;
    iovec piece{const_cast<char*>(kContinue.data()), kContinue.size()};
    if (auto sent = co_await write_all({&piece, 1}); !sent) co_return body_failed(sent.error());
  }
  co_return head.chunked ? co_await read_chunked(bytes_max) : co_await read_sized(*head.content_length);
}

HeldBody Connection::hold_body() const {
  if (body_ != nullptr && body_view_.data() == body_.get()) return {.text = body_view_, .owner = body_};
  auto copy = std::make_shared_for_overwrite<char[]>(body_view_.size());
  std::ranges::copy(body_view_, copy.get());
  return {.text = {copy.get(), body_view_.size()}, .owner = std::move(copy)};
}

asio::awaitable<core::Result<std::string_view>> Connection::read_sized(std::uint64_t size) {
  const auto started = std::chrono::steady_clock::now();
  grow_body(static_cast<std::size_t>(size), static_cast<std::size_t>(size));
  body_size_ = in_used_ - parser_.head_bytes();
  std::memcpy(body_.get(), in_.get() + parser_.head_bytes(), body_size_);
  in_used_ = parser_.head_bytes();
  bytes_in_ = body_size_;
  while (body_size_ < size) {
    // Never past the body's end: what follows is the next request's.
    auto got = co_await read_some(body_.get() + body_size_, static_cast<std::size_t>(size) - body_size_, started);
    if (!got) co_return body_failed(got.error());
    body_size_ += *got;
    bytes_in_ += *got;
  }
  io_timer_.disarm();
  body_state_ = Body::read;
  co_return body_view_ = {body_.get(), body_size_};
}

asio::awaitable<core::Result<std::string_view>> Connection::read_chunked(std::size_t bytes_max) {
  const auto started = std::chrono::steady_clock::now();
  const std::size_t raw_bytes = worker_->buffers.buffer_bytes();
  http1::ChunkDecoder decoder;
  raw_ = worker_->buffers.take();
  raw_end_ = in_used_ - parser_.head_bytes();
  std::memcpy(raw_.get(), in_.get() + parser_.head_bytes(), raw_end_);
  in_used_ = parser_.head_bytes();
  bytes_in_ = raw_end_;
  for (;;) {
    const auto piece = decoder.next({raw_.get() + raw_begin_, raw_end_ - raw_begin_});
    raw_begin_ += piece.consumed;
    if (piece.step == http1::ChunkDecoder::Step::end) break;
    if (piece.step == http1::ChunkDecoder::Step::broken) {
      co_return body_failed(core::make_error(ErrorKind::malformed_http, decoder.why()));
    }
    if (piece.step == http1::ChunkDecoder::Step::data) {
      if (piece.data.size() > bytes_max - body_size_) {
        co_return body_failed(core::make_error(ErrorKind::payload_too_large, "the request body is over the cap"));
      }
      grow_body(body_size_ + piece.data.size(), bytes_max);
      std::memcpy(body_.get() + body_size_, piece.data.data(), piece.data.size());
      body_size_ += piece.data.size();
      continue;
    }
    // The decoder never leaves more than an unfinished line (<= 4 KiB), so there is room behind it.
    std::memmove(raw_.get(), raw_.get() + raw_begin_, raw_end_ - raw_begin_);
    raw_end_ -= std::exchange(raw_begin_, 0);
    auto got = co_await read_some(raw_.get() + raw_end_, raw_bytes - raw_end_, started);
    if (!got) co_return body_failed(got.error());
    raw_end_ += *got;
    bytes_in_ += *got;
  }
  io_timer_.disarm();
  body_state_ = Body::read;
  co_return body_view_ = {body_.get(), body_size_};
}

void Connection::grow_body(std::size_t capacity_min, std::size_t capacity_max) {
  if (capacity_min <= body_capacity_ && body_.use_count() == 1) return;  // a body that is held stays as it is
  const std::size_t capacity =
      std::max(capacity_min, std::min(capacity_max, std::max(body_capacity_ * 2, kBodyBytesKept)));
  auto grown = std::make_shared_for_overwrite<char[]>(capacity);
  if (body_size_ > 0) std::memcpy(grown.get(), body_.get(), body_size_);
  body_ = std::move(grown);
  body_capacity_ = capacity;
}

// At least one byte, within what body_rate_min allows since `started`.
asio::awaitable<core::Result<std::size_t>> Connection::read_some(char* to, std::size_t size, core::SteadyTime started) {
  const ServerOptions& options = worker_->shared->options;
  for (;;) {
    const Io io = stream_.read_now(to, size);
    if (io.kind == Io::Kind::bytes) co_return io.n;
    if (io.kind == Io::Kind::end || io.kind == Io::Kind::failed) {
      peer_gone_ = broken_ = true;
      cancel_->cancel(CancelReason::client_gone);
      co_return std::unexpected(cancel_error());
    }
    if (cancel_->cancelled()) co_return std::unexpected(cancel_error());
    const auto earned = std::chrono::milliseconds{bytes_in_ * 1000 / std::max<std::size_t>(options.body_rate_min, 1)};
    io_expired_ = false;
    io_timer_.arm(started + options.body_grace + earned);
    if (!co_await wait(io.kind)) {
      if (cancel_->cancelled()) co_return std::unexpected(cancel_error());
      if (io_expired_) co_return core::fail(ErrorKind::request_timeout, "the request body came too slowly");
    }
  }
}

// Whether the connection can go on without the handler having read the body.
bool Connection::body_disposable() const {
  const RequestHead& head = parser_.head();
  if (body_state_ == Body::read) return true;
  if (body_state_ != Body::unread || head.chunked) return false;
  const std::uint64_t at_hand = in_used_ - parser_.head_bytes();
  const std::uint64_t size = head.content_length.value_or(0);
  if (at_hand >= size) return true;
  // A client that waits for 100 Continue may or may not send its body after a final answer: only closing is safe.
  return !head.expect_continue && size - at_hand <= kUnreadBodyBytesMax;
}

// After the exchange: whether the next request may be read, where no byte of this one is still to come.
std::optional<bool> Connection::settle_now() {
  const std::size_t head_bytes = parser_.head_bytes();
  const std::string_view received{in_.get(), in_used_};
  if (body_capacity_ > kBodyBytesKept) {
    body_.reset();
    body_capacity_ = 0;
  }
  if (aborted_ || broken_ || !keep_alive_) return false;
  if (body_state_ == Body::read && raw_) {
    keep_leftover({raw_.get() + raw_begin_, raw_end_ - raw_begin_});
    worker_->buffers.give(std::move(raw_));
    return true;
  }
  const std::uint64_t size = parser_.head().content_length.value_or(0);
  if (in_used_ - head_bytes >= size) {
    keep_leftover(received.substr(head_bytes + static_cast<std::size_t>(size)));
    return true;
  }
  if (body_state_ == Body::read) {  // into body_: nothing was read past its end
    keep_leftover({});
    return true;
  }
  return std::nullopt;
}

// Consumes what is left of the body; true when the next request may be read.
asio::awaitable<bool> Connection::settle_body() {
  if (const auto settled = settle_now()) co_return *settled;
  std::uint64_t left = parser_.head().content_length.value_or(0) - (in_used_ - parser_.head_bytes());
  in_used_ = 0;
  arm(kUnreadBodyLimit);
  while (left > 0) {
    const auto take = static_cast<std::size_t>(std::min<std::uint64_t>(left, worker_->buffers.buffer_bytes()));
    const Io io = stream_.read_now(in_.get(), take);
    if (io.kind == Io::Kind::end || io.kind == Io::Kind::failed) co_return false;
    left -= io.n;
    if (io.kind != Io::Kind::bytes && !co_await wait(io.kind)) co_return false;
  }
  co_return true;
}

void Connection::keep_leftover(std::string_view leftover) {
  if (!leftover.empty()) std::memmove(in_.get(), leftover.data(), leftover.size());
  in_used_ = leftover.size();
}

}  // namespace ganglion::net
