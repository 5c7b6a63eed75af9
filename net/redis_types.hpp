#pragma once
// What goes to Redis and what comes back: commands in wire form, replies, errors, scripts. No I/O.

#include <array>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ganglion::net {

struct RedisReply {
  enum class Type : std::uint8_t { nil, status, string, integer, array, error };
  Type type = Type::nil;
  std::int64_t integer = 0;
  std::string text;               // status, string (any bytes), error
  std::vector<RedisReply> items;  // array; an error may be among its items

  bool is_nil() const { return type == Type::nil; }
  bool is_integer() const { return type == Type::integer; }
  bool is_array() const { return type == Type::array; }
  bool is_string() const { return type == Type::string; }
  friend bool operator==(const RedisReply&, const RedisReply&) = default;
};

enum class RedisFailure : std::uint8_t {
  unavailable,  // the circuit is open or no connection stands: failed at once, nothing was sent
  busy,         // too many commands are waiting: nothing was sent
  timed_out,    // no answer by the deadline
  closed,       // the connection ended or was dropped before the answer
  protocol,     // not RESP
  loading,      // LOADING, MASTERDOWN, CLUSTERDOWN or TRYAGAIN until the deadline
  read_only,    // READONLY or MISCONF: reached a replica, or the server refuses to write
  no_memory,    // OOM: maxmemory is reached and nothing may be evicted
  denied,       // NOAUTH, WRONGPASS, NOPERM
  redirected,   // more MOVED and ASK than a sane cluster gives
  refused,      // any other error reply: the command or the script is wrong
  kCount
};
std::string_view name(RedisFailure failure);

struct RedisError {
  RedisFailure failure = RedisFailure::unavailable;
  bool maybe_done = false;  // the command may have taken effect all the same (timed_out, closed after sending)
  std::string message;      // the server's error line, or ours; for logs, not for clients
};

using RedisResult = std::expected<RedisReply, RedisError>;

// The hash slot of a key: CRC16 of what stands in the first non-empty {}, else of the whole, modulo 16384.
inline constexpr unsigned kRedisSlots = 16'384;
unsigned redis_slot(std::string_view key);

// One command in wire form (an array of bulk strings, any bytes). Built before anything is awaited, so it borrows
// nothing.
class RedisCommand {
 public:
  // words[1] is the key by which a cluster routes. Of EVAL, EVALSHA and SPUBLISH see key() below.
  RedisCommand(std::initializer_list<std::string_view> words);
  explicit RedisCommand(std::span<const std::string_view> words);
  RedisCommand& operator<<(std::string_view word);
  RedisCommand& operator<<(std::int64_t word);
  // Routes by this key instead. In a cluster all keys of a command must share a slot: give them one {hash tag}.
  RedisCommand&& key(std::string_view key) &&;
  // Any node will do (PUBLISH, PING).
  RedisCommand&& anywhere() &&;

  static constexpr unsigned kAnywhere = kRedisSlots;
  unsigned slot() const { return slot_; }
  std::string wire() const;  // with its array header

 private:
  std::string words_;  // the bulk strings
  std::size_t count_ = 0;
  unsigned slot_ = kAnywhere;
};

// A Lua script and its SHA-1. Make it once (static const).
class RedisScript {
 public:
  explicit RedisScript(std::string text);
  const std::string& text() const { return text_; }
  const std::string& sha1() const { return sha1_; }  // 40 hex digits
  std::uint64_t id() const { return id_; }           // the first 64 bits of it

 private:
  std::string text_;
  std::string sha1_;
  std::uint64_t id_ = 0;
};

}  // namespace ganglion::net
