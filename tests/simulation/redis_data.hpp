#pragma once
// What the simulated Redis keeps, and the commands on it: those that the product and its scripts send, with Redis 7's
// answers. Any other command is an answer of type `unknown`, which fails the run. The clock is the caller's; nothing
// else here depends on anything but the commands. redis_check.cpp holds it against a real redis-server.

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace ganglion::sim {

struct RedisAnswer {
  enum class Type : std::uint8_t { nil, status, text, integer, list, error, unknown };
  Type type = Type::nil;
  std::int64_t integer = 0;
  std::string text;
  std::vector<RedisAnswer> items;

  static RedisAnswer of(std::int64_t value) { return {.type = Type::integer, .integer = value}; }
  static RedisAnswer bulk(std::string value) { return {.type = Type::text, .text = std::move(value)}; }
  static RedisAnswer status(std::string value) { return {.type = Type::status, .text = std::move(value)}; }
  static RedisAnswer error(std::string value) { return {.type = Type::error, .text = std::move(value)}; }
  std::string wire() const;  // RESP 2
  friend bool operator==(const RedisAnswer&, const RedisAnswer&) = default;
};

using RedisWords = std::vector<std::string>;

class RedisData {
 public:
  explicit RedisData(std::function<std::int64_t()> now_us) : now_us_(std::move(now_us)) {}

  RedisAnswer run(const RedisWords& words);
  void clear() { keys_.clear(); }
  std::size_t size() const { return keys_.size(); }

 private:
  using Hash = std::vector<std::pair<std::string, std::string>>;  // in the order of first HSET
  using Sorted = std::map<std::string, double>;
  struct Entry {
    std::variant<std::string, Hash, Sorted> value;
    std::int64_t expires_ms = 0;  // 0: never
  };
  using Command = RedisAnswer (RedisData::*)(const RedisWords&);
  struct Known {
    Command run;
    std::size_t least, most;  // words
  };
  static const std::map<std::string, Known, std::less<>>& known();

  std::int64_t now_ms() const { return now_us_() / 1'000; }
  Entry* find(const std::string& key);  // what has not expired
  // nullptr: the key has another type.
  template <class T>
  T* make(const std::string& key);
  // *found == nullptr: there is none. False: the key has another type.
  template <class T>
  bool look(const std::string& key, T** found);
  RedisAnswer expire(const RedisWords& words, std::int64_t unit_ms);
  static std::vector<std::pair<double, std::string>> ranked(const Sorted& set);

  RedisAnswer get(const RedisWords& words);
  RedisAnswer set(const RedisWords& words);
  RedisAnswer del(const RedisWords& words);
  RedisAnswer expire_s(const RedisWords& words) { return expire(words, 1'000); }
  RedisAnswer expire_ms(const RedisWords& words) { return expire(words, 1); }
  RedisAnswer pttl(const RedisWords& words);
  RedisAnswer hget(const RedisWords& words);
  RedisAnswer hset(const RedisWords& words);
  RedisAnswer hmget(const RedisWords& words);
  RedisAnswer hgetall(const RedisWords& words);
  RedisAnswer zadd(const RedisWords& words);
  RedisAnswer zcard(const RedisWords& words);
  RedisAnswer zrangebyscore(const RedisWords& words);
  RedisAnswer zremrangebyscore(const RedisWords& words);
  RedisAnswer zremrangebyrank(const RedisWords& words);
  RedisAnswer time(const RedisWords& words);
  RedisAnswer ping(const RedisWords& words);

  std::function<std::int64_t()> now_us_;
  std::map<std::string, Entry> keys_;
};

}  // namespace ganglion::sim
