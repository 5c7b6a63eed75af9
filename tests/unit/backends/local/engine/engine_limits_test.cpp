// Bounds and endings: queue, context, memory pressure, priority, cancellation, shutdown, a model that breaks down.

#include <filesystem>
#include <fstream>

#include "backends/local/engine/engine.hpp"
#include "tests/unit/backends/local/engine/engine_fixture.hpp"

namespace ganglion::local {
namespace {

using core::ErrorKind;

const std::vector<std::int32_t> kPrompt = {1205, 709, 360, 865, 86};

TEST(EngineLimits, AFullQueueRefusesWithRetryAfter) {
  auto engine = load_engine("llama3_tiny", {.queue_max = 3, .batch_max = 1});
  auto gate = std::make_shared<GateSink>();
  ASSERT_TRUE(engine->submit(greedy(kPrompt, 2), gate));
  gate->wait_until_entered();
  std::vector<std::shared_ptr<KeepingSink>> sinks;
  for (int i = 0; i < 3; ++i) {
    sinks.push_back(std::make_shared<KeepingSink>());
    ASSERT_TRUE(engine->submit(greedy(kPrompt, 2), sinks.back())) << i;
  }
  EXPECT_EQ(engine->stats().queued_now[0], 3);
  const auto refused = engine->submit(greedy(kPrompt, 2), std::make_shared<KeepingSink>());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::queue_full);
  EXPECT_GE(refused.error().retry_after, std::chrono::seconds(1));
  EXPECT_EQ(engine->stats().rejected_queue_full, 1u);
  gate->open();
  for (auto& sink : sinks) EXPECT_EQ(sink->wait().last.finish, FinishReason::length);
  EXPECT_TRUE(engine->submit(greedy(kPrompt, 2), std::make_shared<KeepingSink>()));
}

TEST(EngineLimits, FastRequestsAreAdmittedBeforeWaitingRegularOnes) {
  auto engine = load_engine("llama3_tiny", {.batch_max = 1});
  auto gate = std::make_shared<GateSink>();
  ASSERT_TRUE(engine->submit(greedy(kPrompt, 2), gate));
  gate->wait_until_entered();
  // Each sink notes when its first event comes.
  struct OrderSink : GenerateSink {
    OrderSink(std::vector<int>& order, int name) : order(order), name(name) {}
    void on_event(GenerateEvent&& e) noexcept override {
      if (e.kind == GenerateEvent::Kind::done) order.push_back(name);
    }
    std::vector<int>& order;  // written by the engine thread alone, read after the last one is done
    int name;
  };
  std::vector<int> order;
  for (int i = 0; i < 4; ++i) {
    auto request = greedy(kPrompt, 2);
    request.priority = i >= 2 ? Priority::fast : Priority::regular;
    ASSERT_TRUE(engine->submit(request, std::make_shared<OrderSink>(order, i)));
  }
  EXPECT_EQ(engine->stats().queued_now[1], 2);
  gate->open();
  auto last = std::make_shared<KeepingSink>();
  ASSERT_TRUE(engine->submit(greedy(kPrompt, 2), last));
  last->wait();
  EXPECT_EQ(order, (std::vector<int>{2, 3, 0, 1}));
}

TEST(EngineLimits, APartOfTheQueueIsForFastRequests) {
  auto engine = load_engine("llama3_tiny", {.queue_max = 4, .batch_max = 1, .fast_reserved_percent = 50});
  auto gate = std::make_shared<GateSink>();
  ASSERT_TRUE(engine->submit(greedy(kPrompt, 2), gate));
  gate->wait_until_entered();
  const auto submit = [&](Priority priority) {
    auto request = greedy(kPrompt, 2);
    request.priority = priority;
    return engine->submit(request, std::make_shared<KeepingSink>()).has_value();
  };
  EXPECT_TRUE(submit(Priority::regular));
  EXPECT_TRUE(submit(Priority::regular));
  EXPECT_FALSE(submit(Priority::regular));
  EXPECT_TRUE(submit(Priority::fast));
  EXPECT_TRUE(submit(Priority::fast));
  EXPECT_FALSE(submit(Priority::fast));
  EXPECT_EQ(engine->stats().rejected_queue_full, 2u);
  gate->open();
}

// A step that gave way to a fast request is done again, and the answer is the same as without.
TEST(EngineLimits, FastArrivalsDoNotChangeWhatRegularOnesAnswer) {
  const std::vector<std::int32_t> prompt(200, 86);
  std::vector<std::int32_t> alone;
  {
    auto engine = load_engine("llama3_tiny", {});
    alone = generate(*engine, greedy(prompt, 40)).tokens;
  }
  auto engine = load_engine("llama3_tiny", {});
  std::vector<std::shared_ptr<KeepingSink>> regular, fast;
  for (int round = 0; round < 10; ++round) {
    regular.push_back(std::make_shared<KeepingSink>());
    ASSERT_TRUE(engine->submit(greedy(prompt, 40), regular.back()));
    auto request = greedy(kPrompt, 3);
    request.priority = Priority::fast;
    fast.push_back(std::make_shared<KeepingSink>());
    ASSERT_TRUE(engine->submit(request, fast.back()));
    fast.back()->wait_for_events(1);
  }
  for (auto& sink : regular) EXPECT_EQ(sink->wait().tokens, alone);
  for (auto& sink : fast) EXPECT_EQ(sink->wait().last.finish, FinishReason::length);
  EXPECT_EQ(engine->stats().failed, 0u);
}

TEST(EngineLimits, ContextIsCheckedBeforeQueueing) {
  auto engine = load_engine("llama3_tiny", {.context_max = 64});
  ASSERT_EQ(engine->context_max(), 64);
  auto sink = std::make_shared<KeepingSink>();
  const std::vector<std::int32_t> full(64, 5);
  auto refused = engine->submit(greedy(full, 0), sink);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::context_length);
  refused = engine->submit(greedy(std::vector<std::int32_t>(60, 5), 5), sink);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::context_length);
  EXPECT_EQ(refused.error().param, "max_tokens");
  EXPECT_EQ(engine->stats().rejected_context, 2u);
  const auto out = generate(*engine, greedy(std::vector<std::int32_t>(60, 5), 4));
  EXPECT_EQ(out.last.usage.completion_tokens, 4);
}

TEST(EngineLimits, KvMemoryBoundsTheContext) {
  // 3 layers x 2 heads x 16 tokens x 32 floats: one page is 12288 bytes.
  auto engine = load_engine("llama3_tiny", {.kv_bytes = 12288 * 3 + 100});
  EXPECT_EQ(engine->stats().kv_pages_total, 3);
  EXPECT_EQ(engine->context_max(), 48);
  const auto out = generate(*engine, greedy(kPrompt, 43));
  EXPECT_EQ(out.last.usage.completion_tokens, 43);
}

TEST(EngineLimits, WrongParametersAreNamed) {
  auto engine = load_engine("llama3_tiny", {});
  const auto param_of = [&](auto change) {
    auto request = greedy(kPrompt, 4);
    change(request);
    const auto result = engine->submit(request, std::make_shared<KeepingSink>());
    EXPECT_FALSE(result);
    if (result) return std::string("accepted");
    EXPECT_EQ(result.error().kind, ErrorKind::invalid_value);
    return result.error().param;
  };
  EXPECT_EQ(param_of([](auto& r) { r.prompt.clear(); }), "prompt");
  EXPECT_EQ(param_of([](auto& r) { r.prompt.push_back(-1); }), "prompt");
  EXPECT_EQ(param_of([](auto& r) { r.prompt.push_back(1211); }), "prompt");
  EXPECT_EQ(param_of([](auto& r) { r.sampling.temperature = -1; }), "temperature");
  EXPECT_EQ(param_of([](auto& r) { r.sampling.temperature = std::numeric_limits<float>::quiet_NaN(); }), "temperature");
  EXPECT_EQ(param_of([](auto& r) { r.sampling.top_p = 1.5f; }), "top_p");
  EXPECT_EQ(param_of([](auto& r) { r.sampling.min_p = -0.1f; }), "min_p");
  EXPECT_EQ(param_of([](auto& r) { r.sampling.top_k = -2; }), "top_k");
  EXPECT_EQ(param_of([](auto& r) { r.sampling.frequency_penalty = 3; }), "frequency_penalty");
  EXPECT_EQ(param_of([](auto& r) { r.sampling.repetition_penalty = 0; }), "repetition_penalty");
  EXPECT_EQ(param_of([](auto& r) { r.sampling.top_logprobs = 3; }), "top_logprobs");
  EXPECT_EQ(param_of([](auto& r) { r.sampling.logit_bias[5000] = 1; }), "logit_bias");
  EXPECT_EQ(param_of([](auto& r) { r.stop = {""}; }), "stop");
  EXPECT_EQ(param_of([](auto& r) { r.stop.assign(17, "x"); }), "stop");
}

TEST(EngineLimits, UnderMemoryPressureEveryRequestStillGetsItsExactAnswer) {
  auto roomy = load_engine("llama3_tiny", {.batch_max = 1});
  auto tight = load_engine("llama3_tiny", {.kv_bytes = 12288 * 9, .batch_max = 8, .step_tokens_max = 24});
  std::vector<std::shared_ptr<KeepingSink>> sinks;
  std::vector<GenerateRequest> requests;
  for (int i = 0; i < 12; ++i) {
    auto request = greedy(kPrompt, 60 + i);
    request.prompt.push_back(10 + i);
    request.sampling.temperature = i % 2 == 0 ? 0.0f : 1.0f;
    request.sampling.seed = 7 + i;
    request.priority = i % 3 == 0 ? Priority::fast : Priority::regular;
    requests.push_back(request);
    sinks.push_back(std::make_shared<KeepingSink>());
    ASSERT_TRUE(tight->submit(request, sinks.back()));
  }
  for (std::size_t i = 0; i < sinks.size(); ++i) {
    const auto got = sinks[i]->wait();
    const auto want = generate(*roomy, requests[i]);
    EXPECT_EQ(got.tokens, want.tokens) << i;
    EXPECT_EQ(got.text, want.text) << i;
    EXPECT_EQ(got.last.usage.completion_tokens, 60 + static_cast<int>(i));
  }
  EXPECT_GT(tight->stats().preempted, 0u) << "there was no pressure";
}

TEST(EngineLimits, CancelEndsRunningAndWaitingRequests) {
  auto engine = load_engine("llama3_tiny", {.batch_max = 1});
  auto running = std::make_shared<GateSink>();
  auto waiting = std::make_shared<KeepingSink>();
  const auto first = engine->submit(greedy(kPrompt, 200), running);
  running->wait_until_entered();
  const auto second = engine->submit(greedy(kPrompt, 200), waiting);
  ASSERT_TRUE(first && second);
  engine->cancel(*second);
  engine->cancel(*first);
  engine->cancel(*first);
  engine->cancel(Handle{999});
  running->open();
  const auto never_ran = waiting->wait();
  EXPECT_EQ(never_ran.last.finish, FinishReason::cancelled);
  EXPECT_EQ(never_ran.last.usage.completion_tokens, 0);
  const auto out = running->wait();
  EXPECT_EQ(out.last.kind, GenerateEvent::Kind::done);
  EXPECT_EQ(out.last.finish, FinishReason::cancelled);
  EXPECT_EQ(out.last.usage.prompt_tokens, static_cast<int>(kPrompt.size()));
  EXPECT_EQ(generate(*engine, greedy(kPrompt, 3)).last.finish, FinishReason::length);  // the place is free again
  EXPECT_EQ(engine->stats().kv_pages_used_now, 0);
}

TEST(EngineLimits, CancelTakesEffectWithinOneStep) {
  auto engine = load_engine("llama3_tiny", {.batch_max = 2});
  auto gate = std::make_shared<GateSink>();
  const auto handle = engine->submit(greedy(kPrompt, 100), gate);
  gate->wait_until_entered();  // after the first step
  engine->cancel(*handle);
  const auto steps = engine->stats().steps;
  gate->open();
  generate(*engine, greedy(kPrompt, 1));
  EXPECT_LE(engine->stats().steps - steps, 3u);  // the step at the gate, and the other request's one or two
  EXPECT_EQ(engine->stats().cancelled, 1u);
}

// Takes its time with every event, so that the request is still there when the engine goes.
class SlowSink : public KeepingSink {
 public:
  void on_event(GenerateEvent&& event) noexcept override {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    KeepingSink::on_event(std::move(event));
  }
};

TEST(EngineLimits, ShutdownEndsEveryRequestWithAnError) {
  auto engine = load_engine("llama3_tiny", {.batch_max = 1});
  auto running = std::make_shared<SlowSink>(), waiting = std::make_shared<SlowSink>();
  ASSERT_TRUE(engine->submit(greedy(kPrompt, 240), running));
  ASSERT_TRUE(engine->submit(greedy(kPrompt, 240), waiting));
  running->wait_for_events(1);
  engine.reset();
  for (const auto& sink : {running, waiting}) {
    const auto out = sink->wait();
    EXPECT_EQ(out.last.kind, GenerateEvent::Kind::error);
    EXPECT_EQ(out.last.error.kind, ErrorKind::shutting_down);
  }
}

// A copy of a model whose final norm holds a NaN.
std::string broken_model() {
  namespace fs = std::filesystem;
  const fs::path dir = fs::path(testing::TempDir()) / "ganglion_broken_model";
  fs::remove_all(dir);
  fs::copy(model_dir("llama3_tiny"), dir, fs::copy_options::recursive);
  std::fstream file(dir / "model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
  std::uint64_t header = 0;
  file.read(reinterpret_cast<char*>(&header), 8);
  std::string json(header, '\0');
  file.read(json.data(), static_cast<std::streamsize>(header));
  const auto name = json.find("\"model.norm.weight\"");
  const auto offsets = json.find("data_offsets", name);
  const auto begin = std::stoull(json.substr(json.find('[', offsets) + 1));
  const std::uint32_t nan = 0x7fc00000u;
  file.seekp(static_cast<std::streamoff>(8 + header + begin));
  file.write(reinterpret_cast<const char*>(&nan), 4);
  return dir.string();
}

TEST(EngineLimits, ANumericalBreakdownIsAnErrorEventAndNotTheEnd) {
  auto engine = Engine::load({.dir = broken_model(), .threads = 1});
  ASSERT_TRUE(engine) << engine.error().message;
  for (int i = 0; i < 2; ++i) {
    const auto out = generate(**engine, greedy(kPrompt, 3));
    EXPECT_EQ(out.last.kind, GenerateEvent::Kind::error);
    EXPECT_EQ(out.last.error.kind, ErrorKind::internal);
    EXPECT_EQ(out.last.usage.prompt_tokens, static_cast<int>(kPrompt.size()));
  }
  EXPECT_EQ((*engine)->stats().failed, 2u);
}

}  // namespace
}  // namespace ganglion::local
