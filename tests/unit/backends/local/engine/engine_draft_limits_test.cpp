// What bounds a draft model: which ones are refused, its memory, its time and who pays for it, its failures, and when
// it is not asked.

#include <cmath>
#include <iostream>
#include <thread>

#include "backends/local/engine/placement.hpp"
#include "backends/local/engine/speculation.hpp"
#include "tests/unit/backends/local/engine/draft_fixture.hpp"

namespace ganglion::local {
namespace {

// ---- whether it pays ----

TEST(DraftPays, GoesByTheTokensOfASecondForEachBatchSize) {
  DraftPays pays;
  int drafted[2] = {0, 0};
  for (int step = 0; step < 4'000; ++step) {
    for (const int few : {0, 1}) {
      const int running = few == 1 ? 1 : 8;
      const bool drafts = pays.next(running);
      drafted[few] += drafts ? 1 : 0;
      // Alone a drafted step brings three tokens in twice the time, in a batch the same in six times.
      const double plain = 1e-3, slower = few == 1 ? 2 : 6;
      pays.observe(running, drafts, drafts ? 3 * running : running, drafts ? slower * plain : plain);
    }
  }
  EXPECT_GT(drafted[1], 3'900) << "where it pays";
  EXPECT_LT(drafted[0], 60) << "where it does not";
  EXPECT_GT(drafted[0], 10) << "but now and then";
}

TEST(DraftPays, LooksAgainWhenThingsChangeAndNotForOneStepThatStoodStill) {
  DraftPays pays;
  const auto steps = [&](int count, double drafted_seconds) {
    int drafted = 0;
    for (int i = 0; i < count; ++i) {
      const bool drafts = pays.next(2);
      drafted += drafts ? 1 : 0;
      pays.observe(2, drafts, drafts ? 4 : 2, drafts ? drafted_seconds : 1e-3);
    }
    return drafted;
  };
  EXPECT_GT(steps(200, 1e-3), 180);
  pays.observe(2, true, 4, 30.0);  // seconds: the machine stood still
  EXPECT_GT(steps(100, 1e-3), 85);
  EXPECT_LT(steps(500, 5e-3), 100) << "it has become slow";
  steps(2'000, 1e-3);
  EXPECT_GT(steps(200, 1e-3), 180) << "and fast again";
}

// ---- which are refused ----

core::Error refusal(EngineOptions options, const std::string& model = "llama2_tiny") {
  options.dir = model_dir(model);
  options.threads = 1;
  auto engine = Engine::load(options);
  EXPECT_FALSE(engine);
  return engine ? core::Error{} : engine.error();
}

TEST(EngineDraftLimits, WrongDraftsAreRefusedWithWhatIsWrong) {
  const auto refused = [](const std::string& draft, const std::string& why) {
    const auto error = refusal(drafting(draft));
    EXPECT_EQ(error.param, "draft") << error.message;
    EXPECT_NE(error.message.find("draft " + draft + ": "), std::string::npos) << error.message;
    EXPECT_NE(error.message.find(why), std::string::npos) << error.message;
  };
  refused(model_dir("nowhere"), "config.json");
  refused(model_dir("bert_tiny"), "embeddings");
  refused(model_dir("llama3_tiny"), "its vocabulary is not the model's: token 0 is \"");
  refused(model_dir("awq_tiny"), "tokenizer.json");
  const Folder folder;
  // The same tokenizer but for one token.
  const std::string other = shortened(model_dir("llama2_tiny"), 1, folder);
  std::ifstream file(model_dir("llama2_tiny") + "/tokenizer.json");
  auto tokenizer = nlohmann::json::parse(file);
  auto& vocab = tokenizer["model"]["vocab"];
  std::string last;
  for (const auto& [token, id] : vocab.items()) {
    if (id == 978) last = token;
  }
  ASSERT_FALSE(last.empty());
  auto& merges = tokenizer["model"]["merges"];
  for (std::size_t i = merges.size(); i-- > 0;) {  // nor what makes it
    const auto& m = merges[i];
    const std::string made = m.is_array() ? m[0].get<std::string>() + m[1].get<std::string>()
                                          : m.get<std::string>().erase(m.get<std::string>().find(' '), 1);
    if (made == last) merges.erase(i);
  }
  vocab.erase(last);
  vocab["zebra-zebra"] = 978;
  std::filesystem::remove(other + "/tokenizer.json");
  std::ofstream(other + "/tokenizer.json") << tokenizer;
  refused(other, "token 978 is \"zebra-zebra\" in the draft and \"" + last + "\" in the model");
  EXPECT_EQ(refusal({.draft = {.dir = model_dir("llama2_tiny"), .quantize = Quantize::fp8}}).param, "draft");
}

// ---- memory ----

TEST(EngineDraftLimits, BothStoresShareTheMemory) {
  const std::string dir = model_dir("qwen2_tiny");
  auto alone = load_engine("qwen2_tiny", {.kv_bytes = 1 << 20, .batch_max = 64});
  auto both = load_engine("qwen2_tiny", drafting(dir, {.kv_bytes = 1 << 20, .batch_max = 64}));
  auto few = load_engine("qwen2_tiny", drafting(dir, {.kv_bytes = 1 << 18, .batch_max = 64}));
  ASSERT_TRUE(alone != nullptr && both != nullptr && few != nullptr);
  // Eight requests of 256 tokens are drafted for, at most.
  EXPECT_EQ(both->stats().draft_pages_total, 8 * 17);
  EXPECT_EQ(both->stats().kv_pages_total + both->stats().draft_pages_total, alone->stats().kv_pages_total);
  EXPECT_GT(few->stats().draft_pages_total, 20) << "as many of each, where there are few";
  EXPECT_LE(few->stats().kv_pages_total - few->stats().draft_pages_total, 1);
  EXPECT_NE(refusal(drafting(dir, {.kv_bytes = 1 << 10}), "qwen2_tiny").message.find("holds no page"),
            std::string::npos);
}

TEST(EngineDraftLimits, ThePlannerCountsTheDraftOnTheFirstGpu) {
  ModelConfig large, small;
  large.vocab_size = small.vocab_size = 128'256, large.heads = small.heads = 32, large.kv_heads = small.kv_heads = 8;
  large.hidden_size = 4'096, large.layers = 32, large.head_dim = 128, large.intermediate_size = 14'336;
  small.hidden_size = 2'048, small.layers = 16, small.head_dim = 64, small.intermediate_size = 8'192;
  large.max_position = small.max_position = 131'072;
  const GpuNeed one = need_of(large, {}), draft = need_of(small, {});
  const GpuNeed both = with_draft(one, draft);
  constexpr double kGiB = 1 << 30;
  const double more = static_cast<double>(both.on_each(1) - one.on_each(1)) / kGiB;
  EXPECT_NEAR(more, 3.1, 0.4) << "1.0 billion parameters in the layers, 2 x 0.26 at the ends, activations";
  GpuNeed declared = one;
  declared.declared = 20ULL << 30;
  EXPECT_EQ(with_draft(declared, draft).on_each(1), 20ULL << 30) << "what was declared is for both";
}

// A text that is longer than the draft's context goes on without it.
TEST(EngineDraftLimits, ADraftOfAShorterContextStopsThere) {
  const Folder folder;
  const std::string draft = shortened(model_dir("llama3_tiny"), 1, folder);
  std::ifstream in(draft + "/config.json");
  auto config = nlohmann::json::parse(in);
  config["max_position_embeddings"] = 64;
  std::ofstream(draft + "/config.json") << config;
  auto plain = load_engine("llama3_tiny");
  auto fast = load_engine("llama3_tiny", drafting(draft));
  ASSERT_TRUE(plain != nullptr && fast != nullptr);
  expect_same_answer(generate(*plain, varied(*plain, 1, 200)), generate(*fast, varied(*fast, 1, 200)), "past it");
  EXPECT_GT(fast->stats().drafted_tokens, 0U);
  EXPECT_LE(fast->stats().draft_tokens, 64U + 16U) << "64 tokens, some of them twice";
  const auto before = fast->stats().draft_tokens;
  auto long_prompt = greedy(std::vector<std::int32_t>(100, 50), 20);
  expect_same_answer(generate(*plain, long_prompt), generate(*fast, long_prompt), "a prompt past it");
  EXPECT_EQ(fast->stats().draft_tokens, before);
  EXPECT_EQ(fast->stats().draft_pages_used_now, 0);
}

// longrope: the draft turns to its other angles where it must, as the model does at another length.
TEST(EngineDraftLimits, LongTextsTurnTheDraftsAnglesToo) {
  auto plain = load_engine("phi3_tiny");
  for (const char* draft : {"phi3_tiny", "phi3_partial_tiny"}) {
    auto fast = load_engine("phi3_tiny", drafting(model_dir(draft)));
    ASSERT_TRUE(plain != nullptr && fast != nullptr);
    for (const int prompt : {20, 60, 70}) {  // the angles change at 64
      auto r = greedy(std::vector<std::int32_t>(static_cast<std::size_t>(prompt), 50), 50);
      for (int i = 0; i < prompt; ++i) r.prompt[static_cast<std::size_t>(i)] = 40 + i % 37;
      r.prefix_space = "a";
      expect_same_answer(generate(*plain, r), generate(*fast, r), std::string(draft) + std::to_string(prompt));
    }
    EXPECT_GT(fast->stats().drafted_tokens, 20U);
    EXPECT_EQ(fast->stats().draft_pages_used_now, 0);
  }
}

// ---- time ----

// A device that says what it takes: a millisecond for each step of the model, as much as it is told for the draft's.
class TimedRunner final : public WrappedRunner {
 public:
  TimedRunner(std::unique_ptr<Runner> inner, double seconds) : WrappedRunner(std::move(inner)), seconds_(seconds) {}
  double device_seconds() const override { return seconds_; }

 private:
  double seconds_;
};

TEST(EngineDraftLimits, TheDraftsTimeIsTheRequestsToPay) {
  const std::string draft = model_dir("qwen3_tiny");
  const RunnerFactory timed = [&](const EngineOptions& options, const ModelConfig& config,
                                  std::string&) -> core::Result<std::unique_ptr<Runner>> {
    auto inner = plain_runner(options, config);
    if (!inner) return inner;
    return std::make_unique<TimedRunner>(std::move(*inner), options.dir == draft ? 0.25 : 1e-3);
  };
  auto engine = Engine::load(drafting(draft, {.dir = model_dir("qwen2_tiny"), .threads = 1}), {.make_runner = timed});
  ASSERT_TRUE(engine) << engine.error().message;
  std::vector<std::shared_ptr<KeepingSink>> sinks;
  for (int i = 0; i < 4; ++i) {
    sinks.push_back(std::make_shared<KeepingSink>());
    ASSERT_TRUE((*engine)->submit(varied(**engine, 1 + 2 * i, 30), sinks.back()));
  }
  double charged = 0;
  for (const auto& sink : sinks) charged += static_cast<double>(sink->wait().last.usage.engine_us) / 1e6;
  const auto stats = (*engine)->stats();
  const double model = 1e-3 * static_cast<double>(stats.steps);
  EXPECT_GT(stats.drafted_tokens, 20U);
  EXPECT_NEAR(stats.device_seconds, charged, 1e-4) << "all of it, and nothing twice";
  const double steps = (stats.device_seconds - model) / 0.25;  // of the draft
  EXPECT_NEAR(steps, std::round(steps), 1e-6);
  EXPECT_GE(steps, 10);
  EXPECT_LE(steps, static_cast<double>(stats.draft_tokens));
}

// ---- failures ----

RunnerFactory failing_draft(const std::string& draft, const std::shared_ptr<Trouble>& trouble) {
  return [=](const EngineOptions& options, const ModelConfig& config,
             std::string& note) -> core::Result<std::unique_ptr<Runner>> {
    if (options.dir == draft) return failing(trouble)(options, config, note);
    return plain_runner(options, config);
  };
}

TEST(EngineDraftLimits, AFailingDraftCostsNoAnswer) {
  const std::string draft = model_dir("qwen3_tiny");
  auto plain = load_engine("qwen2_tiny");
  ASSERT_NE(plain, nullptr);
  for (const bool for_good : {false, true}) {
    auto trouble = std::make_shared<Trouble>();
    auto engine =
        Engine::load(drafting(draft, {.dir = model_dir("qwen2_tiny"), .threads = 1}),
                     {.make_runner = failing_draft(draft, trouble),
                      .notice = [trouble](std::string_view event, std::string_view) { trouble->note(event); }});
    ASSERT_TRUE(engine) << engine.error().message;
    const auto same = [&](int i) {
      expect_same_answer(generate(*plain, varied(*plain, i, 40)), generate(**engine, varied(**engine, i, 40)),
                         std::to_string(i));
    };
    same(1);
    const auto before = (*engine)->stats().drafted_tokens;
    trouble->fail_steps = for_good ? 1'000'000 : 1;
    for (int i = 2; i < 12; ++i) same(i);
    const auto stats = (*engine)->stats();
    EXPECT_EQ(stats.drafted_tokens > before, !for_good);
    EXPECT_EQ(stats.draft_pages_used_now, 0);
    EXPECT_EQ(stats.kv_pages_used_now, 0);
    EXPECT_EQ(stats.failed, 0U);
    EXPECT_TRUE(stats.in_service);
    const std::vector<std::string> once{"draft_failed"}, thrice{"draft_failed", "draft_failed", "draft_off"};
    EXPECT_EQ(trouble->noted(), for_good ? thrice : once);
  }
}

TEST(EngineDraftLimits, ALostDeviceComesBackWithItsDraft) {
  const std::string model = model_dir("qwen2_tiny"), draft = model_dir("qwen3_tiny");
  auto trouble = std::make_shared<Trouble>();
  const RunnerFactory factory = [=](const EngineOptions& options, const ModelConfig& config,
                                    std::string& note) -> core::Result<std::unique_ptr<Runner>> {
    if (options.dir == model) return failing(trouble)(options, config, note);
    return plain_runner(options, config);
  };
  auto engine = Engine::load(drafting(draft, {.dir = model, .threads = 1, .restart_ms = 1}),
                             {.make_runner = factory,
                              .notice = [trouble](std::string_view event, std::string_view) { trouble->note(event); }});
  ASSERT_TRUE(engine) << engine.error().message;
  const auto before = generate(**engine, varied(**engine, 1, 40));
  trouble->lost = true;
  trouble->fail_steps = 1;
  EXPECT_EQ(generate(**engine, varied(**engine, 1, 40)).last.error.kind, core::ErrorKind::no_backend);
  const auto patience = std::chrono::steady_clock::now() + kPatience;
  while (!(*engine)->stats().in_service && std::chrono::steady_clock::now() < patience) std::this_thread::yield();
  const auto drafted = (*engine)->stats().drafted_tokens;
  EXPECT_EQ(generate(**engine, varied(**engine, 1, 40)).tokens, before.tokens);
  EXPECT_GT((*engine)->stats().drafted_tokens, drafted);
  EXPECT_EQ((*engine)->stats().draft_pages_used_now, 0);
}

// ---- the gain ----

// Tokens for each step of a trained model; wall time is the machine's business. The drafts are what there is: the same
// model with 8-bit weights, and with its last layers left out.
TEST(EngineDraftLimits, ATrainedModelTakesFewerSteps) {
  const std::string demo = std::string(GANGLION_SOURCE_DIR) + "/models/demo-chat";
  std::ifstream file(model_dir("demo_chat_goldens.json"));
  const auto goldens = nlohmann::json::parse(file);
  const auto run = [&](const EngineOptions& options, float temperature,
                       std::vector<std::vector<std::int32_t>>& answers) {
    auto engine = Engine::load(options);
    EXPECT_TRUE(engine) << engine.error().message;
    for (const auto& c : goldens.at("cases")) {
      auto r = greedy(c.at("prompt_ids").get<std::vector<std::int32_t>>(), 40);
      r.sampling.temperature = temperature;
      r.sampling.seed = answers.size();
      answers.push_back(generate(**engine, std::move(r)).tokens);
      if (answers.size() == 10) break;
    }
    return (*engine)->stats();
  };
  const Folder folder;
  const EngineOptions options{.dir = demo, .threads = 2};
  auto int8 = drafting(demo, options);
  int8.draft.quantize = Quantize::int8;
  for (const float temperature : {0.0f, 1.0f}) {
    std::vector<std::vector<std::int32_t>> alone, with;
    const auto plain = run(options, temperature, alone);
    const auto report = [&](const char* what, const EngineStats& s) {
      std::cout << "temperature " << temperature << ", " << what << ": " << s.generated_tokens << " tokens in "
                << s.steps << " steps, " << s.drafted_tokens << " drafted, " << s.drafted_right_tokens << " right\n";
    };
    report("alone", plain);
    const auto fast = run(int8, temperature, with);
    report("by its int8 copy", fast);
    EXPECT_EQ(alone, with);
    EXPECT_LT(fast.steps * 5, plain.steps * 2) << "two tokens and a half for each step, at least";
    with.clear();
    report("by its first six layers of eight", run(drafting(shortened(demo, 6, folder), options), temperature, with));
    EXPECT_EQ(alone, with);
    std::filesystem::remove_all(folder.path() / "layers-6");
  }
}

}  // namespace
}  // namespace ganglion::local
