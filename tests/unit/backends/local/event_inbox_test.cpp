// The way from the engine's thread to a worker: what is joined, what is dropped, when a wait ends.

#include "backends/local/event_inbox.hpp"

#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <thread>

#include "tests/support/coroutine.hpp"

namespace ganglion::backends {
namespace {

using boost::asio::awaitable;
using local::GenerateEvent;

GenerateEvent token(std::string text) {
  return {.kind = GenerateEvent::Kind::token, .text = std::move(text), .tokens = {1}};
}
GenerateEvent done() {
  return {.kind = GenerateEvent::Kind::done,
          .finish = local::FinishReason::stop,
          .usage = {.prompt_tokens = 3, .completion_tokens = 2}};
}

TEST(EventInbox, JoinsWhatAWorkerDidNotTakeYet) {
  boost::asio::io_context io(1);
  EventInbox::Waiter waiter(std::make_shared<EventInbox>(io.get_executor(), 2), io.get_executor());
  const auto sink = waiter.inbox().choice_sink(1);
  for (int i = 0; i < 1000; ++i) sink->on_event(token("ab"));
  sink->on_event(done());
  // A thousand events were one wake-up.
  EXPECT_EQ(io.poll(), 1U);
  EXPECT_TRUE(waiter.inbox().has_news());
  const News news = waiter.inbox().take();
  EXPECT_FALSE(waiter.inbox().has_news());
  EXPECT_FALSE(news.choices[0].started);
  EXPECT_EQ(news.choices[1].text.size(), 2000U);
  EXPECT_EQ(news.choices[1].tokens, 1000);
  EXPECT_TRUE(news.choices[1].ended);
  EXPECT_EQ(news.choices[1].usage.completion_tokens, 2);
  EXPECT_FALSE(waiter.inbox().take().choices[1].started);
}

TEST(EventInbox, EngineTimeNeedsNoNews) {
  boost::asio::io_context io(1);
  auto waiter =
      std::make_unique<EventInbox::Waiter>(std::make_shared<EventInbox>(io.get_executor(), 2), io.get_executor());
  const auto first = waiter->inbox().choice_sink(0), second = waiter->inbox().choice_sink(1);
  first->on_charge(100);
  first->on_charge(250);  // sums, not shares
  second->on_charge(40);
  EXPECT_EQ(waiter->inbox().engine_us(), 290U);
  EXPECT_FALSE(waiter->inbox().has_news());
  EXPECT_EQ(io.poll(), 0U) << "nobody is woken for it";
  waiter.reset();
  first->on_charge(300);  // the engine learns later that nobody waits
}

std::size_t run_ready(boost::asio::io_context& io) {
  io.restart();  // it stops when it finds nothing
  return io.poll();
}

TEST(EventInbox, ManyOfOneWorkerAreWokenByOneHandler) {
  boost::asio::io_context one(1), other(1);
  std::vector<std::unique_ptr<EventInbox::Waiter>> waiters;
  std::vector<std::shared_ptr<local::GenerateSink>> sinks;
  for (int i = 0; i < 30; ++i) {
    const auto executor = (i % 3 == 0 ? other : one).get_executor();
    waiters.push_back(std::make_unique<EventInbox::Waiter>(std::make_shared<EventInbox>(executor, 1), executor));
    sinks.push_back(waiters.back()->inbox().choice_sink(0));
  }
  const auto tell = [&] {
    for (auto& sink : sinks) sink->on_event(token("a")), sink->on_event(token("b"));
  };
  EventInbox::gather_wakes(true);
  tell();
  EXPECT_EQ(run_ready(one), 0U) << "nobody is woken in between";
  waiters[1].reset();  // the first of its worker's closes
  EventInbox::gather_wakes(false);
  EXPECT_EQ(run_ready(one), 1U);
  EXPECT_EQ(run_ready(other), 1U);
  for (auto& waiter : waiters) {
    if (waiter != nullptr) EXPECT_EQ(waiter->inbox().take().choices[0].text, "ab");
  }
  // Woken once, they can be woken again, one by one where nobody gathers.
  tell();
  EXPECT_EQ(run_ready(one), 19U);
  EXPECT_EQ(run_ready(other), 10U);
}

TEST(EventInbox, GatheredWakesDoNotWaitForEver) {
  boost::asio::io_context io(1);
  std::vector<std::unique_ptr<EventInbox::Waiter>> waiters;
  EventInbox::gather_wakes(true);
  for (int i = 0; i < 600; ++i) {
    waiters.push_back(
        std::make_unique<EventInbox::Waiter>(std::make_shared<EventInbox>(io.get_executor(), 1), io.get_executor()));
    waiters.back()->inbox().choice_sink(0)->on_event(token("a"));
  }
  EXPECT_EQ(run_ready(io), 2U) << "256 at a time";
  EventInbox::gather_wakes(false);
  EXPECT_EQ(run_ready(io), 1U);
}

TEST(EventInbox, CarriesAnError) {
  boost::asio::io_context io(1);
  EventInbox::Waiter waiter(std::make_shared<EventInbox>(io.get_executor(), 1), io.get_executor());
  waiter.inbox().choice_sink(0)->on_event({.kind = GenerateEvent::Kind::error,
                                           .finish = local::FinishReason::error,
                                           .error = core::make_error(core::ErrorKind::shutting_down, "bye")});
  const News news = waiter.inbox().take();
  ASSERT_TRUE(news.choices[0].error);
  EXPECT_EQ(news.choices[0].error->kind, core::ErrorKind::shutting_down);
}

TEST(EventInbox, ASinkMayOutliveTheWorker) {
  std::shared_ptr<local::GenerateSink> sink;
  {
    boost::asio::io_context io(1);
    EventInbox::Waiter waiter(std::make_shared<EventInbox>(io.get_executor(), 1), io.get_executor());
    sink = waiter.inbox().choice_sink(0);
    sink->on_event(token("x"));
  }
  sink->on_event(token("y"));
  sink->on_event(done());
}

TEST(EventInbox, AWaitEndsWithNewsFromAnotherThread) {
  boost::asio::io_context io(1);
  EventInbox::Waiter waiter(std::make_shared<EventInbox>(io.get_executor(), 1), io.get_executor());
  core::CancelSource cancel;
  std::thread engine;
  std::string text;
  bool ended = false;
  test::run_coroutine(io, [&]() -> awaitable<void> {
    engine = std::thread([sink = waiter.inbox().choice_sink(0)] {
      for (int i = 0; i < 5000; ++i) sink->on_event(token("t"));
      sink->on_event(done());
    });
    while (!ended) {
      const auto waited = co_await waiter.wait({}, cancel);
      EXPECT_TRUE(waited);
      News news = waiter.inbox().take();
      text += news.choices[0].text;
      ended = news.choices[0].ended;
    }
  });
  engine.join();
  EXPECT_EQ(text.size(), 5000U);
}

TEST(EventInbox, AWaitEndsWithItsDeadlineOrItsCancel) {
  boost::asio::io_context io(1);
  EventInbox::Waiter waiter(std::make_shared<EventInbox>(io.get_executor(), 1), io.get_executor());
  core::CancelSource cancel;
  test::run_coroutine(io, [&]() -> awaitable<void> {
    auto waited = co_await waiter.wait(core::Deadline::after(std::chrono::milliseconds{5}), cancel);
    EXPECT_TRUE(!waited && waited.error().kind == core::ErrorKind::deadline_exceeded);
    boost::asio::post(io, [&] { cancel.cancel(core::CancelReason::client_gone); });
    waited = co_await waiter.wait({}, cancel);
    EXPECT_TRUE(!waited && waited.error().kind == core::ErrorKind::cancelled);
  });
}

}  // namespace
}  // namespace ganglion::backends
