#pragma once
// Requests by their Idempotency-Key: which run, which are answered, which must not be run again. One table for all
// workers, over the durable store. The rule is one upstream call and one charge per key for as long as it is
// remembered; docs/idempotency.md says what that means in every failure.

#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "cache/flight.hpp"
#include "core/clock.hpp"
#include "core/deadline.hpp"
#include "gateway/key_share.hpp"
#include "idempotency/options.hpp"
#include "idempotency/store.hpp"
#include "metering/ledger.hpp"
#include "metrics/registry.hpp"

namespace ganglion::gateway {

class Idempotency;

// The leader's hold on its key, owned by the call's coroutine. Ends in exactly one of settle, bury and release;
// destroyed without one (the process is ending), the key stays in doubt until the next start has asked the ledger.
class KeyClaim {
 public:
  // `writing`: nothing where another process has made it durable.
  KeyClaim(Idempotency& owner, idempotency::KeyRow row, std::optional<idempotency::Store::Pending> writing)
      : owner_(owner), row_(std::move(row)), writing_(std::move(writing)) {}
  ~KeyClaim();
  KeyClaim(const KeyClaim&) = delete;
  KeyClaim& operator=(const KeyClaim&) = delete;

  // The claim is durable; once, before the call is dispatched.
  boost::asio::awaitable<core::Result<void>> write(core::Deadline deadline);
  // Keeps the whole answer, durably where the store can; after it is complete and before it is billed.
  boost::asio::awaitable<void> keep(std::shared_ptr<const idempotency::StoredAnswer> answer);

  // What this gateway holds of the key among all gateways; its end is told with the claim's.
  void take(KeyShare::Hold hold) { hold_ = std::move(hold); }

  void settle();   // billed: what was kept is the answer from now on
  void bury();     // billed, and nothing can be repeated
  void release();  // not billed: the next request with this key runs

 private:
  friend class Idempotency;
  Idempotency& owner_;
  idempotency::KeyRow row_;
  std::optional<idempotency::Store::Pending> writing_;
  KeyShare::Hold hold_;
  std::shared_ptr<const idempotency::StoredAnswer> answer_;     // to be told, where there is a hold
  std::shared_ptr<const idempotency::StoredAnswer> in_memory_;  // the store could not take it
  bool kept_ = false;
  bool ended_ = false;
};

class Idempotency {
 public:
  // What a request with a key meets; exactly one kind.
  struct Known {
    // elsewhere: the process that this one replaces, or that replaces it, works on it; ask again in a moment.
    enum class Kind : std::uint8_t { fresh, lead, follow, replay, refused, elsewhere } kind = Kind::fresh;
    std::unique_ptr<cache::Reader> reader;      // lead, follow
    std::unique_ptr<cache::Recorder> recorder;  // lead: of the pump
    std::unique_ptr<cache::Reader> keeper;      // lead: lets the call go on when every client has left
    std::unique_ptr<KeyClaim> claim;            // lead: of the pump
    core::Error error;                          // refused
  };

  // Opens the store in `ledger_directory`/idempotency and settles by the ledger what a crash left open. Never fails: a
  // store that cannot be used refuses requests with a key and leaves the others alone. After Ledger::open.
  Idempotency(const idempotency::IdempotencyOptions& options, const std::string& ledger_directory,
              metering::Ledger& ledger, const core::Clock& clock, metrics::Registry& registry,
              metering::OpenIntents open = metering::OpenIntents::abort);
  ~Idempotency();
  Idempotency(const Idempotency&) = delete;
  Idempotency& operator=(const Idempotency&) = delete;

  // fresh, follow, replay, refused or elsewhere.
  Known look(const idempotency::Digest& key, const idempotency::Digest& request,
             const boost::asio::any_io_executor& executor);
  // The same, but a fresh key is claimed for `request_id`: lead instead of fresh. While this process is being replaced
  // it blocks until that is settled, and then asks the other one.
  Known claim(const idempotency::Digest& key, const idempotency::Digest& request, std::string_view request_id,
              const boost::asio::any_io_executor& executor);
  boost::asio::awaitable<core::Result<std::shared_ptr<const idempotency::StoredAnswer>>> answer(
      idempotency::Digest key, core::Deadline deadline);

  // What other gateways say of a key, counted and in words.
  enum class Refusal : std::uint8_t { another_request, lost, doubt, silent, leaving };
  core::Error refuse(Refusal why);
  void count_replay() { replayed_.add(); }

  // Tells the other gateways what the crash of this one, or of the process before it, left open, and answers when they
  // ask for a key. After the constructor, before the first request; `share` outlives all requests.
  void share(KeyShare& share);

  // How a key ended that another process took over from this one, or this one from another.
  enum class End : std::uint8_t { settled, lost, released };
  // What the process that takes over makes of a key that is new to this one.
  enum class Found : std::uint8_t { claimed, running, answered, another_request, lost, doubt };
  struct Heir {
    std::function<void(const idempotency::Digest& key, End end, std::uint64_t bytes)> ended;
    // Blocks. Empty: that process is of a version that does not claim for others.
    std::function<core::Result<Found>(const idempotency::KeyRow& row)> claim;
  };

  // Handing over to another process (which was made with OpenIntents::keep): claims and ends wait, until follow() has
  // them told to that process, which writes them down, or thaw().
  void freeze();
  void thaw();
  void follow(Heir heir);
  // Of the other process, on one thread: a key of the one before has ended; it asks for a new one, durable with
  // `claimed`; it is gone, and all that had not ended is as the ledger says.
  void ended_elsewhere(const idempotency::Digest& key, End end, std::uint64_t bytes);
  using TellFound = std::function<void(core::Result<Found>)>;
  void claim_elsewhere(idempotency::KeyRow row, TellFound tell);  // `tell` on the store's thread, or here
  void predecessor_gone();
  void settle_claims();  // every `tell` has been called

  const idempotency::IdempotencyOptions& options() const { return options_; }
  std::uint64_t running() const { return running_.load(std::memory_order_relaxed); }
  void stop();  // before the workers' contexts die

  struct Stats {
    std::uint64_t keys = 0, answer_bytes = 0, let_go = 0, errors = 0, file_bytes = 0;
  };
  Stats stats() const;

 private:
  friend class KeyClaim;
  enum class State : std::uint8_t { running, answered, lost, doubt, elsewhere };
  enum class Mode : std::uint8_t { here, frozen, elsewhere };
  struct Entry {
    idempotency::Digest request{};
    State state = State::running;
    std::uint32_t bytes = 0;
    core::SteadyTime expires{};
    std::shared_ptr<cache::Flight> flight;                       // running
    std::shared_ptr<const idempotency::StoredAnswer> in_memory;  // answered, and the store could not take it
  };
  using Table = std::unordered_map<idempotency::Digest, Entry, idempotency::DigestHash>;

  void recover();
  core::Result<void> decide_all(std::vector<idempotency::KeyRow>& rows);
  bool handed_over();  // waits while that is being settled
  bool tell_end(const KeyClaim& claim, End end);
  void write_end(const idempotency::Digest& key, End end, std::uint64_t bytes);
  void store_end(const idempotency::Digest& key, End end);
  void end_elsewhere(const idempotency::Digest& key, End end, std::uint64_t bytes, bool write);
  void decide(idempotency::KeyRow& row, idempotency::KeyState state);
  boost::asio::awaitable<void> tell(KeyShare& share, std::vector<idempotency::KeyRow> rows);
  boost::asio::awaitable<void> say_what_became(KeyShare::Question question);
  std::int64_t wall_ms() const;
  bool speaks_for_all() const { return only_ && mode_ == Mode::here; }
  void load(const std::vector<idempotency::KeyRow>& rows);
  Known known(Entry& entry, const idempotency::Digest& request, const boost::asio::any_io_executor& executor);
  Known lead(idempotency::KeyRow row, const boost::asio::any_io_executor& executor, bool written);
  std::optional<core::Result<Found>> meet_elsewhere(idempotency::KeyRow& row);
  Known ask_heir(idempotency::KeyRow row, const boost::asio::any_io_executor& executor);
  std::optional<core::Error> full() const;
  Known refused(core::Error error);
  std::optional<core::Error> unusable() const;
  static constexpr std::size_t kExpireAtOnce = 64;  // an old key costs a new one little
  void expire(core::SteadyTime now, std::size_t at_most);
  void make_room();
  void end(const KeyClaim& claim, State state, bool remove);

  const idempotency::IdempotencyOptions options_;
  const std::string ledger_directory_;
  const metering::OpenIntents open_;
  metering::Ledger& ledger_;
  const core::Clock& clock_;
  std::unique_ptr<idempotency::Store> store_;
  std::string why_;                           // there is no store
  std::vector<idempotency::KeyRow> decided_;  // by the ledger, to be told to other gateways
  KeyShare* share_ = nullptr;                 // null: there are none
  std::atomic<bool> only_;                    // no process before this one lives
  std::int64_t complete_from_ms_ = 0;         // wall clock; before, the store may lack keys that were billed
  std::atomic<std::uint64_t> running_{0};
  metrics::Counter new_, followed_, replayed_, conflicts_, refused_;

  std::mutex mode_mutex_;
  std::condition_variable mode_settled_;
  std::atomic<Mode> mode_{Mode::here};
  Heir heir_;
  // That could not be written while it is frozen.
  struct PutOff {
    idempotency::Digest key;
    End end;
    std::uint64_t bytes;
  };
  std::vector<PutOff> put_off_;

  mutable std::mutex mutex_;  // guards all below
  Table table_;
  std::deque<std::pair<core::SteadyTime, idempotency::Digest>> expiries_;  // in order
  std::deque<idempotency::Digest> answers_;                                // with a body in the store, oldest first
  std::uint64_t answer_bytes_ = 0;
  std::uint64_t let_go_ = 0;
};

}  // namespace ganglion::gateway
