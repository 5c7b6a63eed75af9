#pragma once
// Lua scripts on RedisData, by Lua 5.1 itself, which is Redis's own version: EVAL and EVALSHA, redis.call, and Redis's
// conversions between the two.

#include <map>
#include <string>

#include "tests/simulation/redis_data.hpp"

struct lua_State;

namespace ganglion::sim {

class RedisScripts {
 public:
  explicit RedisScripts(RedisData& data);
  ~RedisScripts();
  RedisScripts(const RedisScripts&) = delete;
  RedisScripts& operator=(const RedisScripts&) = delete;

  // EVALSHA digest numkeys keys... args..., or EVAL with the text.
  RedisAnswer run(const RedisWords& words);
  static std::string digest(const std::string& text);
  void forget() { known_.clear(); }  // SCRIPT FLUSH: NOSCRIPT comes next
  // What a script called that is not there; "": nothing.
  const std::string& unknown() const { return unknown_; }

 private:
  static int call(lua_State* lua);
  bool call_into(lua_State* lua);  // false: an error is on the stack
  RedisAnswer execute(int function, const RedisWords& words, std::size_t keys);
  void push_list(const char* name, const RedisWords& words, std::size_t from, std::size_t to);

  RedisData& data_;
  lua_State* lua_;
  std::map<std::string, int> known_;  // digest: function in the registry
  std::string unknown_;
};

}  // namespace ganglion::sim
