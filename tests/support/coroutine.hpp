#pragma once
// Runs one coroutine on a fresh io_context, or on a given one, and proves that it finished.

#include <gtest/gtest.h>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <exception>
#include <functional>
#include <utility>

namespace ganglion::test {

// Fails the test when the coroutine throws or is not done within `limit`.
inline void run_coroutine(boost::asio::io_context& io, std::function<boost::asio::awaitable<void>()> body,
                          std::chrono::milliseconds limit = std::chrono::seconds{60}) {
  bool finished = false;
  std::exception_ptr thrown;
  boost::asio::co_spawn(io, std::move(body), [&](std::exception_ptr error) {
    finished = true;
    thrown = error;
    io.stop();
  });
  io.restart();
  io.run_for(limit);
  ASSERT_TRUE(finished) << "the coroutine did not finish in time";
  if (!thrown) return;
  try {
    std::rethrow_exception(thrown);
  } catch (const std::exception& error) {
    FAIL() << "the coroutine threw: " << error.what();
  }
}

inline void run_coroutine(std::function<boost::asio::awaitable<void>()> body,
                          std::chrono::milliseconds limit = std::chrono::seconds{60}) {
  boost::asio::io_context io(1);
  run_coroutine(io, std::move(body), limit);
}

}  // namespace ganglion::test
