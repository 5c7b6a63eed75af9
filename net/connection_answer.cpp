// The answer: heads, gathered writes, chunked streams, stalls. See connection.hpp and exchange.hpp.

#include <algorithm>

#include "net/connection.hpp"

namespace ganglion::net {

namespace asio = boost::asio;
using core::CancelReason;
using core::ErrorKind;
using http1::ResponseFraming;
using namespace std::chrono_literals;

namespace {

// What a client may take for an answer that is written after its exchange was called off, or outside of one.
constexpr std::chrono::nanoseconds kGrace = 1s;

iovec piece_of(std::string_view bytes) {
  return {const_cast<char*>(bytes.data()), bytes.size()};
}

std::unexpected<core::Error> answered_twice() {
  return core::fail(ErrorKind::internal, "the request is answered already");
}

bool status_has_body(int status) {
  return status >= 200 && status != 204 && status != 304;
}

}  // namespace

void Connection::begin_answer(const ResponseHead& head, ResponseFraming framing, std::uint64_t length) {
  const RequestHead& request = parser_.head();
  const bool in_exchange = cancel_.has_value();
  started_ = true;
  // HTTP/1.0 knows no chunked coding: the end of such a stream is the end of the connection.
  const bool until_close = framing == ResponseFraming::chunked && request.http10;
  keep_alive_ =
      in_exchange && request.keep_alive && !head.close && !until_close && body_disposable() && !last_request();
  body_allowed_ = status_has_body(head.status) && !(in_exchange && request.method == Method::head);
  if (!status_has_body(head.status) || until_close) framing = ResponseFraming::none;
  chunked_out_ = framing == ResponseFraming::chunked;
  out_.clear();
  http1::append_response_head(out_, head, framing, length, in_exchange && request.http10, keep_alive_,
                              worker_->date.now());
  if (stream_.tls()) {
    // This listener may be the one that browsers see; what providers send is never theirs to guess a type for.
    out_.resize(out_.size() - 2);
    out_.append("X-Content-Type-Options: nosniff\r\n\r\n");
  }
}

Connection::Answered Connection::respond(const ResponseHead& head, std::string_view body) {
  if (started_) co_return answered_twice();
  begin_answer(head, ResponseFraming::length, body.size());
  iovec pieces[2] = {piece_of(out_), piece_of(body)};
  const bool send_body = body_allowed_ && !body.empty();
  core::Result<void> sent;
  if (const auto left = write_now({pieces, send_body ? 2U : 1U}); !left.empty()) sent = co_await write_all(left);
  if (sent) {
    bytes_out_ += send_body ? body.size() : 0;
    finished_ = true;
  }
  co_return sent;
}

Connection::Answered Connection::respond_held(const ResponseHead& head, std::string_view body, Answered gate) {
  if (started_) co_return answered_twice();
  begin_answer(head, ResponseFraming::length, body.size());
  const bool send_body = body_allowed_ && !body.empty();
  // Without a body the last byte is the head's.
  const std::string_view all = send_body ? body : std::string_view{out_};
  const std::string_view held = all.substr(all.size() - 1);
  const std::string_view sent_now = all.substr(0, all.size() - 1);
  iovec pieces[2] = {piece_of(send_body ? std::string_view{out_} : sent_now), piece_of(sent_now)};
  auto sent = co_await write_all({pieces, send_body && !sent_now.empty() ? 2U : 1U});
  if (!sent) co_return sent;
  auto opened = co_await std::move(gate);
  if (!opened) {
    abort();
    co_return opened;
  }
  iovec last = piece_of(held);
  sent = co_await write_all({&last, 1});
  if (sent) {
    bytes_out_ += send_body ? body.size() : 0;
    finished_ = true;
  }
  co_return sent;
}

Connection::Answered Connection::start_stream(const ResponseHead& head, std::string_view first, std::string_view more) {
  if (started_) co_return answered_twice();
  begin_answer(head, head.content_length ? ResponseFraming::length : ResponseFraming::chunked,
               head.content_length.value_or(0));
  length_left_ = head.content_length;
  co_return co_await write_stream(out_, first, more, false);
}

Connection::Answered Connection::write(std::string_view bytes, std::string_view more) {
  return write_stream({}, bytes, more, false);
}

Connection::Answered Connection::finish(std::string_view last) {
  if (length_left_ && body_allowed_ && *length_left_ != last.size()) {
    abort();
    co_return core::fail(ErrorKind::internal, "the answer is not as long as its Content-Length");
  }
  auto sent = co_await write_stream({}, last, {}, true);
  if (sent) finished_ = true;
  co_return sent;
}

// One system call for head, chunk framing, bytes in two places and terminator, whichever are there.
Connection::Answered Connection::write_stream(std::string_view head, std::string_view bytes, std::string_view more,
                                              bool last) {
  if (broken_ || aborted_) co_return std::unexpected(cancel_error());
  iovec pieces[6];
  std::size_t count = 0;
  const auto add = [&](std::string_view piece) {
    if (!piece.empty()) pieces[count++] = piece_of(piece);
  };
  char size_line[18];
  const std::size_t size = bytes.size() + more.size();
  add(head);
  if (body_allowed_ && size > 0) {
    if (length_left_) {
      if (size > *length_left_) {
        abort();
        co_return core::fail(ErrorKind::internal, "the answer is longer than its Content-Length");
      }
      *length_left_ -= size;
    }
    if (chunked_out_) add(http1::chunk_size_line(size, size_line));
    add(bytes);
    add(more);
    if (chunked_out_ && !last) add("\r\n");
  }
  if (last && body_allowed_ && chunked_out_) add(size == 0 ? "0\r\n\r\n" : "\r\n0\r\n\r\n");
  if (count == 0) co_return core::Result<void>{};
  core::Result<void> sent;
  if (const auto left = write_now({pieces, count}); !left.empty()) sent = co_await write_all(left);
  if (sent && body_allowed_) bytes_out_ += size;
  co_return sent;
}

void Connection::abort() {
  if (finished_) return;
  aborted_ = true;
  // Where only the connection's end marks the body's end, a reset is the one way to show that it was cut.
  if (started_ && !chunked_out_ && !length_left_ && parser_.head().http10) {
    broken_ = true;
    stream_.reset_on_close();
  }
}

core::Result<void> Connection::write_failed() {
  broken_ = true;
  if (cancel_) cancel_->cancel(CancelReason::client_gone);
  return std::unexpected(cancel_error());
}

// In one system call what the kernel takes at once; the rest, and every trouble, is write_all()'s.
std::span<iovec> Connection::write_now(std::span<iovec> pieces) {
  if (broken_) return pieces;
  const Io io = stream_.write_now(pieces);
  return io.kind == Io::Kind::bytes ? advance(pieces, io.n) : pieces;
}

Connection::Answered Connection::write_all(std::span<iovec> pieces) {
  if (broken_) co_return std::unexpected(cancel_error());
  bool blocked_before = false;
  const bool called_off = !cancel_ || cancel_->cancelled();
  for (;;) {
    const Io io = stream_.write_now(pieces);
    if (io.kind == Io::Kind::bytes) {
      pieces = advance(pieces, io.n);
      if (pieces.empty()) break;
      continue;  // the next try tells whether the kernel is full
    }
    if (io.kind == Io::Kind::end || io.kind == Io::Kind::failed) co_return write_failed();
    if (called_off) {
      const CancelReason reason = cancel_ ? cancel_->reason() : CancelReason::none;
      if (reason == CancelReason::client_gone || reason == CancelReason::slow_client) co_return write_failed();
      if (!blocked_before) arm(kGrace);
    } else {
      arm(worker_->shared->options.write_timeout);
    }
    blocked_before = true;
    if (!co_await wait(io.kind)) {
      if (io_expired_ && cancel_) cancel_->cancel(CancelReason::slow_client);
      co_return write_failed();
    }
  }
  if (blocked_before) io_timer_.disarm();
  co_return core::Result<void>{};
}

}  // namespace ganglion::net
