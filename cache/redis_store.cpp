// See cache/redis_store.hpp. Each step that must not be torn is one script.

#include "cache/redis_store.hpp"

#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <charconv>

#include "cache/codec.hpp"

namespace ganglion::cache {
namespace {

namespace asio = boost::asio;
using net::RedisReply;
using Views = std::initializer_list<std::string_view>;

constexpr std::size_t kPurgesMax = 1024;

// v, l; token, lease ms, known stamp. The value, else who may fetch it.
const net::RedisScript& get_script() {
  static const net::RedisScript script{R"(
local value = redis.call('GET', KEYS[1])
if value and (ARGV[3] == '' or string.sub(value, 9, 16) ~= ARGV[3]) then return {1, value} end
if ARGV[1] == '' then return {0} end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return {2} end
if redis.call('GET', KEYS[2]) == ARGV[1] then return {2} end
return {3})"};
  static_assert(kStampOffset == 8 && kStampBytes == 8, "the script cuts the stamp out");
  return script;
}

// v, l; token, value, lifetime ms.
const net::RedisScript& put_script() {
  static const net::RedisScript script{R"(
local owner = redis.call('GET', KEYS[2])
if ARGV[1] == '' or owner == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  if owner == ARGV[1] then redis.call('DEL', KEYS[2]) end
  return 1
end
if owner then return 0 end
if redis.call('SET', KEYS[1], ARGV[2], 'NX', 'PX', ARGV[3]) then return 1 end
return 0)"};
  return script;
}

const net::RedisScript& renew_script() {
  static const net::RedisScript script{R"(
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2]))"};
  return script;
}

const net::RedisScript& release_script() {
  static const net::RedisScript script{R"(
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0)"};
  return script;
}

// g, log; scope, how many to keep. The generation goes by the clock, so that it never falls back below what gateways
// know, even when Redis has forgotten everything.
const net::RedisScript& purge_script() {
  static const net::RedisScript script{R"(
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local last = tonumber(redis.call('GET', KEYS[1]) or '0')
if now <= last then now = last + 1 end
local generation = string.format('%d', now)
redis.call('SET', KEYS[1], generation)
redis.call('ZADD', KEYS[2], generation, generation .. ' ' .. ARGV[1])
redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -1 - tonumber(ARGV[2]))
return generation)"};
  return script;
}

// g, log; after which generation. The newest, how many are kept, and those after.
const net::RedisScript& told_script() {
  static const net::RedisScript script{R"(
return {redis.call('GET', KEYS[1]) or '0', redis.call('ZCARD', KEYS[2]),
  redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[1], '+inf')})"};
  return script;
}

// g, log; then generation and line in turn.
const net::RedisScript& again_script() {
  static const net::RedisScript script{R"(
local newest = tonumber(redis.call('GET', KEYS[1]) or '0')
for i = 1, #ARGV, 2 do
  redis.call('ZADD', KEYS[2], ARGV[i], ARGV[i + 1])
  if tonumber(ARGV[i]) > newest then newest = tonumber(ARGV[i]) end
end
redis.call('SET', KEYS[1], string.format('%d', newest))
return 1)"};
  return script;
}

std::uint64_t number(std::string_view text) {
  std::uint64_t out = 0;
  std::from_chars(text.data(), text.data() + text.size(), out);
  return out;
}

}  // namespace

RedisStore::RedisStore(std::shared_ptr<net::RedisClient> client, const RedisCacheOptions& options)
    : client_(std::move(client)),
      lease_ms_(std::to_string(options.lease.count())),
      generation_key_(client_->options().key_prefix + "cache:{purges}:g"),
      log_key_(client_->options().key_prefix + "cache:{purges}:log"),
      channel_(client_->options().key_prefix + "cache:purges") {}

std::string RedisStore::key_of(const StoreKey& key, char what) const {
  return client_->options().key_prefix + "cache:{" + key.hex() + "}:" + what;
}

bool RedisStore::up(const StoreKey& key) const {
  return client_->available(key_of(key, 'v'));
}

asio::awaitable<SharedStore::Answer> RedisStore::get(const StoreKey& key, std::string_view token,
                                                     std::string_view known, core::Deadline until) {
  // The newest purge's generation is asked for along with the value, which is worth nothing without it. In a cluster it
  // may lie on another node and come later.
  struct Generation {
    explicit Generation(const asio::any_io_executor& executor) : came(executor) {}
    asio::steady_timer came;
    std::optional<net::RedisResult> result;
  };
  const auto generation = std::make_shared<Generation>(co_await asio::this_coro::executor);
  client_->send(net::RedisCommand{"GET", generation_key_}, until, [generation](net::RedisResult result) {
    generation->result = std::move(result);
    generation->came.cancel();
  });
  const std::string value_key = key_of(key, 'v');
  const std::string lease_key = key_of(key, 'l');
  const std::array<std::string_view, 2> keys{value_key, lease_key};
  const std::array<std::string_view, 3> args{token, lease_ms_, known};
  auto reply = co_await client_->eval(get_script(), keys, args, until);
  if (!generation->result) {
    generation->came.expires_at(until.at());
    co_await generation->came.async_wait(asio::as_tuple(asio::use_awaitable));
  }
  Answer out;
  if (!reply || !reply->is_array() || reply->items.empty()) co_return out;
  switch (reply->items[0].integer) {
    case 0:
      out.got = Got::miss;
      break;
    case 1: {
      const auto& newest = generation->result;
      if (reply->items.size() != 2 || !newest || !*newest) co_return out;
      out.got = Got::hit;
      out.value = std::move(reply->items[1].text);
      out.generation = number((*newest)->text);
      break;
    }
    case 2:
      out.got = Got::leased;
      break;
    case 3:
      out.got = Got::busy;
      break;
    default:
      break;
  }
  co_return out;
}

asio::awaitable<bool> RedisStore::renew(const StoreKey& key, std::string_view token) {
  const std::string lease_key = key_of(key, 'l');
  const std::string mine{token};
  const std::array<std::string_view, 1> keys{lease_key};
  const std::array<std::string_view, 2> args{mine, lease_ms_};
  const auto reply = co_await client_->eval(renew_script(), keys, args);
  co_return reply && reply->integer == 1;
}

asio::awaitable<void> RedisStore::release(const StoreKey& key, std::string_view token) {
  const std::string lease_key = key_of(key, 'l');
  const std::string mine{token};
  const std::array<std::string_view, 1> keys{lease_key};
  const std::array<std::string_view, 1> args{mine};
  [[maybe_unused]] const auto reply = co_await client_->eval(release_script(), keys, args);
}

asio::awaitable<SharedStore::Put> RedisStore::put(const StoreKey& key, std::string_view token, std::string_view value,
                                                  std::chrono::milliseconds lifetime) {
  const std::string value_key = key_of(key, 'v');
  const std::string lease_key = key_of(key, 'l');
  const std::string ms = std::to_string(lifetime.count());
  const std::array<std::string_view, 2> keys{value_key, lease_key};
  const std::array<std::string_view, 3> args{token, value, ms};
  const auto reply = co_await client_->eval(put_script(), keys, args);
  if (!reply || !reply->is_integer()) co_return Put::failed;
  co_return reply->integer == 1 ? Put::stored : Put::fenced;
}

asio::awaitable<std::optional<std::uint64_t>> RedisStore::purge(std::string_view scope) {
  const std::string keep = std::to_string(kPurgesMax);
  const std::array<std::string_view, 2> keys{generation_key_, log_key_};
  const std::array<std::string_view, 2> args{scope, keep};
  const auto reply = co_await client_->eval(purge_script(), keys, args);
  if (!reply || number(reply->text) == 0) co_return std::nullopt;
  const std::uint64_t generation = number(reply->text);
  // Only to be quick: whoever misses it asks within a second.
  [[maybe_unused]] const auto published =
      co_await client_->command(net::RedisCommand{"PUBLISH", channel_, "purged"}.anywhere());
  co_return generation;
}

asio::awaitable<std::optional<SharedStore::Told>> RedisStore::told_since(std::uint64_t generation,
                                                                         core::Deadline until) {
  const std::string after = std::to_string(generation);
  const std::array<std::string_view, 2> keys{generation_key_, log_key_};
  const std::array<std::string_view, 1> args{after};
  const auto reply = co_await client_->eval(told_script(), keys, args, until);
  if (!reply || !reply->is_array() || reply->items.size() != 3 || !reply->items[2].is_array()) co_return std::nullopt;
  Told out{.generation = number(reply->items[0].text)};
  for (const RedisReply& line : reply->items[2].items) {
    const std::size_t space = line.text.find(' ');
    if (space == std::string::npos) continue;
    out.purges.emplace_back(number(std::string_view{line.text}.substr(0, space)), line.text.substr(space + 1));
  }
  // All that it keeps are news to us, and it keeps no more: there may have been older ones.
  out.complete = out.purges.size() < kPurgesMax;
  co_return out;
}

asio::awaitable<bool> RedisStore::tell_again(const std::vector<std::pair<std::uint64_t, std::string>>& purges) {
  std::vector<std::string> lines;
  for (const auto& [generation, scope] : purges) {
    lines.push_back(std::to_string(generation));
    lines.push_back(std::to_string(generation) + " " + scope);
  }
  const std::vector<std::string_view> args{lines.begin(), lines.end()};
  const std::array<std::string_view, 2> keys{generation_key_, log_key_};
  const auto reply = co_await client_->eval(again_script(), keys, args);
  co_return reply.has_value();
}

void RedisStore::listen(std::function<void()> wake) {
  client_->start();
  subscription_ = client_->subscribe(channel_, [wake](std::string_view) { wake(); }, wake);
}

}  // namespace ganglion::cache
