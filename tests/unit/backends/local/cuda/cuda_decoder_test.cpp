// Whole models on the device against transformers' logits (float32), and the demo model's greedy answers.

#include "backends/local/models/cuda/cuda_decoder.hpp"

#include <chrono>
#include <cstdlib>
#include <filesystem>

#include "tests/unit/backends/local/cuda/cuda_harness.hpp"
#include "tests/unit/backends/local/models/goldens.hpp"

namespace ganglion::local {
namespace {

class CudaGoldens : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (no_gpu()) GTEST_SKIP() << "no GPU";
  }
  double worst_error(CudaOptions options) {
    CudaHarness harness(data_dir(GetParam()), options);
    return harness.decoder == nullptr ? 1 : worst_of(harness, GetParam());
  }
};
INSTANTIATE_TEST_SUITE_P(Models, CudaGoldens, testing::ValuesIn(kGoldenModels),
                         [](const auto& info) { return std::string(info.param); });

// bf16 itself costs these small random models more than one percent: transformers in bf16 on the same card is 1.3e-2 to
// 4.3e-2 away from the same goldens (tools/gpu/transformers_error.py). One percent is held where weights are trained
// (the demo model, below) and where rows are long (SevenBShapes).
TEST_P(CudaGoldens, Bf16LogitsAreAsCloseAsTransformers) {
  const double worst = worst_error({});
  RecordProperty("relative_error", std::to_string(worst));
  std::printf("%s bf16: worst relative error of logits %.2e\n", GetParam(), worst);
  EXPECT_LT(worst, 5e-2);
}

constexpr auto kBf16 = cuda::KvFormat::bf16, kFp16 = cuda::KvFormat::fp16;  // of the pages

TEST_P(CudaGoldens, QuantisedLogitsAreBounded) {
  struct Bound {
    cuda::Format format;
    int group;
    cuda::KvFormat kv;
    double most;
    bool w8a8 = false;
  };
  // Random weights have no structure that quantisation could spare: these are bounds, not goals.
  // The CPU's int8 is held to 0.2 on the same models.
  for (const Bound b :
       {Bound{cuda::Format::int8, 64, kBf16, 0.15}, Bound{cuda::Format::fp8, 64, kBf16, 0.45},
        Bound{cuda::Format::int4, 64, kBf16, 1.2}, Bound{cuda::Format::bf16, 64, cuda::KvFormat::fp8, 0.35},
        Bound{cuda::Format::bf16, 64, cuda::KvFormat::int8, 0.15}, Bound{cuda::Format::bf16, 64, kFp16, 5e-2},
        Bound{cuda::Format::int8, 64, kBf16, 0.2, true}}) {
    const double worst =
        worst_error({.format = b.format, .int4_group = b.group, .int8_activations = b.w8a8, .kv = b.kv});
    // A rounded route may send a row to another expert, which moves its logits further; what is not rotated in
    // phi3_partial_tiny makes for scores that are close to each other.
    const std::string_view name = GetParam();
    const double times = name == "mixtral_tiny" ? 2 : name == "phi3_partial_tiny" ? 1.5 : 1;
    std::printf("%s format %d kv %d: %.2e\n", GetParam(), static_cast<int>(b.format), static_cast<int>(b.kv), worst);
    EXPECT_LT(worst, times * b.most) << static_cast<int>(b.format);
  }
}

TEST_P(CudaGoldens, ChunksAndNeighboursDoNotMatter) {
  CudaHarness harness(data_dir(GetParam()), {});
  ASSERT_NE(harness.decoder, nullptr);
  std::vector<std::int32_t> prompt;
  const int vocab_size = static_cast<int>(harness.decoder->vocab_size());
  for (int i = 0; i < 100; ++i) prompt.push_back((i * 37 + i * i) % vocab_size);
  auto whole = harness.sequence(101);
  harness.append(whole, std::span(prompt).first(99));
  const auto want = harness.append(whole, std::span(prompt).last(1));
  for (std::size_t chunk : {1u, 7u, 8u, 33u}) {
    auto s = harness.sequence(101);
    std::vector<float> got;
    // One by one from the last page but one on: racecheck takes minutes for a hundred steps.
    const std::size_t before = chunk == 1 ? 75 : 0;
    if (before != 0) harness.append(s, std::span(prompt).first(before));
    for (std::size_t at = before; at < prompt.size(); at += chunk) {
      got = harness.append(s, std::span(prompt).subspan(at, std::min(chunk, prompt.size() - at)));
    }
    EXPECT_LT(relative_l2(got, want), 3e-2) << "chunks of " << chunk;  // other kernels, other roundings
  }
  // Beside eleven decoding neighbours and a prompt chunk.
  auto s = harness.sequence(101);
  harness.append(s, std::span(prompt).first(99));
  std::vector<CudaHarness::Sequence> others;
  for (int i = 0; i < 11; ++i) {
    others.push_back(harness.sequence(40));
    harness.append(others.back(), std::span(prompt).subspan(static_cast<std::size_t>(i), 20));
  }
  auto fresh = harness.sequence(50);
  std::vector<CudaDecoder::Slice> slices;
  for (auto& o : others) slices.push_back({std::span(prompt).subspan(50, 1), o.pages.data(), o.length, false, nullptr});
  slices.push_back({std::span(prompt).first(40), fresh.pages.data(), 0, true, nullptr});
  slices.push_back({std::span(prompt).last(1), s.pages.data(), s.length, true, nullptr});
  ASSERT_TRUE(harness.decoder->submit(slices));
  const auto both = harness.decoder->logits();
  ASSERT_TRUE(both);
  const auto vocab = static_cast<std::size_t>(harness.decoder->vocab_size());
  ASSERT_EQ(both->size(), 2 * vocab);
  EXPECT_LT(relative_l2(std::vector<float>(both->begin() + static_cast<std::ptrdiff_t>(vocab), both->end()), want),
            3e-2);
}

TEST_P(CudaGoldens, AKeptLastTokenIsReadAndNotWritten) {
  CudaHarness harness(data_dir(GetParam()), {});
  ASSERT_NE(harness.decoder, nullptr);
  std::vector<std::int32_t> prompt;
  const int vocab_size = static_cast<int>(harness.decoder->vocab_size());
  for (int i = 0; i < 48; ++i) prompt.push_back((i * 37 + i * i) % vocab_size);
  auto s = harness.sequence(48);
  const auto want = harness.append(s, prompt);
  const auto again = [&](std::int32_t token) {
    const CudaDecoder::Slice slice{{&token, 1}, s.pages.data(), 47, true, nullptr, true};
    EXPECT_TRUE(harness.decoder->submit({&slice, 1}));
    return harness.decoder->logits();
  };
  const auto kept = again(prompt.back());
  ASSERT_TRUE(kept);
  EXPECT_LT(relative_l2(*kept, want), 3e-2);
  const auto other = again((prompt.back() + 1) % vocab_size);
  ASSERT_TRUE(other);
  EXPECT_GT(relative_l2(*other, want), 3e-2);  // another query
  EXPECT_EQ(*again(prompt.back()), *kept);     // and the same keys as before
}

// Decode steps of several sequences at once, sampled on the device and replayed from graphs.
TEST_P(CudaGoldens, GreedyTokensAreTheGoldenOnes) {
  CudaHarness harness(data_dir(GetParam()), {});
  ASSERT_NE(harness.decoder, nullptr);
  const auto cases = read_goldens(GetParam());
  const CudaDecoder::SampleSpec greedy;
  std::vector<CudaHarness::Sequence> sequences;
  for (const GoldenCase& c : cases) {
    sequences.push_back(harness.sequence(static_cast<int>(c.prompt.size() + c.greedy.size()), c.long_positions));
    if (c.prompt.size() > 1) harness.append(sequences.back(), std::span(c.prompt).first(c.prompt.size() - 1));
  }
  int compared = 0, wrong = 0;
  for (std::size_t step = 0; step < cases.front().greedy.size(); ++step) {
    std::vector<CudaDecoder::Slice> slices;
    for (std::size_t i = 0; i < cases.size(); ++i) {
      const std::int32_t* token = step == 0 ? &cases[i].prompt.back() : &cases[i].greedy[step - 1];
      slices.push_back({{token, 1}, sequences[i].pages.data(), sequences[i].length++, true, &greedy});
      slices.back().long_positions = sequences[i].long_positions;
    }
    ASSERT_TRUE(harness.decoder->submit(slices));
    const auto results = harness.decoder->collect();
    ASSERT_TRUE(results) << results.error().message;
    for (std::size_t i = 0; i < cases.size(); ++i) {
      ASSERT_EQ((*results)[i].ok, 1);
      if (cases[i].margins[step] < 0.5f) continue;  // bf16 may decide otherwise
      ++compared;
      wrong += (*results)[i].id != cases[i].greedy[step] ? 1 : 0;
    }
  }
  EXPECT_GT(compared, 0);  // the logits of opt_post_tiny lie close together
  EXPECT_EQ(wrong, 0) << "of " << compared;
}

// What was quantised before: kept as it is where the layout can, widened elsewhere, or quantised anew when asked.
TEST(CudaPacked, AgreesWithDequantisedWeights) {
  if (no_gpu()) GTEST_SKIP() << "no GPU";
  for (const char* model : {"gptq_tiny", "gptq_act_tiny", "awq_tiny", "awq_g64_tiny", "fp8_channel_tiny",
                            "fp8_tensor_tiny", "fp8_static_tiny", "fp8_block_tiny", "w8a8_tiny"}) {
    CudaHarness harness(data_dir(model), {});
    ASSERT_NE(harness.decoder, nullptr) << model;
    const double worst = worst_of(harness, model);
    CudaHarness int8(data_dir(model), {.format = cuda::Format::int8});
    ASSERT_NE(int8.decoder, nullptr) << model;
    const double anew = worst_of(int8, model);
    std::printf("%s: worst relative error of logits %.2e, as int8 %.2e, %zu bytes a step\n", model, worst, anew,
                harness.decoder->weight_bytes());
    // e4m3 activations from the ninth row on cost more than bf16 ones.
    EXPECT_LT(worst, std::string_view(model).starts_with("fp8") ? 0.3 : 5e-2) << model;
    EXPECT_LT(anew, 0.2) << model;
  }
}

// The room for a step's adjustments grows to what a step asks for, which begins its graphs anew, up to a bound; rows
// that are past it say so, and the steps behind it are whole again.
TEST(CudaAdjustments, FindRoomOrSayThatThereIsNone) {
  if (no_gpu()) GTEST_SKIP() << "no GPU";
  constexpr int kVocab = 24'000, kMany = 20'000;
  // Rows that have room for kMany each.
  constexpr std::size_t kRows = 224, kRoom = (std::size_t{1} << 22) / kMany;
  ModelConfig config;
  config.vocab_size = kVocab, config.hidden_size = 64, config.layers = 1, config.heads = 4, config.kv_heads = 4;
  config.head_dim = 16, config.intermediate_size = 64, config.max_position = 64;
  CudaHarness harness(config, {.rows_max = 256, .batch_max = 256, .tune = false}, 11);
  ASSERT_NE(harness.decoder, nullptr);
  std::vector<CudaHarness::Sequence> sequences;
  for (std::size_t i = 0; i < kRows; ++i) sequences.push_back(harness.sequence(8));
  // All rows' list of adjustments puts one token before all others, another one in each step.
  int step = 0;
  const auto put_first = [&](std::size_t rows, int adjustments, std::size_t have_room) {
    const std::int32_t token = 7;
    std::vector<CudaDecoder::SampleSpec> specs(rows);
    std::vector<CudaDecoder::Slice> slices;
    const auto wanted = [&](std::size_t i) { return (static_cast<int>(i) * 71 + step * 13) % adjustments; };
    for (std::size_t i = 0; i < rows; ++i) {
      for (std::int32_t id = 0; id < adjustments; ++id) specs[i].adjust.push_back({id, 0, -1, 0});
      specs[i].adjust[static_cast<std::size_t>(wanted(i))].bias = 1e4f;
      slices.push_back({{&token, 1}, sequences[i].pages.data(), step, true, &specs[i]});
    }
    ASSERT_TRUE(harness.decoder->submit(slices));
    const auto results = harness.decoder->collect();
    ASSERT_TRUE(results);
    ASSERT_EQ(results->size(), rows);
    for (std::size_t i = 0; i < rows; ++i) {
      ASSERT_EQ((*results)[i].ok, i < have_room ? 1 : CudaDecoder::kNoRoom) << "row " << i << " in step " << step;
      if (i < have_room) ASSERT_EQ((*results)[i].id, wanted(i)) << "row " << i << " in step " << step;
    }
    ++step;
  };
  put_first(16, 100, 16);
  put_first(16, 100, 16);        // from the graph
  put_first(16, kMany, 16);      // more than there is room for at first
  put_first(16, kMany - 1, 16);  // from a new graph
  put_first(kRows, kMany, kRoom);
  put_first(kRows, 100, kRows);
}

const std::vector<std::string> kAdapters = {"lora/llama2_tiny.all_linears", "lora/llama2_tiny.query_value_rslora",
                                            "lora/llama2_tiny.mixed_ranks"};

CudaOptions with_adapters(cuda::Format format, const std::vector<std::string>& names) {
  CudaOptions options{.format = format};
  for (const std::string& name : names) options.adapters.emplace_back(data_dir(name));
  return options;
}

TEST(CudaLora, AgreesWithMergedWeights) {
  if (no_gpu()) GTEST_SKIP() << "no GPU";
  for (const auto& [format, most] :
       {std::pair{cuda::Format::bf16, 6e-2}, {cuda::Format::int8, 0.2}, {cuda::Format::fp8, 0.5}}) {
    CudaHarness harness(data_dir("llama2_tiny"), with_adapters(format, kAdapters));
    ASSERT_NE(harness.decoder, nullptr);
    for (std::size_t a = 0; a < kAdapters.size(); ++a) {
      const double worst = worst_of(harness, kAdapters[a], static_cast<int>(a));
      std::printf("%s format %d: worst relative error of logits %.2e\n", kAdapters[a].c_str(), static_cast<int>(format),
                  worst);
      EXPECT_LT(worst, most) << kAdapters[a];
    }
    EXPECT_LT(worst_of(harness, "llama2_tiny"), most);
  }
  CudaHarness qwen(data_dir("qwen3_tiny"), with_adapters(cuda::Format::bf16, {"lora/qwen3_tiny.all_linears"}));
  ASSERT_NE(qwen.decoder, nullptr);
  EXPECT_LT(worst_of(qwen, "lora/qwen3_tiny.all_linears", 0), 6e-2);
}

TEST(CudaLora, SeveralAdaptersShareAStep) {
  if (no_gpu()) GTEST_SKIP() << "no GPU";
  CudaHarness harness(data_dir("llama2_tiny"), with_adapters(cuda::Format::bf16, kAdapters));
  ASSERT_NE(harness.decoder, nullptr);
  std::vector<std::int32_t> prompt;
  for (int i = 0; i < 20; ++i) prompt.push_back(3 + i * 29 % 600);
  const int adapters[] = {1, -1, 0, 2, 0, 1};
  for (const std::size_t count : {20u, 1u}) {  // prompts, and decode steps of these
    std::vector<std::vector<float>> alone;
    std::vector<CudaHarness::Sequence> sequences;
    std::vector<CudaDecoder::Slice> slices;
    for (const int adapter : adapters) {
      auto s = harness.sequence(20), t = harness.sequence(20);
      s.adapter = t.adapter = adapter;
      if (count == 1) harness.append(s, std::span(prompt).first(19)), harness.append(t, std::span(prompt).first(19));
      alone.push_back(harness.append(s, std::span(prompt).last(count)));
      sequences.push_back(t);
    }
    for (const auto& s : sequences) {
      slices.push_back({std::span(prompt).last(count), s.pages.data(), s.length, true, nullptr});
      slices.back().adapter = s.adapter;
    }
    ASSERT_TRUE(harness.decoder->submit(slices));
    const auto together = harness.decoder->logits();
    ASSERT_TRUE(together);
    const auto vocab = static_cast<std::size_t>(harness.decoder->vocab_size());
    for (std::size_t i = 0; i < slices.size(); ++i) {
      const std::vector<float> mine(together->begin() + static_cast<std::ptrdiff_t>(i * vocab),
                                    together->begin() + static_cast<std::ptrdiff_t>((i + 1) * vocab));
      EXPECT_LT(relative_l2(mine, alone[i]), 3e-2) << "sequence " << i;
    }
    EXPECT_GT(relative_l2(alone[0], alone[1]), 0.1) << "the adapter does nothing";
  }
}

// Shapes of 7B models, made by tools/goldens/large_shapes.py in $GANGLION_GOLDENS; skipped where that is not set. bf16
// weights are held to one percent, but with planted outliers to three quarters of what transformers is off by in bf16,
// and with bf16 pages to all of it.
TEST(LargeShapes, LogitsAreAsCloseToFloatAsTheFormatAllows) {
  const char* root = std::getenv("GANGLION_GOLDENS");
  if (root == nullptr || no_gpu()) GTEST_SKIP() << "GANGLION_GOLDENS is not set";
  int compared = 0;
  for (const auto& folder : std::filesystem::directory_iterator(root)) {
    const std::string dir = folder.path().string(), name = folder.path().filename().string();
    std::ifstream file(dir + "/goldens.json");
    const double theirs = nlohmann::json::parse(file).at("transformers_bf16");
    // Where a rounded route sends a row to other experts, its logits have little to do with the reference's.
    const bool routed = name == "mixtral", outliers = name.ends_with("_outliers");
    for (const auto& [format, most, w8a8, kv] :
         {std::tuple{cuda::Format::bf16, outliers ? 0.75 * theirs : 1e-2, false, kFp16},
          {cuda::Format::bf16, theirs, false, kBf16},
          {cuda::Format::int8, 0.1, false, kFp16},
          {cuda::Format::int8,
           routed     ? 1.5
           : outliers ? 0.3
                      : 0.2,
           true, kFp16},
          {cuda::Format::fp8, routed ? 1.5 : 0.3, false, kFp16},
          {cuda::Format::int4, routed ? 1.5 : 0.7, false, kFp16}}) {
      const auto began = std::chrono::steady_clock::now();
      CudaHarness harness(
          dir,
          {.format = format, .int8_activations = w8a8, .kv = kv, .rows_max = 512, .batch_max = 8, .context_max = 2048});
      ASSERT_NE(harness.decoder, nullptr) << dir;
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
      const double gigabytes = static_cast<double>(Checkpoint::open(dir)->data_bytes()) / 1e9;
      const double worst = worst_of(harness, dir);
      std::printf(
          "%s format %d%s%s: worst relative error of logits %.2e (transformers in bf16 %.2e); %.2f GB in %.2f s, %.1f "
          "GB/s\n",
          name.c_str(), static_cast<int>(format), w8a8 ? " w8a8" : "", kv == kFp16 ? "" : " bf16 pages", worst, theirs,
          gigabytes, took.count(), gigabytes / took.count());
      std::fflush(stdout);
      EXPECT_LT(worst, most) << name << " format " << static_cast<int>(format);
      ++compared;
    }
  }
  EXPECT_GT(compared, 0) << root << " is empty";
}

// A trained model: every position's logits of a conversation, against the CPU decoder in float32.
TEST(CudaDemoChat, LogitsWithinOnePercentOfFloat) {
  if (no_gpu()) GTEST_SKIP() << "no GPU";
  const std::string dir = std::string(GANGLION_SOURCE_DIR) + "/models/demo-chat";
  auto config = load_model_config(dir);
  auto checkpoint = Checkpoint::open(dir);
  ASSERT_TRUE(config && checkpoint);
  ThreadPool pool(4);
  auto cpu = Decoder::load(std::move(*checkpoint), *config, {&kernels_for(best_isa()), &pool}, false, 256);
  ASSERT_TRUE(cpu);
  std::ifstream file(data_dir("demo_chat_goldens.json"));
  const auto goldens = nlohmann::json::parse(file);
  const auto& cases = goldens.at("cases");
  struct Bound {
    cuda::Format format;
    cuda::KvFormat kv;
    double most;
  };
  for (const Bound b :
       {Bound{cuda::Format::bf16, kBf16, 1e-2}, Bound{cuda::Format::int8, kBf16, 5e-2},
        Bound{cuda::Format::fp8, kBf16, 1e-1}, Bound{cuda::Format::int4, kBf16, 7e-1},
        Bound{cuda::Format::bf16, cuda::KvFormat::fp8, 1e-1}, Bound{cuda::Format::bf16, cuda::KvFormat::int8, 3e-2},
        Bound{cuda::Format::bf16, kFp16, 1e-2}}) {
    CudaHarness harness(dir, {.format = b.format, .kv = b.kv});
    ASSERT_NE(harness.decoder, nullptr);
    double worst = 0;
    for (std::size_t i = 0; i < 4; ++i) {
      auto ids = cases[i].at("prompt_ids").get<std::vector<std::int32_t>>();
      const std::size_t prompt = ids.size();
      for (std::int32_t id : cases[i].at("answer_ids")) ids.push_back(id);
      KvStore kv((*cpu)->kv_shape(KvElement::f32), 64);
      std::vector<std::int32_t> pages;
      for (int p = 0; p < 64; ++p) pages.push_back(p);
      auto s = harness.sequence(static_cast<int>(ids.size()));
      std::vector<float> want(static_cast<std::size_t>((*cpu)->vocab_size()));
      for (std::size_t at = 0; at < ids.size();) {
        const std::size_t count = at == 0 ? prompt : 1;
        const DecoderSlice slice{std::span(ids).subspan(at, count), pages.data(), static_cast<int>(at), true};
        ASSERT_TRUE((*cpu)->forward(kv, {&slice, 1}, want.data()));
        worst = std::max(worst, relative_l2(harness.append(s, std::span(ids).subspan(at, count)), want));
        at += count;
      }
    }
    std::printf("demo-chat format %d kv %d: worst relative error of logits %.2e\n", static_cast<int>(b.format),
                static_cast<int>(b.kv), worst);
    EXPECT_LT(worst, b.most) << static_cast<int>(b.format) << " kv " << static_cast<int>(b.kv);
  }
}

struct DemoCase {
  std::vector<std::int32_t> prompt, answer;
};

// Greedy answers of all golden conversations together, through sampling on the device and replayed graphs.
void demo_answers(CudaOptions options, int batch) {
  std::ifstream file(data_dir("demo_chat_goldens.json"));
  std::vector<DemoCase> cases;
  const auto goldens = nlohmann::json::parse(file);
  for (const auto& c : goldens.at("cases")) {
    cases.push_back(
        {c.at("prompt_ids").get<std::vector<std::int32_t>>(), c.at("answer_ids").get<std::vector<std::int32_t>>()});
  }
  CudaHarness harness(std::string(GANGLION_SOURCE_DIR) + "/models/demo-chat", options);
  ASSERT_NE(harness.decoder, nullptr);
  int compared = 0;
  for (std::size_t from = 0; from < cases.size(); from += static_cast<std::size_t>(batch)) {
    const std::size_t count = std::min(cases.size() - from, static_cast<std::size_t>(batch));
    std::vector<CudaHarness::Sequence> sequences;
    std::vector<std::vector<std::int32_t>> tokens;
    for (std::size_t i = 0; i < count; ++i) {
      const DemoCase& c = cases[from + i];
      sequences.push_back(harness.sequence(static_cast<int>(c.prompt.size() + c.answer.size())));
      tokens.push_back(c.prompt);
    }
    const CudaDecoder::SampleSpec greedy;
    for (;;) {
      std::vector<CudaDecoder::Slice> slices;
      std::vector<std::size_t> who;
      for (std::size_t i = 0; i < count; ++i) {
        const DemoCase& c = cases[from + i];
        if (tokens[i].size() == c.prompt.size() + c.answer.size()) continue;
        const auto done = static_cast<std::size_t>(sequences[i].length);
        slices.push_back(
            {std::span(tokens[i]).subspan(done), sequences[i].pages.data(), sequences[i].length, true, &greedy});
        who.push_back(i);
      }
      if (slices.empty()) break;
      const auto queued = harness.decoder->submit(slices);
      ASSERT_TRUE(queued) << queued.error().message;
      const auto results = harness.decoder->collect();
      ASSERT_TRUE(results) << results.error().message;
      ASSERT_EQ(results->size(), who.size());
      for (std::size_t k = 0; k < who.size(); ++k) {
        const std::size_t i = who[k];
        const DemoCase& c = cases[from + i];
        sequences[i].length = static_cast<int>(tokens[i].size());
        const std::int32_t want = c.answer[tokens[i].size() - c.prompt.size()];
        ASSERT_EQ((*results)[k].ok, 1);
        ASSERT_EQ((*results)[k].id, want) << "case " << from + i << " token " << tokens[i].size() - c.prompt.size();
        tokens[i].push_back(want);
        ++compared;
      }
    }
  }
  EXPECT_GT(compared, 500);
}

TEST(CudaDemoChat, GreedyAnswersAreTheGoldenOnes) {
  if (no_gpu()) GTEST_SKIP() << "no GPU";
  demo_answers({}, 1);
  demo_answers({}, 6);
  demo_answers({}, 29);
  demo_answers({.graphs = false}, 6);
}

TEST(CudaDemoChat, QuantisedAnswersAreTheGoldenOnes) {
  if (no_gpu()) GTEST_SKIP() << "no GPU";
  demo_answers({.format = cuda::Format::int8}, 4);
  demo_answers({.format = cuda::Format::int8}, 29);
  demo_answers({.format = cuda::Format::int8, .int8_activations = true}, 29);
  demo_answers({.format = cuda::Format::fp8}, 29);
  demo_answers({.kv = cuda::KvFormat::fp8}, 8);
  demo_answers({.kv = kBf16}, 8);
  demo_answers({.kv = kBf16}, 29);
  demo_answers({.kv = cuda::KvFormat::int8}, 8);
  demo_answers({.kv = cuda::KvFormat::int8}, 29);
}

}  // namespace
}  // namespace ganglion::local
