#pragma once
// Idempotency keys among gateways that share a Redis. One entry a key says which gateway has it, whether that one is
// alive, and in the end the answer, so that every gateway repeats it. Which of a gateway's own requests leads is its
// own table's business (gateway/idempotency.hpp); here gateways are told apart, not requests.
//
// Nobody takes over from a gateway that fell silent: the bill may be in its ledger. Such a key is in doubt until that
// gateway comes back and says what became of it, or until the key's time is over. It says so at its start of what it
// finds in its store, and of anything else when it is asked: whoever meets a key in doubt asks for it. A key that it
// was given by Redis and had not yet written down when it died is known to nobody but those who ask.
//
// claim() and the ends of a Hold may be called on any thread; all else happens on the executor given.

#include <array>
#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "core/deadline.hpp"
#include "core/error.hpp"
#include "idempotency/database.hpp"
#include "idempotency/key.hpp"
#include "metrics/registry.hpp"
#include "net/redis_client.hpp"

namespace ganglion::gateway {

struct KeyShareOptions {
  std::chrono::milliseconds ttl{24 * 3'600'000};
  std::chrono::milliseconds lease{10'000};      // a gateway that says nothing for so long may be dead
  std::chrono::milliseconds command_time{250};  // of a claim: after that the key runs without the others' knowledge
};

class KeyShare {
 public:
  using Digest = idempotency::Digest;
  using Answer = std::shared_ptr<const idempotency::StoredAnswer>;
  using Told = std::function<void()>;  // the others can know now; on the share's thread

  // This gateway's part in a key, by one of its requests. Destroyed without another end: released.
  class Hold {
   public:
    Hold() = default;
    Hold(Hold&& other) noexcept
        : share_(std::exchange(other.share_, nullptr)), key_(other.key_), request_(other.request_) {}
    Hold& operator=(Hold&& other) noexcept;
    ~Hold() { release(); }
    explicit operator bool() const { return share_ != nullptr; }

    void done(Answer answer, Told told);  // billed, with this answer
    void lost(Told told);                 // billed, with none
    void release();                       // not billed: whoever asks next may run
    void abandon();                       // it is not known: the others are told nothing more
    void forget();                        // another process of this gateway has it, and tells how it ends

   private:
    friend class KeyShare;
    Hold(KeyShare& share, const Digest& key, const Digest& request) : share_(&share), key_(key), request_(request) {}
    KeyShare* share_ = nullptr;
    Digest key_{};
    Digest request_{};
  };

  enum class Met : std::uint8_t {
    mine,      // no other gateway has it
    alone,     // Redis does not answer: it is this gateway's as far as it knows
    running,   // at another gateway, which is alive
    answered,  // `answer`
    conflict,  // another request has the key
    lost,      // billed, and there is no answer to repeat
    doubt,     // at another gateway, which is silent
  };
  struct Claimed {
    Met met = Met::alone;
    Answer answer;
    Hold hold;  // mine, alone
  };

  // What another gateway asks: what became of a key that this one has in Redis and no longer renews. Says nothing
  // unless told to; nobody is answered later, since who asked asks again. On the share's thread.
  class Question {
   public:
    const Digest& key() const { return key_; }
    void done(const Digest& request, Answer answer) &&;
    void lost(const Digest& request) &&;
    void never_called() &&;  // nothing was ever asked of a provider for it: whoever asks next may run

   private:
    friend class KeyShare;
    KeyShare* share_ = nullptr;
    Digest key_{};
    std::string process_, number_;  // of the claim that Redis has
    std::shared_ptr<void> open_;    // until it is answered no other one about this key is taken
  };

  // `gateway`: this gateway's name among the others, the same after a restart (its ledger's id). All outlive this, and
  // this outlives all Holds.
  KeyShare(boost::asio::io_context& io, net::RedisClient& redis, const KeyShareOptions& options, std::string gateway,
           metrics::Registry& registry);
  ~KeyShare();
  KeyShare(const KeyShare&) = delete;
  KeyShare& operator=(const KeyShare&) = delete;

  // Errors: deadline_exceeded.
  boost::asio::awaitable<core::Result<Claimed>> claim(Digest key, Digest request, core::Deadline deadline);
  // What a restart found out about keys that it had when it died.
  void tell_done(const Digest& key, const Digest& request, Answer answer, Told told);
  void tell_lost(const Digest& key, const Digest& request, Told told);
  void tell_released(const Digest& key, const Digest& request);

  void on_asked(std::function<void(Question question)> asked);  // once, before the first claim

  boost::asio::io_context& io() { return io_; }
  // Messages on their way; those that wait for Redis to come back are not among them.
  std::size_t sending() const { return sending_->load(std::memory_order_relaxed); }

 private:
  enum class End : std::uint8_t { done, lost, released };
  struct Held {
    Digest request{};
    std::size_t count = 0;    // of this gateway's requests
    std::uint64_t claim = 0;  // number of the last of them
    bool ended = false;   // and the others were told how, or will be: those of our requests that follow release nothing
    bool silent = false;  // abandoned: neither renewed nor released
    core::SteadyTime until{};  // of a silent one
  };
  // Whose claims a release takes back.
  enum class Of : std::uint8_t {
    own,  // of this process, made before it was said
    any,  // of a process that is no more, and that nobody can name
    one,  // the one that a question names
  };
  struct Message {
    Digest key{};
    Digest request{};
    End end = End::released;
    Of of = Of::own;
    std::uint64_t claims = 0;        // own: made before this was said; later ones stay
    std::string process, number;     // one: the claim
    std::shared_ptr<void> question;  // that it answers
    Answer answer;
    Told told;
    core::SteadyTime until{};  // worth nothing afterwards
    std::size_t bytes() const { return answer ? answer->body.size() : 0; }
    // One that is about another process's claim must not come late, when a third may have made one.
    bool may_wait() const { return question == nullptr && of == Of::own; }
  };
  struct Waiter;
  using Taken = std::move_only_function<void(Claimed)>;

  void take(const Digest& key, const Digest& request, Taken taken);
  void ask(const Digest& key, const Digest& request, std::uint64_t claim, Taken taken);
  bool unhold(const Digest& key, bool ended);
  void silence(const Digest& key, const Digest& request);
  void ask_owner(const net::RedisReply& said, const Digest& key);
  std::optional<Question> read_question(std::string_view message);
  // One message of sending(), for as long as whoever has it lives.
  class Sending {
   public:
    explicit Sending(std::shared_ptr<std::atomic<std::size_t>> count) : count_(std::move(count)) {
      count_->fetch_add(1, std::memory_order_relaxed);
    }
    Sending(Sending&&) noexcept = default;
    Sending(const Sending&) = delete;
    Sending& operator=(Sending&&) = delete;
    Sending& operator=(const Sending&) = delete;
    ~Sending() {
      if (count_) count_->fetch_sub(1, std::memory_order_relaxed);
    }

   private:
    std::shared_ptr<std::atomic<std::size_t>> count_;
  };
  void post_message(Message message, bool held);
  void send(std::shared_ptr<Message> message, Sending sending);
  void put_off(std::shared_ptr<Message> message);
  boost::asio::awaitable<void> run();
  void renew();
  std::string redis_key(const Digest& key) const;
  std::string question_channel(std::string_view gateway) const;

  boost::asio::io_context& io_;
  net::RedisClient& redis_;
  const KeyShareOptions options_;
  const std::string gateway_;
  const std::string process_;  // of this gateway, one after the other
  std::uint64_t claims_ = 0;
  metrics::Counter alone_, untold_;
  boost::asio::steady_timer timer_;
  std::unordered_map<Digest, Held, idempotency::DigestHash> holds_;
  net::RedisSubscription questions_;
  std::unordered_set<Digest, idempotency::DigestHash> asked_;  // that are not answered yet
  std::deque<std::shared_ptr<Message>> waiting_;               // for Redis
  std::size_t waiting_bytes_ = 0;
  const std::shared_ptr<std::atomic<std::size_t>> sending_ = std::make_shared<std::atomic<std::size_t>>(0);
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace ganglion::gateway
