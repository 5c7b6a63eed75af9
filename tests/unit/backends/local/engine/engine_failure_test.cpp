// A device that fails: who is told what, when the model is out of service, and how it comes back.

#include <algorithm>
#include <new>
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
  bool in_service_again(std::uint64_t restarts) { return local::in_service_again(*engine_, restarts); }

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

// No memory for the weights, no thread: that is an attempt that has failed, and no end of the process.
TEST_F(EngineFailure, ARestartThatThrowsIsTriedAgain) {
  load();
  trouble_->lost = true;
  trouble_->throw_restarts = 2;
  trouble_->refuse_restarts = 1;
  trouble_->fail_steps = 1;
  EXPECT_EQ(generate(*engine_, ask()).last.error.kind, ErrorKind::no_backend);
  ASSERT_TRUE(in_service_again(1));
  EXPECT_EQ(generate(*engine_, ask()).tokens, golden_.tokens);
  EXPECT_EQ(trouble_->noted(),
            (std::vector<std::string>{"engine_out_of_service", "engine_restart_failed", "engine_restart_failed",
                                      "engine_restart_failed", "engine_restarted"}));
  EXPECT_EQ(trouble_->made, 5);
}

// Nor is an exception at any other place of the loop: here, where the failure of a step is told.
TEST_F(EngineFailure, WhoListensMayThrow) {
  auto trouble = std::make_shared<Trouble>();
  auto engine = Engine::load({.dir = model_dir("llama3_tiny"), .threads = 1, .restart_ms = 1},
                             {.make_runner = failing(trouble), .notice = [trouble](auto event, auto) {
                                trouble->note(event);
                                throw std::bad_alloc();
                              }});
  ASSERT_TRUE(engine) << engine.error().message;
  engine_ = std::move(*engine);
  const auto before = generate(*engine_, ask());
  trouble->lost = true;
  trouble->refuse_restarts = 2;
  trouble->fail_steps = 1;
  EXPECT_EQ(generate(*engine_, ask()).last.kind, GenerateEvent::Kind::error);
  ASSERT_TRUE(in_service_again(1));
  const auto after = generate(*engine_, ask());
  EXPECT_EQ(after.tokens, before.tokens);
  EXPECT_EQ(after.last.usage.cached_prompt_tokens, 0) << "what lay in the pages is not trusted";
}

// "auto" chooses once: the pages were counted for that device.
TEST_F(EngineFailure, ARestartAsksForTheDeviceThatWasChosen) {
  struct Case {
    std::string chosen, again;
  };
  const Case cases[] = {
      {"cuda:1 (NVIDIA H100 80GB HBM3)", "cuda:1"}, {"cuda:0,2 (NVIDIA H100 80GB HBM3)", "cuda:0,2"}, {"cpu", "cpu"}};
  for (const Case& c : cases) {
    auto trouble = std::make_shared<Trouble>();
    const RunnerFactory factory = [trouble, chosen = c.chosen](
                                      const EngineOptions& options, const ModelConfig& config,
                                      std::string& note) -> core::Result<std::unique_ptr<Runner>> {
      auto inner = failing(trouble)(options, config, note);
      if (!inner) return inner;
      return std::make_unique<NamedRunner>(std::move(*inner), chosen);
    };
    auto engine =
        Engine::load({.dir = model_dir("llama3_tiny"), .device = "auto", .threads = 1, .restart_ms = 1},
                     {.make_runner = factory, .notice = [trouble](auto event, auto) { trouble->note(event); }});
    ASSERT_TRUE(engine) << engine.error().message;
    engine_ = std::move(*engine);
    EXPECT_EQ(engine_->device(), c.chosen);
    trouble->fail_steps = 3;  // while it claims to be well
    for (int i = 0; i < 3; ++i) EXPECT_EQ(generate(*engine_, ask()).last.kind, GenerateEvent::Kind::error);
    ASSERT_TRUE(in_service_again(1));
    EXPECT_EQ(trouble->asked(), (std::vector<std::string>{"auto", c.again}));
    EXPECT_EQ(engine_->device(), c.chosen);
  }
}

TEST_F(EngineFailure, TheDraftIsOnTheModelsDeviceAgain) {
  const std::string model = model_dir("qwen2_tiny");
  auto trouble = std::make_shared<Trouble>();
  const RunnerFactory factory = [model, trouble](const EngineOptions& options, const ModelConfig& config,
                                                 std::string&) -> core::Result<std::unique_ptr<Runner>> {
    trouble->may_make(options.device);
    auto inner = plain_runner(options, config);
    if (!inner) return inner;
    if (options.dir != model) return inner;
    auto named = std::make_unique<NamedRunner>(std::move(*inner), "cuda:1,3 (NVIDIA H100 80GB HBM3)");
    return std::make_unique<FailingRunner>(std::move(named), trouble);
  };
  auto engine = Engine::load({.dir = model,
                              .device = "auto",
                              .threads = 1,
                              .restart_ms = 1,
                              .draft = {.dir = model_dir("qwen3_tiny"), .tokens = 4, .measured = false}},
                             {.make_runner = factory});
  ASSERT_TRUE(engine) << engine.error().message;
  engine_ = std::move(*engine);
  trouble->lost = true;
  trouble->fail_steps = 1;
  EXPECT_EQ(generate(*engine_, ask()).last.kind, GenerateEvent::Kind::error);
  ASSERT_TRUE(in_service_again(1));
  EXPECT_EQ(trouble->asked(), (std::vector<std::string>{"auto", "cuda:1", "cuda:1,3", "cuda:1"}));
}

// A row that the device had no room for is not an answer, and says so.
TEST_F(EngineFailure, ARowWithoutRoomForItsAdjustmentsFailsAlone) {
  class NoRoomRunner final : public WrappedRunner {
   public:
    using WrappedRunner::WrappedRunner;
    core::Result<void> step(std::span<const Slice> slices, std::span<Choice> choices,
                            const std::atomic<bool>* give_up) override {
      auto done = inner_->step(slices, choices, give_up);
      std::size_t at = 0;
      for (const Slice& s : slices) {
        for (int i = 0; s.sampling != nullptr && i < s.samples; ++i, ++at) {
          choices[at].no_room = !s.sampling[i].params.logit_bias.empty();
          choices[at].ok = choices[at].ok && !choices[at].no_room;
        }
      }
      return done;
    }
  };
  const RunnerFactory factory = [](const EngineOptions& options, const ModelConfig& config,
                                   std::string&) -> core::Result<std::unique_ptr<Runner>> {
    auto inner = plain_runner(options, config);
    if (!inner) return inner;
    return std::make_unique<NoRoomRunner>(std::move(*inner));
  };
  auto engine = Engine::load({.dir = model_dir("llama3_tiny"), .threads = 1}, {.make_runner = factory});
  ASSERT_TRUE(engine) << engine.error().message;
  auto request = ask();
  request.sampling.logit_bias[5] = 1;
  const auto out = generate(**engine, request);
  EXPECT_EQ(out.last.kind, GenerateEvent::Kind::error);
  EXPECT_EQ(out.last.error.kind, ErrorKind::overloaded);
  EXPECT_TRUE(out.tokens.empty());
  EXPECT_EQ(generate(**engine, ask()).tokens.size(), 12U);
  EXPECT_EQ((*engine)->stats().device_failures, 0U);
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
