// PEFT's files to pairs of matrices, and their products.

#include "backends/local/models/lora.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "backends/local/models/weight_loader.hpp"
#include "backends/local/weights/config_fields.hpp"

namespace ganglion::local {
namespace {

using core::ErrorKind;
using core::Result;

struct LoraConfig {
  double alpha = 1;
  bool by_root = false;                  // rslora: alpha / sqrt(rank)
  std::map<std::string, double> alphas;  // of modules whose name ends so

  double scale(const std::string& module, std::int64_t rank) const {
    double a = alpha;
    for (const auto& [key, value] : alphas) {
      if (module == key || module.ends_with("." + key)) a = value;
    }
    return a / (by_root ? std::sqrt(static_cast<double>(rank)) : static_cast<double>(rank));
  }
};

Result<LoraConfig> read_config(const std::filesystem::path& dir) {
  auto fields = ConfigFields::read(dir / "adapter_config.json");
  if (!fields) return std::unexpected(fields.error());
  ConfigFields& f = *fields;
  LoraConfig out;
  const std::string type = f.string("peft_type").value_or("LORA");
  if (type != "LORA") f.fail(ErrorKind::unsupported, "peft_type", "\"" + type + "\" is not implemented (LORA is)");
  for (const char* key : {"use_dora", "fan_in_fan_out", "lora_bias"}) {
    if (f.boolean_or(key, false)) f.fail(ErrorKind::unsupported, key, "is not implemented");
  }
  if (f.string("bias").value_or("none") != "none") {
    f.fail(ErrorKind::unsupported, "bias", "other than \"none\" is not implemented");
  }
  if (auto saved = f.strings("modules_to_save"); saved && !saved->empty()) {
    f.fail(ErrorKind::unsupported, "modules_to_save", "(whole modules beside the adapter) is not implemented");
  }
  out.by_root = f.boolean_or("use_rslora", false);
  out.alpha = f.number_or("lora_alpha", 8, 0, 1e6);
  if (auto patterns = f.object("alpha_pattern")) {
    for (const auto& item : patterns->json().items()) {
      if (item.key().find_first_of("^$*+?[]()|\\") != std::string::npos || !item.value().is_number()) {
        f.fail(ErrorKind::unsupported, "alpha_pattern", "holds what is not the end of a module's name and a number");
        continue;
      }
      out.alphas[item.key()] = item.value().get<double>();
    }
  }
  if (auto ok = f.result(); !ok) return std::unexpected(ok.error());
  return out;
}

// A module of the layers: which matrix it is part of.
struct Place {
  std::int64_t layer = 0;
  LoraPlace place = LoraPlace::qkv;
  std::int64_t first_row = 0, rows = 0, cols = 0;
};

std::optional<Place> place_of(std::string_view module, const ModelConfig& c, const DecoderNames& names) {
  for (const std::string& prefix : names.prefixes) {
    if (prefix.empty() || !module.starts_with(prefix)) continue;
    module.remove_prefix(prefix.size());
    break;
  }
  constexpr std::string_view kLayers = "layers.";
  if (!module.starts_with(kLayers)) return std::nullopt;
  module.remove_prefix(kLayers.size());
  std::int64_t layer = 0;
  std::size_t digits = 0;
  for (; digits < module.size() && digits < 6 && module[digits] >= '0' && module[digits] <= '9'; ++digits) {
    layer = layer * 10 + (module[digits] - '0');
  }
  if (digits == 0 || digits == module.size() || module[digits] != '.' || layer >= c.layers) return std::nullopt;
  module.remove_prefix(digits + 1);
  const std::int64_t q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim, width = c.hidden_size,
                     inner = c.intermediate_size;
  const struct {
    const std::string& name;
    Place place;
  } known[] = {{names.q, {layer, LoraPlace::qkv, 0, q, width}},
               {names.k, {layer, LoraPlace::qkv, q, kv, width}},
               {names.v, {layer, LoraPlace::qkv, q + kv, kv, width}},
               {names.qkv, {layer, LoraPlace::qkv, 0, q + 2 * kv, width}},
               {names.out, {layer, LoraPlace::out, 0, width, q}},
               {names.gate, {layer, LoraPlace::gate_up, 0, inner, width}},
               {names.up, {layer, LoraPlace::gate_up, c.gated ? inner : 0, inner, width}},
               {names.gate_up, {layer, LoraPlace::gate_up, 0, 2 * inner, width}},
               {names.down, {layer, LoraPlace::down, 0, width, inner}}};
  if (c.experts > 0 && module.starts_with("mlp.")) return std::nullopt;
  for (const auto& k : known) {
    if (!k.name.empty() && module == k.name) return k.place;
  }
  return std::nullopt;
}

// "base_model.model.<module>.lora_A.weight", with or without an adapter's name before "weight".
struct LoraName {
  std::string module;
  bool is_a = false;
};
std::optional<LoraName> parse_name(std::string_view name) {
  constexpr std::string_view kPrefix = "base_model.model.";
  if (name.starts_with(kPrefix)) name.remove_prefix(kPrefix.size());
  for (const bool is_a : {true, false}) {
    for (const std::string_view end :
         {is_a ? ".lora_A.weight" : ".lora_B.weight", is_a ? ".lora_A.default.weight" : ".lora_B.default.weight"}) {
      if (name.ends_with(end)) return LoraName{std::string(name.substr(0, name.size() - end.size())), is_a};
    }
  }
  return std::nullopt;
}

}  // namespace

Result<std::vector<LoraPair>> read_lora(const std::filesystem::path& dir, const ModelConfig& config,
                                        const DecoderNames& names) {
  const auto settings = read_config(dir);
  if (!settings) return std::unexpected(settings.error());
  const auto checkpoint = Checkpoint::open(dir / "adapter_model.safetensors");
  if (!checkpoint) return std::unexpected(checkpoint.error());
  struct Halves {
    const TensorView *a = nullptr, *b = nullptr;
  };
  std::map<std::string, Halves> modules;
  for (const TensorView& tensor : checkpoint->tensors()) {
    const auto name = parse_name(tensor.name);
    if (!name || tensor.shape.size() != 2) {
      return core::fail(ErrorKind::unsupported,
                        dir.string() + ": tensor " + std::string(tensor.name) + " is not a lora_A or lora_B matrix");
    }
    (name->is_a ? modules[name->module].a : modules[name->module].b) = &tensor;
  }
  std::vector<LoraPair> out;
  for (const auto& [module, halves] : modules) {
    const auto place = place_of(module, config, names);
    if (!place) {
      return core::fail(ErrorKind::unsupported,
                        dir.string() + ": module " + module +
                            " cannot be adapted (the attention's and the inner part's projections of every layer can)");
    }
    if (halves.a == nullptr || halves.b == nullptr) {
      return core::fail(ErrorKind::invalid_value,
                        dir.string() + ": module " + module + " has only one of lora_A and lora_B");
    }
    const std::int64_t rank = halves.a->shape[0];
    if (rank < 1 || rank > kLoraRankMax) {
      return core::fail(ErrorKind::unsupported, dir.string() + ": module " + module + " has rank " +
                                                    std::to_string(rank) + "; up to " + std::to_string(kLoraRankMax) +
                                                    " is implemented");
    }
    LoraPair pair{place->layer, place->place, place->first_row, place->rows, place->cols, rank, {}, {}};
    const std::int64_t a_shape[] = {rank, place->cols}, b_shape[] = {place->rows, rank};
    for (const bool is_a : {true, false}) {
      const TensorView& tensor = is_a ? *halves.a : *halves.b;
      auto checked = checkpoint->require(tensor.name, is_a ? a_shape : b_shape);
      if (!checked) return std::unexpected(checked.error());
      auto values = widened(tensor);
      if (!values) return std::unexpected(values.error());
      (is_a ? pair.a : pair.b) = std::move(*values);
    }
    const auto scale = static_cast<float>(settings->scale(module, rank));
    for (float& v : pair.b) v *= scale;
    out.push_back(std::move(pair));
  }
  return out;
}

Result<void> LoraSet::load(const std::filesystem::path& dir, const ModelConfig& config, const DecoderNames& names,
                           ThreadPool& pool) {
  auto pairs = read_lora(dir, config, names);
  if (!pairs) return std::unexpected(pairs.error());
  std::vector<Layer> layers(static_cast<std::size_t>(config.layers));
  for (const LoraPair& pair : *pairs) {
    const auto pack = [&](const std::vector<float>& values, std::int64_t rows, std::int64_t cols) {
      const LinearPart part{reinterpret_cast<const std::byte*>(values.data()), rows, WeightType::f32};
      return Linear::pack({&part, 1}, cols, false, {}, pool);
    };
    Part part{pack(pair.a, pair.rank, pair.cols), pack(pair.b, pair.rows, pair.rank), pair.first_row};
    if (part.a.rows() == 0 || part.b.rows() == 0) {
      return core::fail(ErrorKind::internal, "no memory for the adapter in " + dir.string());
    }
    layers[static_cast<std::size_t>(pair.layer)][static_cast<std::size_t>(pair.place)].push_back(std::move(part));
  }
  adapters_.push_back(std::move(layers));
  return {};
}

void LoraSet::add_rows(int adapter, int first, int count) {
  if (adapter < 0 || adapter >= this->count()) return;
  if (!runs_.empty() && runs_.back().adapter == adapter && runs_.back().first + runs_.back().count == first) {
    runs_.back().count += count;
  } else {
    runs_.push_back({adapter, first, count});
  }
}

bool LoraSet::apply(LoraPlace place, int layer, const Compute& compute, const float* x, std::int64_t ldx, float* y,
                    std::int64_t ldy) {
  for (const Run& run : runs_) {
    const Layer& parts = adapters_[static_cast<std::size_t>(run.adapter)][static_cast<std::size_t>(layer)];
    for (const Part& part : parts[static_cast<std::size_t>(place)]) {
      const auto rank = part.a.rows(), rows = part.b.rows();
      auto* middle = static_cast<float*>(results_.reserve(static_cast<std::size_t>(run.count) *
                                                          static_cast<std::size_t>(rank + rows) * sizeof(float)));
      if (middle == nullptr) return false;
      float* result = middle + run.count * rank;
      const float* from = x + run.first * ldx;
      if (!part.a.forward(*compute.kernels, *compute.pool, scratch_, from, ldx, run.count, middle, rank)) return false;
      if (!part.b.forward(*compute.kernels, *compute.pool, scratch_, middle, rank, run.count, result, rows))
        return false;
      for (int r = 0; r < run.count; ++r) {
        compute.kernels->add(y + (run.first + r) * ldy + part.first_row, result + r * rows, static_cast<int>(rows));
      }
    }
  }
  return true;
}

}  // namespace ganglion::local
