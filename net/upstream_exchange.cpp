// A request and its answer on an upstream connection. See upstream_connection.hpp.

#include <algorithm>
#include <boost/asio/post.hpp>
#include <cstring>

#include "net/http1_write.hpp"
#include "net/upstream_pool.hpp"

namespace ganglion::net {

namespace asio = boost::asio;
using core::ErrorKind;
using http1::BodyKind;

namespace {

constexpr int kInterimAnswersMax = 8;
constexpr unsigned kReadsInARowMax = 16;
constexpr std::size_t kEventBytesAtOnce = 16UL * 1024;

bool is_ours(std::string_view name) {
  return iequals(name, "host") || iequals(name, "content-length") || iequals(name, "connection") ||
         iequals(name, "transfer-encoding");
}

bool is_request_path(std::string_view path) {
  return path.starts_with('/') && std::ranges::all_of(path, [](char c) { return c > 0x20 && c < 0x7f; });
}

}  // namespace

std::unexpected<core::Error> UpstreamConnection::closed(const char* what) {
  failed_ = true;
  if (stopped_ != Stop::none) return std::unexpected(stopped_error());
  return core::fail(ErrorKind::upstream_closed, what);
}

std::unexpected<core::Error> UpstreamConnection::protocol(const char* what) {
  failed_ = true;
  return core::fail(ErrorKind::upstream_protocol, std::string{"the upstream's answer is not valid HTTP: "} + what);
}

core::Result<void> UpstreamConnection::make_head(const UpstreamRequest& request) {
  const BaseUrl& url = pool_.url;
  if (!is_request_path(request.path) || request.method == Method::other) {
    return core::fail(ErrorKind::internal, "not a request path or method for an upstream");
  }
  out_.clear();
  out_.append(name(request.method)).append(" ").append(url.prefix).append(request.path);
  out_.append(" HTTP/1.1\r\nHost: ").append(url.authority).append("\r\n");
  for (const Header& header : request.headers) {
    if (is_ours(header.name)) continue;
    if (!http1::append_header(out_, header.name, header.value)) {
      return core::fail(ErrorKind::internal, "a header for the upstream has forbidden characters");
    }
  }
  const bool may_have_body =
      request.method == Method::post || request.method == Method::put || request.method == Method::patch;
  if (may_have_body || !request.body.empty()) {
    out_.append("Content-Length: ");
    http1::append_number(out_, request.body.size());
    out_.append("\r\n");
  }
  out_.append("\r\n");
  return {};
}

asio::awaitable<core::Result<void>> UpstreamConnection::exchange(const UpstreamRequest& request,
                                                                 core::Deadline deadline, core::CancelSource& cancel) {
  deadline_ = deadline;
  begin_limit_ = request.whole ? pool_.options.whole_timeout : pool_.options.first_byte_timeout;
  received_ = 0;
  ended_ = failed_ = send_failed_ = false;
  on_cancel_.emplace(cancel, [this](core::CancelReason) { stop(Stop::cancelled); });
  if (auto made = make_head(request); !made) {
    failed_ = true;
    co_return made;
  }
  if (!send_now(request)) {
    if (auto sent = co_await send(request); !sent) co_return sent;
  }
  if (auto got = co_await receive_head(); !got) co_return got;
  co_return begin_body(request.method == Method::head);
}

// The head that was made and the body, for one system call.
std::span<iovec> UpstreamConnection::pieces_of(const UpstreamRequest& request, Pieces& storage) const {
  std::size_t count = 0;
  const auto add = [&](std::string_view part) { storage.at(count++) = {const_cast<char*>(part.data()), part.size()}; };
  add(out_);
  for (const std::string_view part : request.body.parts()) add(part);
  return std::span{storage}.first(count);
}

// Head and body in one system call, where the kernel takes all of it; else what it did not take is send()'s.
bool UpstreamConnection::send_now(const UpstreamRequest& request) {
  Pieces storage;
  const Io io = stream_->write_now(pieces_of(request, storage));
  sent_ = io.kind == Io::Kind::bytes ? io.n : 0;
  return sent_ == out_.size() + request.body.size();
}

asio::awaitable<core::Result<void>> UpstreamConnection::send(const UpstreamRequest& request) {
  Pieces storage;
  std::span<iovec> pieces = advance(pieces_of(request, storage), sent_);
  while (!pieces.empty()) {
    const Io io = stream_->write_now(pieces);
    if (io.kind == Io::Kind::bytes) {
      pieces = advance(pieces, io.n);
      continue;
    }
    if (io.kind == Io::Kind::end || io.kind == Io::Kind::failed) {
      // An upstream may refuse a long body by answering and closing; its answer is worth more than our broken pipe.
      send_failed_ = true;
      co_return core::Result<void>{};
    }
    limit(pool_.options.first_byte_timeout, Stop::first_byte);
    if (!co_await wait(io.kind)) co_return closed("the upstream connection broke while sending");
  }
  co_return core::Result<void>{};
}

asio::awaitable<core::Result<void>> UpstreamConnection::receive_head() {
  if (!in_) in_ = pool_.buffers.take();
  begin_ = end_ = 0;
  read_max_ = pool_.buffers.buffer_bytes();
  parser_.reset();
  int interim = 0;
  limit(begin_limit_, Stop::first_byte);
  for (;;) {
    if (end_ > 0) {
      switch (parser_.feed({in_.get(), end_})) {
        case http1::ResponseParser::Status::refused:
          co_return protocol(parser_.why());
        case http1::ResponseParser::Status::done:
          if (parser_.status() >= 200) {
            timer_.disarm();
            begin_ = parser_.head_bytes();
            co_return core::Result<void>{};
          }
          if (parser_.status() == 101) co_return protocol("protocol switch that nobody asked for");
          if (++interim > kInterimAnswersMax) co_return protocol("too many interim answers");
          begin_ = parser_.head_bytes();
          compact();
          parser_.reset();
          continue;
        case http1::ResponseParser::Status::more:
          break;
      }
    }
    auto got = co_await receive(Stop::none, {});
    if (!got) co_return std::unexpected(got.error());
    if (*got == 0) co_return closed("the upstream closed the connection before it answered");
  }
}

// Appends what arrives to the buffer, waiting if need be; 0 is the end of the stream. With Stop::none the limit that
// is armed already goes on.
asio::awaitable<core::Result<std::size_t>> UpstreamConnection::receive(Stop why, std::chrono::nanoseconds wait_limit) {
  // A short read emptied the socket, so waiting comes first; the exception is a read after a failed write.
  bool try_first = stream_->likely_readable() || send_failed_;
  if (try_first && ++unyielded_ > kReadsInARowMax) {
    // A stream as fast as its reader would keep the worker from its other connections.
    unyielded_ = 0;
    co_await asio::post(asio::use_awaitable);
    if (stopped_ != Stop::none) co_return closed("");
  }
  for (Io io{.kind = Io::Kind::want_read};;) {
    if (!try_first) {
      if (why != Stop::none) limit(wait_limit, why);
      if (!co_await wait(io.kind)) co_return closed("the upstream connection broke");
    }
    try_first = false;
    io = stream_->read_now(in_.get() + end_, std::min(pool_.buffers.buffer_bytes() - end_, read_max_));
    if (io.kind == Io::Kind::failed) co_return closed("the upstream reset the connection");
    if (io.kind == Io::Kind::want_read || io.kind == Io::Kind::want_write) continue;
    if (why != Stop::none) timer_.disarm();
    received_ += io.n;
    end_ += io.n;
    co_return io.n;
  }
}

core::Result<void> UpstreamConnection::begin_body(bool head_request) {
  kind_ = parser_.body_kind(head_request);
  left_ = kind_ == BodyKind::length ? parser_.content_length() : 0;
  chunks_.reset();
  // Events come in small pieces; where they come faster than the client reads, what lies here is memory for nothing.
  const bool events = std::ranges::any_of(parser_.headers(), [](const Header& header) {
    return iequals(header.name, "content-type") && header.value.starts_with("text/event-stream");
  });
  read_max_ = events ? kEventBytesAtOnce : pool_.buffers.buffer_bytes();
  ended_ = kind_ == BodyKind::none;
  return {};
}

void UpstreamConnection::compact() {
  std::memmove(in_.get(), in_.get() + begin_, end_ - begin_);
  end_ -= begin_;
  begin_ = 0;
}

// What the buffer holds of a body that needs no decoding; bytes past its end stay, and keep it from being pooled.
std::string_view UpstreamConnection::take_sized() {
  std::size_t n = end_ - begin_;
  if (kind_ == BodyKind::length) n = static_cast<std::size_t>(std::min<std::uint64_t>(n, left_));
  const std::string_view piece{in_.get() + begin_, n};
  begin_ += n;
  if (kind_ == BodyKind::length) {
    left_ -= n;
    ended_ = left_ == 0;
  }
  return piece;
}

// Decodes all the buffer holds and joins the chunks' data in place: one piece, however small the chunks. What is in one
// chunk stays where it is.
core::Result<std::string_view> UpstreamConnection::take_chunked() {
  char* to = nullptr;
  std::size_t decoded = 0;
  for (;;) {
    char* const from = in_.get() + begin_;
    const auto piece = chunks_.next({from, end_ - begin_});
    begin_ += piece.consumed;
    if (piece.step == http1::ChunkDecoder::Step::data) {
      char* const data = from + (piece.data.data() - from);
      if (decoded == 0) {
        to = data;
      } else {
        std::memmove(to + decoded, data, piece.data.size());
      }
      decoded += piece.data.size();
      continue;
    }
    // Whatever came before the fault is delivered; the decoder keeps its fault for the next call.
    if (piece.step == http1::ChunkDecoder::Step::broken && decoded == 0) return protocol(chunks_.why());
    if (piece.step == http1::ChunkDecoder::Step::end) ended_ = true;
    return std::string_view{to, decoded};
  }
}

asio::awaitable<core::Result<std::string_view>> UpstreamConnection::next() {
  for (;;) {
    if (stopped_ != Stop::none) co_return std::unexpected(stopped_error());
    if (ended_) co_return std::string_view{};
    if (begin_ < end_) {
      if (kind_ == BodyKind::chunked) {
        auto piece = take_chunked();
        if (!piece || !piece->empty() || ended_) co_return piece;
      } else {
        co_return take_sized();
      }
    }
    compact();
    auto got = co_await receive(Stop::idle, pool_.options.idle_timeout);
    if (!got) co_return std::unexpected(got.error());
    if (*got > 0) continue;
    if (kind_ != BodyKind::until_close) co_return closed("the upstream closed the connection within its answer");
    ended_ = true;
  }
}

asio::awaitable<core::Result<std::string_view>> UpstreamConnection::read_all(std::size_t bytes_max) {
  if (kind_ == BodyKind::length && left_ > bytes_max) co_return protocol("its body is over the cap");
  auto first = co_await next();
  if (!first || ended_) {
    if (first && first->size() > bytes_max) co_return protocol("its body is over the cap");
    co_return first;
  }
  whole_.clear();
  if (kind_ == BodyKind::length) whole_.reserve(first->size() + static_cast<std::size_t>(left_));
  for (auto piece = first;; piece = co_await next()) {
    if (!piece) co_return piece;
    if (piece->empty() && ended_) break;
    if (piece->size() > bytes_max - whole_.size()) co_return protocol("its body is over the cap");
    whole_.append(*piece);
    if (ended_) break;
  }
  co_return std::string_view{whole_};
}

}  // namespace ganglion::net
