// A device that fails: who is told what, when the model is out of service, and how it comes back.

#include <algorithm>
#include <thread>

#include "tests/unit/backends/local/engine/engine_fixture.hpp"
#include "tests/unit/backends/local/engine/runners.hpp"

namespace ganglion::local {
namespace {

using core::ErrorKind;

class EngineFailure : public testing::Test {
 protected:
  void load(EngineOptions options = {}) {
    options.dir = model_dir("llama3_tiny");
    options.threads = 1;
    options.restart_ms = 1;
    auto engine = Engine::load(
        options, {.make_runner = failing(trouble_), .notice = [this](auto event, auto) { trouble_->note(event); }});
    ASSERT_TRUE(engine) << engine.error().message;
    engine_ = std::move(*engine);
    golden_ = generate(*engine_, ask());
    ASSERT_EQ(golden_.tokens.size(), 12U);
  }
  static GenerateRequest ask() {
    auto request = greedy(std::vector<std::int32_t>(40, 86), 12);
    request.prefix_space = "a";
    return request;
  }
  bool in_service_again(std::uint64_t restarts) {
    for (int i = 0; i < 20'000; ++i) {
      const EngineStats s = engine_->stats();
      if (s.in_service && s.restarts == restarts) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }

  std::shared_ptr<Trouble> trouble_ = std::make_shared<Trouble>();
  std::unique_ptr<Engine> engine_;
  KeepingSink::Outcome golden_;
};

TEST_F(EngineFailure, AFailedStepEndsItsRequestsRetryablyAndTheEngineGoesOn) {
  load();
  trouble_->fail_steps = 1;
  const auto out = generate(*engine_, ask());
  ASSERT_EQ(out.last.kind, GenerateEvent::Kind::error);
  EXPECT_EQ(out.last.error.kind, ErrorKind::no_backend);
  EXPECT_TRUE(out.last.error.retryable);
  EXPECT_EQ(engine_->stats().device_failures, 1U);
  EXPECT_TRUE(engine_->stats().in_service);
  const auto after = generate(*engine_, ask());
  EXPECT_EQ(after.tokens, golden_.tokens);
  EXPECT_EQ(after.last.usage.cached_prompt_tokens, 0) << "what lay in the pages is not trusted";
  EXPECT_EQ(trouble_->noted(), (std::vector<std::string>{"engine_step_failed"}));
  EXPECT_EQ(trouble_->made, 1);
}

TEST_F(EngineFailure, ALostDeviceTakesTheModelOutOfServiceUntilItIsBack) {
  load();
  trouble_->lost = true;
  trouble_->refuse_restarts = 3;
  trouble_->fail_steps = 1;
  const auto out = generate(*engine_, ask());
  EXPECT_EQ(out.last.error.kind, ErrorKind::no_backend);
  ASSERT_TRUE(in_service_again(1));
  const auto after = generate(*engine_, ask());
  EXPECT_EQ(after.tokens, golden_.tokens);
  EXPECT_EQ(after.last.usage.cached_prompt_tokens, 0);
  EXPECT_EQ(trouble_->noted(),
            (std::vector<std::string>{"engine_out_of_service", "engine_restart_failed", "engine_restart_failed",
                                      "engine_restart_failed", "engine_restarted"}));
  EXPECT_EQ(trouble_->made, 5);
  EXPECT_EQ(engine_->stats().kv_pages_used_now, 0);
}

TEST_F(EngineFailure, OutOfServiceRequestsAreRefusedAtOnce) {
  load();
  trouble_->lost = true;
  trouble_->refuse_restarts = 1'000'000;
  trouble_->fail_steps = 1;
  generate(*engine_, ask());
  EXPECT_FALSE(engine_->stats().in_service);
  auto sink = std::make_shared<KeepingSink>();
  const auto refused = engine_->submit(ask(), sink);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::no_backend);
  EXPECT_TRUE(refused.error().retryable);
  engine_.reset();  // and it stops all the same
}

TEST_F(EngineFailure, ADeviceThatFailsStepAfterStepIsGivenUp) {
  load();
  trouble_->fail_steps = 3;  // while it claims to be well
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(generate(*engine_, ask()).last.kind, GenerateEvent::Kind::error) << i;
  }
  ASSERT_TRUE(in_service_again(1));
  EXPECT_EQ(generate(*engine_, ask()).tokens, golden_.tokens);
  EXPECT_EQ(trouble_->made, 2);
}

TEST_F(EngineFailure, EveryRequestOfTheStepAndOfTheQueueIsToldAndNoneTwice) {
  load({.batch_max = 2});
  auto gate = std::make_shared<GateSink>();
  ASSERT_TRUE(engine_->submit(ask(), gate));
  gate->wait_until_entered();
  std::vector<std::shared_ptr<KeepingSink>> sinks;
  for (int i = 0; i < 5; ++i) {
    sinks.push_back(std::make_shared<KeepingSink>());
    ASSERT_TRUE(engine_->submit(ask(), sinks.back()));
  }
  trouble_->lost = true;
  trouble_->fail_steps = 1;
  gate->open();
  EXPECT_EQ(gate->wait().last.error.kind, ErrorKind::no_backend);
  for (auto& sink : sinks) EXPECT_EQ(sink->wait().last.error.kind, ErrorKind::no_backend);
  EXPECT_EQ(engine_->stats().failed, 6U);
  ASSERT_TRUE(in_service_again(1));
  EXPECT_EQ(engine_->stats().running_now[0], 0);
  EXPECT_EQ(engine_->stats().queued_now[0], 0);
}

// Each is charged its share of what the steps took, no more and no less in all.
TEST_F(EngineFailure, EngineTimeAddsUpToTheDevicesTime) {
  load({.batch_max = 4});
  const double before = engine_->stats().device_seconds;
  std::vector<std::shared_ptr<KeepingSink>> sinks;
  for (int i = 0; i < 6; ++i) {
    auto request = ask();
    request.prompt.resize(static_cast<std::size_t>(8 + 20 * i), 40 + i);
    sinks.push_back(std::make_shared<KeepingSink>());
    ASSERT_TRUE(engine_->submit(request, sinks.back()));
  }
  std::int64_t sum = 0;
  for (auto& sink : sinks) {
    const auto out = sink->wait();
    EXPECT_GT(out.last.usage.engine_us, 0);
    sum += out.last.usage.engine_us;
  }
  EXPECT_NEAR(static_cast<double>(sum), (engine_->stats().device_seconds - before) * 1e6, 6.0);
}

}  // namespace
}  // namespace ganglion::local
