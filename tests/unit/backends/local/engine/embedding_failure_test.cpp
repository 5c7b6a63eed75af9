// An embedding model's device that fails, as engine_failure_test.cpp has it for text; and memory that is short.

#include <chrono>
#include <thread>

#include "backends/local/engine/engine.hpp"
#include "backends/local/models/encoder.hpp"
#include "tests/unit/backends/local/engine/embed_sinks.hpp"
#include "tests/unit/backends/local/engine/engine_fixture.hpp"
#include "tests/unit/backends/local/engine/runners.hpp"
#include "tests/unit/backends/local/engine/short_memory.hpp"

namespace ganglion::local {
namespace {

using core::ErrorKind;
using Inputs = std::vector<std::vector<std::int32_t>>;

// A vector of its first token and its length.
class FailingEncoder final : public Encoder {
 public:
  explicit FailingEncoder(std::shared_ptr<Trouble> trouble) : trouble_(std::move(trouble)) {}
  core::Result<std::vector<std::vector<float>>> encode(
      std::span<const std::span<const std::int32_t>> sequences) override {
    const EnoughMemory enough;
    if (trouble_->fail_steps > 0) {
      --trouble_->fail_steps;
      broken_ = trouble_->lost;
      return core::fail(ErrorKind::overloaded, "the GPU failed at a pass: cudaErrorECCUncorrectable");
    }
    std::vector<std::vector<float>> out;
    for (const auto& s : sequences) out.push_back({static_cast<float>(s.front()), static_cast<float>(s.size())});
    return out;
  }
  int dimensions() const override { return 2; }
  int context_max() const override { return 16; }
  std::string device() const override { return "cuda:1 (NVIDIA H100 80GB HBM3)"; }
  bool broken() const override { return broken_; }

 private:
  std::shared_ptr<Trouble> trouble_;
  bool broken_ = false;
};

class EmbeddingFailure : public testing::Test {
 protected:
  void SetUp() override {
    const EmbeddingHooks hooks{
        .make_encoder = [trouble = trouble_](const EmbeddingOptions& options, const ModelConfig&,
                                             std::string&) -> core::Result<std::unique_ptr<Encoder>> {
          if (!trouble->may_make(options.device)) return core::fail(ErrorKind::overloaded, "the GPU is still lost");
          return std::make_unique<FailingEncoder>(trouble);
        },
        .notice = [trouble = trouble_](auto event, auto) { trouble->note(event); }};
    auto engine = EmbeddingEngine::load(
        {.dir = model_dir("bert_tiny"), .device = "auto", .threads = 1, .step_tokens_max = 8, .restart_ms = 1}, hooks);
    ASSERT_TRUE(engine) << engine.error().message;
    engine_ = std::move(*engine);
  }
  core::Result<EmbedResult> embed(const Inputs& inputs) {
    auto sink = std::make_shared<KeepingEmbedSink>();
    const auto handle = engine_->submit(inputs, sink);
    if (!handle) return std::unexpected(handle.error());
    return sink->wait();
  }
  void expect_answers() {
    const auto out = embed({{7, 8, 9}, {5}});
    ASSERT_TRUE(out) << out.error().message;
    EXPECT_EQ(out->vectors, (std::vector<std::vector<float>>{{7, 3}, {5, 1}}));
  }
  bool in_service_again(std::uint64_t restarts) { return local::in_service_again(*engine_, restarts); }

  std::shared_ptr<Trouble> trouble_ = std::make_shared<Trouble>();
  std::unique_ptr<EmbeddingEngine> engine_;
};

TEST_F(EmbeddingFailure, AFailedPassEndsItsRequestsRetryablyAndTheEngineGoesOn) {
  trouble_->fail_steps = 1;
  const auto out = embed({{2, 3}});
  ASSERT_FALSE(out);
  EXPECT_EQ(out.error().kind, ErrorKind::no_backend);
  EXPECT_TRUE(out.error().retryable);
  EXPECT_EQ(engine_->stats().device_failures, 1U);
  EXPECT_TRUE(engine_->stats().in_service);
  expect_answers();
  EXPECT_EQ(trouble_->noted(), (std::vector<std::string>{"engine_step_failed"}));
  EXPECT_EQ(trouble_->made, 1);
}

TEST_F(EmbeddingFailure, ALostDeviceTakesTheModelOutOfServiceUntilItIsBack) {
  trouble_->lost = true;
  trouble_->throw_restarts = 1;
  trouble_->refuse_restarts = 2;
  trouble_->fail_steps = 1;
  const auto out = embed({{2, 3}});
  ASSERT_FALSE(out);
  EXPECT_EQ(out.error().kind, ErrorKind::no_backend);
  ASSERT_TRUE(in_service_again(1));
  expect_answers();
  EXPECT_EQ(trouble_->noted(),
            (std::vector<std::string>{"engine_out_of_service", "engine_restart_failed", "engine_restart_failed",
                                      "engine_restart_failed", "engine_restarted"}));
  EXPECT_EQ(trouble_->asked(), (std::vector<std::string>{"auto", "cuda:1", "cuda:1", "cuda:1", "cuda:1"}))
      << "auto chooses once";
}

TEST_F(EmbeddingFailure, OutOfServiceItRefusesAndStillSaysWhatItIs) {
  trouble_->lost = true;
  trouble_->refuse_restarts = 1'000'000;
  trouble_->fail_steps = 1;
  EXPECT_FALSE(embed({{2, 3}}));
  EXPECT_FALSE(engine_->stats().in_service);
  auto sink = std::make_shared<KeepingEmbedSink>();
  const auto refused = engine_->submit({{2, 3}}, sink);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::no_backend);
  EXPECT_TRUE(refused.error().retryable);
  EXPECT_EQ(engine_->dimensions(), 2);
  EXPECT_EQ(engine_->context_max(), 16);
  EXPECT_EQ(engine_->device(), "cuda:1 (NVIDIA H100 80GB HBM3)");
  engine_.reset();  // and it stops all the same
}

TEST_F(EmbeddingFailure, ADeviceThatFailsPassAfterPassIsGivenUp) {
  trouble_->fail_steps = 3;  // while it claims to be well
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(embed({{2, 3}})) << i;
  ASSERT_TRUE(in_service_again(1));
  expect_answers();
  EXPECT_EQ(engine_->stats().device_failures, 3U);
  EXPECT_EQ(trouble_->made, 2);
}

TEST_F(EmbeddingFailure, EveryWaitingRequestIsToldAndNoneTwice) {
  auto gate = std::make_shared<GateEmbedSink>();
  ASSERT_TRUE(engine_->submit({{2, 3}}, gate));
  gate->wait_until_entered();
  std::vector<std::shared_ptr<KeepingEmbedSink>> sinks;
  for (int i = 0; i < 5; ++i) {
    sinks.push_back(std::make_shared<KeepingEmbedSink>());
    ASSERT_TRUE(engine_->submit({{2, 3, 4, 5, 6}, {7, 8}}, sinks.back()));  // more than one pass, all together
  }
  trouble_->lost = true;
  trouble_->fail_steps = 1;
  gate->open();
  for (auto& sink : sinks) {
    const auto out = sink->wait();
    ASSERT_FALSE(out);
    EXPECT_EQ(out.error().kind, ErrorKind::no_backend);
  }
  EXPECT_EQ(engine_->stats().failed, 5U);
  ASSERT_TRUE(in_service_again(1));
  EXPECT_EQ(engine_->stats().queued_now[0], 0);
  expect_answers();
}

// Holds the engine's thread in its result; behind it memory is short.
class ShortEmbedSink final : public GateEmbedSink {
 public:
  ShortEmbedSink(int after, int times) : after_(after), times_(times) {}
  void on_result(core::Result<EmbedResult>&& result) noexcept override {
    const EnoughMemory enough;
    GateEmbedSink::on_result(std::move(result));
    fail_allocations(after_, times_);
  }

 private:
  int after_, times_;
};

class SparedEmbedSink final : public KeepingEmbedSink {
 public:
  void on_result(core::Result<EmbedResult>&& result) noexcept override {
    const EnoughMemory enough;
    KeepingEmbedSink::on_result(std::move(result));
  }
};

TEST_F(EmbeddingFailure, ShortOfMemoryNobodyIsLost) {
  if (!kAllocationsCanFail) GTEST_SKIP() << "allocations cannot be made to fail in this build";
  int failed = 0;
  for (const int times : {1, 1'000'000}) {
    for (int after = 0; after < 30; ++after) {
      const std::string what = std::to_string(times) + " after " + std::to_string(after);
      auto gate = std::make_shared<ShortEmbedSink>(after, times);
      ASSERT_TRUE(engine_->submit({{2, 3}}, gate)) << what;
      gate->wait_until_entered();
      std::vector<std::shared_ptr<SparedEmbedSink>> sinks;
      for (int i = 0; i < 80; ++i) {  // so many that the queue's own memory has to grow
        sinks.push_back(std::make_shared<SparedEmbedSink>());
        ASSERT_TRUE(engine_->submit({{2, 3}, {4}}, sinks.back())) << what;
      }
      gate->open();
      for (auto& sink : sinks) {
        const auto out = sink->wait();
        if (!out) EXPECT_EQ(out.error().kind, ErrorKind::internal) << what;
      }
      memory_is_back();
      failed += allocations_that_failed() > 0 ? 1 : 0;
      expect_answers();
      EXPECT_EQ(engine_->stats().queued_now[0], 0) << what;
      EXPECT_EQ(engine_->stats().accepted, engine_->stats().finished) << what;
    }
  }
  EXPECT_GT(failed, 30) << "it never was short of memory";
}

}  // namespace
}  // namespace ganglion::local
