// See gateway/budget_share.hpp. The arithmetic of leases is metering/budget_leases.cpp; here are the store's half, as
// two scripts, and the conversation.
//
// Keys, all under one hash tag so that a script sees them together:
//   PREFIX{budget}:epoch      born: when this store's data began; g:GATEWAY: when it last said that it registered all;
//   p:GATEWAY its process that speaks for it
//   PREFIX{budget}:short      a sorted set by time: "GATEWAY DIGEST" of who is short of what, so that all hear of it
//   PREFIX{budget}:DIGEST     one budget and window. s:GATEWAY spent, c:GATEWAY cap, t:GATEWAY when, n:GATEWAY its last
//   exchange; w: somebody is short

#include "gateway/budget_share.hpp"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "core/digest.hpp"
#include "core/log.hpp"
#include "net/keep_running.hpp"

namespace ganglion::gateway {
namespace {

using metrics::Family;

constexpr std::size_t kInFlightMax = 512;
constexpr std::size_t kOthersMax = 200'000;
constexpr std::chrono::milliseconds kCommandTime{200};
constexpr std::chrono::milliseconds kUndecidedPause{20};
constexpr unsigned kMissesMax = 4;  // rounds without an answer, of a store that is there
constexpr int kRefreshes = 2;       // of what an idle budget holds, at least so often in a lapse

// ARGV: gateway, the data that it has registered in ("" none yet), ms after which a gateway that is silent does not
// count, process, 1 if that one speaks for the gateway from now on. Returns born, gateways, and the digests that others
// are short of, with blanks between.
const net::RedisScript& announce_script() {
  static const net::RedisScript script(R"lua(
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local born = redis.call('HGET', KEYS[1], 'born')
if not born then
  born = string.format('%.0f', now)
  redis.call('HSET', KEYS[1], 'born', born)
end
if ARGV[5] == '1' or redis.call('HGET', KEYS[1], 'p:' .. ARGV[1]) == false then
  redis.call('HSET', KEYS[1], 'p:' .. ARGV[1], ARGV[4])
end
if ARGV[2] == born then redis.call('HSET', KEYS[1], 'g:' .. ARGV[1], string.format('%.0f', now)) end
local live = 0
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if string.sub(all[i], 1, 2) == 'g:' and now - tonumber(all[i + 1]) <= tonumber(ARGV[3]) then live = live + 1 end
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now - 2000))
local short = {}
for _, mark in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '+inf')) do
  local who, digest = string.match(mark, '^(%S+) (%S+)$')
  if who and who ~= ARGV[1] then short[#short + 1] = digest end
end
return {born, live, table.concat(short, ' ')}
)lua");
  return script;
}

// ARGV: gateway, limit, spent, used, keep, need (below 0: none, and no slack either), kept s, lapse ms, rebuild ms,
// gateways, process, number of the exchange, then for each gateway that this one knows of: its name and what it had
// spent. Returns cap, others' spent, slack, 1 if others are short and 2 if nothing is granted yet, added up, what
// others hold, then each other gateway and what it has spent; or `late` alone.
const net::RedisScript& lease_script() {
  static const net::RedisScript script(R"lua(
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local function num(v) return tonumber(v) or 0 end
local function text(v) return string.format('%.0f', v) end
local me = ARGV[1]
local limit, spent, used, keep, need = num(ARGV[2]), num(ARGV[3]), num(ARGV[4]), num(ARGV[5]), num(ARGV[6])
local lapse, rebuild, gateways = num(ARGV[8]), num(ARGV[9]), num(ARGV[10])

local born = redis.call('HGET', KEYS[1], 'born')
if not born then
  born = text(now)
  redis.call('HSET', KEYS[1], 'born', born)
end
local speaks = redis.call('HGET', KEYS[1], 'p:' .. me)
local known, last = string.match(redis.call('HGET', KEYS[2], 'n:' .. me) or '', '^(%S+) (%d+)$')
if (speaks and speaks ~= ARGV[11]) or (known == ARGV[11] and num(last) >= num(ARGV[12])) then return {'late'} end
local registered = 0
local epoch = redis.call('HGETALL', KEYS[1])
for i = 1, #epoch, 2 do
  if string.sub(epoch[i], 1, 2) == 'g:' then registered = registered + 1 end
end
local rebuilding = now < num(born) + rebuild and registered < gateways

local h = {}
local all = redis.call('HGETALL', KEYS[2])
for i = 1, #all, 2 do h[all[i]] = all[i + 1] end
for i = 13, #ARGV - 1, 2 do
  local peer = ARGV[i]
  if peer ~= me and not h['s:' .. peer] then
    h['s:' .. peer], h['c:' .. peer], h['t:' .. peer] = ARGV[i + 1], ARGV[i + 1], text(now)
    redis.call('HSET', KEYS[2], 's:' .. peer, ARGV[i + 1], 'c:' .. peer, ARGV[i + 1], 't:' .. peer, text(now))
  end
end

local held, others_spent, live = 0, 0, 1
local out = {}
for field, value in pairs(h) do
  if string.sub(field, 1, 2) == 's:' then
    local peer = string.sub(field, 3)
    if peer ~= me then
      local s = num(value)
      others_spent = others_spent + s
      out[#out + 1] = peer
      out[#out + 1] = value
      if now - num(h['t:' .. peer]) > lapse then
        held = held + s
      else
        held = held + math.max(s, num(h['c:' .. peer]))
        live = live + 1
      end
    end
  end
end

local room = limit - held
local short = (h['w'] and h['w:who'] ~= me and now - num(h['w']) < 2000) and 1 or 0
local slack = 0
if short == 0 and room > used and need >= 0 then slack = math.floor((room - used) / (2 * live)) end
local cap = keep
if not rebuilding then
  local target = used + math.max(need, slack)
  if target > room then target = room end
  if target > cap then cap = target end
end
if need > 0 and cap < used + need and room < used + need then
  redis.call('HSET', KEYS[2], 'w', text(now), 'w:who', me)
  redis.call('ZADD', KEYS[3], text(now), me .. ' ' .. (string.match(KEYS[2], '{budget}:(.*)$') or ''))
  redis.call('EXPIRE', KEYS[3], 60)
end
redis.call('HSET', KEYS[2], 's:' .. me, text(spent), 'c:' .. me, text(cap), 't:' .. me, text(now),
  'n:' .. me, ARGV[11] .. ' ' .. ARGV[12])
redis.call('EXPIRE', KEYS[2], ARGV[7])
local answer = {text(cap), text(others_spent), text(slack), short + (rebuilding and 2 or 0), text(held)}
for i = 1, #out do answer[#answer + 1] = out[i] end
return answer
)lua");
  return script;
}

metering::LeaseUnits number(const net::RedisReply& reply) {
  return reply.is_integer() ? reply.integer : std::strtoll(reply.text.c_str(), nullptr, 10);
}

}  // namespace

// The asks of one round, of which some are on their way.
struct BudgetShare::Round {
  std::vector<metering::LeaseAsk> asks;
  std::string epoch_key, short_key;
  std::size_t next = 0;
  std::size_t done = 0;
  std::size_t failures = 0;
  boost::asio::steady_timer ended;
  explicit Round(boost::asio::io_context& io) : ended(io, boost::asio::steady_timer::time_point::max()) {}
  bool over() const { return done >= asks.size(); }
  void one_done() {
    ++done;
    if (over()) ended.cancel();
  }
};

BudgetShare::BudgetShare(boost::asio::io_context& io, net::RedisClient& redis, metering::Budgets& budgets,
                         const BudgetShareOptions& options, std::string gateway, metrics::Registry& registry)
    : io_(io),
      redis_(redis),
      budgets_(budgets),
      options_(options),
      gateway_(std::move(gateway)),
      process_(core::random_hex(8)),
      shard_(registry.shared()),
      granted_(shard_.counter(Family::budget_leases_total, {"granted"})),
      short_(shard_.counter(Family::budget_leases_total, {"short"})),
      failed_(shard_.counter(Family::budget_leases_total, {"failed"})),
      rebuilt_(shard_.counter(Family::budget_rebuilds_total)),
      timer_(io),
      gateways_(options.gateways) {
  redis_.start();
  budgets_.share(metering::Sharing::leased, options_.gateways);
  net::keep_running(
      io_.get_executor(),
      {.name = "budget share", .wanted = [alive = alive_] { return *alive; }, .begin = [this] { return run(); }});
}

BudgetShare::~BudgetShare() {
  *alive_ = false;
}

void BudgetShare::kick() {
  if (kicked_.exchange(true)) return;
  boost::asio::post(io_, [this, alive = alive_] {
    if (*alive) timer_.cancel();
  });
}

boost::asio::awaitable<void> BudgetShare::pause() {
  const auto now = boost::asio::steady_timer::clock_type::now();
  if (!hurried_) next_round_ = now + options_.interval;
  if (undecided_) next_round_ = std::min<boost::asio::steady_timer::time_point>(next_round_, now + kUndecidedPause);
  timer_.expires_at(next_round_);
  boost::system::error_code ignored;
  if (!kicked_) co_await timer_.async_wait(boost::asio::redirect_error(boost::asio::use_awaitable, ignored));
}

bool BudgetShare::farewell() {
  if (budgets_.handed_over()) return true;
  if (!std::exchange(leaving_, true)) kick();
  return left_;
}

// The caps here stay as they are: nothing is reserved any more.
boost::asio::awaitable<void> BudgetShare::leave() {
  const std::shared_ptr<bool> alive = alive_;
  if (in_charge_) {
    auto last = collect(metering::LeaseRound::all);
    for (metering::LeaseAsk& ask : last) {
      ask.keep = ask.used;
      ask.need = -1;
    }
    co_await exchange(std::move(last));
  }
  if (*alive) left_ = true;
}

boost::asio::awaitable<void> BudgetShare::run() {
  const std::shared_ptr<bool> alive = alive_;
  bool first = true;
  while (*alive) {
    if (!first) co_await pause();
    first = false;
    if (!*alive) co_return;
    // Who waits is served at once, and nobody else is asked about for that: many may wait in one interval.
    hurried_ = kicked_.exchange(false) && misses_ == 0 && boost::asio::steady_timer::clock_type::now() < next_round_;
    if (leaving_) co_return co_await leave();
    if (!budgets_.any() || budgets_.handed_over()) continue;  // then it is another process's to tell
    bool up = co_await announce();
    if (!*alive) co_return;
    const bool forgotten = born_ != registered_in_;
    if (up) {
      up = co_await exchange(collect(forgotten  ? metering::LeaseRound::all
                                     : hurried_ ? metering::LeaseRound::waiting
                                                : metering::LeaseRound::due));
    }
    if (!*alive) co_return;
    if (!up && !in_charge_ && !budgets_.handed_over()) {
      // Another process spoke for this gateway and is no more: as after an upgrade that failed late.
      up = co_await announce();
      if (!*alive) co_return;
      if (up) up = co_await exchange(collect(metering::LeaseRound::all));
      if (!*alive) co_return;
    }
    if (forgotten && up) {
      rebuilt_.add();
      core::log(core::LogLevel::info, "budgets_registered", {{"gateway", gateway_}});
      registered_in_ = born_;
      up = co_await announce();
      if (!*alive) co_return;
    }
    // Neither a first connection that takes its time nor an answer that comes late is an outage. A gateway that has
    // just started does not know what the others have spent, and must not take its own share before it is known whether
    // it can ask; one that has given slack back must not refuse what the next answer grants.
    misses_ = up ? 0 : misses_ + 1;
    const net::RedisState state = redis_.state();
    undecided_ =
        !up && (state == net::RedisState::connecting || (state == net::RedisState::up && misses_ < kMissesMax));
    const auto sharing = up || undecided_           ? metering::Sharing::leased
                         : options_.share_in_outage ? metering::Sharing::alone
                                                    : metering::Sharing::leased;
    budgets_.share(sharing, std::max(gateways_, options_.gateways));
    shard_.gauge(Family::budget_shared).set(up ? 1 : 0);
  }
}

boost::asio::awaitable<bool> BudgetShare::announce() {
  const std::shared_ptr<bool> alive = alive_;
  const std::string key = epoch_key();
  const std::string marks = short_key();
  const std::string lapse = std::to_string(options_.lapse.count());
  const std::string_view keys[] = {key, marks};
  const std::string_view args[] = {gateway_, registered_in_, lapse, process_, in_charge_ ? "" : "1"};
  auto reply = co_await redis_.eval(announce_script(), keys, args, core::Deadline::after(kCommandTime));
  if (!*alive || !reply || !reply->is_array() || reply->items.size() < 3) co_return false;
  in_charge_ = true;
  born_ = reply->items[0].text;
  gateways_ = static_cast<std::uint32_t>(std::max<std::int64_t>(number(reply->items[1]), 1));
  short_of_.clear();
  std::string_view rest = reply->items[2].text;
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find(' '), rest.size());
    short_of_.emplace_back(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  co_return true;
}

std::string BudgetShare::epoch_key() const {
  return redis_.options().key_prefix + "{budget}:epoch";
}

std::string BudgetShare::short_key() const {
  return redis_.options().key_prefix + "{budget}:short";
}

std::vector<metering::LeaseAsk> BudgetShare::collect(metering::LeaseRound round) {
  if (round != metering::LeaseRound::waiting) budgets_.others_short(short_of_);
  return budgets_.lease_asks(round, options_.lapse / kRefreshes);
}

std::vector<std::string> BudgetShare::arguments(const metering::LeaseAsk& ask) {
  std::vector<std::string> out{gateway_};
  for (const std::int64_t value :
       {ask.limit, ask.spent, ask.used, ask.keep, ask.need, ask.kept_s, std::int64_t{options_.lapse.count()},
        std::int64_t{options_.rebuild.count()}, std::int64_t{options_.gateways}}) {
    out.push_back(std::to_string(value));
  }
  out.push_back(process_);
  out.push_back(std::to_string(++sequence_));
  if (const auto known = others_.find(ask.digest); known != others_.end()) {
    for (const auto& [gateway, spent] : known->second) {
      out.push_back(gateway);
      out.push_back(spent);
    }
  }
  return out;
}

void BudgetShare::send_next(const std::shared_ptr<Round>& round) {
  while (round->next < round->asks.size()) {
    const std::size_t index = round->next++;
    try {
      return send(round, index);
    } catch (const std::bad_alloc&) {
      failed(*round, index);
      round->one_done();
    }
  }
}

void BudgetShare::failed(Round& round, std::size_t index) {
  ++round.failures;
  failed_.add();
  budgets_.lease_failed(round.asks[index]);
}

void BudgetShare::send(const std::shared_ptr<Round>& round, std::size_t index) {
  const metering::LeaseAsk& ask = round->asks[index];
  const std::string key = redis_.options().key_prefix + "{budget}:" + ask.digest;
  const std::vector<std::string> words = arguments(ask);
  const std::vector<std::string_view> args(words.begin(), words.end());
  const std::string_view keys[] = {round->epoch_key, key, round->short_key};
  redis_.send_eval(lease_script(), keys, args, core::Deadline::after(kCommandTime),
                   [this, alive = alive_, round, index](net::RedisResult reply) {
                     if (!*alive) return;
                     try {
                       if (reply && reply->is_array() && reply->items.size() >= 5) {
                         take(round->asks[index], *reply);
                       } else {
                         // Another process of this gateway spoke for it last, and is no more: as one that was just
                         // started.
                         if (reply && reply->is_array()) in_charge_ = false;
                         failed(*round, index);
                       }
                     } catch (const std::bad_alloc&) {
                       failed(*round, index);
                     }
                     send_next(round);
                     round->one_done();
                   });
}

void BudgetShare::take(const metering::LeaseAsk& ask, const net::RedisReply& reply) {
  const metering::LeaseGrant grant{.cap = number(reply.items[0]),
                                   .others_spent = number(reply.items[1]),
                                   .others_held = number(reply.items[4]),
                                   .slack = number(reply.items[2]),
                                   .others_are_short = (number(reply.items[3]) & 1) != 0,
                                   .rebuilding = (number(reply.items[3]) & 2) != 0};
  budgets_.leased(ask, grant);
  if (ask.need > 0) (grant.cap >= ask.used + ask.need ? granted_ : short_).add();
  std::vector<std::pair<std::string, std::string>> others;
  for (std::size_t i = 5; i + 1 < reply.items.size(); i += 2) {
    others.emplace_back(reply.items[i].text, reply.items[i + 1].text);
  }
  if (others_.size() >= kOthersMax) others_.clear();  // of windows that are over, mostly
  if (others.empty()) {
    others_.erase(ask.digest);
  } else {
    others_[ask.digest] = std::move(others);
  }
}

// True: all was answered.
boost::asio::awaitable<bool> BudgetShare::exchange(std::vector<metering::LeaseAsk> asks) {
  if (asks.empty()) co_return true;
  std::shared_ptr<Round> round;
  try {
    round = std::make_shared<Round>(io_);
    round->epoch_key = epoch_key();
    round->short_key = short_key();
  } catch (const std::bad_alloc&) {
    for (const metering::LeaseAsk& ask : asks) budgets_.lease_failed(ask);
    throw;
  }
  round->asks = std::move(asks);
  for (std::size_t i = 0; i < kInFlightMax; ++i) send_next(round);
  boost::system::error_code ignored;
  if (!round->over())
    co_await round->ended.async_wait(boost::asio::redirect_error(boost::asio::use_awaitable, ignored));
  co_return round->failures == 0;
}

}  // namespace ganglion::gateway
