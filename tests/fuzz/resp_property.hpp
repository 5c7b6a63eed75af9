#pragma once
// What must hold for any bytes that a Redis server may send. Run by libFuzzer (fuzz_resp.cpp) and, over the kept
// corpus, by the unit tests. A broken property ends the process.

#include <string>
#include <string_view>
#include <vector>

#include "core/assert.hpp"
#include "net/redis_resp.hpp"

namespace ganglion::fuzz {

inline constexpr std::size_t kReplyBytesMax = 256 * 1024;

struct RespOutcome {
  std::vector<net::RedisReply> replies;
  bool failed = false;
  friend bool operator==(const RespOutcome&, const RespOutcome&) = default;
};

inline RespOutcome read_resp(std::string_view bytes, std::size_t piece) {
  net::redis::RespReader reader{kReplyBytesMax};
  RespOutcome out;
  while (!bytes.empty()) {
    const std::string chunk{bytes.substr(0, piece)};
    bytes.remove_prefix(chunk.size());
    reader.feed(chunk);
    while (true) {
      auto reply = reader.next();
      if (!reply) {
        out.failed = true;
        return out;
      }
      if (!*reply) break;
      out.replies.push_back(std::move(**reply));
    }
  }
  return out;
}

inline void write_resp(const net::RedisReply& reply, std::string& out) {
  using Type = net::RedisReply::Type;
  switch (reply.type) {
    case Type::nil:
      out += "$-1\r\n";
      return;
    case Type::status:
      out += "+" + reply.text + "\r\n";
      return;
    case Type::error:
      out += "-" + reply.text + "\r\n";
      return;
    case Type::integer:
      out += ":" + std::to_string(reply.integer) + "\r\n";
      return;
    case Type::string:
      out += "$" + std::to_string(reply.text.size()) + "\r\n" + reply.text + "\r\n";
      return;
    case Type::array:
      out += "*" + std::to_string(reply.items.size()) + "\r\n";
      for (const auto& item : reply.items) write_resp(item, out);
      return;
  }
}

// Any split gives the same replies; what was read can be written and is then read as the same; error lines never break
// their reader, and a slot that they name exists.
inline void check_resp(std::string_view bytes) {
  if (bytes.size() > 65536) return;
  const RespOutcome whole = read_resp(bytes, std::string_view::npos);
  for (const std::size_t piece : {std::size_t{1}, std::size_t{2}, std::size_t{3}, std::size_t{17}}) {
    GW_ASSERT(read_resp(bytes, piece) == whole);
  }
  std::string written;
  for (const auto& reply : whole.replies) {
    write_resp(reply, written);
    if (reply.type != net::RedisReply::Type::error) continue;
    const auto line = net::redis::read_error(reply.text);
    GW_ASSERT(line.slot < net::kRedisSlots);
  }
  const RespOutcome again = read_resp(written, std::string_view::npos);
  GW_ASSERT(!again.failed && again.replies == whole.replies);
}

}  // namespace ganglion::fuzz
