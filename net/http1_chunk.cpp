// Chunked decoding; see http1_chunk.hpp.

#include "net/http1_chunk.hpp"

#include <algorithm>
#include <array>

namespace ganglion::net::http1 {
namespace {

constexpr auto kHexValue = [] {
  std::array<std::int8_t, 256> table{};
  table.fill(-1);
  for (int i = 0; i < 10; ++i) table[static_cast<std::size_t>('0' + i)] = static_cast<std::int8_t>(i);
  for (int i = 0; i < 6; ++i) {
    table[static_cast<std::size_t>('a' + i)] = table[static_cast<std::size_t>('A' + i)] =
        static_cast<std::int8_t>(10 + i);
  }
  return table;
}();

// *( ";" token [ "=" ( token / quoted-string ) ] ), without the optional white space that RFC 9112 marks as bad.
bool extensions_ok(std::string_view text) {
  while (!text.empty()) {
    if (text.front() != ';') return false;
    text.remove_prefix(1);
    const std::size_t end = std::min(text.find_first_of(";="), text.size());
    if (!is_token(text.substr(0, end))) return false;
    text.remove_prefix(end);
    if (text.empty() || text.front() == ';') continue;
    text.remove_prefix(1);
    if (!text.starts_with('"')) {
      const std::size_t value_end = std::min(text.find(';'), text.size());
      if (!is_token(text.substr(0, value_end))) return false;
      text.remove_prefix(value_end);
      continue;
    }
    std::size_t i = 1;
    while (i < text.size() && text[i] != '"') i += text[i] == '\\' ? 2 : 1;
    if (i >= text.size() || !is_field_value(text.substr(0, i))) return false;
    text.remove_prefix(i + 1);
  }
  return true;
}

// A trailer may not carry what decides about framing, routing or authorization (RFC 9110, 6.5.1).
bool trailer_allowed(std::string_view name) {
  for (const std::string_view forbidden :
       {"content-length", "content_length", "transfer-encoding", "transfer_encoding", "host", "authorization",
        "connection", "trailer", "te", "upgrade", "expect", "content-type", "content-encoding", "content-range",
        "cookie", "set-cookie", "cache-control", "proxy-authorization", "keep-alive"}) {
    if (iequals(name, forbidden)) return false;
  }
  return true;
}

// The line ending at in[newline], without its CRLF; false when it is not ended by CRLF.
bool crlf_line(std::string_view in, std::size_t newline, std::string_view& line) {
  if (newline == 0 || in[newline - 1] != '\r') return false;
  line = in.substr(0, newline - 1);
  return line.find('\r') == std::string_view::npos;
}

}  // namespace

// The usual line, digits and CRLF, all of it there: its length, or 0 where size_line() must look.
std::size_t ChunkDecoder::short_size_line(std::string_view in) {
  static constexpr std::size_t kDigitsMax = 8;
  std::uint64_t size = 0;
  std::size_t digits = 0;
  for (; digits < std::min(in.size(), kDigitsMax); ++digits) {
    const int value = kHexValue[static_cast<unsigned char>(in[digits])];
    if (value < 0) break;
    size = size * 16 + static_cast<std::uint64_t>(value);
  }
  if (digits == 0 || in.size() < digits + 2 || in[digits] != '\r' || in[digits + 1] != '\n') return 0;
  left_ = size;
  return digits + 2;
}

Why ChunkDecoder::size_line(std::string_view line) {
  std::size_t digits = 0;
  std::uint64_t size = 0;
  for (; digits < line.size() && line[digits] != ';'; ++digits) {
    const int value = kHexValue[static_cast<unsigned char>(line[digits])];
    if (value < 0) return "bad chunk size";
    if (digits == 15) return "chunk size too large";
    size = size * 16 + static_cast<std::uint64_t>(value);
  }
  if (digits == 0) return "bad chunk size";
  extension_bytes_ += line.size() - digits;
  if (extension_bytes_ > kChunkExtensionBytesMax) return "too many chunk extensions";
  if (!extensions_ok(line.substr(digits))) return "bad chunk extension";
  left_ = size;
  return nullptr;
}

ChunkDecoder::Piece ChunkDecoder::next(std::string_view in) {
  std::size_t consumed = 0;
  const auto broken = [&](Why why) {
    why_ = why;
    return Piece{.step = Step::broken, .consumed = consumed, .data = {}};
  };
  for (;;) {
    const std::string_view rest = in.substr(consumed);
    switch (state_) {
      case State::done:
        return {.step = Step::end, .consumed = consumed, .data = {}};
      case State::data: {
        if (rest.empty()) return {.step = Step::more, .consumed = consumed, .data = {}};
        const std::size_t take = static_cast<std::size_t>(std::min<std::uint64_t>(left_, rest.size()));
        left_ -= take;
        if (left_ == 0) state_ = State::data_end;
        return {.step = Step::data, .consumed = consumed + take, .data = rest.substr(0, take)};
      }
      case State::data_end:
        if ((rest.size() > 0 && rest[0] != '\r') || (rest.size() > 1 && rest[1] != '\n'))
          return broken("chunk data not ended by CRLF");
        if (rest.size() < 2) return {.step = Step::more, .consumed = consumed, .data = {}};
        consumed += 2;
        state_ = State::size;
        break;
      case State::size:
        if (const std::size_t line_bytes = short_size_line(rest); line_bytes != 0) {
          consumed += line_bytes;
          state_ = left_ == 0 ? State::trailer : State::data;
          break;
        }
        [[fallthrough]];
      case State::trailer: {
        const std::size_t limit = state_ == State::size ? kChunkLineBytesMax : kTrailerBytesMax - trailer_bytes_;
        const std::size_t newline = rest.substr(0, limit).find('\n');
        if (newline == std::string_view::npos) {
          if (rest.size() >= limit) return broken(state_ == State::size ? "chunk line too long" : "trailers too long");
          const std::size_t carriage = rest.find('\r');
          if (carriage != std::string_view::npos && carriage + 1 < rest.size()) {
            return broken("carriage return within a chunk line");
          }
          return {.step = Step::more, .consumed = consumed, .data = {}};
        }
        std::string_view line;
        if (!crlf_line(rest, newline, line)) return broken("chunk line not ended by CRLF");
        if (state_ == State::size) {
          if (Why why = size_line(line)) return broken(why);
          state_ = left_ == 0 ? State::trailer : State::data;
        } else if (line.empty()) {
          state_ = State::done;
        } else {
          Header header;
          if (Why why = parse_field_line(line, header)) return broken(why);
          if (!trailer_allowed(header.name)) return broken("forbidden trailer field");
          trailer_bytes_ += newline + 1;
        }
        consumed += newline + 1;
        break;
      }
    }
  }
}

}  // namespace ganglion::net::http1
