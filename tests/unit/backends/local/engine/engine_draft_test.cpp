// A draft model: answers are those of the model alone, token for token, for every family and whatever a request asks
// for; and steps are fewer where the two think alike.

#include <cmath>

#include "backends/local/grammar/compile.hpp"
#include "tests/unit/backends/local/engine/draft_fixture.hpp"

namespace ganglion::local {
namespace {

using Pair = std::pair<const char*, const char*>;

class EngineDraft : public testing::TestWithParam<Pair> {};
INSTANTIATE_TEST_SUITE_P(Models, EngineDraft,
                         testing::Values(Pair{"llama2_tiny", "llama2_tiny"}, Pair{"llama3_tiny", "llama3_tiny"},
                                         Pair{"mistral_tiny", "mistral_tiny"}, Pair{"qwen2_tiny", "qwen2_tiny"},
                                         Pair{"qwen3_tiny", "qwen3_tiny"}, Pair{"gemma2_tiny", "gemma2_tiny"},
                                         Pair{"gemma3_tiny", "gemma3_tiny"}, Pair{"phi3_tiny", "phi3_tiny"},
                                         Pair{"opt_tiny", "opt_tiny"}, Pair{"mixtral_tiny", "mixtral_tiny"},
                                         Pair{"llama_bf16", "llama2_tiny"}, Pair{"llama2_tiny", "llama_fp16"},
                                         Pair{"qwen2_tiny", "qwen3_tiny"}, Pair{"qwen3_tiny", "qwen2_tiny"},
                                         Pair{"gemma2_tiny", "gemma3_tiny"}, Pair{"phi3_tiny", "phi3_partial_tiny"}),
                         [](const auto& info) { return std::string(info.param.first) + "_by_" + info.param.second; });

TEST_P(EngineDraft, AnswersAreTheModelsOwn) {
  const auto& [model, draft] = GetParam();
  auto plain = load_engine(model, {.batch_max = 1});
  auto fast = load_engine(model, drafting(model_dir(draft), {.batch_max = 1}));
  ASSERT_TRUE(plain != nullptr && fast != nullptr);
  for (int i = 0; i < 24; ++i) {
    expect_same_answer(generate(*plain, varied(*plain, i, 40 + i)), generate(*fast, varied(*fast, i, 40 + i)),
                       "request " + std::to_string(i));
  }
  const auto stats = fast->stats();
  EXPECT_EQ(stats.generated_tokens, plain->stats().generated_tokens);
  EXPECT_EQ(stats.guessed_tokens, stats.drafted_tokens);
  EXPECT_EQ(stats.guessed_right_tokens, stats.drafted_right_tokens);
  EXPECT_GT(stats.drafted_tokens, 50U);
  EXPECT_GT(stats.drafted_right_tokens, 0U);
  EXPECT_GE(stats.draft_tokens, stats.drafted_tokens);
  EXPECT_LT(stats.steps, plain->stats().steps);
  EXPECT_EQ(stats.kv_pages_used_now, 0);
  EXPECT_EQ(stats.draft_pages_used_now, 0);
  EXPECT_GT(stats.draft_pages_total, 0);
  if (std::string(model) == draft) {  // a model guesses itself, but where guesses reach past a turn of longrope's
    EXPECT_GT(stats.drafted_right_tokens * 100, stats.drafted_tokens * 90);
    EXPECT_LT(stats.steps * 3, plain->stats().steps);
  }
}

TEST(EngineDraftTest, LengthsEndWithinWhatWasGuessedRight) {
  auto plain = load_engine("llama3_tiny");
  auto fast = load_engine("llama3_tiny", drafting(model_dir("llama3_tiny")));
  ASSERT_TRUE(plain != nullptr && fast != nullptr);
  const auto whole = generate(*plain, varied(*plain, 1, 40));
  for (int tokens = 1; tokens <= 40; ++tokens) {
    const auto out = generate(*fast, varied(*fast, 1, tokens));
    EXPECT_EQ(out.last.usage.completion_tokens, tokens);
    EXPECT_EQ(out.last.finish, FinishReason::length);
    ASSERT_LE(out.tokens.size(), whole.tokens.size());
    EXPECT_TRUE(std::equal(out.tokens.begin(), out.tokens.end(), whole.tokens.begin())) << tokens;
  }
  EXPECT_EQ(fast->stats().draft_pages_used_now, 0);
}

TEST(EngineDraftTest, StopsFallWhereTheyWould) {
  auto plain = load_engine("llama3_tiny");
  auto fast = load_engine("llama3_tiny", drafting(model_dir("llama3_tiny")));
  ASSERT_TRUE(plain != nullptr && fast != nullptr);
  const auto whole = generate(*plain, varied(*plain, 4, 40));
  ASSERT_GT(whole.text.size(), 20U);
  for (std::size_t at = 0; at + 4 < whole.text.size(); at += 2) {
    const auto stopping = [&](Engine& engine) {
      auto r = varied(engine, 4, 40);
      r.stop = {whole.text.substr(at, 4)};
      return r;
    };
    expect_same_answer(generate(*plain, stopping(*plain)), generate(*fast, stopping(*fast)),
                       "stop at " + std::to_string(at));
  }
  for (const std::int32_t id : whole.tokens) {
    const auto ending = [&](Engine& engine) {
      auto r = varied(engine, 4, 40);
      r.stop_token_ids = {id};
      return r;
    };
    expect_same_answer(generate(*plain, ending(*plain)), generate(*fast, ending(*fast)),
                       "end token " + std::to_string(id));
  }
  EXPECT_GT(fast->stats().drafted_right_tokens, 100U);
  EXPECT_EQ(fast->stats().draft_pages_used_now, 0);
}

// The draft has fewer rows of logits than the model, and more: masks and guesses fit both.
TEST(EngineDraftTest, ConstrainedAnswersAreTheSame) {
  for (const auto& [model, draft] :
       {Pair{"llama3_tiny", "llama3_tiny"}, Pair{"qwen2_tiny", "qwen3_tiny"}, Pair{"qwen3_tiny", "qwen2_tiny"}}) {
    auto plain = load_engine(model);
    auto fast = load_engine(model, drafting(model_dir(draft)));
    ASSERT_TRUE(plain != nullptr && fast != nullptr);
    for (int i = 0; i < 10; ++i) {
      const auto make = [&](Engine& engine) {
        auto r = greedy(engine.tokenizer().encode("the cat", true), 120);
        grammar::Source source;
        source.json = grammar::Source::Json::schema;
        source.schema =
            R"({"type":"array","items":{"type":"object","properties":{"a":{"enum":[1,2]},"b":{"type":"boolean"}},"required":["a","b"],"additionalProperties":false},"minItems":4,"maxItems":6})";
        r.grammar = *engine.grammar(source);
        r.sampling.temperature = i % 2 == 0 ? 0.0f : 1.0f;
        r.sampling.seed = static_cast<std::uint64_t>(i);
        return r;
      };
      const auto a = generate(*plain, make(*plain)), b = generate(*fast, make(*fast));
      expect_same_answer(a, b, std::string(model) + " schema " + std::to_string(i));
      if (a.last.finish == FinishReason::stop) EXPECT_TRUE(nlohmann::json::accept(b.text)) << b.text;
    }
    EXPECT_GT(fast->stats().drafted_right_tokens, 20U) << model;
    EXPECT_LT(fast->stats().steps, plain->stats().steps) << model;
    EXPECT_EQ(fast->stats().draft_pages_used_now, 0);
  }
}

TEST(EngineDraftTest, BesideADeviceThatComputesAheadTheSame) {
  auto plain = load_engine("qwen2_tiny");
  auto options = drafting(model_dir("qwen2_tiny"), {.dir = model_dir("qwen2_tiny"), .threads = 1});
  auto beside = Engine::load(options, {.make_runner = overlapping()});
  ASSERT_TRUE(beside) << beside.error().message;
  const auto whole = generate(*plain, varied(*plain, 4, 50));
  for (int i = 0; i < 20; ++i) {
    const auto stopping = [&](Engine& engine) {
      auto r = varied(engine, 4, 50);
      if (i % 2 == 1) r.stop = {whole.text.substr(static_cast<std::size_t>(i), 3)};
      return r;
    };
    expect_same_answer(generate(*plain, stopping(*plain)), generate(**beside, stopping(**beside)), std::to_string(i));
  }
  EXPECT_GT((*beside)->stats().drafted_right_tokens, 50U);
  EXPECT_EQ((*beside)->stats().draft_pages_used_now, 0);
}

// Many at once, with pages so few that requests give way and drafts find none, and prompts that others have computed.
TEST(EngineDraftTest, BatchesAndFewPagesChangeNothing) {
  auto plain = load_engine("qwen2_tiny", {.batch_max = 1});
  ASSERT_NE(plain, nullptr);
  const auto make = [](Engine& engine, int i) {
    auto r = varied(engine, i, 40);
    if (i % 3 != 2) r.prefix_space = i % 3 == 0 ? "a" : "b";
    r.priority = i % 5 == 0 ? Priority::fast : Priority::regular;
    return r;
  };
  std::uint64_t preempted = 0, drafted = 0;
  for (const std::uint64_t kib : {30, 50, 400}) {
    auto fast = load_engine(
        "qwen2_tiny", drafting(model_dir("qwen3_tiny"),
                               {.kv_bytes = kib << 10, .batch_max = 6, .context_max = 64, .step_tokens_max = 12}));
    ASSERT_NE(fast, nullptr);
    std::vector<std::shared_ptr<KeepingSink>> sinks;
    for (int i = 0; i < 24; ++i) {
      sinks.push_back(std::make_shared<KeepingSink>());
      const auto handle = fast->submit(make(*fast, i), sinks.back());
      ASSERT_TRUE(handle) << handle.error().message;
    }
    for (int i = 0; i < 24; ++i) {
      EXPECT_EQ(sinks[static_cast<std::size_t>(i)]->wait().tokens, generate(*plain, make(*plain, i)).tokens) << i;
    }
    const auto stats = fast->stats();
    preempted += stats.preempted;
    drafted += stats.drafted_tokens;
    EXPECT_EQ(stats.kv_pages_used_now, 0);
    EXPECT_EQ(stats.draft_pages_used_now, 0);
  }
  EXPECT_GT(preempted, 0U) << "the pages were not few enough";
  EXPECT_GT(drafted, 100U);
}

TEST(EngineDraftTest, APromptKnownToTheDraftIsNotComputedAgain) {
  auto fast = load_engine("llama3_tiny", drafting(model_dir("llama3_tiny"), {.context_max = 250}));
  ASSERT_NE(fast, nullptr);
  const auto make = [&](const char* space) {
    auto r = greedy(std::vector<std::int32_t>(100, 50), 20);
    for (std::size_t i = 0; i < r.prompt.size(); ++i) r.prompt[i] = static_cast<std::int32_t>(40 + i % 37);
    r.prefix_space = space;
    return r;
  };
  const auto first = generate(*fast, make("a"));
  const auto once = fast->stats().draft_tokens;
  EXPECT_GE(once, 100U);
  const auto again = generate(*fast, make("a"));
  EXPECT_EQ(again.tokens, first.tokens);
  EXPECT_EQ(again.last.usage.cached_prompt_tokens, 96);
  EXPECT_LT(fast->stats().draft_tokens - once, once - 90);
  const auto twice = fast->stats().draft_tokens;
  EXPECT_EQ(generate(*fast, make("b")).tokens, first.tokens);
  EXPECT_GE(fast->stats().draft_tokens - twice, 100U) << "nothing is found across spaces";
  const auto thrice = fast->stats().draft_tokens;
  EXPECT_EQ(generate(*fast, make("")).tokens, first.tokens);
  EXPECT_GE(fast->stats().draft_tokens - thrice, 100U) << "nor by who shares with nobody";
  EXPECT_EQ(fast->stats().draft_pages_used_now, 0);
}

TEST(EngineDraftTest, CancellingFreesTheDraftsPages) {
  auto fast = load_engine("llama3_tiny", drafting(model_dir("llama3_tiny")));
  ASSERT_NE(fast, nullptr);
  auto sink = std::make_shared<GateSink>();
  auto other = std::make_shared<KeepingSink>();
  const auto handle = fast->submit(varied(*fast, 3, 200), sink);
  ASSERT_TRUE(handle);
  ASSERT_TRUE(fast->submit(varied(*fast, 4, 60), other));
  sink->wait_until_entered();
  fast->cancel(*handle);
  sink->open();
  EXPECT_EQ(sink->wait().last.finish, FinishReason::cancelled);
  EXPECT_EQ(other->wait().last.finish, FinishReason::length);
  EXPECT_EQ(fast->stats().kv_pages_used_now, 0);
  EXPECT_EQ(fast->stats().draft_pages_used_now, 0);
}

// Text that repeats itself is looked up, the rest is drafted.
TEST(EngineDraftTest, LooksUpFirstWhereBothAreOn) {
  auto options = drafting(model_dir("qwen3_tiny"));
  options.speculation = Speculation::prompt_lookup;
  auto plain = load_engine("qwen2_tiny");
  auto both = load_engine("qwen2_tiny", options);
  ASSERT_TRUE(plain != nullptr && both != nullptr);
  for (int i = 0; i < 24; ++i) {
    expect_same_answer(generate(*plain, varied(*plain, i, 60)), generate(*both, varied(*both, i, 60)),
                       std::to_string(i));
  }
  const auto stats = both->stats();
  EXPECT_GT(stats.drafted_tokens, 20U);
  EXPECT_GT(stats.guessed_tokens, stats.drafted_tokens + 20);
}

TEST(EngineDraftTest, ADraftThatIsNeverRightIsAskedEverMoreRarely) {
  auto plain = load_engine("qwen2_tiny", {.context_max = 250});
  auto fast = load_engine("qwen2_tiny", drafting(model_dir("qwen3_tiny"), {.context_max = 250}));
  ASSERT_TRUE(plain != nullptr && fast != nullptr);
  const auto make = [](Engine& engine) {  // a thousand tokens, alike: nobody guesses them
    auto r = greedy(engine.tokenizer().encode("the cat", true), 200);
    r.sampling.temperature = 50;
    r.sampling.seed = 5;
    return r;
  };
  EXPECT_EQ(generate(*fast, make(*fast)).tokens, generate(*plain, make(*plain)).tokens);
  EXPECT_LT(fast->stats().drafted_tokens, 60U);
}

// ---- the distribution, over other seeds ----

// Takes every guess for what the model chose: what an engine must not do.
class GullibleRunner final : public WrappedRunner {
 public:
  using WrappedRunner::WrappedRunner;
  core::Result<void> step(std::span<const Slice> slices, std::span<Choice> choices,
                          const std::atomic<bool>* give_up) override {
    auto done = inner_->step(slices, choices, give_up);
    std::size_t at = 0;
    for (const Slice& s : slices) {
      if (s.sampling == nullptr) continue;
      for (int i = 0; i + 1 < s.samples; ++i)
        choices[at + static_cast<std::size_t>(i)].id = s.tokens[static_cast<std::size_t>(i) + 1];
      at += static_cast<std::size_t>(s.samples);
    }
    return done;
  }
};

TEST(EngineDraftTest, SampledTokensHaveTheModelsDistribution) {
  const std::string model = model_dir("qwen2_tiny"), draft = model_dir("qwen3_tiny");
  auto plain = load_engine("qwen2_tiny", {.batch_max = 16});
  auto fast = load_engine("qwen2_tiny", drafting(draft, {.batch_max = 8}));
  const auto gullible = [&](const EngineOptions& options, const ModelConfig& config,
                            std::string&) -> core::Result<std::unique_ptr<Runner>> {
    auto inner = plain_runner(options, config);
    if (!inner || options.dir == draft) return inner;
    return std::make_unique<GullibleRunner>(std::move(*inner));
  };
  auto wrong = Engine::load(drafting(draft, {.dir = model, .threads = 2, .batch_max = 8}), {.make_runner = gullible});
  ASSERT_TRUE(plain != nullptr && fast != nullptr && wrong);
  const std::vector<std::int32_t> prompt{60, 61, 62, 60, 61};
  const auto a = count_pairs(*plain, prompt, 1'000'000), b = count_pairs(*fast, prompt, 9'000'000),
             c = count_pairs(**wrong, prompt, 5'000'000);
  EXPECT_GT(fast->stats().drafted_tokens, 1'000U);
  EXPECT_GT(fast->stats().drafted_right_tokens, 200U);
  int cells = 0;
  // The 99.99th percentile for up to eight degrees of freedom is 31.8.
  EXPECT_LT(chi_square(a, b, cells), 31.8);
  EXPECT_GE(cells, 4);
  cells = 0;
  EXPECT_GT(chi_square(a, c, cells), 200) << "the test would not see guesses that are taken unseen";
}

}  // namespace
}  // namespace ganglion::local
