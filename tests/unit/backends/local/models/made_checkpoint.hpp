#pragma once
// Checkpoints that tests write: a file of given tensors, and copies of the quantised tiny models in which some
// projections are what they were before, as published ones leave some out.

#include <ostream>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "backends/local/kernels/reference.hpp"
#include "backends/local/models/packed_weights.hpp"
#include "tests/unit/backends/local/models/goldens.hpp"
#include "tests/unit/backends/local/weights/weights_files.hpp"

namespace ganglion::local::test {

struct Written {
  std::string name, type;
  std::vector<std::int64_t> shape;
  std::string bytes;
};
template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

inline std::string safetensors(const std::vector<Written>& tensors) {
  nlohmann::json header;
  std::string data;
  for (const Written& t : tensors) {
    header[t.name] = {
        {"dtype", t.type}, {"shape", t.shape}, {"data_offsets", {data.size(), data.size() + t.bytes.size()}}};
    data += t.bytes;
  }
  return safetensors(header.dump(), data);
}

// Layers of quantised models one after the other; everything else is the first model's. Projections
// ("model.layers.1.mlp.down_proj") whose names have `plain` in them are bf16; "": none.
struct MixedModel {
  const char* name;
  std::vector<std::string> models;
  std::string plain;

  MixedModel with_plain(std::string part) const { return {name, models, std::move(part)}; }
};
inline void PrintTo(const MixedModel& m, std::ostream* to) {
  *to << m.name;
}
inline constexpr const char* kEveryProjection = "_proj";

inline const std::vector<MixedModel>& mixed_models() {
  static const std::vector<MixedModel> models = {
      {"PlainThenFp8", {"fp8_channel_tiny", "fp8_tensor_tiny"}, ".layers.0."},
      {"Fp8ThenPlain", {"fp8_channel_tiny", "fp8_tensor_tiny"}, ".layers.1."},
      {"PlainAttentionBesideFp8", {"fp8_channel_tiny"}, ".self_attn."},
      {"PlainInnerBesideFp8", {"fp8_static_tiny"}, ".mlp."},
      {"PlainKeysInOneMatrixWithFp8", {"fp8_channel_tiny"}, ".k_proj"},  // which is bf16 then
      {"PlainAttentionBesideInt8", {"w8a8_tiny"}, ".self_attn."},
      {"PlainAttentionBesideInt4", {"gptq_tiny"}, ".self_attn."},
      {"PlainAttentionBesideInt4WithZeroPoints", {"awq_tiny"}, ".self_attn."},
      {"PlainThenInt8", {"w8a8_tiny"}, ".layers.0."},
      {"Int8ThenPlain", {"w8a8_tiny"}, ".layers.1."},
      {"PlainThenInt4", {"gptq_tiny"}, ".layers.0."},
      {"Int4ThenPlain", {"gptq_tiny"}, ".layers.1."},
      {"PlainThenInt4WithZeroPoints", {"awq_tiny"}, ".layers.0."},
      {"Int4WithZeroPointsThenPlain", {"awq_g64_tiny"}, ".layers.1."}};
  return models;
}

// Its folder, for as long as it lives.
class MixedCheckpoint {
 public:
  explicit MixedCheckpoint(const MixedModel& model) : plain_(model.plain) {
    for (const std::string& folder : model.models) add(folder);
    std::ifstream file(data_dir(model.models.front()) + "/config.json");
    auto config = nlohmann::json::parse(file);
    config["num_hidden_layers"] = layers_;
    auto& quantised = config["quantization_config"];
    auto& left_out = quantised[quantised["quant_method"] == "compressed-tensors" ? "ignore" : "modules_to_not_convert"];
    for (const std::string& name : plain_names_) left_out.push_back(name);
    dir_.write("config.json", config.dump());
    dir_.write("model.safetensors", safetensors(tensors_));
  }
  std::string dir() const { return dir_.path().string(); }
  std::size_t plain_count() const { return plain_names_.size(); }

 private:
  bool is_plain(const std::string& name) const {
    return !plain_.empty() && name.find(plain_) != std::string::npos && name.ends_with("_proj");
  }
  void add(const std::string& folder) {
    const auto config = load_model_config(data_dir(folder));
    const auto checkpoint = Checkpoint::open(data_dir(folder));
    if (!config || !checkpoint) {
      ADD_FAILURE() << folder;
      return;
    }
    const bool first = layers_ == 0;
    for (const TensorView& t : checkpoint->tensors()) {
      if (std::string(t.name).starts_with(kLayers) || first) copy(t);
    }
    for (std::int64_t i = 0; i < config->layers; ++i) add_plain(*checkpoint, *config, i);
    layers_ += config->layers;
  }
  // With the number that a layer has here.
  std::string renamed(std::string_view name) const {
    if (!name.starts_with(kLayers)) return std::string(name);
    const std::string rest(name.substr(kLayers.size()));
    return std::string(kLayers) + std::to_string(std::stoll(rest) + layers_) + rest.substr(rest.find('.'));
  }
  void copy(const TensorView& t) {
    const std::string name = renamed(t.name);
    if (is_plain(name.substr(0, name.rfind('.')))) return;
    tensors_.push_back({name,
                        std::string(dtype_name(t.dtype)),
                        {t.shape.begin(), t.shape.end()},
                        {reinterpret_cast<const char*>(t.data.data()), t.data.size()}});
  }
  void add_plain(const Checkpoint& checkpoint, const ModelConfig& c, std::int64_t layer) {
    const std::int64_t q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
    const std::tuple<const char*, std::int64_t, std::int64_t> all[] = {
        {"self_attn.q_proj", q, c.hidden_size},
        {"self_attn.k_proj", kv, c.hidden_size},
        {"self_attn.v_proj", kv, c.hidden_size},
        {"self_attn.o_proj", c.hidden_size, q},
        {"mlp.gate_proj", c.intermediate_size, c.hidden_size},
        {"mlp.up_proj", c.intermediate_size, c.hidden_size},
        {"mlp.down_proj", c.hidden_size, c.intermediate_size}};
    for (const auto& [part, rows, cols] : all) {
      const std::string from = std::string(kLayers) + std::to_string(layer) + "." + part, name = renamed(from);
      if (!is_plain(name)) continue;
      const std::vector<std::string> prefixes{""};
      const auto packed = PackedTensor::find(checkpoint, prefixes, from, rows, cols, c.packed);
      if (!packed || !*packed) {
        ADD_FAILURE() << from << " is not quantised";
        continue;
      }
      std::vector<float> wide(static_cast<std::size_t>(rows * cols));
      (*packed)->dequantise(0, rows, wide.data());
      std::vector<std::uint16_t> bits;
      for (const float v : wide) bits.push_back(reference::bf16_bits(v));
      tensors_.push_back({name + ".weight", "BF16", {rows, cols}, bytes_of(bits)});
      plain_names_.push_back(name);
    }
  }

  static constexpr std::string_view kLayers = "model.layers.";
  std::string plain_;
  std::int64_t layers_ = 0;
  std::vector<Written> tensors_;
  std::vector<std::string> plain_names_;
  TempDir dir_;
};

}  // namespace ganglion::local::test
