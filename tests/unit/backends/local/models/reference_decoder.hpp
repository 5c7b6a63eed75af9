#pragma once
// The slow, obvious decoder: one sequence, no cache, no batching, double precision, straight from the config and the
// checkpoint's tensors. And random checkpoints of any shape to run it on.

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <numbers>
#include <random>
#include <string>
#include <vector>

#include "backends/local/kernels/reference.hpp"
#include "backends/local/weights/model_config.hpp"

namespace ganglion::local::reference {

struct Tensor {
  int rows = 0, cols = 0;  // a vector has cols == 1
  std::vector<float> values;
  Row row() const { return {values.begin(), values.end()}; }
};
using Tensors = std::map<std::string, Tensor>;

// Every tensor that the config asks for, random, and written as F32 safetensors.
inline Tensors random_tensors(const ModelConfig& c, std::uint32_t seed) {
  std::mt19937 random(seed);
  Tensors out;
  const auto add = [&](const std::string& name, std::int64_t rows, std::int64_t cols, float mean, float spread) {
    std::normal_distribution<float> normal(mean, spread);
    Tensor& t = out[name];
    t.rows = static_cast<int>(rows);
    t.cols = static_cast<int>(cols);
    t.values.resize(static_cast<std::size_t>(rows * cols));
    for (float& v : t.values) v = normal(random);
  };
  const auto linear = [&](const std::string& name, std::int64_t rows, std::int64_t cols, bool bias) {
    add(name + ".weight", rows, cols, 0.0f, 1.0f / std::sqrt(static_cast<float>(cols)));
    if (bias) add(name + ".bias", rows, 1, 0.0f, 0.3f);
  };
  add("model.embed_tokens.weight", c.vocab_size, c.hidden_size, 0.0f, 1.0f);
  add("model.norm.weight", c.hidden_size, 1, 1.0f, 0.2f);
  if (!c.tie_embeddings) linear("lm_head", c.vocab_size, c.hidden_size, false);
  for (std::int64_t i = 0; i < c.layers; ++i) {
    const std::string p = "model.layers." + std::to_string(i) + ".";
    add(p + "input_layernorm.weight", c.hidden_size, 1, 1.0f, 0.2f);
    add(p + "post_attention_layernorm.weight", c.hidden_size, 1, 1.0f, 0.2f);
    if (c.qk_norm) add(p + "self_attn.q_norm.weight", c.head_dim, 1, 1.0f, 0.2f);
    if (c.qk_norm) add(p + "self_attn.k_norm.weight", c.head_dim, 1, 1.0f, 0.2f);
    linear(p + "self_attn.q_proj", c.heads * c.head_dim, c.hidden_size, c.attention_bias);
    linear(p + "self_attn.k_proj", c.kv_heads * c.head_dim, c.hidden_size, c.attention_bias);
    linear(p + "self_attn.v_proj", c.kv_heads * c.head_dim, c.hidden_size, c.attention_bias);
    linear(p + "self_attn.o_proj", c.hidden_size, c.heads * c.head_dim, c.attention_out_bias);
    linear(p + "mlp.gate_proj", c.intermediate_size, c.hidden_size, c.mlp_bias);
    linear(p + "mlp.up_proj", c.intermediate_size, c.hidden_size, c.mlp_bias);
    linear(p + "mlp.down_proj", c.hidden_size, c.intermediate_size, c.mlp_bias);
  }
  return out;
}

inline void write_safetensors(const std::filesystem::path& file, const Tensors& tensors) {
  std::string header = "{";
  std::size_t offset = 0;
  for (const auto& [name, t] : tensors) {
    if (header.size() > 1) header += ",";
    header += "\"" + name + "\":{\"dtype\":\"F32\",\"shape\":[" + std::to_string(t.rows);
    if (t.cols > 1) header += "," + std::to_string(t.cols);
    header +=
        "],\"data_offsets\":[" + std::to_string(offset) + "," + std::to_string(offset + t.values.size() * 4) + "]}";
    offset += t.values.size() * 4;
  }
  header += "}";
  std::ofstream out(file, std::ios::binary);
  const std::uint64_t size = header.size();
  out.write(reinterpret_cast<const char*>(&size), 8);
  out << header;
  for (const auto& entry : tensors) {
    out.write(reinterpret_cast<const char*>(entry.second.values.data()),
              static_cast<std::streamsize>(entry.second.values.size() * 4));
  }
}

class ReferenceDecoder {
 public:
  ReferenceDecoder(const ModelConfig& config, const Tensors& tensors) : c_(config), t_(tensors) {}

  // Logits after the last token.
  Row logits(const std::vector<int>& tokens) const {
    std::vector<Row> hidden;
    const Tensor& table = t_.at("model.embed_tokens.weight");
    for (int token : tokens) {
      const auto* row = table.values.data() + static_cast<std::ptrdiff_t>(token) * table.cols;
      hidden.emplace_back(row, row + table.cols);
    }
    for (std::int64_t i = 0; i < c_.layers; ++i) layer(hidden, static_cast<std::size_t>(i));
    const Row last = rms_norm(hidden.back(), t_.at("model.norm.weight").row(), c_.norm_eps);
    return apply(c_.tie_embeddings ? "model.embed_tokens" : "lm_head", last);
  }

 private:
  Row apply(const std::string& name, const Row& x) const {
    const Tensor& w = t_.at(name + ".weight");
    const auto bias = t_.find(name + ".bias");
    return linear(w.values, w.rows, x, bias == t_.end() ? Row{} : bias->second.row());
  }

  static void add(Row& x, const Row& y) {
    for (std::size_t i = 0; i < x.size(); ++i) x[i] += y[i];
  }

  // Each head normalised (where the family does) and rotated.
  std::vector<Row> heads_of(const Row& x, std::int64_t count, const std::string& norm, std::size_t position) const {
    std::vector<Row> out;
    const auto n = static_cast<std::size_t>(c_.head_dim);
    for (std::size_t h = 0; h < static_cast<std::size_t>(count); ++h) {
      Row head(x.begin() + static_cast<std::ptrdiff_t>(h * n), x.begin() + static_cast<std::ptrdiff_t>((h + 1) * n));
      if (c_.qk_norm) head = rms_norm(head, t_.at(norm).row(), c_.norm_eps);
      Row cos, sin;
      for (std::size_t i = 0; i < n; i += 2) {
        double frequency = std::pow(c_.rope.theta, -static_cast<double>(i) / static_cast<double>(n));
        if (c_.rope.type == RopeType::linear) frequency /= c_.rope.factor;
        cos.push_back(std::cos(static_cast<double>(position) * frequency));
        sin.push_back(std::sin(static_cast<double>(position) * frequency));
      }
      out.push_back(rope(head, cos, sin));
    }
    return out;
  }

  void layer(std::vector<Row>& hidden, std::size_t index) const {
    const std::string p = "model.layers." + std::to_string(index) + ".";
    const auto n = static_cast<std::size_t>(c_.head_dim);
    const auto group = static_cast<std::size_t>(c_.heads / c_.kv_heads);
    std::vector<std::vector<Row>> queries, keys(static_cast<std::size_t>(c_.kv_heads)), values(keys.size());
    for (std::size_t t = 0; t < hidden.size(); ++t) {
      const Row x = rms_norm(hidden[t], t_.at(p + "input_layernorm.weight").row(), c_.norm_eps);
      queries.push_back(heads_of(apply(p + "self_attn.q_proj", x), c_.heads, p + "self_attn.q_norm.weight", t));
      const auto k = heads_of(apply(p + "self_attn.k_proj", x), c_.kv_heads, p + "self_attn.k_norm.weight", t);
      const Row v = apply(p + "self_attn.v_proj", x);
      for (std::size_t h = 0; h < keys.size(); ++h) {
        keys[h].push_back(k[h]);
        values[h].emplace_back(v.begin() + static_cast<std::ptrdiff_t>(h * n),
                               v.begin() + static_cast<std::ptrdiff_t>((h + 1) * n));
      }
    }
    const bool sliding = c_.sliding_window && c_.layer_sliding[index];
    for (std::size_t t = 0; t < hidden.size(); ++t) {
      const int hi = static_cast<int>(t) + 1;
      const int lo = sliding ? std::max(0, hi - static_cast<int>(*c_.sliding_window)) : 0;
      Row joined;
      for (std::size_t h = 0; h < queries[t].size(); ++h) {
        Row q = queries[t][h];
        for (double& v : q) v /= std::sqrt(static_cast<double>(n));
        const Row out = attention(q, keys[h / group], values[h / group], lo, hi);
        joined.insert(joined.end(), out.begin(), out.end());
      }
      add(hidden[t], apply(p + "self_attn.o_proj", joined));
      const Row x = rms_norm(hidden[t], t_.at(p + "post_attention_layernorm.weight").row(), c_.norm_eps);
      Row gate = apply(p + "mlp.gate_proj", x);
      const Row up = apply(p + "mlp.up_proj", x);
      for (std::size_t i = 0; i < gate.size(); ++i) gate[i] = silu(gate[i]) * up[i];
      add(hidden[t], apply(p + "mlp.down_proj", gate));
    }
  }

  const ModelConfig& c_;
  const Tensors& t_;
};

}  // namespace ganglion::local::reference
