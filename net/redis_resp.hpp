#pragma once
// Redis's protocol, receiving side, sans-I/O: bytes in any pieces become replies (hiredis's reader over our own reply
// type, with bounds), error lines become what they ask for. Internal to net.

#include <hiredis/read.h>

#include <cstddef>
#include <cstdint>
#include <expected>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "net/redis_types.hpp"

namespace ganglion::net::redis {

class RespReader {
 public:
  explicit RespReader(std::size_t reply_bytes_max);

  void feed(std::string_view bytes);
  // The next whole reply; nullopt: more bytes are needed. After an error the reader is of no use any more.
  std::expected<std::optional<RedisReply>, std::string> next();

 private:
  struct Free {
    void operator()(redisReader* reader) const { redisReaderFree(reader); }
  };
  static RespReader& self(const redisReadTask* task);
  static void* make(const redisReadTask* task, RedisReply::Type type);
  static void* make_text(const redisReadTask* task, char* bytes, std::size_t size);
  static void* make_array(const redisReadTask* task, int items);
  static void* make_integer(const redisReadTask* task, long long value);
  static void* make_nil(const redisReadTask* task);
  static redisReplyObjectFunctions functions_;

  bool spend(std::size_t bytes);

  const std::size_t bytes_max_;
  std::size_t spent_ = 0;  // memory of the reply at hand
  bool over_ = false;
  RedisReply root_;
  std::unique_ptr<redisReader, Free> reader_;
};

struct Address {
  std::string host;
  std::uint16_t port = 0;
  std::string str() const;
  friend auto operator<=>(const Address&, const Address&) = default;
};

// host:port or [v6]:port, as the last colon splits it; an empty host is left empty. nullopt: no port in 1..65535.
std::optional<Address> parse_address(std::string_view text);

// What an error line means.
struct ErrorLine {
  enum class Ask : std::uint8_t { nothing, moved, ask, try_again, load_script };
  Ask ask = Ask::nothing;
  RedisFailure failure = RedisFailure::refused;  // when it cannot be helped
  bool store_is_down = false;                    // it holds for other commands as well: open the circuit
  unsigned slot = 0;                             // moved, ask
  Address to;                                    // same; an empty host is that of the node that said so
};
ErrorLine read_error(std::string_view line);

}  // namespace ganglion::net::redis
