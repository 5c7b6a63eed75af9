// See gateway/key_share.hpp.
//
// A key's entry is the hash PREFIXidem:{DIGEST}, with the key's own time to live:
//   o gateway; r digest of the request; s running, done or lost; l end of the lease, ms of Redis's clock (running)
//   p process of that gateway which claimed it last: two of them work while one takes the other's place
//   (docs/upgrade.md); n number of that claim: commands may overtake each other, as where a script has to be sent again
//   c, t, b status, content type and body of the answer (done)
// On the channel PREFIXidem:asked:GATEWAY that gateway is asked what became of a key. The message is the key's digest,
// p, a space and n.

#include "gateway/key_share.hpp"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <charconv>
#include <optional>
#include <utility>

#include "core/digest.hpp"
#include "core/log.hpp"
#include "net/keep_running.hpp"
#include "net/retry_for_memory.hpp"

namespace ganglion::gateway {
namespace {

namespace asio = boost::asio;
using metrics::Family;

constexpr std::chrono::milliseconds kTellTime{2'000};  // an answer may be large
constexpr std::chrono::milliseconds kTellAgain{1'000};
constexpr std::size_t kWaitingMax = 4'096;
constexpr std::size_t kWaitingBytesMax = 256 * 1024 * 1024;
constexpr std::size_t kAskedMax = 256;  // answered at once

// ARGV: gateway, request, lease ms, ttl ms, process, claim|renew, number of the claim. Renewing also writes down again
// what Redis has forgotten, and leaves alone what a later process of this gateway has claimed.
const net::RedisScript& claim_script() {
  static const net::RedisScript script{R"lua(
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local h = redis.call('HMGET', KEYS[1], 'o', 'r', 's', 'l', 'p', 'n')
if not h[1] or (h[1] == ARGV[1] and h[3] == 'running') then
  if ARGV[6] == 'renew' and h[5] and h[5] ~= ARGV[5] then return {'mine'} end
  redis.call('HSET', KEYS[1], 'o', ARGV[1], 'r', ARGV[2], 's', 'running', 'l', string.format('%.0f', now + ARGV[3]),
    'p', ARGV[5], 'n', ARGV[7])
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
  return {'mine'}
end
if h[2] ~= ARGV[2] then return {'conflict'} end
if h[3] == 'done' then
  local a = redis.call('HMGET', KEYS[1], 'c', 't', 'b')
  return {'answered', a[1], a[2], a[3]}
end
if h[3] == 'lost' then return {'lost'} end
if tonumber(h[4]) > now then return {'running'} end
return {'doubt', h[1], h[5] or '', h[6] or ''})lua"};
  return script;
}

// ARGV: gateway, request, done|lost|released, ttl ms, status, content type, body, process, number of a claim, and whose
// claim it releases: own, of that process up to that number; one, that one and no other; any. What another gateway
// wrote stays, and so does an answer; and a claim that was made after this was said is not released by it.
const net::RedisScript& end_script() {
  static const net::RedisScript script{R"lua(
local h = redis.call('HMGET', KEYS[1], 'o', 's', 'p', 'n')
if h[1] and (h[1] ~= ARGV[1] or h[2] == 'done') then return 0 end
if ARGV[3] == 'released' then
  local ours
  if ARGV[10] == 'one' then
    ours = (h[3] or '') == ARGV[8] and (h[4] or '') == ARGV[9]
  elseif h[3] == ARGV[8] then
    ours = (tonumber(h[4]) or 0) <= tonumber(ARGV[9])
  else
    ours = ARGV[10] == 'any' or not h[3]
  end
  if h[2] == 'running' and ours then return redis.call('DEL', KEYS[1]) end
  return 0
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'o', ARGV[1], 'r', ARGV[2], 's', ARGV[3])
if ARGV[3] == 'done' then redis.call('HSET', KEYS[1], 'c', ARGV[5], 't', ARGV[6], 'b', ARGV[7]) end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1)lua"};
  return script;
}

std::string_view as_text(const KeyShare::Digest& digest) {
  return {reinterpret_cast<const char*>(digest.data()), digest.size()};
}

// What the claim script said; nullopt: nothing that can be understood.
std::optional<KeyShare::Claimed> read_claim(const net::RedisResult& reply) {
  using Met = KeyShare::Met;
  if (!reply || !reply->is_array() || reply->items.empty()) return std::nullopt;
  const std::string& word = reply->items[0].text;
  KeyShare::Claimed out;
  if (word == "mine") {
    out.met = Met::mine;
  } else if (word == "running") {
    out.met = Met::running;
  } else if (word == "conflict") {
    out.met = Met::conflict;
  } else if (word == "lost") {
    out.met = Met::lost;
  } else if (word == "doubt") {
    out.met = Met::doubt;
  } else if (word == "answered" && reply->items.size() == 4) {
    out.met = Met::answered;
    auto answer = std::make_shared<idempotency::StoredAnswer>();
    const std::string& status = reply->items[1].text;
    std::from_chars(status.data(), status.data() + status.size(), answer->status);
    answer->content_type = reply->items[2].text;
    answer->body = reply->items[3].text;
    out.answer = std::move(answer);
  } else {
    return std::nullopt;
  }
  return out;
}

}  // namespace

// --- Hold ------------------------------------------------------------------------------------------------------------

KeyShare::Hold& KeyShare::Hold::operator=(Hold&& other) noexcept {
  if (this == &other) return *this;
  release();
  share_ = std::exchange(other.share_, nullptr);
  key_ = other.key_;
  request_ = other.request_;
  return *this;
}

void KeyShare::Hold::done(Answer answer, Told told) {
  KeyShare* const share = std::exchange(share_, nullptr);
  if (share == nullptr) return;
  share->post_message(
      {.key = key_, .request = request_, .end = End::done, .answer = std::move(answer), .told = std::move(told)}, true);
}

void KeyShare::Hold::lost(Told told) {
  KeyShare* const share = std::exchange(share_, nullptr);
  if (share == nullptr) return;
  share->post_message({.key = key_, .request = request_, .end = End::lost, .told = std::move(told)}, true);
}

void KeyShare::Hold::release() {
  KeyShare* const share = std::exchange(share_, nullptr);
  if (share == nullptr) return;
  share->post_message({.key = key_, .request = request_, .end = End::released}, true);
}

void KeyShare::Hold::abandon() {
  KeyShare* const share = std::exchange(share_, nullptr);
  if (share == nullptr) return;
  net::post_surely(share->io_.get_executor(), [share, alive = share->alive_, key = key_, request = request_] {
    if (*alive) share->silence(key, request);
  });
}

void KeyShare::Hold::forget() {
  KeyShare* const share = std::exchange(share_, nullptr);
  if (share == nullptr) return;
  net::post_surely(share->io_.get_executor(), [share, alive = share->alive_, key = key_] {
    if (*alive) share->unhold(key, false);
  });
}

// --- Question --------------------------------------------------------------------------------------------------------

void KeyShare::Question::done(const Digest& request, Answer answer) && {
  share_->post_message(
      {.key = key_, .request = request, .end = End::done, .question = std::move(open_), .answer = std::move(answer)},
      false);
}

void KeyShare::Question::lost(const Digest& request) && {
  share_->post_message({.key = key_, .request = request, .end = End::lost, .question = std::move(open_)}, false);
}

void KeyShare::Question::never_called() && {
  share_->post_message({.key = key_,
                        .end = End::released,
                        .of = Of::one,
                        .process = std::move(process_),
                        .number = std::move(number_),
                        .question = std::move(open_)},
                       false);
}

// --- KeyShare --------------------------------------------------------------------------------------------------------

// Owned by the worker's coroutine; the answer comes by a post, which finds it gone where the worker has died.
struct KeyShare::Waiter {
  explicit Waiter(const asio::any_io_executor& executor) : timer(executor) {}
  asio::steady_timer timer;
  std::optional<Claimed> claimed;
};

KeyShare::KeyShare(asio::io_context& io, net::RedisClient& redis, const KeyShareOptions& options, std::string gateway,
                   metrics::Registry& registry)
    : io_(io),
      redis_(redis),
      options_(options),
      gateway_(std::move(gateway)),
      process_(core::random_hex(8)),
      alone_(registry.shared().counter(Family::idempotency_alone_total)),
      untold_(registry.shared().counter(Family::idempotency_untold_total)),
      timer_(io) {
  redis_.start();
  net::keep_running(
      io_.get_executor(),
      {.name = "key share", .wanted = [alive = alive_] { return *alive; }, .begin = [this] { return run(); }});
}

KeyShare::~KeyShare() {
  *alive_ = false;
}

std::string KeyShare::redis_key(const Digest& key) const {
  return redis_.options().key_prefix + "idem:{" + core::hex(key) + "}";
}

std::string KeyShare::question_channel(std::string_view gateway) const {
  return redis_.options().key_prefix + "idem:asked:" + std::string{gateway};
}

asio::awaitable<core::Result<KeyShare::Claimed>> KeyShare::claim(Digest key, Digest request, core::Deadline deadline) {
  const asio::any_io_executor executor = co_await asio::this_coro::executor;
  const auto waiter = std::make_shared<Waiter>(executor);
  asio::post(io_, [this, alive = alive_, key, request, executor, weak = std::weak_ptr(waiter)] {
    if (!*alive) return;
    take(key, request, [executor, weak](Claimed claimed) {
      if (weak.expired()) return;  // what was held is released
      asio::post(executor, [weak, claimed = std::move(claimed)]() mutable {
        const auto waits = weak.lock();
        if (!waits) return;
        waits->claimed = std::move(claimed);
        waits->timer.cancel();
      });
    });
  });
  waiter->timer.expires_at(deadline.at());
  while (!waiter->claimed) {
    co_await waiter->timer.async_wait(asio::as_tuple(asio::use_awaitable));
    if (!waiter->claimed && deadline.passed())
      co_return core::fail(core::ErrorKind::deadline_exceeded, "the other gateways could not be asked in time");
  }
  co_return std::move(*waiter->claimed);
}

void KeyShare::take(const Digest& key, const Digest& request, Taken taken) {
  Held& held = holds_[key];
  if (held.silent && held.until <= std::chrono::steady_clock::now()) held = {};
  if (held.count++ == 0) held.request = request;
  held.claim = ++claims_;
  try {
    ask(key, request, held.claim, std::move(taken));
  } catch (const std::bad_alloc&) {  // it was not asked: nobody would give it back
    unhold(key, false);
    throw;
  }
}

void KeyShare::ask(const Digest& key, const Digest& request, std::uint64_t claim, Taken taken) {
  const std::string number = std::to_string(claim);
  const std::string name = redis_key(key);
  const std::string lease = std::to_string(options_.lease.count());
  const std::string ttl = std::to_string(options_.ttl.count());
  const std::array<std::string_view, 1> keys{name};
  const std::array<std::string_view, 7> args{gateway_, as_text(request), lease, ttl, process_, "claim", number};
  redis_.send_eval(claim_script(), keys, args, core::Deadline::after(options_.command_time),
                   [this, alive = alive_, key, request, taken = std::move(taken)](net::RedisResult reply) mutable {
                     if (!*alive) return;
                     auto claimed = read_claim(reply);
                     if (!claimed) {
                       alone_.add();
                       claimed.emplace();
                     }
                     if (claimed->met == Met::mine || claimed->met == Met::alone) {
                       claimed->hold = Hold{*this, key, request};
                     } else {
                       unhold(key, false);
                     }
                     const bool doubt = claimed->met == Met::doubt;
                     taken(std::move(*claimed));
                     if (doubt) ask_owner(*reply, key);
                   });
}

// A message that is lost is sent again with the next request that meets the doubt.
void KeyShare::ask_owner(const net::RedisReply& said, const Digest& key) {
  if (said.items.size() != 4) return;
  std::string message{as_text(key)};
  message += said.items[2].text + " " + said.items[3].text;
  redis_.send(net::RedisCommand{"PUBLISH", question_channel(said.items[1].text), message}.anywhere(),
              core::Deadline::after(options_.command_time), [](const net::RedisResult&) {});
}

void KeyShare::on_asked(std::function<void(Question question)> asked) {
  questions_ = redis_.subscribe(
      question_channel(gateway_),
      [this, asked = std::move(asked)](std::string_view message) {
        if (auto question = read_question(message)) asked(*std::move(question));
      },
      [] {});
}

// Nothing: it is none, or one that needs no answer of the table. A key that requests of ours hold is renewed, and told
// of in the end.
std::optional<KeyShare::Question> KeyShare::read_question(std::string_view message) {
  Question out;
  const auto space = message.rfind(' ');
  if (space == std::string_view::npos || space < out.key_.size()) return std::nullopt;
  std::ranges::copy(message.substr(0, out.key_.size()), reinterpret_cast<char*>(out.key_.data()));
  if (holds_.contains(out.key_) || asked_.size() >= kAskedMax || !asked_.insert(out.key_).second) return std::nullopt;
  out.open_ = std::shared_ptr<void>(static_cast<void*>(this), [this, alive = alive_, key = out.key_](void*) {
    if (*alive) asked_.erase(key);
  });
  out.process_ = message.substr(out.key_.size(), space - out.key_.size());
  out.number_ = message.substr(space + 1);
  out.share_ = this;
  return out;
}

// One of our requests less. `ended`: it was billed, and the others are told. Whether that had been so before.
bool KeyShare::unhold(const Digest& key, bool ended) {
  const auto held = holds_.find(key);
  if (held == holds_.end() || held->second.silent) return false;
  const bool before = held->second.ended;
  held->second.ended = before || ended;
  if (--held->second.count == 0) holds_.erase(held);
  return before;
}

void KeyShare::silence(const Digest& key, const Digest& request) {
  Held& held = holds_[key];
  held.request = request;
  held.silent = true;
  held.until = std::chrono::steady_clock::now() + options_.ttl;
}

void KeyShare::post_message(Message message, bool held) {
  message.until = std::chrono::steady_clock::now() + options_.ttl;
  std::shared_ptr<Message> shared;
  net::retry_for_memory([&] { shared = std::make_shared<Message>(); });
  *shared = std::move(message);
  net::post_surely(io_.get_executor(), [this, alive = alive_, held, sending = Sending(sending_), shared]() mutable {
    if (!*alive) return;
    const bool released = shared->end == End::released;
    if (held && unhold(shared->key, !released) && released) return;
    shared->claims = claims_;
    send(std::move(shared), std::move(sending));
  });
}

void KeyShare::tell_done(const Digest& key, const Digest& request, Answer answer, Told told) {
  post_message({.key = key, .request = request, .end = End::done, .answer = std::move(answer), .told = std::move(told)},
               false);
}

void KeyShare::tell_lost(const Digest& key, const Digest& request, Told told) {
  post_message({.key = key, .request = request, .end = End::lost, .told = std::move(told)}, false);
}

void KeyShare::tell_released(const Digest& key, const Digest& request) {
  post_message({.key = key, .request = request, .end = End::released, .of = Of::any}, false);
}

void KeyShare::send(std::shared_ptr<Message> message, Sending sending) {
  if (message->end == End::released && holds_.contains(message->key)) return;  // another of our requests has it by now
  const std::string name = redis_key(message->key);
  const std::string ttl = std::to_string(options_.ttl.count());
  const std::string status = message->answer ? std::to_string(message->answer->status) : "";
  const std::string claims = std::to_string(message->claims);
  const bool one = message->of == Of::one;
  const std::string_view word = message->end == End::done ? "done" : message->end == End::lost ? "lost" : "released";
  const std::array<std::string_view, 1> keys{name};
  const std::array<std::string_view, 10> args{
      gateway_,
      as_text(message->request),
      word,
      ttl,
      status,
      message->answer ? std::string_view{message->answer->content_type} : std::string_view{},
      message->answer ? std::string_view{message->answer->body} : std::string_view{},
      one ? message->process : process_,
      one ? message->number : claims,
      one                      ? "one"
      : message->of == Of::any ? "any"
                               : "own"};
  redis_.send_eval(end_script(), keys, args, core::Deadline::after(kTellTime),
                   [this, alive = alive_, sending = std::move(sending),
                    message = std::move(message)](net::RedisResult reply) mutable {
                     if (!*alive) return;
                     if (!reply) return put_off(std::move(message));
                     if (message->told) message->told();
                   });
}

// Redis does not answer now. What does not fit is told when another gateway asks for it, or by the next start.
void KeyShare::put_off(std::shared_ptr<Message> message) {
  if (!message->may_wait()) return;
  const std::size_t bytes = message->bytes();
  if (waiting_.size() >= kWaitingMax || waiting_bytes_ + bytes > kWaitingBytesMax) {
    untold_.add();
    return;
  }
  net::retry_for_memory([&] { waiting_.push_back(std::move(message)); });
  waiting_bytes_ += bytes;
}

asio::awaitable<void> KeyShare::run() {
  const std::shared_ptr<bool> alive = alive_;
  const auto pause = std::min(options_.lease / 3, kTellAgain);
  auto renew_at = std::chrono::steady_clock::now() + options_.lease / 3;
  while (*alive) {
    timer_.expires_after(pause);
    co_await timer_.async_wait(asio::as_tuple(asio::use_awaitable));
    if (!*alive) co_return;
    const core::SteadyTime now = std::chrono::steady_clock::now();
    for (std::size_t left = waiting_.size(); left > 0; --left) {  // the first waits until it is on its way
      const std::shared_ptr<Message> message = waiting_.front();
      if (message->until > now) send(message, Sending(sending_));
      waiting_bytes_ -= message->bytes();
      waiting_.pop_front();
    }
    if (now < renew_at) continue;
    renew_at = now + options_.lease / 3;
    renew();
  }
}

void KeyShare::renew() {
  const std::string lease = std::to_string(options_.lease.count());
  const std::string ttl = std::to_string(options_.ttl.count());
  const core::SteadyTime now = std::chrono::steady_clock::now();
  std::erase_if(holds_, [now](const auto& each) { return each.second.silent && each.second.until <= now; });
  for (const auto& [key, held] : holds_) {
    if (held.silent || held.ended) continue;
    const std::string name = redis_key(key);
    const std::array<std::string_view, 1> keys{name};
    const std::string number = std::to_string(held.claim);
    const std::array<std::string_view, 7> args{gateway_, as_text(held.request), lease, ttl, process_, "renew", number};
    redis_.send_eval(claim_script(), keys, args, core::Deadline::after(options_.command_time),
                     [](const net::RedisResult&) {});
  }
}

}  // namespace ganglion::gateway
