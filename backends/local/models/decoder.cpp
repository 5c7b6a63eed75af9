// Building a decoder from its description and its checkpoint. What it computes is in decoder_forward.cpp.

#include "backends/local/models/decoder.hpp"

#include <algorithm>

#include "backends/local/models/rope.hpp"

namespace ganglion::local {

using core::ErrorKind;
using core::Result;

namespace {

Result<void> supported(const ModelConfig& config) {
  if (config.family == ModelFamily::bert) {
    return core::fail(ErrorKind::unsupported, "a bert model makes embeddings; it cannot generate text");
  }
  const Activation a = config.activation;
  if (config.gated ? a != Activation::silu && a != Activation::gelu_tanh
                   : a != Activation::relu && a != Activation::gelu) {
    return core::fail(ErrorKind::unsupported,
                      config.gated
                          ? "config.json: the activation must be silu or gelu_pytorch_tanh for this model family"
                          : "config.json: the activation must be relu or gelu for this model family");
  }
  if (config.rotated() % 2 != 0) {
    return core::fail(ErrorKind::unsupported, "config.json: head_dim must be even for rotary embedding");
  }
  return {};
}

}  // namespace

Decoder::Decoder(Checkpoint checkpoint, const ModelConfig& config, Compute compute, int rows_max)
    : checkpoint_(std::move(checkpoint)),
      config_(config),
      names_(decoder_names(config)),
      compute_(compute),
      rows_max_(rows_max) {}

Result<std::unique_ptr<Decoder>> Decoder::load(Checkpoint checkpoint, const ModelConfig& config, Compute compute,
                                               bool quantize_int8, int rows_max) {
  if (auto ok = supported(config); !ok) return std::unexpected(ok.error());
  std::unique_ptr<Decoder> out(new Decoder(std::move(checkpoint), config, compute, rows_max));
  Decoder& d = *out;
  const WeightLoader loader(d.checkpoint_, d.names_.prefixes, *compute.pool, quantize_int8, config.packed);
  if (auto loaded = d.load_weights(loader); !loaded) return std::unexpected(loaded.error());
  d.full_precision_ = d.layers_.front().qkv.type() == WeightType::f32;
  if (config.rotated() > 0) {
    d.frequencies_ = rope_frequencies(config.rope, config.rotated());
    if (config.rope.type == RopeType::longrope) {
      d.long_frequencies_ = rope_frequencies(config.rope, config.rotated(), true);
    }
    if (config.local_rope) d.local_frequencies_ = rope_frequencies(*config.local_rope, config.rotated());
  }
  if (!d.reserve_rows()) return core::fail(ErrorKind::internal, "no memory for the activations of one step");
  return out;
}

Result<void> Decoder::load_norm(const WeightLoader& loader, const std::string& name, Norm& to) const {
  auto weight = loader.vector(name + ".weight", config_.hidden_size);
  if (!weight) return std::unexpected(weight.error());
  to.weight = std::move(*weight);
  if (config_.norm == NormKind::rms_plus_one) {
    for (float& w : to.weight) w += 1.0f;
  }
  if (config_.norm != NormKind::layer) return {};
  auto bias = loader.vector(name + ".bias", config_.hidden_size);
  if (!bias) return std::unexpected(bias.error());
  to.bias = std::move(*bias);
  return {};
}

Result<void> Decoder::load_weights(const WeightLoader& loader) {
  const std::int64_t width = config_.hidden_size, narrow = config_.embedding_width();
  auto table = loader.table(names_.embedding + ".weight", config_.vocab_size, narrow);
  if (!table) return std::unexpected(table.error());
  embedding_ = *table;
  const auto linear = [&](const std::string& name, std::int64_t rows, std::int64_t cols, Linear& to) -> Result<void> {
    auto made = loader.linear({name, rows}, cols, false);
    if (!made) return std::unexpected(made.error());
    to = std::move(*made);
    return {};
  };
  if (config_.position_offset >= 0) {
    auto positions = loader.table(names_.positions + ".weight", config_.max_position + config_.position_offset, width);
    if (!positions) return std::unexpected(positions.error());
    position_table_ = *positions;
  }
  Result<void> ok;
  if (!names_.project_in.empty()) ok = linear(names_.project_in, width, narrow, project_in_);
  if (ok && !names_.project_out.empty()) ok = linear(names_.project_out, narrow, width, project_out_);
  layers_.resize(static_cast<std::size_t>(config_.layers));
  for (std::int64_t i = 0; i < config_.layers && ok; ++i) ok = load_layer(loader, i);
  if (ok && config_.final_norm) ok = load_norm(loader, names_.final_norm, final_norm_);
  if (!ok) return ok;
  // Saved models drop a tied head; some untied configs come without one and mean the embedding too.
  const bool tied = config_.tie_embeddings || !loader.has(names_.head + ".weight");
  auto head = tied ? loader.linear(embedding_) : loader.linear({names_.head, config_.vocab_size}, narrow, false);
  if (!head) return std::unexpected(head.error());
  head_ = std::move(*head);
  return {};
}

Result<void> Decoder::load_layer(const WeightLoader& loader, std::int64_t index) {
  Layer& layer = layers_[static_cast<std::size_t>(index)];
  const std::string prefix = names_.layer(index);
  const std::int64_t width = config_.hidden_size, q_rows = config_.heads * config_.head_dim,
                     kv_rows = config_.kv_heads * config_.head_dim;
  Result<void> ok;
  const auto norm = [&](const std::string& name, Norm& to) {
    if (ok && !name.empty()) ok = load_norm(loader, prefix + name, to);
  };
  norm(names_.before_attention, layer.before_attention);
  norm(names_.after_attention, layer.after_attention);
  norm(names_.sum_attention, layer.sum_attention);
  norm(names_.before_mlp, layer.before_mlp);
  norm(names_.after_mlp, layer.after_mlp);
  norm(names_.sum_mlp, layer.sum_mlp);
  const auto head_norm = [&](const std::string& name, std::vector<float>& to) {
    if (!ok || name.empty()) return;
    auto values = loader.vector(prefix + name + ".weight", config_.head_dim);
    if (!values) {
      ok = std::unexpected(values.error());
      return;
    }
    to = std::move(*values);
    if (config_.norm == NormKind::rms_plus_one) {
      for (float& w : to) w += 1.0f;
    }
  };
  head_norm(names_.q_norm, layer.q_norm);
  head_norm(names_.k_norm, layer.k_norm);
  const auto linear = [&](std::vector<WeightLoader::Piece> pieces, std::int64_t cols, bool bias, Linear& to) {
    if (!ok) return;
    for (auto& piece : pieces) piece.name = prefix + piece.name;
    auto packed = loader.linear(pieces, cols, bias);
    if (packed) {
      to = std::move(*packed);
    } else {
      ok = std::unexpected(packed.error());
    }
  };
  if (!names_.qkv.empty()) {
    linear({{names_.qkv, q_rows + 2 * kv_rows}}, width, config_.attention_bias, layer.qkv);
  } else {
    linear({{names_.q, q_rows}, {names_.k, kv_rows}, {names_.v, kv_rows}}, width, config_.attention_bias, layer.qkv);
  }
  linear({{names_.out, width}}, q_rows, config_.attention_out_bias, layer.out);
  if (ok) ok = load_inner(loader, index);
  if (config_.slides(index)) {
    layer.window = static_cast<int>(std::min<std::int64_t>(*config_.sliding_window, 1 << 30));
    layer.local_rope = config_.local_rope.has_value();
  }
  return ok;
}

// The inner part of a layer: one, or one for each expert.
Result<void> Decoder::load_inner(const WeightLoader& loader, std::int64_t index) {
  Layer& layer = layers_[static_cast<std::size_t>(index)];
  const std::string prefix = names_.layer(index);
  const std::int64_t width = config_.hidden_size, inner = config_.intermediate_size;
  const auto load = [&](std::vector<WeightLoader::Piece> up, const std::string& down, Inner& to) -> Result<void> {
    for (auto& piece : up) piece.name = prefix + piece.name;
    auto first = loader.linear(up, width, config_.mlp_bias);
    if (!first) return std::unexpected(first.error());
    auto second = loader.linear({prefix + down, width}, inner, config_.mlp_bias);
    if (!second) return std::unexpected(second.error());
    to.gate_up = std::move(*first), to.down = std::move(*second);
    return {};
  };
  if (config_.experts > 0) {
    auto router = loader.linear({prefix + names_.router, config_.experts}, width, false);
    if (!router) return std::unexpected(router.error());
    layer.router = std::move(*router);
    layer.experts.resize(static_cast<std::size_t>(config_.experts));
    Result<void> ok;
    for (std::int64_t e = 0; e < config_.experts && ok; ++e) {
      ok = load({{names_.expert(e, "w1"), inner}, {names_.expert(e, "w3"), inner}}, names_.expert(e, "w2"),
                layer.experts[static_cast<std::size_t>(e)]);
    }
    return ok;
  }
  if (!names_.gate_up.empty()) return load({{names_.gate_up, 2 * inner}}, names_.down, layer.inner);
  if (!config_.gated) return load({{names_.up, inner}}, names_.down, layer.inner);
  return load({{names_.gate, inner}, {names_.up, inner}}, names_.down, layer.inner);
}

bool Decoder::reserve_rows() {
  const std::int64_t q = config_.heads * config_.head_dim, kv = config_.kv_heads * config_.head_dim;
  const std::int64_t width = config_.hidden_size, inner = config_.intermediate_size;
  const std::int64_t wide = std::max({q + 2 * kv, (config_.gated ? 2 : 1) * inner, config_.embedding_width()});
  const std::int64_t narrow = std::max(q, inner), half = config_.rotated() / 2;
  const std::int64_t normed = std::max(width, config_.embedding_width());
  const std::int64_t angles = config_.local_rope ? 4 * half : 2 * half;
  const std::int64_t expert = config_.experts > 0 ? 3 * width + config_.experts : 0;
  memory_ =
      Buffer(static_cast<std::size_t>(rows_max_ * (width + normed + wide + narrow + angles + expert)) * sizeof(float));
  if (memory_.data() == nullptr) return false;
  float* at = memory_.as<float>();
  const auto take = [&](std::int64_t floats) { return std::exchange(at, at + rows_max_ * floats); };
  hidden_ = take(width);
  normed_ = take(normed);
  wide_ = take(wide);
  query_ = take(narrow);
  angles_ = {take(half), take(half)};
  if (config_.local_rope) local_angles_ = {take(half), take(half)};
  if (config_.experts > 0) {
    mixed_ = take(width);
    gathered_ = take(2 * width);
    routes_ = take(config_.experts);
  }
  return true;
}

KvShape Decoder::kv_shape(KvElement element) const {
  return {static_cast<int>(config_.layers), static_cast<int>(config_.kv_heads), static_cast<int>(config_.head_dim),
          element};
}

std::int64_t Decoder::context_max() const {
  if (config_.rope.type == RopeType::dynamic && config_.rope.original_max_position > 0) {
    return std::min(config_.max_position, config_.rope.original_max_position);
  }
  return config_.max_position;
}

std::size_t Decoder::weight_bytes() const {
  std::size_t bytes = head_.bytes() + project_in_.bytes() + project_out_.bytes();
  for (const Layer& l : layers_) {
    bytes += l.qkv.bytes() + l.out.bytes() + l.inner.gate_up.bytes() + l.inner.down.bytes() + l.router.bytes();
    // A decoding token reads those of its experts alone; how many a batch reads depends on the batch.
    for (std::int64_t e = 0; e < config_.experts_used; ++e) {
      const Inner& expert = l.experts[static_cast<std::size_t>(e)];
      bytes += expert.gate_up.bytes() + expert.down.bytes();
    }
  }
  return bytes;
}

Result<void> Decoder::load_adapter(const std::filesystem::path& dir) {
  return adapters_.load(dir, config_, names_, *compute_.pool);
}

}  // namespace ganglion::local
