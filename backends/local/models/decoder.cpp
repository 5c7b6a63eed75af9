// Layer by layer over all rows of the step. Projections with a common input are one matrix; element-wise work is
// split over rows. Each row's arithmetic is the same whatever else is in the batch.

#include "backends/local/models/decoder.hpp"

#include <algorithm>
#include <cmath>

#include "backends/local/models/rope.hpp"

namespace ganglion::local {

using core::ErrorKind;
using core::Result;

Decoder::Decoder(Checkpoint checkpoint, const ModelConfig& config, Compute compute, int rows_max)
    : checkpoint_(std::move(checkpoint)), config_(config), compute_(compute), rows_max_(rows_max) {}

Result<std::unique_ptr<Decoder>> Decoder::load(Checkpoint checkpoint, const ModelConfig& config, Compute compute,
                                               bool quantize_int8, int rows_max) {
  if (config.family == ModelFamily::bert) {
    return core::fail(ErrorKind::unsupported, "a bert model makes embeddings; it cannot generate text");
  }
  if (config.activation != Activation::silu) {
    return core::fail(ErrorKind::unsupported, "config.json: hidden_act must be silu for this model family");
  }
  if (config.head_dim % 2 != 0) {
    return core::fail(ErrorKind::unsupported, "config.json: head_dim must be even for rotary embedding");
  }
  std::unique_ptr<Decoder> out(new Decoder(std::move(checkpoint), config, compute, rows_max));
  const WeightLoader loader(out->checkpoint_, {"model.", ""}, *compute.pool, quantize_int8);
  if (auto loaded = out->load_weights(loader); !loaded) return std::unexpected(loaded.error());
  out->frequencies_ = rope_frequencies(config.rope, config.head_dim);
  if (!out->reserve_rows()) return core::fail(ErrorKind::internal, "no memory for the activations of one step");
  return out;
}

Result<void> Decoder::load_weights(const WeightLoader& loader) {
  auto table = loader.table("embed_tokens.weight", config_.vocab_size, config_.hidden_size);
  if (!table) return std::unexpected(table.error());
  embedding_ = *table;
  layers_.resize(static_cast<std::size_t>(config_.layers));
  for (std::int64_t i = 0; i < config_.layers; ++i) {
    if (auto loaded = load_layer(loader, i); !loaded) return loaded;
  }
  auto norm = loader.vector("norm.weight", config_.hidden_size);
  if (!norm) return std::unexpected(norm.error());
  final_norm_ = std::move(*norm);
  // Saved models drop a tied head; some untied configs come without one and mean the embedding too.
  const bool tied = config_.tie_embeddings || !loader.has("lm_head.weight");
  auto head =
      tied ? loader.linear(embedding_) : loader.linear({"lm_head", config_.vocab_size}, config_.hidden_size, false);
  if (!head) return std::unexpected(head.error());
  head_ = std::move(*head);
  return {};
}

Result<void> Decoder::load_layer(const WeightLoader& loader, std::int64_t index) {
  Layer& layer = layers_[static_cast<std::size_t>(index)];
  const std::string prefix = "layers." + std::to_string(index) + ".";
  const std::int64_t width = config_.hidden_size, q_rows = config_.heads * config_.head_dim,
                     kv_rows = config_.kv_heads * config_.head_dim, inner = config_.intermediate_size;
  auto vector = [&](const char* name, std::int64_t size, std::vector<float>& to) -> Result<void> {
    auto values = loader.vector(prefix + name, size);
    if (!values) return std::unexpected(values.error());
    to = std::move(*values);
    return {};
  };
  auto linear = [&](std::vector<WeightLoader::Piece> pieces, std::int64_t cols, bool bias, Linear& to) -> Result<void> {
    for (auto& piece : pieces) piece.name = prefix + piece.name;
    auto packed = loader.linear(pieces, cols, bias);
    if (!packed) return std::unexpected(packed.error());
    to = std::move(*packed);
    return {};
  };
  Result<void> ok = vector("input_layernorm.weight", width, layer.input_norm);
  if (ok) ok = vector("post_attention_layernorm.weight", width, layer.post_norm);
  if (ok && config_.qk_norm) ok = vector("self_attn.q_norm.weight", config_.head_dim, layer.q_norm);
  if (ok && config_.qk_norm) ok = vector("self_attn.k_norm.weight", config_.head_dim, layer.k_norm);
  if (ok) {
    ok = linear({{"self_attn.q_proj", q_rows}, {"self_attn.k_proj", kv_rows}, {"self_attn.v_proj", kv_rows}}, width,
                config_.attention_bias, layer.qkv);
  }
  if (ok) ok = linear({{"self_attn.o_proj", width}}, q_rows, config_.attention_out_bias, layer.out);
  if (ok) ok = linear({{"mlp.gate_proj", inner}, {"mlp.up_proj", inner}}, width, config_.mlp_bias, layer.gate_up);
  if (ok) ok = linear({{"mlp.down_proj", width}}, inner, config_.mlp_bias, layer.down);
  const auto at = static_cast<std::size_t>(index);
  if (config_.sliding_window && at < config_.layer_sliding.size() && config_.layer_sliding[at]) {
    layer.window = static_cast<int>(std::min<std::int64_t>(*config_.sliding_window, 1 << 30));
  }
  return ok;
}

bool Decoder::reserve_rows() {
  const std::int64_t q = config_.heads * config_.head_dim, kv = config_.kv_heads * config_.head_dim;
  const std::int64_t wide = std::max(q + 2 * kv, 2 * config_.intermediate_size);
  const std::int64_t narrow = std::max(q, config_.intermediate_size), half = config_.head_dim / 2;
  const std::int64_t floats = 2 * config_.hidden_size + wide + narrow + 2 * half;
  memory_ = Buffer(static_cast<std::size_t>(rows_max_ * floats) * sizeof(float));
  if (memory_.data() == nullptr) return false;
  hidden_ = memory_.as<float>();
  normed_ = hidden_ + rows_max_ * config_.hidden_size;
  wide_ = normed_ + rows_max_ * config_.hidden_size;
  query_ = wide_ + rows_max_ * wide;
  cos_ = query_ + rows_max_ * narrow;
  sin_ = cos_ + rows_max_ * half;
  return true;
}

KvShape Decoder::kv_shape(bool half) const {
  return {static_cast<int>(config_.layers), static_cast<int>(config_.kv_heads), static_cast<int>(config_.head_dim),
          half};
}

std::int64_t Decoder::context_max() const {
  if (config_.rope.type == RopeType::dynamic && config_.rope.original_max_position > 0) {
    return std::min(config_.max_position, config_.rope.original_max_position);
  }
  return config_.max_position;
}

std::size_t Decoder::weight_bytes() const {
  std::size_t bytes = head_.bytes();
  for (const Layer& l : layers_) bytes += l.qkv.bytes() + l.out.bytes() + l.gate_up.bytes() + l.down.bytes();
  return bytes;
}

Result<void> Decoder::forward(KvStore& kv, std::span<const DecoderSlice> slices, float* logits,
                              const std::atomic<bool>* give_up) {
  embed(slices);
  std::vector<AttendSlice> attend;
  int row = 0;
  for (const DecoderSlice& slice : slices) {
    const int count = static_cast<int>(slice.tokens.size());
    attend.push_back({slice.pages, row, count, slice.position, true});
    row += count;
  }
  plan_.build(attend, static_cast<int>(config_.heads), static_cast<int>(config_.kv_heads));
  bool ok = true;
  for (std::size_t i = 0; i < layers_.size() && ok; ++i) {
    if (give_up != nullptr && give_up->load(std::memory_order_relaxed)) return core::fail(ErrorKind::cancelled);
    ok = attention(kv, layers_[i], static_cast<int>(i)) && feed_forward(layers_[i]);
  }
  // Only the rows that are sampled from go through the head.
  int wanted = 0;
  row = 0;
  for (const DecoderSlice& slice : slices) {
    row += static_cast<int>(slice.tokens.size());
    if (!slice.logits) continue;
    normalise(final_norm_, hidden_ + static_cast<std::int64_t>(row - 1) * config_.hidden_size,
              normed_ + static_cast<std::int64_t>(wanted) * config_.hidden_size, 1);
    ++wanted;
  }
  ok = ok && multiply(head_, normed_, logits, wanted);
  if (!ok) return core::fail(ErrorKind::internal, "no memory for a step's packed activations");
  return {};
}

void Decoder::embed(std::span<const DecoderSlice> slices) {
  origin_.clear();
  std::vector<std::int32_t> tokens;
  for (const DecoderSlice& slice : slices) {
    for (std::size_t i = 0; i < slice.tokens.size(); ++i) {
      const int position = slice.position + static_cast<int>(i);
      const std::int32_t page = slice.kept ? -1 : slice.pages[position / kPageTokens];
      origin_.push_back({page, position % kPageTokens, position});
      tokens.push_back(slice.tokens[i]);
    }
  }
  rows_ = static_cast<int>(origin_.size());
  const std::int64_t half = config_.head_dim / 2;
  compute_.pool->split(
      rows_, ThreadPool::grain_for(config_.hidden_size * 4), [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t r = begin; r < end; ++r) {
          embedding_.read(*compute_.kernels, tokens[static_cast<std::size_t>(r)], hidden_ + r * config_.hidden_size);
          rope_angles(frequencies_, origin_[static_cast<std::size_t>(r)].position, cos_ + r * half, sin_ + r * half);
        }
      });
}

bool Decoder::multiply(const Linear& linear, const float* x, float* y, int rows) {
  return linear.forward(*compute_.kernels, *compute_.pool, scratch_, x, linear.cols(), rows, y, linear.rows());
}

void Decoder::normalise(const std::vector<float>& weight, const float* from, float* to, int rows) const {
  const std::int64_t n = config_.hidden_size;
  compute_.pool->split(rows, ThreadPool::grain_for(n), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t r = begin; r < end; ++r) {
      compute_.kernels->rms_norm(from + r * n, weight.data(), to + r * n, static_cast<int>(n),
                                 static_cast<float>(config_.norm_eps));
    }
  });
}

bool Decoder::attention(KvStore& kv, const Layer& layer, int index) {
  normalise(layer.input_norm, hidden_, normed_, rows_);
  if (!multiply(layer.qkv, normed_, wide_, rows_)) return false;
  rotate_and_store(kv, layer, index);
  // The result goes where q, k and v were: they are in the pages and in query_ now.
  plan_.run(*compute_.kernels, *compute_.pool, kv, index, layer.window, query_, wide_);
  if (!multiply(layer.out, wide_, normed_, rows_)) return false;
  compute_.kernels->add(hidden_, normed_, static_cast<int>(rows_ * config_.hidden_size));
  return true;
}

void Decoder::rotate_and_store(KvStore& kv, const Layer& layer, int index) {
  const Kernels& kernels = *compute_.kernels;
  const int n = static_cast<int>(config_.head_dim), half = n / 2;
  const int heads = static_cast<int>(config_.heads), kv_heads = static_cast<int>(config_.kv_heads);
  const float scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(n)));
  const float eps = static_cast<float>(config_.norm_eps);
  compute_.pool->split(rows_, ThreadPool::grain_for(layer.qkv.rows() * 4),
                       [&](std::int64_t begin, std::int64_t end, int) {
                         for (std::int64_t r = begin; r < end; ++r) {
                           float* row = wide_ + r * layer.qkv.rows();
                           for (int h = 0; h < heads + kv_heads; ++h) {
                             float* head = row + h * n;
                             const auto& norm = h < heads ? layer.q_norm : layer.k_norm;
                             if (!norm.empty()) kernels.rms_norm(head, norm.data(), head, n, eps);
                             kernels.rope(head, cos_ + r * half, sin_ + r * half, half);
                           }
                           float* query = query_ + r * heads * n;
                           for (int i = 0; i < heads * n; ++i) query[i] = row[i] * scale;
                           const RowOrigin& at = origin_[static_cast<std::size_t>(r)];
                           if (at.page < 0) continue;
                           kv.write(kernels, index, at.page, at.slot, row + heads * n, row + (heads + kv_heads) * n);
                         }
                       });
}

bool Decoder::feed_forward(const Layer& layer) {
  normalise(layer.post_norm, hidden_, normed_, rows_);
  if (!multiply(layer.gate_up, normed_, wide_, rows_)) return false;
  const std::int64_t inner = config_.intermediate_size;
  compute_.pool->split(rows_, ThreadPool::grain_for(inner * 8), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t r = begin; r < end; ++r) {
      const float* row = wide_ + r * 2 * inner;
      compute_.kernels->silu_mul(row, row + inner, query_ + r * inner, static_cast<int>(inner));
    }
  });
  if (!multiply(layer.down, query_, normed_, rows_)) return false;
  compute_.kernels->add(hidden_, normed_, static_cast<int>(rows_ * config_.hidden_size));
  return true;
}

}  // namespace ganglion::local
