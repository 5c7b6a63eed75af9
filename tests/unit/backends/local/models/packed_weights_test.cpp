// Checkpoints that were quantised before, against a float32 model of their dequantised weights; and the parts that a
// device keeps as they are.

#include "backends/local/models/packed_weights.hpp"

#include <gmock/gmock.h>
#include <unistd.h>

#include <filesystem>

#include "tests/unit/backends/local/models/goldens.hpp"

namespace ganglion::local {
namespace {

using ::testing::HasSubstr;

class PackedGoldens : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Models, PackedGoldens,
                         testing::Values("gptq_tiny", "gptq_act_tiny", "awq_tiny", "awq_g64_tiny", "fp8_channel_tiny",
                                         "fp8_tensor_tiny", "fp8_static_tiny", "fp8_block_tiny"),
                         [](const auto& info) { return std::string(info.param); });

double worst_error(const std::string& model, DecoderHarness::Options options, int* wrong) {
  DecoderHarness harness(model, options);
  double worst = 0;
  if (harness.decoder == nullptr) return 1;
  for (const GoldenCase& c : read_goldens(model)) {
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
  EXPECT_LT(worst_error(GetParam(), {}, &wrong), 3e-3);
  EXPECT_EQ(wrong, 0);
}

TEST_P(PackedGoldens, StayCloseInInt8) {
  int wrong = 0;
  const double worst = worst_error(GetParam(), {.int8 = true}, &wrong);
  EXPECT_LT(worst, 0.15);
  EXPECT_GT(worst, 1e-5) << "nothing was quantised";
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
    EXPECT_EQ(t->fp8_by_row(), std::string_view(model) != "fp8_block_tiny");
    EXPECT_EQ(t->int4_group(), 0);
  }
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
  const std::size_t word_bytes = words.size() * 4, scale_bytes = scales.size() * 4;
  nlohmann::json header;
  header["x.weight_packed"] = {{"dtype", "I32"}, {"shape", {rows, cols / 8}}, {"data_offsets", {0, word_bytes}}};
  header["x.weight_scale"] = {
      {"dtype", "F32"}, {"shape", {rows, groups}}, {"data_offsets", {word_bytes, word_bytes + scale_bytes}}};
  const auto file = std::filesystem::temp_directory_path() / ("rows." + std::to_string(::getpid()) + ".safetensors");
  {
    std::ofstream out(file, std::ios::binary);
    const std::string text = header.dump();
    const std::uint64_t size = text.size();
    out.write(reinterpret_cast<const char*>(&size), 8);
    out << text;
    out.write(reinterpret_cast<const char*>(words.data()), static_cast<std::streamsize>(word_bytes));
    out.write(reinterpret_cast<const char*>(scales.data()), static_cast<std::streamsize>(scale_bytes));
  }
  const auto written = Checkpoint::open(file);
  std::filesystem::remove(file);
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
