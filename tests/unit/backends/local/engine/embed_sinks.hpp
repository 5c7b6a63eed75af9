#pragma once
// Sinks of the embedding engine that keep what they get, or hold its thread.

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>

#include "backends/local/engine/events.hpp"
#include "tests/unit/backends/local/engine/engine_fixture.hpp"

namespace ganglion::local {

class KeepingEmbedSink : public EmbedSink {
 public:
  void on_result(core::Result<EmbedResult>&& result) noexcept override {
    const std::lock_guard lock(mutex_);
    result_ = std::move(result);
    ++calls_;
    changed_.notify_all();
  }
  core::Result<EmbedResult> wait() {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, kPatience, [&] { return calls_ > 0; }));
    EXPECT_EQ(calls_, 1);
    return result_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  core::Result<EmbedResult> result_;
  int calls_ = 0;
};

// Holds the engine's thread in its result until told to go on: what is submitted meanwhile stays queued.
class GateEmbedSink : public EmbedSink {
 public:
  void on_result(core::Result<EmbedResult>&&) noexcept override { gate_.enter(); }
  void wait_until_entered() { gate_.wait_until_entered(); }
  void open() { gate_.open(); }

 private:
  Gate gate_;
};

}  // namespace ganglion::local
