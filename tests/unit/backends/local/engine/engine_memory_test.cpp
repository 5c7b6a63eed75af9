// Short of memory, wherever in the loop that is: every request is told its end, once, and the engine goes on.

#include <utility>

#include "tests/unit/backends/local/engine/engine_fixture.hpp"
#include "tests/unit/backends/local/engine/runners.hpp"
#include "tests/unit/backends/local/engine/short_memory.hpp"

namespace ganglion::local {
namespace {

// The model's own work is not what is tested.
class SparedRunner final : public WrappedRunner {
 public:
  using WrappedRunner::WrappedRunner;
  core::Result<void> step(std::span<const Slice> slices, std::span<Choice> choices,
                          const std::atomic<bool>* give_up) override {
    const EnoughMemory enough;
    return inner_->step(slices, choices, give_up);
  }
};

class SparedSink final : public KeepingSink {
 public:
  void on_event(GenerateEvent&& event) noexcept override {
    const EnoughMemory enough;
    KeepingSink::on_event(std::move(event));
  }
};

// Holds the engine's thread in its first event; behind it memory is short.
class ShortSink final : public GateSink {
 public:
  ShortSink(int after, int times) : after_(after), times_(times) {}
  void on_event(GenerateEvent&& event) noexcept override {
    const EnoughMemory enough;
    GateSink::on_event(std::move(event));
    if (!std::exchange(begun_, true)) fail_allocations(after_, times_);
  }

 private:
  int after_, times_;
  bool begun_ = false;
};

GenerateRequest ask(int i) {
  GenerateRequest r = greedy(std::vector<std::int32_t>(static_cast<std::size_t>(20 + 7 * i), 86), 8);
  if (i % 2 == 0) r.prefix_space = "a";
  return r;
}

void expect_one_end(const KeepingSink::Outcome& out, const std::string& what) {
  if (out.last.kind == GenerateEvent::Kind::error) {
    EXPECT_EQ(out.last.error.kind, core::ErrorKind::internal) << what;
  } else {
    EXPECT_EQ(out.last.kind, GenerateEvent::Kind::done) << what;
  }
}

// One allocation that fails, or all of them until everybody was told; the first or any later one.
TEST(EngineMemory, NobodyIsLostWhereverItEnds) {
  if (!kAllocationsCanFail) GTEST_SKIP() << "allocations cannot be made to fail in this build";
  const RunnerFactory factory = [](const EngineOptions& options, const ModelConfig& config,
                                   std::string&) -> core::Result<std::unique_ptr<Runner>> {
    auto inner = plain_runner(options, config);
    if (!inner) return inner;
    return std::make_unique<SparedRunner>(std::move(*inner));
  };
  // Few pages: some requests give way to others, and what is kept of earlier ones is thrown out.
  auto engine = Engine::load({.dir = model_dir("llama3_tiny"), .threads = 1, .kv_bytes = 1 << 17, .batch_max = 4},
                             {.make_runner = factory});
  ASSERT_TRUE(engine) << engine.error().message;
  const auto golden = generate(**engine, ask(0));
  ASSERT_EQ(golden.tokens.size(), 8U);
  int failed = 0;
  for (const int times : {1, 1'000'000}) {
    for (int after = 0; after < 200; after += after < 40 ? 1 : 9) {
      const std::string what = std::to_string(times) + " after " + std::to_string(after);
      auto gate = std::make_shared<ShortSink>(after, times);
      ASSERT_TRUE((*engine)->submit(ask(0), gate)) << what;
      gate->wait_until_entered();
      std::vector<std::shared_ptr<SparedSink>> sinks;
      for (int i = 0; i < 6; ++i) {
        sinks.push_back(std::make_shared<SparedSink>());
        const auto handle = (*engine)->submit(ask(i), sinks.back());
        ASSERT_TRUE(handle) << what;
        if (i == 2) (*engine)->cancel(*handle);
      }
      gate->open();
      expect_one_end(gate->wait(), what);
      for (auto& sink : sinks) expect_one_end(sink->wait(), what);
      memory_is_back();
      failed += allocations_that_failed() > 0 ? 1 : 0;
      EXPECT_EQ(generate(**engine, ask(0)).tokens, golden.tokens) << what;
      const EngineStats stats = (*engine)->stats();
      EXPECT_EQ(stats.accepted, stats.finished) << what;
      EXPECT_EQ(stats.queued_now[0], 0) << what;
      EXPECT_EQ(stats.running_now[0], 0) << what;
      EXPECT_EQ(stats.kv_pages_used_now, 0) << what;
      EXPECT_TRUE(stats.in_service) << what;
    }
  }
  EXPECT_GT(failed, 60) << "it never was short of memory";
}

}  // namespace
}  // namespace ganglion::local
