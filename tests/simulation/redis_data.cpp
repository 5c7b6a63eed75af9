// See redis_data.hpp.

#include "tests/simulation/redis_data.hpp"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>

namespace ganglion::sim {
namespace {

using Type = RedisAnswer::Type;

const char* const kWrongType = "WRONGTYPE Operation against a key holding the wrong kind of value";
const char* const kNoInteger = "ERR value is not an integer or out of range";
const char* const kNoFloat = "ERR value is not a valid float";
const char* const kNoRange = "ERR min or max is not a float";

std::string upper(std::string_view word) {
  std::string out{word};
  std::ranges::transform(out, out.begin(), [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return out;
}

std::optional<std::int64_t> integer(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<double> real(const std::string& text) {
  if (text.empty() || std::isspace(static_cast<unsigned char>(text[0])) != 0) return std::nullopt;
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (end != text.c_str() + text.size() || std::isnan(value)) return std::nullopt;
  return value;
}

struct Bound {
  double value = 0;
  bool open = false;
};

std::optional<Bound> bound(const std::string& text) {
  const bool open = text.starts_with('(');
  if (text.size() == (open ? 1U : 0U)) return Bound{0, open};  // Redis takes nothing for 0
  const auto value = real(open ? text.substr(1) : text);
  if (!value) return std::nullopt;
  return Bound{*value, open};
}

bool within(double score, const Bound& low, const Bound& high) {
  return (low.open ? score > low.value : score >= low.value) && (high.open ? score < high.value : score <= high.value);
}

}  // namespace

std::string RedisAnswer::wire() const {
  const auto sized = [](char kind, std::size_t n) { return kind + std::to_string(n) + "\r\n"; };
  switch (type) {
    case Type::nil:
      return "$-1\r\n";
    case Type::status:
      return "+" + text + "\r\n";
    case Type::text:
      return sized('$', text.size()) + text + "\r\n";
    case Type::integer:
      return ":" + std::to_string(integer) + "\r\n";
    case Type::list: {
      std::string out = sized('*', items.size());
      for (const RedisAnswer& each : items) out += each.wire();
      return out;
    }
    case Type::error:
    case Type::unknown:
      break;
  }
  return "-" + text + "\r\n";
}

const std::map<std::string, RedisData::Known, std::less<>>& RedisData::known() {
  constexpr std::size_t kAny = std::numeric_limits<std::size_t>::max();
  static const std::map<std::string, Known, std::less<>> kKnown{
      {"GET", {&RedisData::get, 2, 2}},
      {"SET", {&RedisData::set, 3, 6}},
      {"DEL", {&RedisData::del, 2, kAny}},
      {"EXPIRE", {&RedisData::expire_s, 3, 3}},
      {"PEXPIRE", {&RedisData::expire_ms, 3, 3}},
      {"PTTL", {&RedisData::pttl, 2, 2}},
      {"HGET", {&RedisData::hget, 3, 3}},
      {"HSET", {&RedisData::hset, 4, kAny}},
      {"HMGET", {&RedisData::hmget, 3, kAny}},
      {"HGETALL", {&RedisData::hgetall, 2, 2}},
      {"ZADD", {&RedisData::zadd, 4, 4}},
      {"ZCARD", {&RedisData::zcard, 2, 2}},
      {"ZRANGEBYSCORE", {&RedisData::zrangebyscore, 4, 4}},
      {"ZREMRANGEBYSCORE", {&RedisData::zremrangebyscore, 4, 4}},
      {"ZREMRANGEBYRANK", {&RedisData::zremrangebyrank, 4, 4}},
      {"TIME", {&RedisData::time, 1, 1}},
      {"PING", {&RedisData::ping, 1, 1}},
  };
  return kKnown;
}

RedisAnswer RedisData::run(const RedisWords& words) {
  const std::string name = upper(words.at(0));
  const auto found = known().find(name);
  if (found == known().end()) return {.type = Type::unknown, .text = "ERR the simulated Redis has no " + name};
  if (words.size() < found->second.least || words.size() > found->second.most)
    return {.type = Type::unknown, .text = "ERR the simulated Redis knows no such form of " + name};
  return (this->*found->second.run)(words);
}

RedisData::Entry* RedisData::find(const std::string& key) {
  const auto found = keys_.find(key);
  if (found == keys_.end()) return nullptr;
  if (found->second.expires_ms != 0 && found->second.expires_ms <= now_ms()) {
    keys_.erase(found);
    return nullptr;
  }
  return &found->second;
}

template <class T>
T* RedisData::make(const std::string& key) {
  Entry* const entry = find(key);
  if (entry != nullptr) return std::get_if<T>(&entry->value);
  return &std::get<T>(keys_.emplace(key, Entry{.value = T{}}).first->second.value);
}

template <class T>
bool RedisData::look(const std::string& key, T** found) {
  *found = nullptr;
  Entry* const entry = find(key);
  if (entry == nullptr) return true;
  *found = std::get_if<T>(&entry->value);
  return *found != nullptr;
}

// ---- any type

RedisAnswer RedisData::del(const RedisWords& words) {
  std::int64_t gone = 0;
  for (std::size_t i = 1; i < words.size(); ++i) {
    if (find(words[i]) == nullptr) continue;
    keys_.erase(words[i]);
    ++gone;
  }
  return RedisAnswer::of(gone);
}

RedisAnswer RedisData::expire(const RedisWords& words, std::int64_t unit_ms) {
  const auto time = integer(words[2]);
  if (!time) return RedisAnswer::error(kNoInteger);
  Entry* const entry = find(words[1]);
  if (entry == nullptr) return RedisAnswer::of(0);
  if (*time <= 0)
    keys_.erase(words[1]);
  else
    entry->expires_ms = now_ms() + *time * unit_ms;
  return RedisAnswer::of(1);
}

RedisAnswer RedisData::pttl(const RedisWords& words) {
  const Entry* const entry = find(words[1]);
  if (entry == nullptr) return RedisAnswer::of(-2);
  return RedisAnswer::of(entry->expires_ms == 0 ? -1 : entry->expires_ms - now_ms());
}

RedisAnswer RedisData::time(const RedisWords& /*words*/) {
  const std::int64_t now = now_us_();
  return {.type = Type::list,
          .items = {RedisAnswer::bulk(std::to_string(now / 1'000'000)),
                    RedisAnswer::bulk(std::to_string(now % 1'000'000))}};
}

RedisAnswer RedisData::ping(const RedisWords& /*words*/) {
  return RedisAnswer::status("PONG");
}

// ---- strings

RedisAnswer RedisData::get(const RedisWords& words) {
  std::string* text = nullptr;
  if (!look(words[1], &text)) return RedisAnswer::error(kWrongType);
  return text == nullptr ? RedisAnswer{} : RedisAnswer::bulk(*text);
}

RedisAnswer RedisData::set(const RedisWords& words) {
  bool only_new = false;
  std::optional<std::int64_t> lifetime;
  for (std::size_t i = 3; i < words.size(); ++i) {
    const std::string option = upper(words[i]);
    if (option == "NX") {
      only_new = true;
    } else if (option == "PX" && i + 1 < words.size()) {
      lifetime = integer(words[++i]);
      if (!lifetime) return RedisAnswer::error(kNoInteger);
      if (*lifetime <= 0) return RedisAnswer::error("ERR invalid expire time in 'set' command");
    } else {
      return RedisAnswer::error("ERR syntax error");
    }
  }
  if (only_new && find(words[1]) != nullptr) return {};
  keys_[words[1]] = {.value = words[2], .expires_ms = lifetime ? now_ms() + *lifetime : 0};
  return RedisAnswer::status("OK");
}

// ---- hashes

RedisAnswer RedisData::hget(const RedisWords& words) {
  RedisAnswer out = hmget(words);
  return out.type == Type::list ? out.items[0] : out;
}

RedisAnswer RedisData::hmget(const RedisWords& words) {
  Hash* hash = nullptr;
  if (!look(words[1], &hash)) return RedisAnswer::error(kWrongType);
  RedisAnswer out{.type = Type::list};
  for (std::size_t i = 2; i < words.size(); ++i) {
    RedisAnswer value;
    if (hash != nullptr) {
      const auto found = std::ranges::find(*hash, words[i], &Hash::value_type::first);
      if (found != hash->end()) value = RedisAnswer::bulk(found->second);
    }
    out.items.push_back(std::move(value));
  }
  return out;
}

RedisAnswer RedisData::hset(const RedisWords& words) {
  if (words.size() % 2 != 0) return RedisAnswer::error("ERR wrong number of arguments for 'hset' command");
  Hash* const hash = make<Hash>(words[1]);
  if (hash == nullptr) return RedisAnswer::error(kWrongType);
  std::int64_t added = 0;
  for (std::size_t i = 2; i + 1 < words.size(); i += 2) {
    const auto found = std::ranges::find(*hash, words[i], &Hash::value_type::first);
    if (found != hash->end()) {
      found->second = words[i + 1];
    } else {
      hash->emplace_back(words[i], words[i + 1]);
      ++added;
    }
  }
  return RedisAnswer::of(added);
}

RedisAnswer RedisData::hgetall(const RedisWords& words) {
  Hash* hash = nullptr;
  if (!look(words[1], &hash)) return RedisAnswer::error(kWrongType);
  RedisAnswer out{.type = Type::list};
  if (hash == nullptr) return out;
  for (const auto& [field, value] : *hash) {
    out.items.push_back(RedisAnswer::bulk(field));
    out.items.push_back(RedisAnswer::bulk(value));
  }
  return out;
}

// ---- sorted sets

std::vector<std::pair<double, std::string>> RedisData::ranked(const Sorted& set) {
  std::vector<std::pair<double, std::string>> out;
  out.reserve(set.size());
  for (const auto& [member, score] : set) out.emplace_back(score, member);
  std::ranges::sort(out);
  return out;
}

RedisAnswer RedisData::zadd(const RedisWords& words) {
  const auto score = real(words[2]);
  if (!score) return RedisAnswer::error(kNoFloat);
  auto* const set = make<Sorted>(words[1]);
  if (set == nullptr) return RedisAnswer::error(kWrongType);
  return RedisAnswer::of(set->insert_or_assign(words[3], *score).second ? 1 : 0);
}

RedisAnswer RedisData::zcard(const RedisWords& words) {
  Sorted* set = nullptr;
  if (!look(words[1], &set)) return RedisAnswer::error(kWrongType);
  return RedisAnswer::of(set == nullptr ? 0 : static_cast<std::int64_t>(set->size()));
}

RedisAnswer RedisData::zrangebyscore(const RedisWords& words) {
  const auto low = bound(words[2]);
  const auto high = bound(words[3]);
  if (!low || !high) return RedisAnswer::error(kNoRange);
  Sorted* set = nullptr;
  if (!look(words[1], &set)) return RedisAnswer::error(kWrongType);
  RedisAnswer out{.type = Type::list};
  if (set == nullptr) return out;
  for (const auto& [score, member] : ranked(*set))
    if (within(score, *low, *high)) out.items.push_back(RedisAnswer::bulk(member));
  return out;
}

RedisAnswer RedisData::zremrangebyscore(const RedisWords& words) {
  const auto low = bound(words[2]);
  const auto high = bound(words[3]);
  if (!low || !high) return RedisAnswer::error(kNoRange);
  Sorted* set = nullptr;
  if (!look(words[1], &set)) return RedisAnswer::error(kWrongType);
  if (set == nullptr) return RedisAnswer::of(0);
  const auto gone = std::erase_if(*set, [&](const auto& each) { return within(each.second, *low, *high); });
  if (set->empty()) keys_.erase(words[1]);
  return RedisAnswer::of(static_cast<std::int64_t>(gone));
}

RedisAnswer RedisData::zremrangebyrank(const RedisWords& words) {
  const auto from = integer(words[2]);
  const auto to = integer(words[3]);
  if (!from || !to) return RedisAnswer::error(kNoInteger);
  Sorted* set = nullptr;
  if (!look(words[1], &set)) return RedisAnswer::error(kWrongType);
  if (set == nullptr) return RedisAnswer::of(0);
  const auto size = static_cast<std::int64_t>(set->size());
  const std::int64_t first = std::max<std::int64_t>(*from < 0 ? size + *from : *from, 0);
  const std::int64_t last = std::min<std::int64_t>(*to < 0 ? size + *to : *to, size - 1);
  const auto order = ranked(*set);
  std::int64_t gone = 0;
  for (std::int64_t i = first; i <= last; ++i, ++gone) set->erase(order[static_cast<std::size_t>(i)].second);
  if (set->empty()) keys_.erase(words[1]);
  return RedisAnswer::of(gone);
}

}  // namespace ganglion::sim
