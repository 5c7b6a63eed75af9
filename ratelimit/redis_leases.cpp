// See ratelimit/redis_leases.hpp.

#include "ratelimit/redis_leases.hpp"

#include <algorithm>
#include <charconv>
#include <optional>

namespace ganglion::ratelimit {
namespace {

constexpr std::array<std::string_view, kLeaseKinds> kFields{"requests", "tokens", "neurons"};

// Every part: refill by the time passed, return or charge, then grant all needs or none, and extras where much is left.
// Levels are kept with 17 digits; what a level was at is Redis's time, so that gateways' clocks do not matter. The time
// kept is always the present one: a clock that was set back refills on from there. A holder is forgotten a minute after
// all its buckets would be full, which is what a bucket that is not known starts as.
constexpr std::string_view kScript = R"(local now = tonumber(ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end
local divisor = tonumber(ARGV[2])
local parts = {}
local enough = true
for at = 3, #ARGV, 8 do
  local part = {name = ARGV[at], speed = tonumber(ARGV[at + 1]) / tonumber(ARGV[at + 2]),
    burst = tonumber(ARGV[at + 3]), need = tonumber(ARGV[at + 4]), extra = tonumber(ARGV[at + 5])}
  local held = redis.call('HMGET', KEYS[1], part.name, part.name .. '@')
  local level = tonumber(held[1])
  local back = tonumber(ARGV[at + 6])
  if level == nil then
    level = part.burst
    back = tonumber(ARGV[at + 7])
  else
    local passed = math.max(0, now - tonumber(held[2]))
    level = math.min(part.burst, level + passed * part.speed)
  end
  part.level = math.min(part.burst, level + back)
  if part.level + part.burst * 1e-12 + 1e-6 < part.need then enough = false end
  parts[#parts + 1] = part
end
local answer = {enough and 1 or 0}
local ttl = 0
for _, part in ipairs(parts) do
  local granted = 0
  if enough then
    granted = part.need + math.floor(math.max(0, math.min(part.extra, (part.level - part.need) / divisor)))
  end
  part.level = part.level - granted
  redis.call('HSET', KEYS[1], part.name, string.format('%.17g', part.level),
    part.name .. '@', string.format('%.0f', now))
  ttl = math.max(ttl, (part.burst - part.level) / part.speed / 1000)
  answer[#answer + 1] = string.format('%.0f', granted)
  answer[#answer + 1] = string.format('%.6f', part.level)
end
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.min(ttl, 4e12) + 60000))
return answer
)";

// Counts the gateways that reported within the last five seconds.
constexpr std::string_view kReport = R"(local time = redis.call('TIME')
local now = tonumber(time[1])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - 5)
redis.call('EXPIRE', KEYS[1], 60)
return redis.call('ZCARD', KEYS[1])
)";

const net::RedisScript& report_script() {
  static const net::RedisScript script{std::string{kReport}};
  return script;
}

template <class Number>
std::optional<Number> number(const net::RedisReply& reply) {
  Number value{};
  const char* const end = reply.text.data() + reply.text.size();
  const auto [stopped, error] = std::from_chars(reply.text.data(), end, value);
  if (error != std::errc{} || stopped != end || reply.text.empty()) return std::nullopt;
  return value;
}

}  // namespace

const net::RedisScript& lease_script() {
  static const net::RedisScript script{std::string{kScript}};
  return script;
}

std::vector<std::string> lease_arguments(const LeaseAsk& ask, std::uint64_t now_us) {
  std::vector<std::string> args{std::to_string(now_us), std::to_string(ask.divisor)};
  for (std::size_t kind = 0; kind < kLeaseKinds; ++kind) {
    const LeaseAsk::Part& part = ask.parts[kind];
    if (part.rate.amount == 0) continue;
    args.emplace_back(kFields[kind]);
    args.push_back(std::to_string(part.rate.amount));
    args.push_back(std::to_string(static_cast<double>(part.rate.period.count()) / 1000));
    args.push_back(std::to_string(part.rate.burst));
    args.push_back(std::to_string(part.need));
    args.push_back(std::to_string(part.extra));
    args.push_back(std::to_string(part.back));
    args.push_back(std::to_string(part.back_if_new));
  }
  return args;
}

// [enough, granted, level, granted, level, ...] of the limited kinds, in order.
LeaseResult read_grant(const LeaseAsk& ask, const net::RedisResult& answer) {
  if (!answer) return std::unexpected(LeaseFailure{.maybe_done = answer.error().maybe_done});
  const auto broken = std::unexpected(LeaseFailure{.maybe_done = true});
  LeaseGrant grant;
  std::size_t at = 0;
  if (!answer->is_array() || answer->items.empty()) return broken;
  grant.enough = answer->items[at++].integer == 1;
  for (std::size_t kind = 0; kind < kLeaseKinds; ++kind) {
    if (ask.parts[kind].rate.amount == 0) continue;
    if (at + 2 > answer->items.size()) return broken;
    const auto granted = number<std::uint64_t>(answer->items[at]);
    const auto level = number<double>(answer->items[at + 1]);
    if (!granted || !level) return broken;
    grant.parts[kind] = {.granted = *granted, .level = *level};
    at += 2;
  }
  return grant;
}

void RedisLeases::exchange(const LeaseAsk& ask, std::move_only_function<void(LeaseResult)> done) {
  const std::string key = client_.options().key_prefix + ask.key;
  const std::vector<std::string> args = lease_arguments(ask);
  const std::vector<std::string_view> views(args.begin(), args.end());
  const std::string_view keys[] = {key};
  client_.send_eval(lease_script(), keys, views, {},
                    [ask, done = std::move(done)](net::RedisResult answer) mutable { done(read_grant(ask, answer)); });
}

bool RedisLeases::available(std::string_view key) const {
  return client_.available(key);
}

void RedisLeases::report(std::string_view gateway, std::move_only_function<void(std::uint32_t)> done) {
  const std::string key = client_.options().key_prefix + "gateways";
  const std::string_view keys[] = {key};
  const std::string_view args[] = {gateway};
  client_.send_eval(report_script(), keys, args, {}, [done = std::move(done)](net::RedisResult answer) mutable {
    if (answer && answer->is_integer())
      done(static_cast<std::uint32_t>(std::clamp<std::int64_t>(answer->integer, 1, 1'000'000)));
  });
}

void RedisLeases::leave(std::string_view gateway, std::move_only_function<void()> done) {
  const std::string key = client_.options().key_prefix + "gateways";
  // As if it had reported long ago: the next report of another drops it.
  client_.send(net::RedisCommand{"ZADD", key, "0", gateway}, {},
               [done = std::move(done)](const net::RedisResult&) mutable { done(); });
}

}  // namespace ganglion::ratelimit
