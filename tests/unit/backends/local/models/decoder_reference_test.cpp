// The decoder against the slow reference on random models of shapes that no golden has: wide head groups, odd sizes,
// biases everywhere, windows on some layers, linear rotary scaling.

#include "tests/unit/backends/local/models/goldens.hpp"
#include "tests/unit/backends/local/models/reference_decoder.hpp"

namespace ganglion::local {
namespace {

ModelConfig shape(int hidden, int heads, int kv_heads, int head_dim, int inner) {
  ModelConfig c;
  c.vocab_size = 71;
  c.hidden_size = hidden;
  c.layers = 2;
  c.heads = heads;
  c.kv_heads = kv_heads;
  c.head_dim = head_dim;
  c.intermediate_size = inner;
  c.max_position = 512;
  return c;
}

std::vector<ModelConfig> shapes() {
  std::vector<ModelConfig> out;
  out.push_back(shape(36, 12, 1, 6, 50));  // twelve heads on one: more than one attention tile
  out.back().attention_bias = out.back().attention_out_bias = out.back().mlp_bias = true;
  out.push_back(shape(40, 3, 3, 26, 33));
  out.back().sliding_window = 9;
  out.back().layer_sliding = {false, true};
  out.back().tie_embeddings = true;
  out.push_back(shape(129, 10, 2, 34, 77));
  out.back().qk_norm = true;
  out.back().rope.type = RopeType::linear;
  out.back().rope.factor = 2.5;
  return out;
}

TEST(DecoderReference, RandomModelsAgreeOnEveryLevel) {
  namespace fs = std::filesystem;
  const fs::path dir = fs::path(testing::TempDir()) / "ganglion_random_models";
  fs::create_directories(dir);
  std::uint32_t seed = 5;
  for (const ModelConfig& config : shapes()) {
    const auto tensors = reference::random_tensors(config, ++seed);
    const fs::path file = dir / ("model" + std::to_string(seed) + ".safetensors");
    reference::write_safetensors(file, tensors);
    std::vector<std::int32_t> tokens;
    for (int i = 0; i < 40; ++i) tokens.push_back((i * i * 3 + static_cast<int>(seed)) % 71);
    const auto want = reference::ReferenceDecoder(config, tensors).logits({tokens.begin(), tokens.end()});
    for (int level = 0; level < kIsaCount; ++level) {
      const auto isa = static_cast<Isa>(level);
      if (!isa_supported(isa)) continue;
      ThreadPool pool(3);
      auto checkpoint = Checkpoint::open(file);
      ASSERT_TRUE(checkpoint) << checkpoint.error().message;
      auto decoder = Decoder::load(std::move(*checkpoint), config, {&kernels_for(isa), &pool}, false, 64);
      ASSERT_TRUE(decoder) << decoder.error().message;
      KvStore kv((*decoder)->kv_shape(KvElement::f32), 4);
      const std::int32_t pages[] = {3, 1, 0};
      std::vector<float> logits(71);
      const DecoderSlice slice{tokens, pages, 0, true};
      ASSERT_TRUE((*decoder)->forward(kv, {&slice, 1}, logits.data()));
      EXPECT_LT(relative_error(logits, {want.begin(), want.end()}), 1e-5)
          << isa_name(isa) << " hidden " << config.hidden_size;
    }
  }
  fs::remove_all(dir);
}

}  // namespace
}  // namespace ganglion::local
