// Layer by layer over all rows of the step. Projections with a common input are one matrix; element-wise work is
// split over rows. Each row's arithmetic is the same whatever else is in the batch.

#include <algorithm>
#include <cmath>
#include <cstring>

#include "backends/local/models/decoder.hpp"
#include "backends/local/models/rope.hpp"

namespace ganglion::local {

using core::ErrorKind;
using core::Result;

Result<void> Decoder::forward(KvStore& kv, std::span<const DecoderSlice> slices, float* logits,
                              const std::atomic<bool>* give_up) {
  place_rows(slices);
  bool ok = embed(slices);
  std::vector<AttendSlice> attend;
  int row = 0;
  for (const DecoderSlice& slice : slices) {
    const int count = static_cast<int>(slice.tokens.size());
    attend.push_back({slice.pages, row, count, slice.position, true});
    row += count;
  }
  plan_.build(attend, static_cast<int>(config_.heads), static_cast<int>(config_.kv_heads));
  for (std::size_t i = 0; i < layers_.size() && ok; ++i) {
    if (give_up != nullptr && give_up->load(std::memory_order_relaxed)) return core::fail(ErrorKind::cancelled);
    if (tap_ != nullptr) tap_(tap_context_, static_cast<int>(i), hidden_, rows_);
    ok = attention(kv, layers_[i], static_cast<int>(i)) && feed_forward(layers_[i], static_cast<int>(i));
  }
  if (ok && tap_ != nullptr) tap_(tap_context_, static_cast<int>(layers_.size()), hidden_, rows_);
  ok = ok && head(slices, logits);
  if (!ok) return core::fail(ErrorKind::internal, "no memory for a step's packed activations");
  return {};
}

// Where each row of the step belongs.
void Decoder::place_rows(std::span<const DecoderSlice> slices) {
  origin_.clear();
  adapters_.begin_step();
  for (const DecoderSlice& slice : slices) {
    adapters_.add_rows(slice.adapter, static_cast<int>(origin_.size()), static_cast<int>(slice.tokens.size()));
    for (std::size_t i = 0; i < slice.tokens.size(); ++i) {
      const int position = slice.position + static_cast<int>(i);
      const std::int32_t page = slice.kept ? -1 : slice.pages[position / kPageTokens];
      origin_.push_back({page, position % kPageTokens, position, slice.long_positions});
    }
  }
  rows_ = static_cast<int>(origin_.size());
}

bool Decoder::embed(std::span<const DecoderSlice> slices) {
  std::vector<std::int32_t> tokens;
  for (const DecoderSlice& slice : slices) tokens.insert(tokens.end(), slice.tokens.begin(), slice.tokens.end());
  const Kernels& kernels = *compute_.kernels;
  const std::int64_t half = config_.rotated() / 2, width = config_.embedding_width();
  const bool projects = project_in_.rows() > 0;
  float* to = projects ? normed_ : hidden_;
  const auto scale = static_cast<float>(config_.embedding_scale);
  compute_.pool->split(rows_, ThreadPool::grain_for(width * 4), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t r = begin; r < end; ++r) {
      const RowOrigin& at = origin_[static_cast<std::size_t>(r)];
      float* row = to + r * width;
      embedding_.read(kernels, tokens[static_cast<std::size_t>(r)], row);
      if (scale != 1.0f) {
        for (std::int64_t i = 0; i < width; ++i) row[i] *= scale;
      }
      if (half == 0) continue;
      const auto magnitude = static_cast<float>(config_.rope.magnitude);
      const auto& frequencies = at.long_positions && !long_frequencies_.empty() ? long_frequencies_ : frequencies_;
      rope_angles(frequencies, at.position, angles_.cos + r * half, angles_.sin + r * half, magnitude);
      if (!local_frequencies_.empty()) {
        rope_angles(local_frequencies_, at.position, local_angles_.cos + r * half, local_angles_.sin + r * half);
      }
    }
  });
  if (projects && !multiply(project_in_, normed_, hidden_, rows_)) return false;
  if (config_.position_offset < 0) return true;
  for (std::int64_t r = 0; r < rows_; ++r) {
    position_table_.read(kernels, origin_[static_cast<std::size_t>(r)].position + config_.position_offset, normed_);
    kernels.add(hidden_ + r * config_.hidden_size, normed_, static_cast<int>(config_.hidden_size));
  }
  return true;
}

bool Decoder::multiply(const Linear& linear, const float* x, float* y, int rows) {
  return linear.forward(*compute_.kernels, *compute_.pool, scratch_, x, linear.cols(), rows, y, linear.rows());
}

void Decoder::normalise(const Norm& norm, const float* from, float* to, int rows) const {
  const std::int64_t n = config_.hidden_size;
  const auto eps = static_cast<float>(config_.norm_eps);
  compute_.pool->split(rows, ThreadPool::grain_for(n), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t r = begin; r < end; ++r) {
      if (norm.bias.empty()) {
        compute_.kernels->rms_norm(from + r * n, norm.weight.data(), to + r * n, static_cast<int>(n), eps);
      } else {
        compute_.kernels->layer_norm(from + r * n, norm.weight.data(), norm.bias.data(), to + r * n,
                                     static_cast<int>(n), eps);
      }
    }
  });
}

// Adds a part's result to the residual stream, with the norms that stand around that.
void Decoder::settle(const Norm& after, const Norm& sum, float* part) {
  if (!after.empty()) normalise(after, part, part, rows_);
  compute_.kernels->add(hidden_, part, static_cast<int>(rows_ * config_.hidden_size));
  if (!sum.empty()) normalise(sum, hidden_, hidden_, rows_);
}

bool Decoder::attention(KvStore& kv, const Layer& layer, int index) {
  const float* x = hidden_;
  if (!layer.before_attention.empty()) normalise(layer.before_attention, hidden_, normed_, rows_), x = normed_;
  const auto adapt = [&](LoraPlace place, const Linear& linear, const float* from, float* to) {
    return adapters_.apply(place, index, compute_, from, linear.cols(), to, linear.rows());
  };
  if (!multiply(layer.qkv, x, wide_, rows_) || !adapt(LoraPlace::qkv, layer.qkv, x, wide_)) return false;
  rotate_and_store(kv, layer, index);
  // The result goes where q, k and v were: they are in the pages and in query_ now.
  plan_.run(*compute_.kernels, *compute_.pool, kv, index, layer.window, query_, wide_,
            static_cast<float>(config_.attention_softcap));
  if (!multiply(layer.out, wide_, normed_, rows_) || !adapt(LoraPlace::out, layer.out, wide_, normed_)) return false;
  settle(layer.after_attention, layer.sum_attention, normed_);
  return true;
}

void Decoder::rotate_and_store(KvStore& kv, const Layer& layer, int index) {
  const Kernels& kernels = *compute_.kernels;
  const int n = static_cast<int>(config_.head_dim), half = static_cast<int>(config_.rotated() / 2);
  const int heads = static_cast<int>(config_.heads), kv_heads = static_cast<int>(config_.kv_heads);
  const auto scale = static_cast<float>(config_.score_scale()), eps = static_cast<float>(config_.norm_eps);
  const Angles angles = layer.local_rope ? local_angles_ : angles_;
  compute_.pool->split(rows_, ThreadPool::grain_for(layer.qkv.rows() * 4),
                       [&](std::int64_t begin, std::int64_t end, int) {
                         for (std::int64_t r = begin; r < end; ++r) {
                           float* row = wide_ + r * layer.qkv.rows();
                           for (int h = 0; h < heads + kv_heads; ++h) {
                             float* head = row + h * n;
                             const auto& norm = h < heads ? layer.q_norm : layer.k_norm;
                             if (!norm.empty()) kernels.rms_norm(head, norm.data(), head, n, eps);
                             if (half > 0) kernels.rope(head, angles.cos + r * half, angles.sin + r * half, half);
                           }
                           float* query = query_ + r * heads * n;
                           for (int i = 0; i < heads * n; ++i) query[i] = row[i] * scale;
                           const RowOrigin& at = origin_[static_cast<std::size_t>(r)];
                           if (at.page < 0) continue;
                           kv.write(kernels, index, at.page, at.slot, row + heads * n, row + (heads + kv_heads) * n);
                         }
                       });
}

bool Decoder::feed_forward(const Layer& layer, int index) {
  const float* x = hidden_;
  if (!layer.before_mlp.empty()) normalise(layer.before_mlp, hidden_, normed_, rows_), x = normed_;
  float* part = normed_;
  if (layer.experts.empty()) {
    if (!inner(layer.inner, x, rows_, normed_, index)) return false;
  } else {
    if (!experts(layer)) return false;
    part = mixed_;
  }
  settle(layer.after_mlp, layer.sum_mlp, part);
  return true;
}

// `adapted_layer` below 0: no adapters.
bool Decoder::inner(const Inner& part, const float* x, int rows, float* y, int adapted_layer) {
  const auto adapt = [&](LoraPlace place, const Linear& linear, const float* from, float* to) {
    return adapted_layer < 0 || adapters_.apply(place, adapted_layer, compute_, from, linear.cols(), to, linear.rows());
  };
  if (!multiply(part.gate_up, x, wide_, rows) || !adapt(LoraPlace::gate_up, part.gate_up, x, wide_)) return false;
  activate(wide_, rows, query_);
  return multiply(part.down, query_, y, rows) && adapt(LoraPlace::down, part.down, query_, y);
}

void Decoder::activate(const float* wide, int rows, float* out) {
  const std::int64_t n = config_.intermediate_size;
  const Kernels& kernels = *compute_.kernels;
  compute_.pool->split(rows, ThreadPool::grain_for(n * 8), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t r = begin; r < end; ++r) {
      float* to = out + r * n;
      if (config_.gated) {
        const float* row = wide + r * 2 * n;
        (config_.activation == Activation::silu ? kernels.silu_mul : kernels.gelu_tanh_mul)(row, row + n, to,
                                                                                            static_cast<int>(n));
      } else {
        std::copy_n(wide + r * n, n, to);
        (config_.activation == Activation::relu ? kernels.relu : kernels.gelu)(to, static_cast<int>(n));
      }
    }
  });
}

// Each row goes to the experts of its highest routes, weighted by the softmax over those; an expert's rows are computed
// together. A row's sum is taken in the experts' order, so that it does not depend on the batch.
bool Decoder::experts(const Layer& layer) {
  const auto width = static_cast<std::size_t>(config_.hidden_size), count = layer.experts.size();
  if (!multiply(layer.router, normed_, routes_, rows_)) return false;
  struct Share {
    int row;
    float weight;
  };
  std::vector<std::vector<Share>> shares(count);
  std::vector<std::size_t> order(count);
  const auto used = static_cast<std::size_t>(config_.experts_used);
  for (int r = 0; r < rows_; ++r) {
    const float* route = routes_ + static_cast<std::size_t>(r) * count;
    for (std::size_t e = 0; e < count; ++e) order[e] = e;
    std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(used), order.end(),
                      [&](std::size_t a, std::size_t b) { return route[a] != route[b] ? route[a] > route[b] : a < b; });
    float total = 0;
    for (std::size_t i = 0; i < used; ++i) total += std::exp(route[order[i]] - route[order[0]]);
    for (std::size_t i = 0; i < used; ++i) {
      shares[order[i]].push_back({r, std::exp(route[order[i]] - route[order[0]]) / total});
    }
  }
  std::memset(mixed_, 0, static_cast<std::size_t>(rows_) * width * sizeof(float));
  float* results = gathered_ + static_cast<std::size_t>(rows_max_) * width;
  for (std::size_t e = 0; e < count; ++e) {
    if (shares[e].empty()) continue;
    for (std::size_t i = 0; i < shares[e].size(); ++i) {
      std::copy_n(normed_ + static_cast<std::size_t>(shares[e][i].row) * width, width, gathered_ + i * width);
    }
    if (!inner(layer.experts[e], gathered_, static_cast<int>(shares[e].size()), results, -1)) return false;
    for (std::size_t i = 0; i < shares[e].size(); ++i) {
      float* to = mixed_ + static_cast<std::size_t>(shares[e][i].row) * width;
      const float weight = shares[e][i].weight;
      for (std::size_t k = 0; k < width; ++k) to[k] += weight * results[i * width + k];
    }
  }
  return true;
}

// Only the rows that are sampled from go through the head.
bool Decoder::head(std::span<const DecoderSlice> slices, float* logits) {
  const std::int64_t width = config_.hidden_size;
  int wanted = 0, row = 0;
  for (const DecoderSlice& slice : slices) {
    row += static_cast<int>(slice.tokens.size());
    if (!slice.logits) continue;
    const float* from = hidden_ + static_cast<std::int64_t>(row - slice.wanted) * width;
    float* to = normed_ + static_cast<std::int64_t>(wanted) * width;
    wanted += slice.wanted;
    if (final_norm_.empty()) {
      std::copy_n(from, slice.wanted * width, to);
    } else {
      normalise(final_norm_, from, to, slice.wanted);
    }
  }
  const float* x = normed_;
  if (project_out_.rows() > 0) {
    if (!multiply(project_out_, normed_, wide_, wanted)) return false;
    x = wide_;
  }
  if (!multiply(head_, x, logits, wanted)) return false;
  if (config_.logit_softcap > 0) {
    const std::int64_t vocab = config_.vocab_size;
    compute_.pool->split(wanted, ThreadPool::grain_for(vocab * 8), [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t r = begin; r < end; ++r) {
        compute_.kernels->soft_cap(logits + r * vocab, static_cast<int>(vocab),
                                   static_cast<float>(config_.logit_softcap));
      }
    });
  }
  return true;
}

}  // namespace ganglion::local
