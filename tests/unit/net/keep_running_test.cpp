// Coroutines that are kept running, ended in each way there is.

#include "net/keep_running.hpp"

#include <gtest/gtest.h>

#include <boost/asio/async_result.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <new>
#include <stdexcept>

#include "core/run_loop.hpp"

namespace ganglion::net {
namespace {

namespace asio = boost::asio;

// A wait for which there is no memory.
asio::awaitable<void> wait_without_memory() {
  return asio::async_initiate<const asio::use_awaitable_t<>&, void()>([](auto /*handler*/) { throw std::bad_alloc(); },
                                                                      asio::use_awaitable);
}

struct Times {
  int begun = 0;
  int wanted_until = 100;
  Kept kept(std::function<asio::awaitable<void>()> begin) {
    return {.name = "test", .wanted = [this] { return begun < wanted_until; }, .begin = std::move(begin)};
  }
};

TEST(KeepRunning, OneThatReturnsHasEnded) {
  asio::io_context io;
  Times times;
  keep_running(io.get_executor(), times.kept([&]() -> asio::awaitable<void> {
    ++times.begun;
    co_return;
  }));
  core::run_loop(io);
  EXPECT_EQ(times.begun, 1);
}

TEST(KeepRunning, OneThatThrowsBeginsAgain) {
  asio::io_context io;
  Times times;
  keep_running(io.get_executor(), times.kept([&]() -> asio::awaitable<void> {
    if (++times.begun < 3) throw std::runtime_error("no luck");
    co_return;
  }));
  core::run_loop(io);
  EXPECT_EQ(times.begun, 3);
}

TEST(KeepRunning, OneThatHasNoMemoryForAWaitBeginsAgain) {
  asio::io_context io;
  Times times;
  keep_running(io.get_executor(), times.kept([&]() -> asio::awaitable<void> {
    if (++times.begun < 3) co_await wait_without_memory();
  }));
  core::run_loop(io);
  EXPECT_EQ(times.begun, 3);
}

TEST(KeepRunning, NoMemoryToBeginIsNoEnd) {
  asio::io_context io;
  Times times;
  keep_running(io.get_executor(), times.kept([&]() -> asio::awaitable<void> {
    if (++times.begun < 3) throw std::bad_alloc();
    return [](asio::io_context& context) -> asio::awaitable<void> {
      asio::steady_timer timer(context, std::chrono::milliseconds(1));
      co_await timer.async_wait(asio::use_awaitable);
    }(io);
  }));
  core::run_loop(io);
  EXPECT_EQ(times.begun, 3);
}

TEST(KeepRunning, OneThatIsNotWantedAnyMoreDoesNotBeginAgain) {
  asio::io_context io;
  Times times{.wanted_until = 2};
  keep_running(io.get_executor(), times.kept([&]() -> asio::awaitable<void> {
    ++times.begun;
    co_await wait_without_memory();
  }));
  core::run_loop(io);
  EXPECT_EQ(times.begun, 2);
}

TEST(KeepRunning, EndsWithItsEventLoop) {
  Times times;
  {
    asio::io_context io;
    keep_running(io.get_executor(), times.kept([&]() -> asio::awaitable<void> {
      ++times.begun;
      asio::steady_timer timer(io, std::chrono::hours(1));
      co_await timer.async_wait(asio::use_awaitable);
    }));
    io.run_for(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(times.begun, 1);
}

}  // namespace
}  // namespace ganglion::net
