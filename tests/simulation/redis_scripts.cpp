// See redis_scripts.hpp.

#include "tests/simulation/redis_scripts.hpp"

#include <cstdio>
#include <cstdlib>

#include "net/redis_types.hpp"

extern "C" {
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
}

namespace ganglion::sim {
namespace {

using Type = RedisAnswer::Type;

void push_text(lua_State* lua, const std::string& text) {
  lua_pushlstring(lua, text.data(), text.size());
}

void push_field(lua_State* lua, const char* name, const std::string& text) {
  lua_newtable(lua);
  push_text(lua, text);
  lua_setfield(lua, -2, name);
}

void push(lua_State* lua, const RedisAnswer& answer) {
  switch (answer.type) {
    case Type::nil:
      return lua_pushboolean(lua, 0);
    case Type::status:
      return push_field(lua, "ok", answer.text);
    case Type::text:
      return push_text(lua, answer.text);
    case Type::integer:
      return lua_pushnumber(lua, static_cast<lua_Number>(answer.integer));
    case Type::list:
      lua_createtable(lua, static_cast<int>(answer.items.size()), 0);
      for (std::size_t i = 0; i < answer.items.size(); ++i) {
        push(lua, answer.items[i]);
        lua_rawseti(lua, -2, static_cast<int>(i) + 1);
      }
      return;
    case Type::error:
    case Type::unknown:
      return push_field(lua, "err", answer.text);
  }
}

std::string text_at(lua_State* lua, int at) {
  std::size_t size = 0;
  const char* const text = lua_tolstring(lua, at, &size);
  return text == nullptr ? std::string{} : std::string{text, size};
}

// What a script returned, at the top of the stack; popped.
RedisAnswer pop(lua_State* lua) {
  RedisAnswer out;
  switch (lua_type(lua, -1)) {
    case LUA_TSTRING:
      out = RedisAnswer::bulk(text_at(lua, -1));
      break;
    case LUA_TNUMBER:
      out = RedisAnswer::of(static_cast<std::int64_t>(lua_tonumber(lua, -1)));
      break;
    case LUA_TBOOLEAN:
      if (lua_toboolean(lua, -1) != 0) out = RedisAnswer::of(1);
      break;
    case LUA_TTABLE: {
      for (const char* name : {"err", "ok"}) {
        lua_getfield(lua, -1, name);
        const bool there = lua_type(lua, -1) == LUA_TSTRING;
        if (there) out = {.type = name[0] == 'e' ? Type::error : Type::status, .text = text_at(lua, -1)};
        lua_pop(lua, 1);
        if (!there) continue;
        lua_pop(lua, 1);
        return out;
      }
      out.type = Type::list;
      for (int i = 1;; ++i) {
        lua_rawgeti(lua, -1, i);
        if (lua_isnil(lua, -1)) {
          lua_pop(lua, 1);
          break;
        }
        out.items.push_back(pop(lua));
      }
      break;
    }
    default:
      break;
  }
  lua_pop(lua, 1);
  return out;
}

}  // namespace

RedisScripts::RedisScripts(RedisData& data) : data_(data), lua_(luaL_newstate()) {
  for (const auto& [name, open] : {std::pair<const char*, lua_CFunction>{"", luaopen_base},
                                   {LUA_TABLIBNAME, luaopen_table},
                                   {LUA_STRLIBNAME, luaopen_string},
                                   {LUA_MATHLIBNAME, luaopen_math}}) {
    lua_pushcfunction(lua_, open);
    lua_pushstring(lua_, name);
    lua_call(lua_, 1, 0);
  }
  lua_newtable(lua_);
  lua_pushlightuserdata(lua_, this);
  lua_pushcclosure(lua_, &RedisScripts::call, 1);
  lua_setfield(lua_, -2, "call");
  lua_setglobal(lua_, "redis");
}

RedisScripts::~RedisScripts() {
  lua_close(lua_);
}

// Lua's errors are jumps: nothing that needs a destructor may live here.
int RedisScripts::call(lua_State* lua) {
  auto* const self = static_cast<RedisScripts*>(lua_touserdata(lua, lua_upvalueindex(1)));
  return self->call_into(lua) ? 1 : lua_error(lua);
}

bool RedisScripts::call_into(lua_State* lua) {
  RedisWords words;
  for (int i = 1; i <= lua_gettop(lua); ++i) {
    if (lua_type(lua, i) == LUA_TNUMBER) {
      char number[64];
      std::snprintf(number, sizeof number, "%.17g", lua_tonumber(lua, i));
      words.emplace_back(number);
    } else if (lua_type(lua, i) == LUA_TSTRING) {
      words.push_back(text_at(lua, i));
    } else {
      push_field(lua, "err", "ERR Lua redis lib command arguments must be strings or integers");
      return false;
    }
  }
  const RedisAnswer answer = words.empty() ? RedisAnswer::error("ERR no command") : data_.run(words);
  if (answer.type == Type::unknown) unknown_ = answer.text;
  push(lua, answer);
  return answer.type != Type::error && answer.type != Type::unknown;
}

void RedisScripts::push_list(const char* name, const RedisWords& words, std::size_t from, std::size_t to) {
  lua_newtable(lua_);
  for (std::size_t i = from; i < to; ++i) {
    push_text(lua_, words[i]);
    lua_rawseti(lua_, -2, static_cast<int>(i - from) + 1);
  }
  lua_setglobal(lua_, name);
}

RedisAnswer RedisScripts::execute(int function, const RedisWords& words, std::size_t keys) {
  push_list("KEYS", words, 3, 3 + keys);
  push_list("ARGV", words, 3 + keys, words.size());
  lua_rawgeti(lua_, LUA_REGISTRYINDEX, function);
  if (lua_pcall(lua_, 0, 1, 0) == 0) return pop(lua_);
  RedisAnswer out = pop(lua_);
  if (out.type != Type::error) out = RedisAnswer::error("ERR " + out.text);
  return out;
}

std::string RedisScripts::digest(const std::string& text) {
  return net::RedisScript{text}.sha1();
}

RedisAnswer RedisScripts::run(const RedisWords& words) {
  if (words.size() < 3) return RedisAnswer::error("ERR wrong number of arguments");
  const auto keys = static_cast<std::size_t>(std::strtoull(words[2].c_str(), nullptr, 10));
  if (words.size() < 3 + keys) return RedisAnswer::error("ERR Number of keys can't be greater than number of args");
  const bool by_text = words[0] == "EVAL";
  const std::string name = by_text ? digest(words[1]) : words[1];
  auto found = known_.find(name);
  if (found == known_.end()) {
    if (!by_text) return RedisAnswer::error("NOSCRIPT No matching script. Please use EVAL.");
    if (luaL_loadbuffer(lua_, words[1].data(), words[1].size(), "@user_script") != 0)
      return RedisAnswer::error("ERR Error compiling script: " + pop(lua_).text);
    found = known_.emplace(name, luaL_ref(lua_, LUA_REGISTRYINDEX)).first;
  }
  return execute(found->second, words, keys);
}

}  // namespace ganglion::sim
