// Loading a checkpoint that does not fit its config: the error names the tensor.

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

}  // namespace
}  // namespace ganglion::local
