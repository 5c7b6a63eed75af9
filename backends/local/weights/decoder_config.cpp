// Decoder families as config.json spells them, by transformers 4 and 5. Defaults of absent keys are those of the
// transformers classes. An option that changes the result and is not implemented is a mistake, never ignored.

#include "backends/local/weights/decoder_config.hpp"

#include <cmath>

namespace ganglion::local {
namespace {

using core::ErrorKind;

constexpr double kBig = 1e12;

bool is_qwen(const ModelConfig& c) {
  return c.family == ModelFamily::qwen2 || c.family == ModelFamily::qwen3;
}
bool is_gemma(const ModelConfig& c) {
  return c.family == ModelFamily::gemma2 || c.family == ModelFamily::gemma3;
}

// What a sparse config.json leaves to the class: only gemma3's are published that way.
struct SizeDefaults {
  std::int64_t vocab = 0, hidden = 0, layers = 0, heads = 0, inner = 0;  // 0: must be there
  std::int64_t kv_heads = 0, head_dim = 0;                               // 0: heads; hidden / heads
};
SizeDefaults size_defaults(const ModelConfig& c) {
  switch (c.family) {
    case ModelFamily::qwen3:
      return {.head_dim = 128};
    case ModelFamily::gemma2:
      return {.kv_heads = 4, .head_dim = 256};
    case ModelFamily::gemma3:
      return {262208, 2304, 26, 8, 9216, 4, 256};
    case ModelFamily::mixtral:
      return {.kv_heads = 8};
    default:
      return {};
  }
}

void read_sizes(ConfigFields& f, ModelConfig& c) {
  const SizeDefaults defaults = size_defaults(c);
  const auto size = [&](const char* key, std::int64_t fallback, std::int64_t max) {
    return fallback > 0 ? f.integer_or(key, fallback, 1, max) : f.required_integer(key, 1, max);
  };
  c.vocab_size = size("vocab_size", defaults.vocab, kModelSizeMax);
  c.hidden_size = size("hidden_size", defaults.hidden, kModelSizeMax);
  c.layers = size("num_hidden_layers", defaults.layers, kModelLayersMax);
  c.heads = size("num_attention_heads", defaults.heads, 65536);
  c.intermediate_size =
      size(c.family == ModelFamily::opt ? "ffn_dim" : "intermediate_size", defaults.inner, kModelSizeMax);
  const std::int64_t kv = defaults.kv_heads > 0 ? defaults.kv_heads : c.heads;
  c.kv_heads = c.family == ModelFamily::opt ? c.heads : f.integer_or("num_key_value_heads", kv, 1, 65536);
  c.max_position = f.integer_or("max_position_embeddings", c.max_position, 1, kModelSizeMax);
  if (!f.result()) return;
  const bool stated = f.has("head_dim") && c.family != ModelFamily::opt;
  const std::int64_t fallback = defaults.head_dim > 0 ? defaults.head_dim : c.hidden_size / c.heads;
  c.head_dim = stated ? f.integer_or("head_dim", fallback, 1, 65536) : fallback;
  if (!stated && defaults.head_dim == 0 && c.hidden_size % c.heads != 0) {
    f.fail(ErrorKind::invalid_value, "num_attention_heads", "does not divide hidden_size");
  }
  if (c.heads % c.kv_heads != 0) {
    f.fail(ErrorKind::invalid_value, "num_key_value_heads", "does not divide num_attention_heads");
  }
  if (c.head_dim % 2 != 0) f.fail(ErrorKind::invalid_value, "head_dim", "is odd, which rope cannot rotate");
}

// ---- rotary positions ----

void read_llama3_rope(ConfigFields& s, RopeConfig& rope) {
  for (const char* key : {"low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}) {
    if (!s.has(key)) s.fail(ErrorKind::invalid_value, key, "is missing for rope type llama3");
  }
  rope.low_freq_factor = s.number_or("low_freq_factor", 1.0, 1e-3, 1e6);
  rope.high_freq_factor = s.number_or("high_freq_factor", 4.0, 1e-3, 1e6);
  rope.original_max_position = s.integer_or("original_max_position_embeddings", 0, 1, kModelSizeMax);
  if (rope.high_freq_factor <= rope.low_freq_factor) {
    s.fail(ErrorKind::invalid_value, "high_freq_factor", "must be above low_freq_factor");
  }
}

void read_longrope(ConfigFields& f, ConfigFields& s, const ModelConfig& c, RopeConfig& rope) {
  ConfigFields& where = s.has("original_max_position_embeddings") ? s : f;
  rope.original_max_position = where.required_integer("original_max_position_embeddings", 1, kModelSizeMax);
  rope.short_factor = s.numbers("short_factor", 1e-6, 1e6);
  rope.long_factor = s.numbers("long_factor", 1e-6, 1e6);
  const auto wanted = static_cast<std::size_t>(c.rotated() / 2);
  for (const char* key : {"short_factor", "long_factor"}) {
    const auto& list = std::string_view(key) == "short_factor" ? rope.short_factor : rope.long_factor;
    if (list.size() != wanted) {
      s.fail(ErrorKind::invalid_value, key,
             "has " + std::to_string(list.size()) + " entries; a head has " + std::to_string(wanted) + " frequencies");
    }
  }
  for (const char* key : {"short_mscale", "long_mscale"}) {
    if (s.has(key)) s.fail(ErrorKind::unsupported, key, "is not implemented");
  }
  if (!s.result() || !f.result()) return;
  const double stretch = static_cast<double>(c.max_position) / static_cast<double>(rope.original_max_position);
  const double usual =
      stretch <= 1.0 ? 1.0
                     : std::sqrt(1.0 + std::log(stretch) / std::log(static_cast<double>(rope.original_max_position)));
  rope.magnitude = s.number_or("attention_factor", usual, 1e-6, 1e6);
}

void read_scaling(ConfigFields& f, ConfigFields& s, const ModelConfig& c, RopeConfig& rope) {
  rope.theta = s.number_or("rope_theta", rope.theta, 1e-3, kBig);
  const std::string type = s.string(s.has("rope_type") ? "rope_type" : "type").value_or("default");
  if (type == "default") return;
  if (type == "longrope" || type == "su") {
    rope.type = RopeType::longrope;
    read_longrope(f, s, c, rope);
    return;
  }
  if (type != "linear" && type != "dynamic" && type != "llama3") {
    s.fail(ErrorKind::unsupported, "rope_type",
           "\"" + type + "\" is not implemented (default, linear, dynamic, llama3 and longrope are)");
    return;
  }
  rope.type = type == "linear" ? RopeType::linear : type == "dynamic" ? RopeType::dynamic : RopeType::llama3;
  if (!s.has("factor")) s.fail(ErrorKind::invalid_value, "factor", "is missing for rope type " + type);
  rope.factor = s.number_or("factor", 1.0, 1e-3, 1e6);
  if (rope.type == RopeType::dynamic) {
    rope.original_max_position = s.integer_or("original_max_position_embeddings", c.max_position, 1, kModelSizeMax);
  } else if (rope.type == RopeType::llama3) {
    read_llama3_rope(s, rope);
  }
}

void read_partial_rotation(ConfigFields& f, ConfigFields* scaling, ModelConfig& c) {
  double share = f.number_or("partial_rotary_factor", 1.0, 0, 1);
  if (scaling != nullptr) share = scaling->number_or("partial_rotary_factor", share, 0, 1);
  if (share == 1.0) return;
  if (c.family != ModelFamily::phi3) {
    f.fail(ErrorKind::unsupported, "partial_rotary_factor", "other than 1 is implemented for phi3 alone");
    return;
  }
  c.rotary_dim = static_cast<std::int64_t>(static_cast<double>(c.head_dim) * share);
  if (c.rotary_dim < 2 || c.rotary_dim % 2 != 0) {
    f.fail(ErrorKind::invalid_value, "partial_rotary_factor", "leaves no even number of elements to rotate");
  }
}

// transformers 5 writes rope_parameters with everything; 4 wrote rope_theta at the top and rope_scaling beside it.
// gemma3 has two kinds of layers: rope_parameters holds one object for each, or rope_local_base_freq is beside the
// rest.
void read_rope(ConfigFields& f, ModelConfig& c) {
  c.rope.theta =
      f.number_or("rope_theta",
                  c.family == ModelFamily::gemma3 || c.family == ModelFamily::mixtral ? 1e6 : c.rope.theta, 1e-3, kBig);
  auto scaling = f.object(f.has("rope_parameters") ? "rope_parameters" : "rope_scaling");
  read_partial_rotation(f, scaling ? &*scaling : nullptr, c);
  const bool by_layer = scaling && (scaling->has("full_attention") || scaling->has("sliding_attention"));
  if (by_layer && c.family != ModelFamily::gemma3) {
    scaling->fail(ErrorKind::unsupported, "full_attention", "(rope per layer type) is implemented for gemma3 alone");
  }
  if (c.family == ModelFamily::gemma3) {
    c.local_rope.emplace();
    c.local_rope->theta = f.number_or("rope_local_base_freq", 10000.0, 1e-3, kBig);
  }
  if (scaling && by_layer) {
    if (auto full = scaling->object("full_attention")) {
      read_scaling(f, *full, c, c.rope);
      scaling->absorb(*full);
    }
    if (auto local = scaling->object("sliding_attention"); local && c.local_rope) {
      read_scaling(f, *local, c, *c.local_rope);
      scaling->absorb(*local);
    }
  } else if (scaling) {
    read_scaling(f, *scaling, c, c.rope);
  }
  if (scaling) f.absorb(*scaling);
}

// ---- windows ----

// Which layers see only a window, where layer_types does not say it: qwen from max_window_layers on; gemma2 every
// other; gemma3 all but each sixth; the others all.
std::vector<bool> usual_window_layers(ConfigFields& f, const ModelConfig& c) {
  std::vector<bool> sliding(static_cast<std::size_t>(c.layers), true);
  const std::size_t first =
      is_qwen(c) ? static_cast<std::size_t>(f.integer_or("max_window_layers", 28, 0, kModelLayersMax)) : 0;
  const std::size_t pattern =
      c.family == ModelFamily::gemma2 ? 2
      : c.family == ModelFamily::gemma3
          ? static_cast<std::size_t>(
                f.integer_or(f.has("sliding_window_pattern") ? "sliding_window_pattern" : "_sliding_window_pattern", 6,
                             1, kModelLayersMax))
          : 0;
  for (std::size_t i = 0; i < sliding.size(); ++i) {
    sliding[i] = i >= first && (pattern == 0 || (i + 1) % pattern != 0);
  }
  return sliding;
}

void read_window(ConfigFields& f, ModelConfig& c) {
  if (c.family == ModelFamily::llama || c.family == ModelFamily::opt) return;
  if (is_qwen(c) && !f.boolean_or("use_sliding_window", false)) return;
  const bool stated_null = f.states("sliding_window") && !f.has("sliding_window");
  const bool none_unless_stated = c.family == ModelFamily::phi3 || c.family == ModelFamily::mixtral;
  if (stated_null || (none_unless_stated && !f.has("sliding_window"))) return;
  const std::int64_t window = f.integer_or("sliding_window", 4096, 1, kModelSizeMax);
  std::vector<bool> sliding = usual_window_layers(f, c);
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
  }
  c.sliding_window = window;
  c.layer_sliding = std::move(sliding);
}

// ---- families ----

void refuse_if(ConfigFields& f, const char* key, bool absent, bool implemented, const char* what) {
  if (f.boolean_or(key, absent) != implemented) f.fail(ErrorKind::unsupported, key, what);
}

void read_gemma(ConfigFields& f, ModelConfig& c) {
  c.norm = NormKind::rms_plus_one;
  c.residual = Residual::around;
  c.qk_norm = c.family == ModelFamily::gemma3;
  c.embedding_scale = std::sqrt(static_cast<double>(c.hidden_size));
  c.attention_scale = 1.0 / std::sqrt(f.number_or("query_pre_attn_scalar", 256, 1e-6, kBig));
  const bool caps = c.family == ModelFamily::gemma2;
  const auto cap = [&](const char* key, double usual) {
    const bool stated_null = f.states(key) && !f.has(key);
    return stated_null ? 0.0 : f.number_or(key, caps ? usual : 0.0, 1e-6, 1e9);
  };
  c.attention_softcap = cap("attn_logit_softcapping", 50.0);
  c.logit_softcap = cap("final_logit_softcapping", 30.0);
  refuse_if(f, "use_bidirectional_attention", false, false, "is not implemented");
}

void read_opt(ConfigFields& f, ModelConfig& c) {
  c.norm = NormKind::layer;
  c.norm_eps = 1e-5;
  c.gated = false;
  c.position_offset = 2;
  const bool before = f.boolean_or("do_layer_norm_before", true);
  c.residual = before ? Residual::before : Residual::after;
  c.final_norm = before && !f.boolean_or("_remove_final_layer_norm", false);
  c.embedding_size = f.integer_or("word_embed_proj_dim", c.hidden_size, 1, kModelSizeMax);
  refuse_if(f, "enable_bias", true, true, "false is not implemented");
  refuse_if(f, "layer_norm_elementwise_affine", true, true, "false is not implemented");
  c.attention_bias = c.attention_out_bias = c.mlp_bias = true;
  c.tie_embeddings = f.boolean_or("tie_word_embeddings", true);
}

void read_mixtral(ConfigFields& f, ModelConfig& c) {
  c.experts = f.integer_or("num_local_experts", 8, 1, 1024);
  c.experts_used = f.integer_or("num_experts_per_tok", 2, 1, 64);
  if (c.experts_used > c.experts) {
    f.fail(ErrorKind::invalid_value, "num_experts_per_tok", "is above num_local_experts");
  }
}

}  // namespace

void read_activation(ConfigFields& f, std::string_view key, std::string_view fallback, ModelConfig& c) {
  const std::string name = f.string(key).value_or(std::string(fallback));
  if (name == "silu" || name == "swish") {
    c.activation = Activation::silu;
  } else if (name == "gelu") {
    c.activation = Activation::gelu;
  } else if (name == "gelu_new" || name == "gelu_pytorch_tanh" || name == "gelu_fast") {
    c.activation = Activation::gelu_tanh;
  } else if (name == "relu") {
    c.activation = Activation::relu;
  } else {
    f.fail(ErrorKind::unsupported, key, "\"" + name + "\" is not implemented");
  }
}

void read_decoder_config(ConfigFields& f, ModelConfig& c) {
  read_sizes(f, c);
  if (!f.result()) return;
  c.norm_eps = f.number_or("rms_norm_eps",
                           c.family == ModelFamily::mixtral || c.family == ModelFamily::phi3 ? 1e-5 : 1e-6, 0, 1);
  c.tie_embeddings = f.boolean_or("tie_word_embeddings", is_gemma(c));
  const bool bias = f.boolean_or("attention_bias", false);
  const bool takes_bias = c.family == ModelFamily::llama || is_qwen(c) || is_gemma(c);
  c.attention_bias = c.family == ModelFamily::qwen2 || (bias && takes_bias);
  c.attention_out_bias = bias && takes_bias && c.family != ModelFamily::qwen2;
  c.mlp_bias = c.family == ModelFamily::llama && f.boolean_or("mlp_bias", false);
  c.qk_norm = c.family == ModelFamily::qwen3;
  if (is_gemma(c)) {
    // hidden_act is what gemma's first files said; the tanh form is what they meant.
    read_activation(f, "hidden_activation", "gelu_pytorch_tanh", c);
    read_gemma(f, c);
  } else if (c.family == ModelFamily::opt) {
    read_activation(f, "activation_function", "relu", c);
    read_opt(f, c);
  } else {
    read_activation(f, "hidden_act", "silu", c);
  }
  if (c.family == ModelFamily::mixtral) read_mixtral(f, c);
  if (c.position_offset < 0) read_rope(f, c);
  read_window(f, c);
  if (c.local_rope && !c.sliding_window) c.local_rope.reset();
}

}  // namespace ganglion::local
