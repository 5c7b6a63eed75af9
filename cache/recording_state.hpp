#pragma once
// Internal to cache/recording.cpp and cache/single_flight.cpp: the state that a pump and its readers share across
// threads. One mutex a recording, held for a copy of what one append brings. Wake-ups are sent under it: whoever leaves
// gives its seat back under it too, so nothing is ever sent to an executor whose owner is gone.

#include <boost/asio/steady_timer.hpp>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>

#include "cache/entry.hpp"
#include "cache/recording.hpp"
#include "core/clock.hpp"

namespace ganglion::cache {

// Sleeping is waiting on a timer: it ends with the deadline by itself, and an io_context that is destroyed takes its
// sleeping coroutines along. Owned by the sleeper's thread; others only send cancel() there.
struct Waiter {
  explicit Waiter(const boost::asio::any_io_executor& executor) : timer(executor) {}
  boost::asio::steady_timer timer;
};

// Sleeps until woken, cancelled or past the deadline; wakes may be spurious. Errors: cancelled, deadline_exceeded.
boost::asio::awaitable<core::Result<void>> sleep_on(std::shared_ptr<Waiter> waiter, core::CancelSource& cancel,
                                                    core::Deadline deadline);

struct Seat {
  boost::asio::any_io_executor executor;
  std::weak_ptr<Waiter> waiter;
  std::uint64_t position = 0;
  bool sleeping = false;
};

// The pump's source of cancellation and its sleeping place. Lives and dies on the leader's thread.
struct LeaderSide {
  explicit LeaderSide(const boost::asio::any_io_executor& executor) : waiter(std::make_shared<Waiter>(executor)) {}
  core::CancelSource cancel;
  std::shared_ptr<Waiter> waiter;
};

class Recording {
 public:
  // `unlink` is called without the lock, at most once, when nobody may join any more.
  Recording(std::size_t keep_bytes_max, std::function<void()> unlink)
      : keep_bytes_max_(keep_bytes_max), unlink_(std::move(unlink)) {}

  // A new reader from the first byte; nullptr if it is too late to join.
  static std::unique_ptr<Reader> attach(const std::shared_ptr<Recording>& recording,
                                        const boost::asio::any_io_executor& executor);

  // Called by Reader.
  struct Taken {
    Piece piece;
    std::shared_ptr<const char[]> block;
  };
  std::optional<core::Result<std::shared_ptr<const RecordedHead>>> try_head(Seat& seat);  // nullopt: sleep
  std::optional<core::Result<Taken>> try_take(Seat& seat);
  void leave(std::list<Seat>::iterator seat);

  // Called by Recorder.
  void open(const boost::asio::any_io_executor& executor, const std::shared_ptr<LeaderSide>& side);
  void set_head(RecordedHead head);
  void append(std::string_view bytes, bool usage_event);
  bool try_writable(bool& cancelled);  // false: sleep, or stop if cancelled
  void end(std::optional<core::Error> error);
  void detach();
  void close();  // the pump is gone

  bool whole() const;
  bool superseded() const;
  std::uint64_t size() const;
  std::string bytes() const;
  api::Span usage_event() const;
  std::vector<PaceMark> pace() const;
  std::shared_ptr<const RecordedHead> head() const;

 private:
  struct Block {
    std::uint64_t offset = 0;
    std::size_t size = 0;
    std::size_t capacity = 0;
    std::shared_ptr<char[]> bytes;
    std::uint64_t end() const { return offset + size; }
  };

  void add_block(std::size_t at_least);
  void mark_pace();
  void trim();
  void wake_readers();
  void wake_pump();
  std::uint64_t fastest() const;
  void run_unlink();

  mutable std::mutex lock_;
  const std::size_t keep_bytes_max_;
  std::function<void()> unlink_;
  std::shared_ptr<const RecordedHead> head_;
  std::deque<Block> blocks_;
  std::uint64_t size_ = 0;
  std::vector<api::Span> usage_events_;  // a few; see kUsageEventsMax
  std::vector<PaceMark> pace_;
  core::SteadyTime first_at_{};
  std::list<Seat> seats_;
  bool truncated_ = false;
  bool superseded_ = false;
  bool detached_ = false;
  bool incomplete_ = false;  // bytes came when nobody was left
  bool ended_ = false;
  std::optional<core::Error> error_;

  boost::asio::any_io_executor pump_executor_;
  std::weak_ptr<LeaderSide> pump_;
  bool pump_open_ = false;
  bool pump_sleeping_ = false;
};

}  // namespace ganglion::cache
