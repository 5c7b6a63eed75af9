// The layers of a step, queued on the engine's stream. Two ways: fused kernels for up to eight rows, separate kernels
// with streaming products, those of 8 by 8 bits or cuBLASLt for more.

#include "backends/local/models/cuda/cuda_decoder.hpp"
#include "backends/local/models/cuda/cuda_step.hpp"

namespace ganglion::local {

using core::Result;
using cuda::Epilogue;
using cuda::Matrix;

Result<void> CudaDecoder::enqueue(const Shape& shape) {
  if (general_ || weights_.long_frequencies != nullptr) {
    auto ok = embed_general(shape);
    if (ok) ok = shape.fused ? fused_layers(shape) : general_ || shape.adapted ? general_layers(shape) : layers(shape);
    return ok ? finish(shape) : ok;
  }
  const cuda::Embed embed{.table = weights_.embedding.data,
                          .stride = weights_.embedding.cols,
                          .width = to_int(config_.hidden_size),
                          .rows = shape.rows,
                          .tokens = device_->tokens,
                          .positions = device_->positions,
                          .hidden = hidden_.as<float>(),
                          .frequencies = weights_.frequencies,
                          .half = kv_.head_dim / 2,
                          .cos = cos_.as<float>(),
                          .sin = sin_.as<float>()};
  // What stands before it in the stream is a copy: no overlap with that.
  if (auto ok = check(cuda::embed({stream_.get(), false}, embed), "the embedding"); !ok) return ok;
  auto ok = shape.fused ? fused_layers(shape) : shape.adapted ? general_layers(shape) : layers(shape);
  if (ok) ok = finish(shape);
  return ok;
}

Result<void> CudaDecoder::attention(const CudaLayer& layer, int index, const Shape& shape) {
  const auto scale = static_cast<float>(config_.score_scale()), softcap = static_cast<float>(config_.attention_softcap);
  const bool local = layer.local_rope, rotates = config_.rotated() > 0;
  const int heads = to_int(config_.heads);
  const cuda::RotateAppend append{.qkv = qkv_.data(),
                                  .wide = wide_qkv_,
                                  .stride = layer.qkv.rows,
                                  .rows = shape.rows,
                                  .heads = heads,
                                  .layer = index,
                                  .kv = kv_,
                                  .cos = !rotates ? nullptr : (local ? local_cos_ : cos_).as<float>(),
                                  .sin = !rotates ? nullptr : (local ? local_sin_ : sin_).as<float>(),
                                  .q_norm = layer.q_norm,
                                  .k_norm = layer.k_norm,
                                  .eps = static_cast<float>(config_.norm_eps),
                                  .positions = device_->positions,
                                  .pages = device_->row_pages,
                                  .query = query_.data()};
  const bool whole = config_.rotated() == config_.head_dim && config_.head_dim <= 128;
  auto ok = check(whole ? cuda::rotate_append(queue(), append)
                        : cuda::rotate_append_general(queue(), append, to_int(config_.rotated() / 2)),
                  "rotary embedding");
  cuda::DecodeAttention decode{.query = query_.data(),
                               .kv = kv_,
                               .layer = index,
                               .heads = heads,
                               .rows = shape.decode,
                               .window = layer.window,
                               .scale = scale,
                               .softcap = softcap,
                               .positions = device_->positions,
                               .page_from = device_->page_from,
                               .page_table = device_->table,
                               .out = attended_.data(),
                               .out_stride = heads_stride_,
                               .partial = partial_.as<float>(),
                               .arrived = arrived_.as<std::uint32_t>()};
  // A multiprocessor keeps the split of its first-level cache until it is idle, and our product of 8 bits takes nearly
  // all of it as shared memory: attention that is launched into its end has no cache for its whole run (3 % of a step
  // of 48 sequences of 2,500 tokens).
  const cuda::Queue behind{stream_.get(), overlap_ && !streams_eight_bit(layer.qkv, shape.rows)};
  const auto attend = [&](int blocks) {
    decode.splits = cuda::decode_splits(blocks, heads, kv_.kv_heads, shape.context, multiprocessors_);
    return check(cuda::attend_decode(behind, decode), "attention");
  };
  if (ok && shape.decode > 0) ok = attend(shape.decode);
  if (ok && shape.few > 0) {
    decode.tiles = device_->few, decode.tile_count = shape.few;
    ok = attend(shape.few);
  }
  if (ok && shape.tiles > 0) {
    const cuda::PrefillAttention prefill{.query = query_.data(),
                                         .kv = kv_,
                                         .layer = index,
                                         .heads = heads,
                                         .window = layer.window,
                                         .scale = scale,
                                         .softcap = softcap,
                                         .tiles = device_->tiles,
                                         .tile_count = shape.tiles,
                                         .page_table = device_->table,
                                         .out = attended_.data(),
                                         .out_stride = heads_stride_};
    ok = check(cuda::attend_prefill(queue(), prefill), "attention");
  }
  return ok;
}

Result<void> CudaDecoder::fused_layers(const Shape& shape) {
  const int width = to_int(config_.hidden_size), rows = shape.rows;
  const float eps = static_cast<float>(config_.norm_eps);
  const cuda::Normalise first{.hidden = hidden_.as<float>(),
                              .width = width,
                              .rows = rows,
                              .weight = weights_.layers.front().input_norm,
                              .eps = eps,
                              .out = normed_.data(),
                              .out_stride = width_stride_};
  auto ok = check(cuda::normalise(queue(), first), "normalisation");
  bool whole = true;  // normed_ is divided by its root mean square already
  const auto product = [&](const Matrix& w, const void* x, int x_stride, bool normed) {
    cuda::Product p{.w = w, .x = x, .x_stride = x_stride, .rows = rows, .norm_width = width, .norm_eps = eps};
    if (normed && !whole) {
      p.squares = squares_.as<float>();
      p.square_parts = weights_.layers.front().out.rows / cuda::kRowBlock;
    }
    return p;
  };
  const auto stream = [&](const cuda::Product& p) {
    const bool ring = capability_ >= 90 && cuda::stream_product_fits(p);
    return check(
        ring ? cuda::stream_product(queue(), p, multiprocessors_, options_.ring_stages) : cuda::product(queue(), p),
        "a projection");
  };
  const auto residual = [&](cuda::Product p, const float* next_norm) {
    p.epilogue = Epilogue::residual;
    p.y = normed_.data(), p.y_stride = width_stride_, p.y_cols = width;
    p.hidden = hidden_.as<float>(), p.next_norm = next_norm, p.next_squares = squares_.as<float>();
    whole = false;
    return stream(p);
  };
  const bool one_kernel = ok && takes_whole(shape);
  if (one_kernel) {
    const cuda::DecodeStep step = whole_step(shape);
    ok = check(cuda::decode_step(queue(), step, multiprocessors_), "a decode step");
    if (step.head.data != nullptr) return ok;
    whole = false;
  }
  for (std::size_t i = 0; i < weights_.layers.size() && ok && !one_kernel; ++i) {
    const CudaLayer& layer = weights_.layers[i];
    cuda::Product qkv = product(layer.qkv, normed_.data(), width_stride_, true);
    qkv.y = qkv_.data(), qkv.y_stride = layer.qkv.rows, qkv.y_cols = layer.qkv.rows;
    if (wide_qkv_) qkv.epilogue = Epilogue::store_f32;
    ok = show(static_cast<int>(i), shape);
    if (ok) ok = stream(qkv);
    if (ok) ok = attention(layer, static_cast<int>(i), shape);
    if (ok) ok = residual(product(layer.out, attended_.data(), heads_stride_, false), layer.post_norm);
    if (!ok) break;
    cuda::Product gate_up = product(layer.gate_up, normed_.data(), width_stride_, true);
    gate_up.epilogue = Epilogue::silu_gate;
    gate_up.y = gated_.data(), gate_up.y_stride = inner_stride_, gate_up.y_cols = to_int(config_.intermediate_size);
    ok = stream(gate_up);
    const bool last = i + 1 == weights_.layers.size();
    const float* next = last ? weights_.final_norm : weights_.layers[i + 1].input_norm;
    if (ok) ok = residual(product(layer.down, gated_.data(), inner_stride_, false), next);
  }
  if (ok) ok = show(to_int(config_.layers), shape);
  if (!ok || shape.samples == 0) return ok;
  cuda::Product head = product(weights_.head, normed_.data(), width_stride_, true);
  head.epilogue = Epilogue::store_f32;
  head.y = logits_.data(), head.y_stride = weights_.head.rows, head.y_cols = weights_.head.rows;
  return stream(head);
}

Result<void> CudaDecoder::sum_up(int rows) {
  if (options_.group == nullptr) return {};
  return options_.group->sum(
      stream_.get(), added_.data(),
      static_cast<std::size_t>(rows) * static_cast<std::size_t>(weights_.layers.front().out.rows));
}

Result<void> CudaDecoder::layers(const Shape& shape) {
  const int width = to_int(config_.hidden_size), rows = shape.rows;
  const auto normalise = [&](const void* add, const float* weight, const Matrix& consumer) {
    cuda::Normalise n{.hidden = hidden_.as<float>(),
                      .add = add,
                      .add_wide = wide_added_,
                      .add_stride = weights_.layers.front().out.rows,
                      .width = width,
                      .rows = rows,
                      .weight = weight,
                      .eps = static_cast<float>(config_.norm_eps),
                      .out = normed_.data(),
                      .out_stride = width_stride_};
    narrow_for(consumer, rows, n);
    return check(cuda::normalise(queue(), n), "normalisation");
  };
  auto ok = normalise(nullptr, weights_.layers.front().input_norm, weights_.layers.front().qkv);
  for (std::size_t i = 0; i < weights_.layers.size() && ok; ++i) {
    const CudaLayer& layer = weights_.layers[i];
    ok = show(static_cast<int>(i), shape);
    if (ok) ok = multiply(layer.qkv, normed_.data(), width_stride_, rows, qkv_.data(), layer.qkv.rows, wide_qkv_);
    if (ok) ok = attention(layer, static_cast<int>(i), shape);
    if (ok) ok = narrow(layer.out, attended_.data(), heads_stride_, rows);
    if (ok) ok = multiply(layer.out, attended_.data(), heads_stride_, rows, added_.data(), layer.out.rows, wide_added_);
    if (ok) ok = sum_up(rows);
    if (ok) ok = normalise(added_.data(), layer.post_norm, layer.gate_up);
    if (ok)
      ok = multiply(layer.gate_up, normed_.data(), width_stride_, rows, gate_up_.data(), layer.gate_up.rows, false);
    cuda::Gate gate{.gate_up = gate_up_.data(),
                    .in_stride = layer.gate_up.rows,
                    .width = to_int(config_.intermediate_size),
                    .rows = rows,
                    .out = gated_.data(),
                    .out_stride = inner_stride_};
    narrow_for(layer.down, rows, gate);
    if (ok) ok = check(cuda::gate(queue(), gate), "the gated activation");
    if (ok) ok = multiply(layer.down, gated_.data(), inner_stride_, rows, added_.data(), layer.down.rows, wide_added_);
    if (ok) ok = sum_up(rows);
    const bool last = i + 1 == weights_.layers.size();
    const float* next = last ? weights_.final_norm : weights_.layers[i + 1].input_norm;
    if (ok) ok = normalise(added_.data(), next, last ? weights_.head : weights_.layers[i + 1].qkv);
  }
  if (ok) ok = show(to_int(config_.layers), shape);
  if (!ok || shape.samples == 0 || !leads()) return ok;
  // Only the rows that are sampled from go through the head.
  cuda::Normalise chosen{.hidden = hidden_.as<float>(),
                         .width = width,
                         .rows = shape.samples,
                         .pick = device_->pick,
                         .weight = weights_.final_norm,
                         .eps = static_cast<float>(config_.norm_eps),
                         .out = normed_.data(),
                         .out_stride = width_stride_};
  narrow_for(weights_.head, shape.samples, chosen);
  ok = check(cuda::normalise(queue(), chosen), "normalisation");
  if (!ok) return ok;
  return multiply(weights_.head, normed_.data(), width_stride_, shape.samples, logits_.data(), weights_.head.rows,
                  true);
}

// In every path hidden_ has the sums so far between layers: the residual epilogue adds into it, and so do the
// normalisation and settle() that stand at a layer's end.
Result<void> CudaDecoder::show(int layer, const Shape& shape) {
  if (!tap_) return {};
  std::vector<float> hidden(static_cast<std::size_t>(shape.rows) * static_cast<std::size_t>(config_.hidden_size));
  auto ok = check(cudaMemcpyAsync(hidden.data(), hidden_.data(), hidden.size() * sizeof(float), cudaMemcpyDeviceToHost,
                                  stream_.get()),
                  "reading a layer's input");
  if (ok) ok = check(cudaStreamSynchronize(stream_.get()), "reading a layer's input");
  if (ok) tap_(layer, hidden);
  return ok;
}

Result<void> CudaDecoder::finish(const Shape& shape) {
  if (!shape.sampled || !leads()) return {};
  const cuda::Sample sample{.logits = logits_.as<float>(),
                            .stride = weights_.head.rows,
                            .vocab = to_int(config_.vocab_size),
                            .count = shape.samples,
                            .rows = device_->samples,
                            .adjust = adjust_device_.as<cuda::SampleAdjust>(),
                            .masks = masks_device_.as<std::uint32_t>(),
                            .results = results_device_.as<cuda::SampleResult>()};
  return check(cuda::sample(queue(), sample), "sampling");
}

}  // namespace ganglion::local
