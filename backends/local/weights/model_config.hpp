#pragma once
// What a model directory says about its architecture: config.json, generation_config.json and, for embedding models,
// the sentence-transformers files. Spellings of transformers 4 and 5 both load. Values are checked for sense here, so
// that a model can be built from them without further doubt; tensors are checked against them when weights load.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/local/weights/tensor_view.hpp"
#include "core/error.hpp"

namespace ganglion::local {

enum class ModelFamily : std::uint8_t { llama, mistral, qwen2, qwen3, bert };
std::string_view family_name(ModelFamily family);

enum class RopeType : std::uint8_t { plain, linear, dynamic, llama3 };

struct RopeConfig {
  double theta = 10000.0;
  RopeType type = RopeType::plain;         // "default" in the files
  double factor = 1.0;                     // linear, dynamic, llama3
  double low_freq_factor = 1.0;            // llama3
  double high_freq_factor = 4.0;           // llama3
  std::int64_t original_max_position = 0;  // llama3; dynamic: max_position of the unscaled model
};

enum class Activation : std::uint8_t { silu, gelu, gelu_tanh, relu };
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
  bool qk_norm = false;  // RMSNorm on each head of q and k (qwen3)
  // Tokens a query sees, itself included; nullopt: all. layer_sliding[i] says whether layer i uses the window; it is
  // filled with `layers` entries whenever sliding_window is set, empty otherwise.
  std::optional<std::int64_t> sliding_window;
  std::vector<bool> layer_sliding;

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
