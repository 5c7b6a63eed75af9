// Adapters against transformers with the adapter merged into its weights; and several of them, with the bare model
// beside them, in one step.

#include "backends/local/models/lora.hpp"

#include <gmock/gmock.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "tests/unit/backends/local/models/goldens.hpp"

namespace ganglion::local {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

const std::vector<std::string> kLlamaAdapters = {"lora/llama2_tiny.all_linears", "lora/llama2_tiny.query_value_rslora",
                                                 "lora/llama2_tiny.mixed_ranks"};

// Worst relative error of the logits, and greedy tokens that differ where the margin says that they must not.
std::pair<double, int> compare(DecoderHarness& harness, int adapter, const std::string& goldens) {
  double worst = 0;
  int wrong = 0;
  for (const GoldenCase& c : read_goldens(goldens)) {
    auto s = harness.sequence(static_cast<int>(c.prompt.size() + c.greedy.size()));
    s.adapter = adapter;
    std::vector<float> logits;
    int done = 0;
    for (std::size_t i = 0; i < c.positions.size(); ++i) {
      const int upto = c.positions[i] + 1;
      if (upto == done) continue;
      logits = harness.append(
          s, std::span(c.prompt).subspan(static_cast<std::size_t>(done), static_cast<std::size_t>(upto - done)));
      done = upto;
      worst = std::max(worst, relative_error(logits, c.logits[i]));
    }
    for (std::size_t i = 0; i < c.greedy.size(); ++i) {
      if (c.margins[i] > 1e-3f && best_of(logits) != c.greedy[i]) ++wrong;
      logits = harness.append(s, {&c.greedy[i], 1});
    }
  }
  return {worst, wrong};
}

TEST(Lora, AgreesWithMergedWeights) {
  DecoderHarness llama("llama2_tiny", {.adapters = kLlamaAdapters});
  ASSERT_NE(llama.decoder, nullptr);
  for (std::size_t a = 0; a < kLlamaAdapters.size(); ++a) {
    const auto [worst, wrong] = compare(llama, static_cast<int>(a), kLlamaAdapters[a]);
    EXPECT_LT(worst, 1e-4) << kLlamaAdapters[a];
    EXPECT_EQ(wrong, 0) << kLlamaAdapters[a];
  }
  const auto [bare, none] = compare(llama, -1, "llama2_tiny");
  EXPECT_LT(bare, 1e-4);
  EXPECT_EQ(none, 0);
  DecoderHarness qwen("qwen3_tiny", {.adapters = {"lora/qwen3_tiny.all_linears"}});
  const auto [worst, wrong] = compare(qwen, 0, "lora/qwen3_tiny.all_linears");
  EXPECT_LT(worst, 1e-4);
  EXPECT_EQ(wrong, 0);
}

TEST(Lora, ARowIsTheSameWhicheverAdaptersAreBesideIt) {
  DecoderHarness harness("llama2_tiny", {.adapters = kLlamaAdapters});
  ASSERT_NE(harness.decoder, nullptr);
  std::vector<std::int32_t> prompt;
  for (int i = 0; i < 20; ++i) prompt.push_back(3 + i * 29 % 600);
  const int adapters[] = {1, -1, 0, 2, 0, 1};
  std::vector<std::vector<float>> alone;
  std::vector<DecoderHarness::Sequence> sequences;
  std::vector<DecoderSlice> slices;
  for (const int adapter : adapters) {
    auto s = harness.sequence(20);
    s.adapter = adapter;
    alone.push_back(harness.append(s, prompt));
    sequences.push_back(harness.sequence(20));
  }
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    slices.push_back({prompt, sequences[i].pages.data(), 0, true});
    slices.back().adapter = adapters[i];
  }
  const auto vocab = static_cast<std::size_t>(harness.decoder->vocab_size());
  std::vector<float> together(vocab * slices.size());
  ASSERT_TRUE(harness.decoder->forward(harness.kv, slices, together.data()));
  for (std::size_t i = 0; i < slices.size(); ++i) {
    EXPECT_EQ(std::memcmp(together.data() + i * vocab, alone[i].data(), vocab * 4), 0) << "sequence " << i;
  }
  EXPECT_GT(relative_error(alone[0], alone[1]), 0.05) << "the adapter does nothing";
  EXPECT_GT(relative_error(alone[2], alone[3]), 0.05);
}

// A copy of an adapter's folder whose adapter_config.json can be changed.
class Copy {
 public:
  explicit Copy(const std::string& from) : dir_(fs::temp_directory_path() / ("lora." + std::to_string(::getpid()))) {
    fs::create_directories(dir_);
    for (const char* file : {"adapter_config.json", "adapter_model.safetensors"}) {
      fs::copy_file(fs::path(data_dir(from)) / file, dir_ / file, fs::copy_options::overwrite_existing);
    }
  }
  ~Copy() { fs::remove_all(dir_); }
  const fs::path& dir() const { return dir_; }
  void set(const std::string& key, const nlohmann::json& value) {
    std::ifstream in(dir_ / "adapter_config.json");
    nlohmann::json json = nlohmann::json::parse(in);
    json[key] = value;
    std::ofstream(dir_ / "adapter_config.json") << json;
  }
  std::string error_with(const std::string& key, const nlohmann::json& value,
                         const std::string& model = "llama2_tiny") {
    std::ifstream in(dir_ / "adapter_config.json");
    nlohmann::json json = nlohmann::json::parse(in);
    const nlohmann::json before = json;
    json[key] = value;
    std::ofstream(dir_ / "adapter_config.json") << json;
    const auto config = load_model_config(data_dir(model));
    const auto read = read_lora(dir_, *config, decoder_names(*config));
    std::ofstream(dir_ / "adapter_config.json") << before;
    return read ? "" : read.error().message;
  }

 private:
  fs::path dir_;
};

TEST(Lora, RefusesWhatWouldChangeTheResultAndIsNotImplemented) {
  Copy copy("lora/llama2_tiny.all_linears");
  EXPECT_EQ(copy.error_with("use_dora", false), "");
  EXPECT_THAT(copy.error_with("use_dora", true), HasSubstr("use_dora"));
  EXPECT_THAT(copy.error_with("peft_type", "IA3"), HasSubstr("IA3"));
  EXPECT_THAT(copy.error_with("bias", "all"), HasSubstr("bias"));
  EXPECT_THAT(copy.error_with("fan_in_fan_out", true), HasSubstr("fan_in_fan_out"));
  EXPECT_THAT(copy.error_with("modules_to_save", {"lm_head"}), HasSubstr("modules_to_save"));
  EXPECT_THAT(copy.error_with("alpha_pattern", {{"^q.*", 3}}), HasSubstr("alpha_pattern"));
  EXPECT_THAT(copy.error_with("use_dora", false, "mixtral_tiny"), HasSubstr("cannot be adapted"));  // its experts
  EXPECT_THAT(copy.error_with("use_dora", false, "qwen3_tiny"), HasSubstr("lora_A"));               // other shapes
  const auto config = load_model_config(data_dir("llama2_tiny"));
  const auto absent = read_lora("/nonexistent", *config, decoder_names(*config));
  ASSERT_FALSE(absent);
  EXPECT_EQ(absent.error().kind, core::ErrorKind::not_found);
}

TEST(Lora, AlphaMayDifferByModule) {
  Copy copy("lora/llama2_tiny.all_linears");  // rank 4, alpha 8
  const auto config = load_model_config(data_dir("llama2_tiny"));
  const auto before = read_lora(copy.dir(), *config, decoder_names(*config));
  copy.set("alpha_pattern", {{"o_proj", 2}, {"mlp.down_proj", 16}});
  const auto after = read_lora(copy.dir(), *config, decoder_names(*config));
  ASSERT_TRUE(before && after);
  ASSERT_EQ(before->size(), after->size());
  for (std::size_t i = 0; i < before->size(); ++i) {
    const LoraPlace place = (*before)[i].place;
    const float times = place == LoraPlace::out ? 0.25f : place == LoraPlace::down ? 2.0f : 1.0f;
    EXPECT_EQ((*after)[i].a, (*before)[i].a);
    for (std::size_t k = 0; k < (*before)[i].b.size(); ++k) {
      ASSERT_FLOAT_EQ((*after)[i].b[k], times * (*before)[i].b[k]);
    }
  }
}

TEST(Lora, NamesTheRowsThatAPairBelongsTo) {
  const auto config = load_model_config(data_dir("llama2_tiny"));
  const auto plain = read_lora(data_dir("lora/llama2_tiny.query_value_rslora"), *config, decoder_names(*config));
  ASSERT_TRUE(plain);
  ASSERT_EQ(plain->size(), 4u);  // q and v of two layers
  for (const LoraPair& pair : *plain) {
    EXPECT_EQ(pair.place, LoraPlace::qkv);
    EXPECT_EQ(pair.rank, 8);
    EXPECT_TRUE(pair.first_row == 0 || pair.first_row == 2 * config->hidden_size) << pair.first_row;
  }
}

}  // namespace
}  // namespace ganglion::local
