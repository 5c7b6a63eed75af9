// redis_check FILE [SEED]: holds the simulated Redis against a real redis-server. FILE is what gateways sent in the
// simulation (simulation --record FILE), seed by seed; some arguments are changed on the way. Answers and all that is
// kept afterwards must be the same. Time stands still for the simulated one; scripts see the recorded time in both.

#include <hiredis/hiredis.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <set>

#include "tests/simulation/redis_data.hpp"
#include "tests/simulation/redis_scripts.hpp"
#include "tests/support/redis_server.hpp"

namespace ganglion::sim {
namespace {

using Type = RedisAnswer::Type;

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed * 2 + 1) {}
  std::uint64_t below(std::uint64_t n) {
    state_ = state_ * 6364136223846793005ULL + 1442695040888963407ULL;
    return (state_ >> 33) % n;
  }

 private:
  std::uint64_t state_;
};

RedisAnswer from(const redisReply& reply) {
  switch (reply.type) {
    case REDIS_REPLY_STRING:
      return RedisAnswer::bulk({reply.str, reply.len});
    case REDIS_REPLY_STATUS:
      return RedisAnswer::status({reply.str, reply.len});
    case REDIS_REPLY_INTEGER:
      return RedisAnswer::of(reply.integer);
    case REDIS_REPLY_ERROR:
      return RedisAnswer::error({reply.str, reply.len});
    case REDIS_REPLY_ARRAY: {
      RedisAnswer out{.type = Type::list};
      for (std::size_t i = 0; i < reply.elements; ++i) out.items.push_back(from(*reply.element[i]));
      return out;
    }
    default:
      return {};
  }
}

class Real {
 public:
  explicit Real(const test::RedisServer& server) : context_(redisConnect("127.0.0.1", server.port()), redisFree) {
    if (!context_ || context_->err != 0) std::abort();
  }
  RedisAnswer run(const RedisWords& words) {
    std::vector<const char*> texts;
    std::vector<std::size_t> sizes;
    for (const std::string& word : words) {
      texts.push_back(word.data());
      sizes.push_back(word.size());
    }
    auto* const reply = static_cast<redisReply*>(
        redisCommandArgv(context_.get(), static_cast<int>(words.size()), texts.data(), sizes.data()));
    if (reply == nullptr) std::abort();
    RedisAnswer out = from(*reply);
    freeReplyObject(reply);
    return out;
  }

 private:
  std::unique_ptr<redisContext, decltype(&redisFree)> context_;
};

// Of errors only that they are errors: the interpreter's own texts name its places.
bool same(const RedisAnswer& left, const RedisAnswer& right) {
  if (left.type == Type::error || right.type == Type::error) return left.type == right.type;
  if (left.type != right.type || left.items.size() != right.items.size()) return false;
  for (std::size_t i = 0; i < left.items.size(); ++i)
    if (!same(left.items[i], right.items[i])) return false;
  return left.integer == right.integer && left.text == right.text;
}

// The budgets' script answers with what it knows of other gateways in the order of a Lua table, which is any.
RedisAnswer in_order(RedisAnswer answer) {
  constexpr std::size_t kFirst = 5;
  if (answer.items.size() < kFirst) return answer;
  std::vector<std::pair<std::string, std::string>> others;
  for (std::size_t i = kFirst; i + 1 < answer.items.size(); i += 2)
    others.emplace_back(answer.items[i].text, answer.items[i + 1].text);
  std::ranges::sort(others);
  answer.items.resize(kFirst);
  for (const auto& [gateway, spent] : others) {
    answer.items.push_back(RedisAnswer::bulk(gateway));
    answer.items.push_back(RedisAnswer::bulk(spent));
  }
  return answer;
}

std::string shown(const RedisAnswer& answer) {
  std::string out = answer.wire().substr(0, 300);
  std::ranges::replace_if(out, [](unsigned char c) { return c < 0x20 || c > 0x7e; }, '.');
  return out;
}

std::string replaced(std::string text, std::string_view what, const std::string& by) {
  for (std::size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += by.size())
    text.replace(at, what.size(), by);
  return text;
}

// Both are asked, always with the script's text, in which the time is the recorded one.
class Pair {
 public:
  Pair(Real& real, std::uint64_t seed) : real_(real), random_(seed) { real_.run({"FLUSHALL"}); }

  void run(RedisWords words) {
    const std::int64_t time = std::strtoll(words[0].c_str(), nullptr, 10);
    if (now_us_ == 0) now_us_ = time;
    words.erase(words.begin());
    const bool script = words[0] == "EVAL" || words[0] == "EVALSHA";
    if (words[0] == "EVAL") texts_[RedisScripts::digest(words[1])] = words[1];
    if (words[0] == "EVALSHA" && !texts_.contains(words[1])) return;  // NOSCRIPT came back
    if (script) {
      const std::string& text = words[0] == "EVAL" ? words[1] : texts_[words[1]];
      words[1] = replaced(text, "redis.call('TIME')",
                          "{'" + std::to_string(time / 1'000'000) + "','" + std::to_string(time % 1'000'000) + "'}");
      words[0] = "EVAL";
      const auto keys = static_cast<std::size_t>(std::atoi(words[2].c_str()));
      for (std::size_t i = 3; i < 3 + keys; ++i) keys_.insert(words[i]);
      change(words, 3 + keys);
    } else if (words.size() > 1) {
      keys_.insert(words[1]);
    }
    check(words, script);
  }

  // What is kept in the end.
  void compare() {
    for (const std::string& key : keys_) {
      const RedisAnswer type = real_.run({"TYPE", key});
      if (type.text == "none")
        check({"PTTL", key}, false);
      else if (type.text == "string")
        check({"GET", key}, false);
      else if (type.text == "zset")
        check({"ZRANGEBYSCORE", key, "-inf", "+inf"}, false);
      else
        fields(key);
      const auto left = data_.run({"PTTL", key}).integer;
      const auto right = real_.run({"PTTL", key}).integer;
      if ((left < 0 || right < 0) ? left != right : std::llabs(left - right) > 60'000)
        wrong("PTTL " + key, std::to_string(left), std::to_string(right));
    }
  }

  std::size_t asked = 0, changed = 0, errors = 0;
  std::vector<std::string> differences;

 private:
  void change(RedisWords& words, std::size_t first) {
    if (words.size() <= first || random_.below(100) >= 25) return;
    std::string& word = words[first + random_.below(words.size() - first)];
    ++changed;
    const long long number = std::strtoll(word.c_str(), nullptr, 10);
    switch (random_.below(7)) {
      case 0:
        word = std::to_string(number * 2);
        return;
      case 1:
        word = std::to_string(number + 1);
        return;
      case 2:
        word = "0";
        return;
      case 3:
        word = "-1";
        return;
      case 4:
        word = "0.1";
        return;
      case 5:
        word = words[first + random_.below(words.size() - first)];
        return;
      default:
        word = "";
    }
  }

  void check(const RedisWords& words, bool script) {
    ++asked;
    RedisAnswer left = script ? scripts_.run(words) : data_.run(words);
    RedisAnswer right = real_.run(words);
    if (script && words[1].contains("in pairs(h)")) {
      left = in_order(std::move(left));
      right = in_order(std::move(right));
    }
    errors += right.type == Type::error ? 1 : 0;
    if (same(left, right)) return;
    std::string line;
    for (std::size_t i = script ? 2 : 0; i < words.size(); ++i) line += words[i].substr(0, 60) + " ";
    wrong((script ? words[1].substr(0, 120) + " " : "") + line, shown(left), shown(right));
  }

  void fields(const std::string& key) {
    const auto sorted = [](const RedisAnswer& all) {
      std::map<std::string, std::string> out;
      for (std::size_t i = 0; i + 1 < all.items.size(); i += 2) out[all.items[i].text] = all.items[i + 1].text;
      return out;
    };
    const RedisAnswer left = data_.run({"HGETALL", key});
    const RedisAnswer right = real_.run({"HGETALL", key});
    if (sorted(left) != sorted(right)) wrong("HGETALL " + key, shown(left), shown(right));
  }

  void wrong(const std::string& what, const std::string& left, const std::string& right) {
    differences.push_back(what + "\n  simulated: " + left + "\n  real:      " + right);
  }

  Real& real_;
  Random random_;
  std::int64_t now_us_ = 0;
  RedisData data_{[this] { return now_us_; }};
  RedisScripts scripts_{data_};
  std::map<std::string, std::string> texts_;
  std::set<std::string> keys_;
};

// The commands of each seed: a number of words, then each word behind its size; 0 words end a seed.
std::vector<std::vector<RedisWords>> read(const char* path) {
  std::ifstream in(path, std::ios::binary);
  std::vector<std::vector<RedisWords>> out(1);
  std::size_t count = 0;
  while (in >> count) {
    if (count == 0) {
      out.emplace_back();
      continue;
    }
    RedisWords words(count);
    for (std::string& word : words) {
      std::size_t size = 0;
      in >> size;
      in.get();
      word.resize(size);
      in.read(word.data(), static_cast<std::streamsize>(size));
    }
    out.back().push_back(std::move(words));
  }
  return out;
}

int check(const char* path, std::uint64_t seed) {
  test::RedisServer server;
  Real real(server);
  std::size_t asked = 0, changed = 0, errors = 0, scripts = 0, differences = 0;
  for (const auto& commands : read(path)) {
    if (commands.empty()) continue;
    ++scripts;
    // The real one's time goes on: a seed that took long is not comparable, and is done again.
    for (int tries = 0; tries < 10; ++tries) {
      const auto began = std::chrono::steady_clock::now();
      Pair pair(real, seed + scripts);
      for (const RedisWords& words : commands) pair.run(words);
      pair.compare();
      const bool late = std::chrono::steady_clock::now() - began > std::chrono::milliseconds{800};
      if (!pair.differences.empty() && late) continue;
      for (const std::string& each : pair.differences) std::printf("%s\n", each.c_str());
      differences += pair.differences.size();
      asked += pair.asked;
      changed += pair.changed;
      errors += pair.errors;
      break;
    }
  }
  std::printf("%zu seeds, %zu commands (%zu changed, %zu answered with an error): %zu differences\n", scripts, asked,
              changed, errors, differences);
  return differences == 0 && asked > 1'000 ? 0 : 1;
}

}  // namespace
}  // namespace ganglion::sim

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "redis_check FILE [SEED]\n");
    return 2;
  }
  return ganglion::sim::check(argv[1], argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1);
}
