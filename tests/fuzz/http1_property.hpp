#pragma once
// What must hold for any bytes given to net's HTTP/1.1 parsers. Run by libFuzzer (fuzz_http1_*.cpp) and, over the kept
// corpus and the must-reject vectors, by net's unit tests. A broken property ends the process.

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/assert.hpp"
#include "net/http1_chunk.hpp"
#include "net/http1_request.hpp"
#include "net/http1_response.hpp"

namespace ganglion::fuzz {

inline constexpr std::size_t kSteps[] = {1, 2, 3, 7, 64, SIZE_MAX};
inline constexpr std::size_t kInputBytesMax = 70'000;

using Fields = std::vector<std::pair<std::string, std::string>>;

inline Fields copy_fields(std::span<const net::Header> headers) {
  Fields out;
  for (const net::Header& header : headers) {
    GW_ASSERT(net::http1::is_token(header.name));
    GW_ASSERT(net::http1::is_field_value(header.value));
    out.emplace_back(header.name, header.value);
  }
  return out;
}

inline std::int64_t count_named(const Fields& fields, std::string_view name) {
  return std::ranges::count_if(fields, [&](const auto& field) { return net::iequals(field.first, name); });
}

// One way to end, whatever a proxy before or behind us thinks of the other.
inline void check_framing(const Fields& fields, bool sized, bool chunked) {
  GW_ASSERT(!(sized && chunked));
  GW_ASSERT(count_named(fields, "content-length") == (sized ? 1 : 0));
  GW_ASSERT(count_named(fields, "transfer-encoding") == (chunked ? 1 : 0));
}

// ---- chunked bodies ----

struct Decoded {
  std::string data;
  bool ended = false;
  bool broken = false;
  std::size_t consumed = 0;  // of the input, when it ended
  bool operator==(const Decoded&) const = default;
};

// The decoder sees `step` bytes more at a time, in memory of their own, so that a sanitizer sees it look further.
inline Decoded decode(std::string_view bytes, std::size_t step) {
  net::http1::ChunkDecoder decoder;
  Decoded out;
  std::size_t at = 0;
  std::size_t arrived = 0;
  for (;;) {
    const std::string seen{bytes.substr(at, arrived - at)};
    const auto piece = decoder.next(seen);
    GW_ASSERT(piece.consumed <= seen.size());
    at += piece.consumed;
    switch (piece.step) {
      case net::http1::ChunkDecoder::Step::data:
        GW_ASSERT(!piece.data.empty());
        out.data += piece.data;
        break;
      case net::http1::ChunkDecoder::Step::end:
        out.ended = true;
        out.consumed = at;
        return out;
      case net::http1::ChunkDecoder::Step::broken:
        GW_ASSERT(decoder.why() != nullptr);
        out.broken = true;
        return out;
      case net::http1::ChunkDecoder::Step::more:
        if (arrived == bytes.size()) return out;
        arrived += std::min(step, bytes.size() - arrived);
        break;
    }
  }
}

// Any split decodes to the same; what was decoded, coded again, decodes to itself.
inline void check_http1_chunk(std::string_view bytes) {
  if (bytes.size() > kInputBytesMax) return;
  const Decoded whole = decode(bytes, SIZE_MAX);
  GW_ASSERT(whole.data.size() <= bytes.size());
  for (const std::size_t step : kSteps) GW_ASSERT(decode(bytes, step) == whole);
  std::string coded;
  for (std::string_view rest = whole.data; !rest.empty(); rest.remove_prefix(std::min<std::size_t>(rest.size(), 9))) {
    const std::string_view piece = rest.substr(0, 9);
    coded += std::to_string(piece.size()) + "\r\n" + std::string{piece} + "\r\n";
  }
  coded += "0\r\n\r\n";
  GW_ASSERT((decode(coded + "rest", 5) == Decoded{.data = whole.data, .ended = true, .consumed = coded.size()}));
}

// ---- requests ----

struct Served {
  std::string method, target, host, body;
  Fields fields;
  bool http10 = false, keep_alive = false, expect = false, chunked = false;
  bool operator==(const Served&) const = default;
};

struct Connection {
  std::vector<Served> served;
  bool refused = false;
  bool operator==(const Connection&) const = default;
};

inline Served copy_request(const net::RequestHead& head) {
  Served out{.method = std::string{head.method_text},
             .target = std::string{head.target},
             .host = std::string{head.host},
             .fields = copy_fields(head.headers),
             .http10 = head.http10,
             .keep_alive = head.keep_alive,
             .expect = head.expect_continue,
             .chunked = head.chunked};
  check_framing(out.fields, head.content_length.has_value(), head.chunked);
  GW_ASSERT(!(head.http10 && head.chunked));
  const std::int64_t hosts = count_named(out.fields, "host");
  GW_ASSERT(hosts == 1 || (head.http10 && hosts == 0));
  GW_ASSERT(out.target == "*" || out.target.starts_with('/'));
  GW_ASSERT(out.target.find_first_of(std::string_view{"\0\r\n \\#", 6}) == std::string::npos);
  GW_ASSERT(head.path.find("//") == std::string_view::npos && head.path.find("/../") == std::string_view::npos);
  return out;
}

// Reads requests off `bytes` as a connection does, `step` bytes arriving at a time.
inline Connection read_requests(std::string_view bytes, std::size_t step) {
  using Status = net::http1::RequestParser::Status;
  Connection out;
  std::size_t start = 0;
  net::http1::RequestParser parser;
  while (start < bytes.size()) {
    parser.reset();
    Status status = Status::more;
    for (std::size_t arrived = 0; status == Status::more && arrived < bytes.size() - start;) {
      arrived += std::min(step, bytes.size() - start - arrived);
      status = parser.feed(bytes.substr(start, arrived));
    }
    if (status == Status::more) return out;
    if (status == Status::refused) {
      const int code = core::face(parser.error().kind).http_status;
      GW_ASSERT(code == 400 || code == 414 || code == 431);
      GW_ASSERT(!parser.error().message.empty());
      out.refused = true;
      return out;
    }
    Served request = copy_request(parser.head());
    const std::size_t body = start + parser.head_bytes();
    GW_ASSERT(body <= bytes.size());
    if (request.chunked) {
      Decoded decoded = decode(bytes.substr(body), step);
      out.refused = decoded.broken;
      if (!decoded.ended) return out;
      request.body = std::move(decoded.data);
      start = body + decoded.consumed;
    } else {
      const std::uint64_t length = parser.head().content_length.value_or(0);
      if (length > bytes.size() - body) return out;
      request.body = bytes.substr(body, static_cast<std::size_t>(length));
      start = body + static_cast<std::size_t>(length);
    }
    const bool last = !request.keep_alive;
    out.served.push_back(std::move(request));
    if (last) return out;
  }
  return out;
}

// Any split serves the same requests and refuses at the same one; a served head, written again, is read the same.
inline void check_http1_request(std::string_view bytes) {
  if (bytes.size() > kInputBytesMax) return;
  const Connection whole = read_requests(bytes, SIZE_MAX);
  for (const std::size_t step : kSteps) GW_ASSERT(read_requests(bytes, step) == whole);
  for (const Served& request : whole.served) {
    std::string again = request.method + " " + request.target + (request.http10 ? " HTTP/1.0" : " HTTP/1.1") + "\r\n";
    for (const auto& [name, value] : request.fields) again.append(name).append(": ").append(value).append("\r\n");
    again += "\r\n";
    if (request.chunked) {
      for (const char c : request.body) again.append("1\r\n").append(1, c).append("\r\n");
      again += "0\r\n\r\n";
    } else {
      again += request.body;
    }
    // A head at the very cap may not fit with the space that is written after each colon.
    if (again.size() - request.body.size() > 12'000) continue;
    const Connection back = read_requests(again, SIZE_MAX);
    GW_ASSERT(back.served.size() == 1 && back.served[0] == request);
  }
}

// ---- responses ----

struct Answer {
  net::http1::ResponseParser::Status end = net::http1::ResponseParser::Status::more;
  int status = 0;
  std::size_t head_bytes = 0;
  Fields fields;
  bool keep_alive = false;
  net::http1::BodyKind kind = net::http1::BodyKind::none;
  std::uint64_t length = 0;
  std::string why;
  bool operator==(const Answer&) const = default;
};

inline Answer read_answer(std::string_view bytes, std::size_t step) {
  using Status = net::http1::ResponseParser::Status;
  net::http1::ResponseParser parser;
  Answer out;
  std::string seen;  // of the last call: what is viewed lies in it
  for (std::size_t arrived = 0; out.end == Status::more && arrived < bytes.size();) {
    arrived += std::min(step, bytes.size() - arrived);
    seen = std::string{bytes.substr(0, arrived)};  // moved meanwhile, as the contract allows
    out.end = parser.feed(seen);
  }
  if (out.end == Status::refused) out.why = parser.why();
  if (out.end != Status::done) return out;
  out.status = parser.status();
  out.head_bytes = parser.head_bytes();
  out.fields = copy_fields(parser.headers());
  out.keep_alive = parser.keep_alive();
  out.kind = parser.body_kind(false);
  out.length = parser.content_length();
  GW_ASSERT(out.status >= 100 && out.status <= 599);
  GW_ASSERT(out.head_bytes <= bytes.size() && bytes.substr(0, out.head_bytes).ends_with("\r\n\r\n"));
  check_framing(out.fields, count_named(out.fields, "content-length") > 0,
                count_named(out.fields, "transfer-encoding") > 0);
  GW_ASSERT(parser.body_kind(true) == net::http1::BodyKind::none);
  GW_ASSERT(out.kind != net::http1::BodyKind::length || out.length > 0);
  return out;
}

// Any split gives the same head; a head that was read, written again, is read the same.
inline void check_http1_response(std::string_view bytes) {
  if (bytes.size() > kInputBytesMax) return;
  const Answer whole = read_answer(bytes, SIZE_MAX);
  for (const std::size_t step : kSteps) {
    if (step == 1 && bytes.size() > 4096) continue;  // each step copies what there is
    GW_ASSERT(read_answer(bytes, step) == whole);
  }
  if (whole.end != net::http1::ResponseParser::Status::done || whole.head_bytes > 60'000) return;
  std::string again{bytes.substr(0, bytes.find("\r\n") + 2)};
  for (const auto& [name, value] : whole.fields) again.append(name).append(":").append(value).append("\r\n");
  again += "\r\n";
  Answer back = read_answer(again, SIZE_MAX);
  back.head_bytes = whole.head_bytes;  // outer spaces are gone
  GW_ASSERT(back == whole);
}

}  // namespace ganglion::fuzz
