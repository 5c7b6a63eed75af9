// See event_inbox.hpp.

#include "backends/local/event_inbox.hpp"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <iterator>
#include <utility>

#include "net/retry_for_memory.hpp"

namespace ganglion::backends {

namespace {

constexpr std::size_t kGatheredMax = 256;

struct Gathered {
  bool on = false;
  std::vector<std::shared_ptr<EventInbox>> inboxes;
};
thread_local Gathered gathered;

}  // namespace

class EventInbox::ChoiceSink final : public local::GenerateSink {
 public:
  ChoiceSink(std::shared_ptr<EventInbox> inbox, std::size_t choice) : inbox_(std::move(inbox)), choice_(choice) {}
  void on_event(local::GenerateEvent&& event) noexcept override { inbox_->deliver(choice_, std::move(event)); }
  void on_charge(std::int64_t engine_us) noexcept override {
    inbox_->engine_us_[choice_].store(static_cast<std::uint64_t>(engine_us), std::memory_order_relaxed);
  }

 private:
  std::shared_ptr<EventInbox> inbox_;
  std::size_t choice_;
};

class EventInbox::EmbeddingSink final : public local::EmbedSink {
 public:
  explicit EmbeddingSink(std::shared_ptr<EventInbox> inbox) : inbox_(std::move(inbox)) {}
  void on_result(core::Result<local::EmbedResult>&& result) noexcept override { inbox_->deliver(std::move(result)); }

 private:
  std::shared_ptr<EventInbox> inbox_;
};

EventInbox::EventInbox(boost::asio::any_io_executor executor, std::size_t choices)
    : executor_(std::move(executor)), engine_us_(choices) {
  news_.choices.resize(choices);
}

std::shared_ptr<local::GenerateSink> EventInbox::choice_sink(std::size_t choice) {
  return std::make_shared<ChoiceSink>(shared_from_this(), choice);
}
std::shared_ptr<local::EmbedSink> EventInbox::embed_sink() {
  return std::make_shared<EmbeddingSink>(shared_from_this());
}

void EventInbox::deliver(std::size_t choice, local::GenerateEvent&& event) {
  if (gathered.inboxes.size() >= kGatheredMax) wake_together();
  const std::lock_guard lock(mutex_);
  if (closed_) return;
  ChoiceNews& news = news_.choices[choice];
  news.started = true;
  news.usage = event.usage;
  if (event.kind == local::GenerateEvent::Kind::token) {
    // Nobody else could tell what this event tells; appending leaves all as it was where it fails.
    net::retry_for_memory([&] { news.text += event.text; });
    news.tokens += static_cast<int>(event.tokens.size());
    net::retry_for_memory([&] {
      news.logprobs.insert(news.logprobs.end(), std::make_move_iterator(event.logprobs.begin()),
                           std::make_move_iterator(event.logprobs.end()));
    });
  } else {
    news.ended = true;
    news.finish = event.finish;
    if (event.kind == local::GenerateEvent::Kind::error) news.error = std::move(event.error);
  }
  wake();
}

void EventInbox::deliver(core::Result<local::EmbedResult>&& result) {
  const std::lock_guard lock(mutex_);
  if (closed_) return;
  news_.embedded = std::move(result);
  wake();
}

void EventInbox::wake() {
  arrived_ = true;
  if (std::exchange(posted_, true)) return;
  if (gathered.on) {
    net::retry_for_memory([&] { gathered.inboxes.push_back(shared_from_this()); });
    return;
  }
  net::post_surely(executor_, [self = shared_from_this()] { self->woken(); });
}

void EventInbox::woken() {
  {
    const std::lock_guard lock(mutex_);
    posted_ = false;
  }
  if (waiter_ != nullptr) waiter_->timer_.cancel();
}

void EventInbox::gather_wakes(bool begins) {
  gathered.on = begins;
  if (!begins) wake_together();
}

// One handler for each worker, which is there as long as one of its inboxes is open.
void EventInbox::wake_together() {
  struct Worker {
    const void* context;
    std::vector<std::shared_ptr<EventInbox>> inboxes;
  };
  const auto woken = std::exchange(gathered.inboxes, {});
  std::vector<Worker> workers;
  net::retry_for_memory([&] {
    workers.clear();
    for (const auto& inbox : woken) {
      const std::lock_guard lock(inbox->mutex_);
      if (inbox->closed_) continue;
      const void* context = &boost::asio::query(inbox->executor_, boost::asio::execution::context);
      auto at = std::ranges::find(workers, context, &Worker::context);
      if (at == workers.end()) at = workers.insert(at, {context, {}});
      at->inboxes.push_back(inbox);
    }
  });
  for (auto& [context, inboxes] : workers) {
    for (std::size_t i = 0; i < inboxes.size(); ++i) {
      const auto one = inboxes[i];
      const std::lock_guard lock(one->mutex_);
      if (one->closed_) continue;  // the next one may still be there
      net::post_surely(one->executor_, [all = std::move(inboxes)] {
        for (const auto& inbox : all) inbox->woken();
      });
      break;
    }
  }
}

News EventInbox::take() {
  const std::lock_guard lock(mutex_);
  arrived_ = false;
  News out;
  out.choices.resize(news_.choices.size());
  std::swap(out, news_);
  return out;
}

bool EventInbox::has_news() const {
  const std::lock_guard lock(mutex_);
  return arrived_;
}

std::uint64_t EventInbox::tokens_waiting(std::size_t choice) const {
  const std::lock_guard lock(mutex_);
  return static_cast<std::uint64_t>(news_.choices[choice].tokens);
}

std::uint64_t EventInbox::engine_us() const {
  std::uint64_t sum = 0;
  for (const auto& choice : engine_us_) sum += choice.load(std::memory_order_relaxed);
  return sum;
}

void EventInbox::close() {
  waiter_ = nullptr;
  const std::lock_guard lock(mutex_);
  closed_ = true;
  news_ = {};
  // A sink may outlive the worker; its executor must not.
  executor_ = {};
}

EventInbox::Waiter::Waiter(std::shared_ptr<EventInbox> inbox, const boost::asio::any_io_executor& executor)
    : inbox_(std::move(inbox)), timer_(executor) {
  inbox_->waiter_ = this;
}

EventInbox::Waiter::~Waiter() {
  inbox_->close();
}

boost::asio::awaitable<core::Result<void>> EventInbox::Waiter::wait(core::Deadline deadline,
                                                                    core::CancelSource& cancel) {
  const core::CancelRegistration registration(cancel, [this](core::CancelReason) { timer_.cancel(); });
  while (true) {
    if (cancel.cancelled()) co_return core::fail(core::ErrorKind::cancelled, "the request was cancelled");
    if (inbox_->has_news()) co_return core::Result<void>{};
    if (deadline.passed()) co_return core::fail(core::ErrorKind::deadline_exceeded, "the answer took too long");
    timer_.expires_at(deadline.at());
    co_await timer_.async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
  }
}

}  // namespace ganglion::backends
