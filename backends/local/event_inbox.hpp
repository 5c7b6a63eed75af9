#pragma once
// From the engine's thread to one coroutine on a worker. The engine delivers and never waits; deliveries that the
// worker has not taken yet are joined, so what waits here is at most the answer itself: the text (and, where asked,
// the log-probabilities) of at most max_tokens tokens for each choice. However many deliveries there are, at most one
// wake-up of the worker is under way; and where the engine says that a step's events begin and end, the inboxes of one
// worker are woken together, since to wake a thread costs more than what it has to do for a token.

#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "backends/local/engine/events.hpp"
#include "core/cancel.hpp"
#include "core/deadline.hpp"
#include "core/error.hpp"

namespace ganglion::backends {

// What has come for one choice since the last look.
struct ChoiceNews {
  std::string text;
  std::vector<local::TokenLogprobs> logprobs;
  int tokens = 0;
  bool started = false;  // anything has come at all
  bool ended = false;    // finish and perhaps error are set
  local::FinishReason finish = local::FinishReason::none;
  local::GenerateUsage usage;  // until now
  std::optional<core::Error> error;
};

struct News {
  std::vector<ChoiceNews> choices;
  std::optional<core::Result<local::EmbedResult>> embedded;
};

class EventInbox : public std::enable_shared_from_this<EventInbox> {
 public:
  class Waiter;

  EventInbox(boost::asio::any_io_executor executor, std::size_t choices);

  // Any thread, until close().
  std::shared_ptr<local::GenerateSink> choice_sink(std::size_t choice);
  std::shared_ptr<local::EmbedSink> embed_sink();

  // From now on, or no longer, this thread's wake-ups are kept and made together: when many are, and at the end.
  static void gather_wakes(bool begins);

  // Worker's thread.
  News take();
  bool has_news() const;
  std::uint64_t tokens_waiting(std::size_t choice) const;  // produced, and not taken yet
  std::uint64_t engine_us() const;  // of all choices, up to the last whole step, whether or not it brought news

 private:
  friend class Waiter;
  class ChoiceSink;
  class EmbeddingSink;

  void deliver(std::size_t choice, local::GenerateEvent&& event);
  void deliver(core::Result<local::EmbedResult>&& result);
  void wake();   // mutex_ held
  void woken();  // worker's thread
  static void wake_together();
  void close();  // nothing is delivered or posted once this has returned

  mutable std::mutex mutex_;
  boost::asio::any_io_executor executor_;
  std::vector<std::atomic<std::uint64_t>> engine_us_;  // by choice; not under mutex_
  News news_;
  bool arrived_ = false;
  bool posted_ = false;
  bool closed_ = false;
  Waiter* waiter_ = nullptr;  // worker's thread only
};

// The worker's end of an inbox. Destroying it closes the inbox; it must not outlive the worker's io_context.
class EventInbox::Waiter {
 public:
  Waiter(std::shared_ptr<EventInbox> inbox, const boost::asio::any_io_executor& executor);
  ~Waiter();
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;

  EventInbox& inbox() { return *inbox_; }
  const EventInbox& inbox() const { return *inbox_; }

  // Until there is news. Errors: cancelled, deadline_exceeded.
  boost::asio::awaitable<core::Result<void>> wait(core::Deadline deadline, core::CancelSource& cancel);

 private:
  friend class EventInbox;

  std::shared_ptr<EventInbox> inbox_;
  boost::asio::steady_timer timer_;  // does not outlive the worker, as a sink may
};

}  // namespace ganglion::backends
