// Reads config.json and generation_config.json. Defaults of absent keys are those of the transformers classes.

#include "backends/local/weights/model_config.hpp"

#include <array>
#include <limits>

#include "backends/local/weights/config_fields.hpp"
#include "backends/local/weights/sentence_config.hpp"

namespace ganglion::local {
namespace {

namespace fs = std::filesystem;
using core::ErrorKind;

struct FamilyFacts {
  ModelFamily family;
  const char* name;
  std::int64_t max_position;  // default of an absent max_position_embeddings
};

constexpr std::array kFamilies = {
    FamilyFacts{ModelFamily::llama, "llama", 2048},  FamilyFacts{ModelFamily::mistral, "mistral", 131072},
    FamilyFacts{ModelFamily::qwen2, "qwen2", 32768}, FamilyFacts{ModelFamily::qwen3, "qwen3", 32768},
    FamilyFacts{ModelFamily::bert, "bert", 512},
};

constexpr std::int64_t kSizeMax = 1 << 24;  // of a hidden size, vocabulary or position count
constexpr std::int64_t kLayersMax = 4096;
constexpr std::int64_t kIdMax = std::numeric_limits<std::int32_t>::max();
constexpr double kBig = 1e12;

void read_activation(ConfigFields& f, ModelConfig& c) {
  const std::string name = f.string("hidden_act").value_or(c.family == ModelFamily::bert ? "gelu" : "silu");
  if (name == "silu" || name == "swish") {
    c.activation = Activation::silu;
  } else if (name == "gelu") {
    c.activation = Activation::gelu;
  } else if (name == "gelu_new" || name == "gelu_pytorch_tanh" || name == "gelu_fast") {
    c.activation = Activation::gelu_tanh;
  } else if (name == "relu") {
    c.activation = Activation::relu;
  } else {
    f.fail(ErrorKind::unsupported, "hidden_act", "\"" + name + "\" is not implemented");
  }
}

// transformers 5 writes rope_parameters with everything; 4 wrote rope_theta at the top and rope_scaling beside it.
void read_rope(ConfigFields& f, ModelConfig& c) {
  c.rope.theta = f.number_or("rope_theta", c.rope.theta, 1e-3, kBig);
  auto scaling = f.object(f.has("rope_parameters") ? "rope_parameters" : "rope_scaling");
  if (f.number_or("partial_rotary_factor", 1.0, 0, 1) != 1.0) {
    f.fail(ErrorKind::unsupported, "partial_rotary_factor", "other than 1 is not implemented");
  }
  if (!scaling) return;
  ConfigFields& s = *scaling;
  if (s.has("full_attention") || s.has("sliding_attention")) {
    s.fail(ErrorKind::unsupported, "full_attention", "(rope per layer type) is not implemented");
  }
  if (s.number_or("partial_rotary_factor", 1.0, 0, 1) != 1.0) {
    s.fail(ErrorKind::unsupported, "partial_rotary_factor", "other than 1 is not implemented");
  }
  c.rope.theta = s.number_or("rope_theta", c.rope.theta, 1e-3, kBig);
  const std::string type = s.string(s.has("rope_type") ? "rope_type" : "type").value_or("default");
  if (type == "default") {
    c.rope.type = RopeType::plain;
  } else if (type == "linear" || type == "dynamic" || type == "llama3") {
    c.rope.type = type == "linear" ? RopeType::linear : type == "dynamic" ? RopeType::dynamic : RopeType::llama3;
    if (!s.has("factor")) s.fail(ErrorKind::invalid_value, "factor", "is missing for rope type " + type);
    c.rope.factor = s.number_or("factor", 1.0, 1e-3, 1e6);
  } else {
    s.fail(ErrorKind::unsupported, "rope_type", "\"" + type + "\" is not implemented");
  }
  if (c.rope.type == RopeType::dynamic) {
    c.rope.original_max_position = s.integer_or("original_max_position_embeddings", c.max_position, 1, kSizeMax);
  } else if (c.rope.type == RopeType::llama3) {
    for (const char* key : {"low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}) {
      if (!s.has(key)) s.fail(ErrorKind::invalid_value, key, "is missing for rope type llama3");
    }
    c.rope.low_freq_factor = s.number_or("low_freq_factor", 1.0, 1e-3, 1e6);
    c.rope.high_freq_factor = s.number_or("high_freq_factor", 4.0, 1e-3, 1e6);
    c.rope.original_max_position = s.integer_or("original_max_position_embeddings", 0, 1, kSizeMax);
    if (c.rope.high_freq_factor <= c.rope.low_freq_factor) {
      s.fail(ErrorKind::invalid_value, "high_freq_factor", "must be above low_freq_factor");
    }
  }
  f.absorb(s);
}

// Which layers see only a window. qwen2 and qwen3 switch it on with use_sliding_window, from max_window_layers on;
// mistral has it in all layers; layer_types, where present, says it layer by layer.
void read_window(ConfigFields& f, ModelConfig& c) {
  const bool qwen = c.family == ModelFamily::qwen2 || c.family == ModelFamily::qwen3;
  if (!qwen && c.family != ModelFamily::mistral) return;
  if (qwen && !f.boolean_or("use_sliding_window", false)) return;
  const bool stated_null = f.states("sliding_window") && !f.has("sliding_window");
  if (stated_null) return;
  const std::int64_t window = f.integer_or("sliding_window", 4096, 1, kSizeMax);
  std::vector<bool> sliding(static_cast<std::size_t>(c.layers), true);
  if (auto types = f.strings("layer_types")) {
    if (types->size() != sliding.size()) {
      f.fail(ErrorKind::invalid_value, "layer_types", "does not have one entry per layer");
      return;
    }
    for (std::size_t i = 0; i < sliding.size(); ++i) {
      sliding[i] = (*types)[i] == "sliding_attention";
      if (!sliding[i] && (*types)[i] != "full_attention") {
        f.fail(ErrorKind::unsupported, "layer_types", "\"" + (*types)[i] + "\" is not implemented");
      }
    }
  } else if (qwen) {
    const std::int64_t first = f.integer_or("max_window_layers", 28, 0, kLayersMax);
    for (std::size_t i = 0; i < sliding.size(); ++i) sliding[i] = static_cast<std::int64_t>(i) >= first;
  }
  c.sliding_window = window;
  c.layer_sliding = std::move(sliding);
}

void read_sizes(ConfigFields& f, ModelConfig& c) {
  const bool bert = c.family == ModelFamily::bert;
  c.vocab_size = f.required_integer("vocab_size", 1, kSizeMax);
  c.hidden_size = f.required_integer("hidden_size", 1, kSizeMax);
  c.layers = f.required_integer("num_hidden_layers", 1, kLayersMax);
  c.heads = f.required_integer("num_attention_heads", 1, 65536);
  c.intermediate_size = f.required_integer("intermediate_size", 1, kSizeMax);
  c.kv_heads = bert ? c.heads : f.integer_or("num_key_value_heads", c.heads, 1, 65536);
  c.max_position = f.integer_or("max_position_embeddings", c.max_position, 1, kSizeMax);
  if (!f.result()) return;
  const std::int64_t even_share = c.hidden_size / c.heads;
  const std::int64_t default_dim = c.family == ModelFamily::qwen3 ? 128 : even_share;
  c.head_dim = bert ? even_share : f.integer_or("head_dim", default_dim, 1, 65536);
  if ((bert || !f.has("head_dim")) && c.family != ModelFamily::qwen3 && c.hidden_size % c.heads != 0) {
    f.fail(ErrorKind::invalid_value, "num_attention_heads", "does not divide hidden_size");
  }
  if (c.heads % c.kv_heads != 0) {
    f.fail(ErrorKind::invalid_value, "num_key_value_heads", "does not divide num_attention_heads");
  }
  if (!bert && c.head_dim % 2 != 0) f.fail(ErrorKind::invalid_value, "head_dim", "is odd, which rope cannot rotate");
}

void read_decoder(ConfigFields& f, ModelConfig& c) {
  c.norm_eps = f.number_or("rms_norm_eps", 1e-6, 0, 1);
  c.tie_embeddings = f.boolean_or("tie_word_embeddings", false);
  const bool bias = f.boolean_or("attention_bias", false);
  c.attention_bias = c.family == ModelFamily::qwen2 || (bias && c.family != ModelFamily::mistral);
  c.attention_out_bias = bias && (c.family == ModelFamily::llama || c.family == ModelFamily::qwen3);
  c.mlp_bias = c.family == ModelFamily::llama && f.boolean_or("mlp_bias", false);
  c.qk_norm = c.family == ModelFamily::qwen3;
  read_rope(f, c);
  read_window(f, c);
}

void read_bert(ConfigFields& f, ModelConfig& c) {
  c.norm_eps = f.number_or("layer_norm_eps", 1e-12, 0, 1);
  c.attention_bias = c.attention_out_bias = c.mlp_bias = true;
  c.type_vocab_size = f.integer_or("type_vocab_size", 2, 1, kSizeMax);
  if (f.string("position_embedding_type").value_or("absolute") != "absolute") {
    f.fail(ErrorKind::unsupported, "position_embedding_type", "other than \"absolute\" is not implemented");
  }
  if (f.boolean_or("is_decoder", false)) f.fail(ErrorKind::unsupported, "is_decoder", "is not implemented for bert");
}

void read_dtype(ConfigFields& f, ModelConfig& c) {
  const auto name = f.string(f.has("dtype") ? "dtype" : "torch_dtype");
  if (!name) return;
  if (*name == "float32") c.dtype = Dtype::f32;
  if (*name == "float16") c.dtype = Dtype::f16;
  if (*name == "bfloat16") c.dtype = Dtype::bf16;
}

std::optional<std::int32_t> first_id(const std::vector<std::int64_t>& ids) {
  if (ids.empty()) return std::nullopt;
  return static_cast<std::int32_t>(ids.front());
}

// Ids and sampling defaults; called for config.json first and generation_config.json second, which wins.
void read_generation(ConfigFields& f, ModelConfig& c) {
  if (auto bos = first_id(f.integers("bos_token_id", 0, kIdMax))) c.bos_id = bos;
  if (auto pad = first_id(f.integers("pad_token_id", -1, kIdMax)); pad && *pad >= 0) c.pad_id = pad;
  if (auto eos = f.integers("eos_token_id", 0, kIdMax); !eos.empty()) {
    c.eos_ids.assign(eos.begin(), eos.end());
  }
  auto keep = [](auto& field, auto value) {
    if (value) field = value;
  };
  GenerationDefaults& g = c.generation;
  keep(g.do_sample, f.boolean("do_sample"));
  keep(g.temperature, f.number("temperature", 0, 1e6));
  keep(g.top_p, f.number("top_p", 0, 1));
  keep(g.top_k, f.integer("top_k", 0, kSizeMax));
  keep(g.min_p, f.number("min_p", 0, 1));
  keep(g.repetition_penalty, f.number("repetition_penalty", 1e-6, 1e6));
  keep(g.max_new_tokens, f.integer("max_new_tokens", 1, kSizeMax));
}

void read_family(ConfigFields& f, ModelConfig& c) {
  const std::string type = f.string("model_type").value_or("");
  for (const FamilyFacts& facts : kFamilies) {
    if (type != facts.name) continue;
    c.family = facts.family;
    c.max_position = facts.max_position;
    return;
  }
  if (type.empty()) {
    f.fail(ErrorKind::invalid_value, "model_type", "is missing");
  } else {
    f.fail(ErrorKind::unsupported, "model_type",
           "\"" + type + "\" is not implemented (llama, mistral, qwen2, qwen3, bert are)");
  }
}

}  // namespace

std::string_view family_name(ModelFamily family) {
  for (const FamilyFacts& facts : kFamilies) {
    if (facts.family == family) return facts.name;
  }
  return "?";
}

core::Result<ModelConfig> load_model_config(const fs::path& dir) {
  auto fields = ConfigFields::read(dir / "config.json");
  if (!fields) return std::unexpected(fields.error());
  ConfigFields& f = *fields;
  ModelConfig config;
  read_family(f, config);
  if (auto ok = f.result(); !ok) return std::unexpected(ok.error());
  if (f.has("quantization_config")) {
    auto quantization = f.object("quantization_config");
    const std::string method = quantization ? quantization->string("quant_method").value_or("unnamed") : "unnamed";
    f.fail(ErrorKind::unsupported, "quantization_config",
           "(" + method + ") is not implemented: use unquantised weights");
  }
  read_sizes(f, config);
  if (auto ok = f.result(); !ok) return std::unexpected(ok.error());
  read_activation(f, config);
  read_dtype(f, config);
  read_generation(f, config);
  if (config.family == ModelFamily::bert) {
    read_bert(f, config);
  } else {
    read_decoder(f, config);
  }
  if (auto ok = f.result(); !ok) return std::unexpected(ok.error());

  if (config.family == ModelFamily::bert) {
    if (auto ok = read_sentence_config(dir, config); !ok) return std::unexpected(ok.error());
    return config;
  }
  auto generation = ConfigFields::read_if_present(dir / "generation_config.json");
  if (!generation) return std::unexpected(generation.error());
  read_generation(*generation, config);
  if (auto ok = generation->result(); !ok) return std::unexpected(ok.error());
  return config;
}

}  // namespace ganglion::local
