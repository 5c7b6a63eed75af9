// Reads config.json and generation_config.json. Defaults of absent keys are those of the transformers classes.

#include "backends/local/weights/model_config.hpp"

#include <array>
#include <limits>

#include "backends/local/weights/config_fields.hpp"
#include "backends/local/weights/decoder_config.hpp"
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
    FamilyFacts{ModelFamily::llama, "llama", 2048},       FamilyFacts{ModelFamily::mistral, "mistral", 131072},
    FamilyFacts{ModelFamily::qwen2, "qwen2", 32768},      FamilyFacts{ModelFamily::qwen3, "qwen3", 32768},
    FamilyFacts{ModelFamily::gemma2, "gemma2", 8192},     FamilyFacts{ModelFamily::gemma3, "gemma3_text", 131072},
    FamilyFacts{ModelFamily::opt, "opt", 2048},           FamilyFacts{ModelFamily::phi3, "phi3", 4096},
    FamilyFacts{ModelFamily::mixtral, "mixtral", 131072}, FamilyFacts{ModelFamily::bert, "bert", 512},
};

constexpr std::int64_t kIdMax = std::numeric_limits<std::int32_t>::max();

// Sizes of an encoder.
void read_sizes(ConfigFields& f, ModelConfig& c) {
  c.vocab_size = f.required_integer("vocab_size", 1, kModelSizeMax);
  c.hidden_size = f.required_integer("hidden_size", 1, kModelSizeMax);
  c.layers = f.required_integer("num_hidden_layers", 1, kModelLayersMax);
  c.heads = f.required_integer("num_attention_heads", 1, 65536);
  c.intermediate_size = f.required_integer("intermediate_size", 1, kModelSizeMax);
  c.kv_heads = c.heads;
  c.max_position = f.integer_or("max_position_embeddings", c.max_position, 1, kModelSizeMax);
  if (!f.result()) return;
  c.head_dim = c.hidden_size / c.heads;
  if (c.hidden_size % c.heads != 0) {
    f.fail(ErrorKind::invalid_value, "num_attention_heads", "does not divide hidden_size");
  }
}

void read_bert(ConfigFields& f, ModelConfig& c) {
  read_sizes(f, c);
  read_activation(f, "hidden_act", "gelu", c);
  c.norm_eps = f.number_or("layer_norm_eps", 1e-12, 0, 1);
  c.attention_bias = c.attention_out_bias = c.mlp_bias = true;
  c.type_vocab_size = f.integer_or("type_vocab_size", 2, 1, kModelSizeMax);
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
  keep(g.top_k, f.integer("top_k", 0, kModelSizeMax));
  keep(g.min_p, f.number("min_p", 0, 1));
  keep(g.repetition_penalty, f.number("repetition_penalty", 1e-6, 1e6));
  keep(g.max_new_tokens, f.integer("max_new_tokens", 1, kModelSizeMax));
}

void read_family(ConfigFields& f, ModelConfig& c) {
  const std::string type = f.string("model_type").value_or("");
  std::string known;
  for (const FamilyFacts& facts : kFamilies) {
    known += (known.empty() ? "" : ", ") + std::string(facts.name);
    if (type != facts.name) continue;
    c.family = facts.family;
    c.max_position = facts.max_position;
    return;
  }
  if (type == "gemma3") {  // with a vision part, which is left alone; the decoder is described by text_config
    c.family = ModelFamily::gemma3;
    c.max_position = 131072;
    if (!f.has("text_config")) f.fail(ErrorKind::invalid_value, "text_config", "is missing");
  } else if (type.empty()) {
    f.fail(ErrorKind::invalid_value, "model_type", "is missing");
  } else {
    f.fail(ErrorKind::unsupported, "model_type", "\"" + type + "\" is not implemented (" + known + " are)");
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
  if (auto packed = f.object("quantization_config")) {
    config.packed = read_packed_config(*packed);
    if (config.family == ModelFamily::bert) {
      packed->fail(ErrorKind::unsupported, "quant_method", "is not implemented for bert");
    }
    f.absorb(*packed);
  }
  read_dtype(f, config);
  if (config.family == ModelFamily::bert) {
    read_bert(f, config);
  } else if (auto text = f.object("text_config"); text && config.family == ModelFamily::gemma3) {
    read_decoder_config(*text, config);
    read_generation(*text, config);
    f.absorb(*text);
  } else {
    read_decoder_config(f, config);
  }
  read_generation(f, config);
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
