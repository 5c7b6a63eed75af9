#pragma once
// What a model directory says about its architecture: config.json, generation_config.json and, for embedding models,
// the sentence-transformers files. Spellings of transformers 4 and 5 both load. Values are checked for sense here, so
// that a model can be built from them without further doubt; tensors are checked against them when weights load.

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/local/weights/packed_config.hpp"
#include "backends/local/weights/tensor_view.hpp"
#include "core/error.hpp"

namespace ganglion::local {

enum class ModelFamily : std::uint8_t { llama, mistral, qwen2, qwen3, gemma2, gemma3, opt, phi3, mixtral, bert };
std::string_view family_name(ModelFamily family);

enum class RopeType : std::uint8_t { plain, linear, dynamic, llama3, longrope };

struct RopeConfig {
  double theta = 10000.0;
  RopeType type = RopeType::plain;         // "default" in the files
  double factor = 1.0;                     // linear, dynamic, llama3
  double low_freq_factor = 1.0;            // llama3
  double high_freq_factor = 4.0;           // llama3
  std::int64_t original_max_position = 0;  // llama3, longrope; dynamic: max_position of the unscaled model
  // longrope: what each frequency is divided by, in sequences of up to original_max_position tokens and in longer ones;
  // and what cosines and sines are multiplied with.
  std::vector<double> short_factor, long_factor;
  double magnitude = 1.0;
};

enum class Activation : std::uint8_t { silu, gelu, gelu_tanh, relu };
enum class NormKind : std::uint8_t {
  rms,
  rms_plus_one,  // weights are kept less one (gemma)
  layer,         // with mean and bias
};
enum class Residual : std::uint8_t {
  before,  // x += f(norm(x))
  around,  // x += norm(f(norm(x))) (gemma)
  after,   // x = norm(x + f(x)) (opt-350m)
};
enum class Pooling : std::uint8_t { cls, mean, max, last_token };

// Defaults of generation_config.json; an absent field means that the model states no preference.
struct GenerationDefaults {
  std::optional<bool> do_sample;
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<std::int64_t> top_k;
  std::optional<double> min_p;
  std::optional<double> repetition_penalty;
  std::optional<std::int64_t> max_new_tokens;
};

struct ModelConfig {
  ModelFamily family = ModelFamily::llama;
  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 0;
  std::int64_t layers = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;  // divides heads
  std::int64_t head_dim = 0;  // may differ from hidden_size / heads
  std::int64_t intermediate_size = 0;
  std::int64_t max_position = 0;  // tokens
  double norm_eps = 1e-5;
  Activation activation = Activation::silu;
  RopeConfig rope;
  bool tie_embeddings = false;
  bool attention_bias = false;      // q, k, v projections have a bias (qwen2 always)
  bool attention_out_bias = false;  // o_proj too (llama with attention_bias)
  bool mlp_bias = false;
  bool qk_norm = false;  // a norm on each head of q and k (qwen3, gemma3)
  // What sets decoder families apart, beyond sizes. Defaults are llama's.
  NormKind norm = NormKind::rms;
  Residual residual = Residual::before;
  bool final_norm = true;
  bool gated = true;            // the inner layer is activation(gate) * up, else activation(up)
  std::int64_t rotary_dim = 0;  // of a head, the first so many elements are rotated; 0: all
  std::int64_t position_offset =
      -1;                           // >= 0: positions are a learned table's rows, from this one on; nothing is rotated
  std::int64_t embedding_size = 0;  // of a token, projected to hidden_size and back; 0: hidden_size
  double embedding_scale = 1.0;
  double attention_scale = 0;    // of scores; 0: 1 / sqrt(head_dim)
  double attention_softcap = 0;  // scores become cap * tanh(score / cap); 0: they do not
  double logit_softcap = 0;
  std::int64_t experts = 0;  // of each layer's inner part; a token goes to experts_used of them
  std::int64_t experts_used = 0;
  PackedConfig packed;                   // how projections were quantised before
  std::optional<RopeConfig> local_rope;  // of the layers that see only a window, where theirs differs
  // Tokens a query sees, itself included; nullopt: all. layer_sliding[i] says whether layer i uses the window; it is
  // filled with `layers` entries whenever sliding_window is set, empty otherwise.
  std::optional<std::int64_t> sliding_window;
  std::vector<bool> layer_sliding;

  std::int64_t rotated() const { return position_offset >= 0 ? 0 : rotary_dim > 0 ? rotary_dim : head_dim; }
  std::int64_t embedding_width() const { return embedding_size > 0 ? embedding_size : hidden_size; }
  double score_scale() const { return attention_scale > 0 ? attention_scale : 1.0 / std::sqrt(double(head_dim)); }
  bool slides(std::int64_t layer) const {
    const auto at = static_cast<std::size_t>(layer);
    return sliding_window && at < layer_sliding.size() && layer_sliding[at];
  }

  std::optional<std::int32_t> bos_id;
  std::vector<std::int32_t> eos_ids;  // generation_config.json wins over config.json; may be empty
  std::optional<std::int32_t> pad_id;
  GenerationDefaults generation;
  std::optional<Dtype> dtype;  // as saved; the tensors themselves have the last word

  // bert only
  std::int64_t type_vocab_size = 0;
  Pooling pooling = Pooling::mean;  // from 1_Pooling/config.json; mean without sentence-transformers files
  bool normalize = false;           // a Normalize module is listed in modules.json
  std::int64_t max_seq_length = 0;  // sentence_bert_config.json, never above max_position
};

// Reads `dir`. not_found: no config.json. unsupported: model_type, rope type, activation or pooling that is not
// implemented (named). invalid_value: not JSON, wrong types, or sizes that make no model (file and key named).
core::Result<ModelConfig> load_model_config(const std::filesystem::path& dir);

}  // namespace ganglion::local
