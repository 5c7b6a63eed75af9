// Checkpoints that were quantised before, against a float32 model of their dequantised weights; and the parts that a
// device keeps as they are.

#include "backends/local/models/packed_weights.hpp"

#include <gmock/gmock.h>

#include "tests/unit/backends/local/models/made_checkpoint.hpp"

namespace ganglion::local {
namespace {

using test::bytes_of;
using test::MixedCheckpoint;
using test::MixedModel;
using test::Written;
using ::testing::HasSubstr;

class PackedGoldens : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Models, PackedGoldens,
                         testing::Values("gptq_tiny", "gptq_act_tiny", "awq_tiny", "awq_g64_tiny", "fp8_channel_tiny",
                                         "fp8_tensor_tiny", "fp8_static_tiny", "fp8_block_tiny"),
                         [](const auto& info) { return std::string(info.param); });

double worst_error(const std::string& model, const std::string& goldens, DecoderHarness::Options options, int* wrong) {
  DecoderHarness harness(model, options);
  double worst = 0;
  if (harness.decoder == nullptr) return 1;
  for (const GoldenCase& c : read_goldens(goldens)) {
    auto s = harness.sequence(static_cast<int>(c.prompt.size() + c.greedy.size()));
    std::vector<float> logits;
    int done = 0;
    for (std::size_t i = 0; i < c.positions.size(); ++i) {
      const int upto = c.positions[i] + 1;
      logits = harness.append(
          s, std::span(c.prompt).subspan(static_cast<std::size_t>(done), static_cast<std::size_t>(upto - done)));
      done = upto;
      worst = std::max(worst, relative_error(logits, c.logits[i]));
    }
    for (std::size_t i = 0; i < c.greedy.size(); ++i) {
      if (c.margins[i] > 0.05f && best_of(logits) != c.greedy[i]) ++*wrong;
      logits = harness.append(s, {&c.greedy[i], 1});
    }
  }
  return worst;
}

// Widened to fp16, which keeps eleven bits of products of few-bit integers and scales.
TEST_P(PackedGoldens, AgreeWhenWidened) {
  int wrong = 0;
  EXPECT_LT(worst_error(GetParam(), GetParam(), {}, &wrong), 3e-3);
  EXPECT_EQ(wrong, 0);
}

TEST_P(PackedGoldens, StayCloseInInt8) {
  int wrong = 0;
  const double worst = worst_error(GetParam(), GetParam(), {.int8 = true}, &wrong);
  EXPECT_LT(worst, 0.15);
  EXPECT_GT(worst, 1e-5) << "nothing was quantised";
}

// The same with activations rounded by token, as int8_rows.py computes it: the model is one activation group wide, so
// that the CPU's rounding by group is that by token. What is left is a step here and there where float and double round
// to different sides.
class PackedInt8 : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Levels, PackedInt8, testing::Range(0, kIsaCount), [](const auto& info) {
  std::string name(isa_name(static_cast<Isa>(info.param)));
  std::erase(name, '-');
  return name;
});

TEST_P(PackedInt8, AnswersAsItWasMadeToOnEveryLevel) {
  const auto isa = static_cast<Isa>(GetParam());
  if (!isa_supported(isa)) GTEST_SKIP();
  std::ifstream file(data_dir("w8a8_tiny") + "/goldens.json");
  const auto json = nlohmann::json::parse(file);
  const auto vocab = json.at("vocab_size").get<std::size_t>();
  std::ifstream rows(data_dir("w8a8_tiny") + "/logits_w8a8.f32", std::ios::binary);
  DecoderHarness harness("w8a8_tiny", {.isa = isa});
  ASSERT_NE(harness.decoder, nullptr);
  double worst = 0, from_plain = 0;
  std::size_t n = 0;
  for (const GoldenCase& c : read_goldens("w8a8_tiny")) {
    const auto& item = json.at("cases").at(n++);
    const auto greedy = item.at("w8a8_greedy_ids").get<std::vector<std::int32_t>>();
    const auto margins = item.at("w8a8_greedy_margins").get<std::vector<float>>();
    auto s = harness.sequence(static_cast<int>(c.prompt.size() + greedy.size()));
    std::vector<float> logits, want(vocab);
    int done = 0;
    for (std::size_t i = 0; i < c.positions.size(); ++i) {
      rows.read(reinterpret_cast<char*>(want.data()), static_cast<std::streamsize>(vocab * 4));
      const int upto = c.positions[i] + 1;
      logits = harness.append(
          s, std::span(c.prompt).subspan(static_cast<std::size_t>(done), static_cast<std::size_t>(upto - done)));
      done = upto;
      worst = std::max(worst, relative_error(logits, want));
      from_plain = std::max(from_plain, relative_error(logits, c.logits[i]));
    }
    for (std::size_t i = 0; i < greedy.size(); ++i) {
      if (margins[i] > 0.1f) EXPECT_EQ(best_of(logits), greedy[i]) << "case " << n << " token " << i;
      logits = harness.append(s, {&greedy[i], 1});
    }
  }
  ASSERT_TRUE(rows.good());
  EXPECT_LT(worst, 1e-2);
  EXPECT_LT(from_plain, 0.15);
  EXPECT_GT(from_plain, 1e-2) << "activations were not rounded";
}

TEST(PackedInt8Kept, AskedForInt8OrNotItIsTheFiles) {
  DecoderHarness as_it_is("w8a8_tiny", {}), asked("w8a8_tiny", {.int8 = true});
  ASSERT_TRUE(as_it_is.decoder && asked.decoder);
  // Two layers of (128 + 64 + 64 + 128 + 128 + 128 + 128) rows of 128 bytes; the head is bf16, or made int8.
  constexpr std::size_t kLayers = 2 * 768 * 128, kHead = 128 * 128;
  EXPECT_EQ(as_it_is.decoder->weight_bytes(), kLayers + 2 * kHead);
  EXPECT_EQ(asked.decoder->weight_bytes(), kLayers + kHead);
  // What enters the second layer is the first one's alone: the same to the bit.
  std::vector<float> entered[2];
  for (DecoderHarness* harness : {&as_it_is, &asked}) {
    harness->decoder->set_tap(
        [](void* to, int layer, const float* hidden, int rows) {
          if (layer == 1) static_cast<std::vector<float>*>(to)->assign(hidden, hidden + rows * 128);
        },
        &entered[harness == &asked]);
    auto s = harness->sequence(20);
    harness->append(s, std::vector<std::int32_t>{5, 9, 77, 31, 4});
  }
  EXPECT_EQ(entered[0].size(), 5u * 128);
  EXPECT_EQ(entered[0], entered[1]);
}

// Checkpoints of which a part was left out of quantisation: what is quantised is the tensors' to say. Rounding the
// others' weights to bf16 moves each by up to 2^-9 of itself, and these small models' logits by up to 1.3e-2.
class PackedMixed : public testing::TestWithParam<MixedModel> {};
INSTANTIATE_TEST_SUITE_P(Models, PackedMixed, testing::ValuesIn(test::mixed_models()),
                         [](const auto& info) { return info.param.name; });

std::vector<float> last_logits(const MixedCheckpoint& made) {
  DecoderHarness harness(made.dir());
  if (harness.decoder == nullptr) return {};
  auto s = harness.sequence(20);
  return harness.append(s, std::vector<std::int32_t>{5, 9, 77, 31, 4, 120, 66, 8, 9, 10, 11, 12, 13});
}

TEST_P(PackedMixed, AgreesWithTheSameWeightsAllOrNoneQuantised) {
  const MixedModel& model = GetParam();
  const MixedCheckpoint mixed(model), all(model.with_plain("")), none(model.with_plain(test::kEveryProjection));
  ASSERT_GT(mixed.plain_count(), 0u);
  ASSERT_EQ(all.plain_count(), 0u);
  ASSERT_GT(none.plain_count(), mixed.plain_count());
  // int8 projections round their activations too.
  const double most = model.models.front().starts_with("w8a8") ? 0.15 : 2e-2;
  const auto got = last_logits(mixed), want = last_logits(none);
  ASSERT_EQ(got.size(), 128u);
  ASSERT_EQ(want.size(), 128u);
  EXPECT_LT(relative_error(got, want), most);
  EXPECT_LT(relative_error(got, last_logits(all)), most);
  EXPECT_NE(got, want);
  if (model.models.size() > 1) return;  // nobody's goldens
  int wrong = 0;
  EXPECT_LT(worst_error(mixed.dir(), model.models.front(), {}, &wrong), most);
  if (most < 0.1) EXPECT_EQ(wrong, 0);
}

// A checkpoint of these tensors.
core::Result<Checkpoint> written_checkpoint(const std::vector<Written>& tensors) {
  const test::TempDir dir;
  return Checkpoint::open(dir.write("packed.safetensors", test::safetensors(tensors)));
}

std::optional<PackedTensor> tensor_of(const Checkpoint& checkpoint, const ModelConfig& config, const std::string& name,
                                      std::int64_t rows, std::int64_t cols) {
  const std::vector<std::string> prefixes{"model."};
  auto found = PackedTensor::find(checkpoint, prefixes, name, rows, cols, config.packed);
  EXPECT_TRUE(found) << (found ? "" : found.error().message);
  return found ? *found : std::nullopt;
}

TEST(PackedTensor, TakesInt4ApartWithoutLoss) {
  for (const auto& [model, group, symmetric] : {std::tuple{"gptq_tiny", 128, true},
                                                {"gptq_act_tiny", 0, false},
                                                {"awq_tiny", 128, false},
                                                {"awq_g64_tiny", 64, false}}) {
    const auto config = load_model_config(data_dir(model));
    const auto checkpoint = Checkpoint::open(data_dir(model));
    ASSERT_TRUE(config && checkpoint);
    const std::int64_t rows = config->hidden_size, cols = config->intermediate_size;
    const auto t = tensor_of(*checkpoint, *config, "layers.1.mlp.down_proj", rows, cols);
    ASSERT_TRUE(t) << model;
    EXPECT_EQ(t->int4_group(), group) << model;
    EXPECT_EQ(t->symmetric(), symmetric) << model;
    if (group == 0) continue;
    const std::int64_t groups = (cols + group - 1) / group, first = 5, count = 70;
    std::vector<std::int8_t> values(static_cast<std::size_t>(count * cols));
    std::vector<float> scales(static_cast<std::size_t>(count * groups)), zeros(scales.size()), wide(values.size());
    t->int4_rows(first, count, group, values.data(), scales.data(), zeros.data());
    t->dequantise(first, count, wide.data());
    for (std::int64_t i = 0; i < count * cols; ++i) {
      const auto g = static_cast<std::size_t>(i / cols * groups + i % cols / group);
      const auto v = static_cast<std::size_t>(i);
      ASSERT_EQ(wide[v], (static_cast<float>(values[v]) - zeros[g]) * scales[g]) << model << " " << i;
    }
  }
}

TEST(PackedTensor, TakesFp8ApartWithoutLoss) {
  for (const char* model : {"fp8_channel_tiny", "fp8_tensor_tiny", "fp8_static_tiny", "fp8_block_tiny"}) {
    const auto config = load_model_config(data_dir(model));
    const auto checkpoint = Checkpoint::open(data_dir(model));
    ASSERT_TRUE(config && checkpoint);
    const std::int64_t rows = config->hidden_size, cols = config->intermediate_size;
    const auto t = tensor_of(*checkpoint, *config, "layers.0.mlp.down_proj", rows, cols);
    ASSERT_TRUE(t) << model;
    EXPECT_EQ(t->bytes_by_row(), std::string_view(model) != "fp8_block_tiny");
    EXPECT_EQ(t->int4_group(), 0);
  }
}

TEST(PackedTensor, TakesInt8ApartWithoutLoss) {
  const auto config = load_model_config(data_dir("w8a8_tiny"));
  const auto checkpoint = Checkpoint::open(data_dir("w8a8_tiny"));
  ASSERT_TRUE(config && checkpoint);
  const auto t = tensor_of(*checkpoint, *config, "layers.1.mlp.down_proj", 128, 128);
  ASSERT_TRUE(t);
  EXPECT_TRUE(t->bytes_by_row());
  EXPECT_EQ(t->int4_group(), 0);
  std::vector<std::uint8_t> bytes(30 * 128);
  std::vector<float> scales(30), wide(bytes.size());
  t->byte_rows(50, 30, bytes.data(), scales.data());
  t->dequantise(50, 30, wide.data());
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    ASSERT_EQ(wide[i], static_cast<float>(static_cast<std::int8_t>(bytes[i])) * scales[i / 128]) << i;
  }
  EXPECT_NE(std::ranges::find(bytes, 0x80), bytes.end()) << "the lowest byte is not among them";
}

// gptq_tiny's down projection as compressed-tensors would have written it.
TEST(PackedTensor, ReadsWordsAlongARow) {
  const auto config = load_model_config(data_dir("gptq_tiny"));
  const auto checkpoint = Checkpoint::open(data_dir("gptq_tiny"));
  ASSERT_TRUE(config && checkpoint);
  const std::int64_t rows = config->hidden_size, cols = config->intermediate_size, groups = cols / 128;
  const auto gptq = tensor_of(*checkpoint, *config, "layers.0.mlp.down_proj", rows, cols);
  ASSERT_TRUE(gptq);
  std::vector<std::int8_t> values(static_cast<std::size_t>(rows * cols));
  std::vector<float> scales(static_cast<std::size_t>(rows * groups)), zeros(scales.size());
  gptq->int4_rows(0, rows, 128, values.data(), scales.data(), zeros.data());
  std::vector<std::uint32_t> words(values.size() / 8, 0);
  for (std::size_t i = 0; i < values.size(); ++i) {
    words[i / 8] |= static_cast<std::uint32_t>(values[i] + 8) << (4 * (i % 8));
  }
  const auto written = written_checkpoint({{"x.weight_packed", "I32", {rows, cols / 8}, bytes_of(words)},
                                           {"x.weight_scale", "F32", {rows, groups}, bytes_of(scales)}});
  ASSERT_TRUE(written) << written.error().message;
  const std::vector<std::string> none{""};
  const auto found = PackedTensor::find(*written, none, "x", rows, cols, {.scheme = PackedScheme::rows, .group = 128});
  ASSERT_TRUE(found && *found);
  EXPECT_TRUE((*found)->symmetric());
  EXPECT_EQ((*found)->int4_group(), 128);
  std::vector<float> got(values.size()), want(values.size());
  (*found)->dequantise(0, rows, got.data());
  gptq->dequantise(0, rows, want.data());
  EXPECT_EQ(got, want);
}

// An int8 projection beside one that was left out of quantisation: one matrix all the same, in float, or in int8 where
// that is asked for.
TEST(PackedTensor, Int8BesideFloatsIsWidenedOrRoundedWithThem) {
  constexpr int kRows = 3, kCols = 64;
  std::vector<std::int8_t> bytes(kRows * kCols);
  std::vector<float> floats(kRows * kCols), x(kCols), scales{0.5f, 0.25f, 2.0f};
  for (int i = 0; i < kRows * kCols; ++i) {
    bytes[static_cast<std::size_t>(i)] = static_cast<std::int8_t>(i * 37 % 256 - 128);
    floats[static_cast<std::size_t>(i)] = static_cast<float>(i % 23) - 11.0f;
  }
  for (int i = 0; i < kCols; ++i) x[static_cast<std::size_t>(i)] = static_cast<float>(i % 7) - 3.0f;
  const auto checkpoint = written_checkpoint({{"a.weight", "I8", {kRows, kCols}, bytes_of(bytes)},
                                              {"a.weight_scale", "F32", {kRows, 1}, bytes_of(scales)},
                                              {"a.weight_zero_point", "I8", {kRows, 1}, std::string(kRows, '\0')},
                                              {"b.weight", "F32", {kRows, kCols}, bytes_of(floats)}});
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  std::vector<double> want;
  for (int r = 0; r < 2 * kRows; ++r) {
    double sum = 0;
    for (int k = 0; k < kCols; ++k) {
      const auto at = static_cast<std::size_t>(r % kRows * kCols + k);
      sum += static_cast<double>(x[static_cast<std::size_t>(k)]) *
             (r < kRows ? bytes[at] * static_cast<double>(scales[static_cast<std::size_t>(r)]) : floats[at]);
    }
    want.push_back(sum);
  }
  ThreadPool pool(1);
  LinearScratch scratch;
  for (const bool int8 : {false, true}) {
    const WeightLoader loader(*checkpoint, {""}, pool, int8, {.scheme = PackedScheme::int8});
    const WeightLoader::Piece pieces[] = {{"a", kRows}, {"b", kRows}};
    const auto both = loader.linear(pieces, kCols, false);
    ASSERT_TRUE(both) << both.error().message;
    EXPECT_EQ(both->type(), int8 ? WeightType::i8 : WeightType::f32);
    std::vector<float> y(2 * kRows);
    ASSERT_TRUE(both->forward(scalar_kernels(), pool, scratch, x.data(), kCols, 1, y.data(), 2 * kRows));
    // Small whole numbers times powers of two: exact in float. In int8 the activations (by 3 / 127) are not, and the
    // floats' rows (by 11 / 127) neither.
    for (std::size_t r = 0; r < want.size(); ++r) {
      EXPECT_NEAR(y[r], want[r], int8 ? 0.02 * 64 * 11 * 2 : 1e-3) << int8 << " row " << r;
    }
    const auto alone = loader.linear({"a", kRows}, kCols, false);
    ASSERT_TRUE(alone);
    EXPECT_EQ(alone->type(), WeightType::i8);
  }
}

TEST(PackedTensor, Int8WithZeroPointsIsRefused) {
  const std::vector<float> scales{1.0f};
  const auto checkpoint = written_checkpoint({{"a.weight", "I8", {1, 8}, std::string(8, '\3')},
                                              {"a.weight_scale", "F32", {1, 1}, bytes_of(scales)},
                                              {"a.weight_zero_point", "I8", {1, 1}, "\5"}});
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  const std::vector<std::string> none{""};
  const auto found = PackedTensor::find(*checkpoint, none, "a", 1, 8, {.scheme = PackedScheme::int8});
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().kind, core::ErrorKind::unsupported);
  EXPECT_THAT(found.error().message, HasSubstr("a.weight_zero_point is not zero"));
}

TEST(PackedTensor, PlainProjectionsAreNotFound) {
  const auto config = load_model_config(data_dir("gptq_tiny"));
  const auto checkpoint = Checkpoint::open(data_dir("gptq_tiny"));
  ASSERT_TRUE(config && checkpoint);
  EXPECT_FALSE(tensor_of(*checkpoint, *config, "embed_tokens", 128, 128));
}

TEST(PackedTensor, NamesTheTensorOfTheWrongShape) {
  const auto config = load_model_config(data_dir("awq_tiny"));
  const auto checkpoint = Checkpoint::open(data_dir("awq_tiny"));
  ASSERT_TRUE(config && checkpoint);
  const std::vector<std::string> prefixes{"model."};
  const auto found = PackedTensor::find(*checkpoint, prefixes, "layers.0.self_attn.q_proj", 136, 128, config->packed);
  ASSERT_FALSE(found);
  EXPECT_THAT(found.error().message, HasSubstr("layers.0.self_attn.q_proj.qweight"));
}

}  // namespace
}  // namespace ganglion::local
