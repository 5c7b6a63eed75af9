// Text beside the next step's computation: the same answers, ends and counts as without, and really beside it.

#include "tests/unit/backends/local/engine/engine_fixture.hpp"
#include "tests/unit/backends/local/engine/runners.hpp"

namespace ganglion::local {
namespace {

const std::vector<std::int32_t> kPrompt = {1205, 709, 360, 865, 86};

std::unique_ptr<Engine> load_overlapping(EngineOptions options, std::atomic<bool>* in_flight = nullptr) {
  options.dir = model_dir("llama3_tiny");
  options.threads = 1;
  auto engine = Engine::load(options, {.make_runner = overlapping(in_flight), .notice = {}});
  EXPECT_TRUE(engine) << engine.error().message;
  return engine ? std::move(*engine) : nullptr;
}

GenerateRequest request(int i) {
  auto r = greedy(kPrompt, 20 + i);
  r.prompt.insert(r.prompt.end(), static_cast<std::size_t>(i % 7) * 5, 10 + i);
  r.sampling.temperature = i % 2 == 0 ? 0.0f : 1.0f;
  r.sampling.seed = 11 + i;
  r.sampling.frequency_penalty = i % 3 == 0 ? 0.5f : 0.0f;
  r.sampling.logprobs = i % 4 == 0;
  r.priority = i % 5 == 0 ? Priority::fast : Priority::regular;
  r.prefix_space = i % 2 == 0 ? "a" : "";
  return r;
}

TEST(EngineOverlap, AnswersAreThoseWithoutOverlap) {
  const auto plain = load_engine("llama3_tiny", {.batch_max = 4});
  const auto beside = load_overlapping({.batch_max = 4, .step_tokens_max = 24});
  std::vector<std::shared_ptr<KeepingSink>> sinks;
  for (int i = 0; i < 16; ++i) {
    sinks.push_back(std::make_shared<KeepingSink>());
    ASSERT_TRUE(beside->submit(request(i), sinks.back()));
  }
  for (int i = 0; i < 16; ++i) {
    const auto got = sinks[static_cast<std::size_t>(i)]->wait(), want = generate(*plain, request(i));
    EXPECT_EQ(got.tokens, want.tokens) << i;
    EXPECT_EQ(got.text, want.text) << i;
    EXPECT_EQ(got.last.finish, want.last.finish) << i;
    EXPECT_EQ(got.last.usage.completion_tokens, want.last.usage.completion_tokens) << i;
    EXPECT_EQ(got.logprobs.size(), want.logprobs.size()) << i;
  }
  EXPECT_EQ(beside->stats().kv_pages_used_now, 0);
}

// Wherever a stop string falls: same text, same reason, same count, though it is found a step late.
TEST(EngineOverlap, StopStringsEndAndCountTheSame) {
  const auto plain = load_engine("llama3_tiny", {.batch_max = 2});
  const auto beside = load_overlapping({.batch_max = 2});
  const auto whole = generate(*plain, greedy(kPrompt, 24));
  ASSERT_GT(whole.text.size(), 12u);
  int stopped = 0;
  for (std::size_t at = 1; at + 3 < whole.text.size(); ++at) {
    auto r = greedy(kPrompt, 24);
    r.stop = {whole.text.substr(at, 3)};
    r.priority = at % 2 == 0 ? Priority::fast : Priority::regular;
    const auto want = generate(*plain, r), got = generate(*beside, r);
    EXPECT_EQ(got.text, want.text) << at;
    EXPECT_EQ(got.last.finish, want.last.finish) << at;
    EXPECT_EQ(got.last.usage.completion_tokens, want.last.usage.completion_tokens) << at;
    EXPECT_EQ(beside->stats().kv_pages_used_now, 0) << at;
    stopped += got.last.finish == FinishReason::stop ? 1 : 0;
  }
  EXPECT_GT(stopped, 5);
}

// Notes which events came while a step was being computed.
class WatchingSink final : public KeepingSink {
 public:
  explicit WatchingSink(const std::atomic<bool>& in_flight) : in_flight_(in_flight) {}
  void on_event(GenerateEvent&& event) noexcept override {
    if (beside_ + alone_ == 0) first_beside_ = in_flight_;
    if (event.kind != GenerateEvent::Kind::token)
      last_beside_ = in_flight_;
    else
      (in_flight_ ? beside_ : alone_) += 1;
    KeepingSink::on_event(std::move(event));
  }
  int beside_ = 0, alone_ = 0;  // read when the request has ended
  bool first_beside_ = false, last_beside_ = false;

 private:
  const std::atomic<bool>& in_flight_;
};

TEST(EngineOverlap, AFastRequestsFirstTokenWaitsForNoStep) {
  std::atomic<bool> in_flight{false};
  const auto engine = load_overlapping({.batch_max = 2}, &in_flight);
  for (const Priority priority : {Priority::regular, Priority::fast}) {
    auto sink = std::make_shared<WatchingSink>(in_flight);
    auto r = greedy(kPrompt, 20);
    r.priority = priority;
    ASSERT_TRUE(engine->submit(r, sink));
    sink->wait();
    EXPECT_EQ(sink->first_beside_, priority == Priority::regular);
    EXPECT_GT(sink->beside_, 10) << "the others are told beside the next step all the same";
  }
}

TEST(EngineOverlap, TextIsMadeWhileTheNextStepIsComputed) {
  std::atomic<bool> in_flight{false};
  const auto engine = load_overlapping({.batch_max = 2}, &in_flight);
  auto sink = std::make_shared<WatchingSink>(in_flight);
  ASSERT_TRUE(engine->submit(greedy(kPrompt, 40), sink));
  sink->wait();
  EXPECT_GT(sink->beside_, 20);
  EXPECT_LE(sink->alone_, 1) << "the last token alone, after which there is no step";
}

TEST(EngineOverlap, AnEndIsToldWhileOthersNextStepIsComputed) {
  std::atomic<bool> in_flight{false};
  const auto engine = load_overlapping({.batch_max = 2}, &in_flight);
  auto longer = std::make_shared<WatchingSink>(in_flight), shorter = std::make_shared<WatchingSink>(in_flight);
  ASSERT_TRUE(engine->submit(greedy(kPrompt, 60), longer));
  ASSERT_TRUE(engine->submit(greedy(kPrompt, 5), shorter));
  shorter->wait();
  EXPECT_TRUE(shorter->last_beside_);
  longer->wait();
  EXPECT_FALSE(longer->last_beside_) << "no step comes after it";
  EXPECT_LE(longer->alone_, 1) << "nor did the other's end make its text wait";
}

TEST(EngineOverlap, CancellingFreesThePagesWithinOneStep) {
  const auto engine = load_overlapping({.batch_max = 2});
  auto gate = std::make_shared<GateSink>();
  const auto handle = engine->submit(greedy(kPrompt, 200), gate);
  ASSERT_TRUE(handle);
  gate->wait_until_entered();
  const auto steps = engine->stats().steps;
  engine->cancel(*handle);
  gate->open();
  EXPECT_EQ(gate->wait().last.finish, FinishReason::cancelled);
  EXPECT_EQ(engine->stats().kv_pages_used_now, 0);
  EXPECT_LE(engine->stats().steps - steps, 1u) << "the one that was under way";
}

TEST(EngineOverlap, ShutdownEndsWhatRuns) {
  auto engine = load_overlapping({.batch_max = 2});
  auto gate = std::make_shared<GateSink>(), waiting = std::make_shared<GateSink>();
  ASSERT_TRUE(engine->submit(greedy(kPrompt, 200), gate));
  gate->wait_until_entered();
  waiting->open();
  ASSERT_TRUE(engine->submit(greedy(kPrompt, 200), waiting));
  gate->open();
  engine.reset();
  EXPECT_EQ(gate->wait().last.error.kind, core::ErrorKind::shutting_down);
  EXPECT_EQ(waiting->wait().last.error.kind, core::ErrorKind::shutting_down);
}

}  // namespace
}  // namespace ganglion::local
