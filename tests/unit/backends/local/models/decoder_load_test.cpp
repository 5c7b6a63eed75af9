// Loading a checkpoint that does not fit its config: the error names the tensor.

#include <unistd.h>

#include <filesystem>

#include "tests/unit/backends/local/models/goldens.hpp"

namespace ganglion::local {
namespace {

core::Result<std::unique_ptr<Decoder>> load_with(const std::string& model, auto change) {
  static ThreadPool pool(1);
  auto config = load_model_config(data_dir(model));
  auto checkpoint = Checkpoint::open(data_dir(model));
  EXPECT_TRUE(config && checkpoint);
  change(*config);
  return Decoder::load(std::move(*checkpoint), *config, {&kernels_for(best_isa()), &pool}, false, 16);
}

TEST(DecoderLoad, NamesTheMissingTensor) {
  const auto loaded = load_with("llama2_tiny", [](ModelConfig& c) { c.layers += 1; });
  ASSERT_FALSE(loaded);
  EXPECT_NE(loaded.error().message.find("layers."), std::string::npos) << loaded.error().message;
  EXPECT_NE(loaded.error().message.find("input_layernorm.weight"), std::string::npos) << loaded.error().message;
}

TEST(DecoderLoad, NamesTheTensorOfTheWrongShape) {
  const auto loaded = load_with("llama2_tiny", [](ModelConfig& c) { c.intermediate_size += 1; });
  ASSERT_FALSE(loaded);
  EXPECT_NE(loaded.error().message.find("mlp.gate_proj.weight"), std::string::npos) << loaded.error().message;
}

TEST(DecoderLoad, NamesTheMissingBias) {
  const auto loaded = load_with("llama2_tiny", [](ModelConfig& c) { c.attention_bias = true; });
  ASSERT_FALSE(loaded);
  EXPECT_NE(loaded.error().message.find("q_proj.bias"), std::string::npos) << loaded.error().message;
}

TEST(DecoderLoad, RefusesAnEncoderAndAnActivationThatItDoesNotHave) {
  EXPECT_FALSE(load_with("llama2_tiny", [](ModelConfig& c) { c.family = ModelFamily::bert; }));
  const auto loaded = load_with("llama2_tiny", [](ModelConfig& c) { c.activation = Activation::relu; });
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().kind, core::ErrorKind::unsupported);
}

// A copy of gemma3_tiny as a model with a vision part is published: the text part's config inside, other names before
// its tensors.
class WithVision {
 public:
  explicit WithVision(const std::string& prefix)
      : dir_(std::filesystem::temp_directory_path() / ("vision." + std::to_string(::getpid()))) {
    std::filesystem::create_directories(dir_);
    std::ifstream config(data_dir("gemma3_tiny") + "/config.json");
    nlohmann::json text = nlohmann::json::parse(config);
    std::ofstream(dir_ / "config.json") << nlohmann::json{{"model_type", "gemma3"},
                                                          {"eos_token_id", text["eos_token_id"]},
                                                          {"text_config", text},
                                                          {"vision_config", {{"hidden_size", 8}}}};
    std::ifstream in(data_dir("gemma3_tiny") + "/model.safetensors", std::ios::binary);
    std::uint64_t size = 0;
    in.read(reinterpret_cast<char*>(&size), 8);
    std::string header(size, ' ');
    in.read(header.data(), static_cast<std::streamsize>(size));
    nlohmann::json renamed;
    for (const auto& item : nlohmann::json::parse(header).items()) {
      const bool tensor = item.key().starts_with("model.");
      renamed[tensor ? prefix + item.key().substr(6) : item.key()] = item.value();
    }
    header = renamed.dump();
    size = header.size();
    std::ofstream out(dir_ / "model.safetensors", std::ios::binary);
    out.write(reinterpret_cast<const char*>(&size), 8);
    out << header << in.rdbuf();
  }
  ~WithVision() { std::filesystem::remove_all(dir_); }
  std::string dir() const { return dir_.string(); }

 private:
  std::filesystem::path dir_;
};

TEST(DecoderLoad, TakesTheTextPartOfAModelWithVision) {
  const std::vector<std::int32_t> prompt{2, 40, 300, 77, 650, 12};
  DecoderHarness plain("gemma3_tiny");
  ASSERT_NE(plain.decoder, nullptr);
  auto s = plain.sequence(8);
  const auto want = plain.append(s, prompt);
  for (const char* prefix : {"language_model.model.", "model.language_model."}) {
    const WithVision copy(prefix);
    DecoderHarness inside(copy.dir());
    ASSERT_NE(inside.decoder, nullptr) << prefix;
    auto t = inside.sequence(8);
    EXPECT_EQ(inside.append(t, prompt), want) << prefix;
  }
}

}  // namespace
}  // namespace ganglion::local
