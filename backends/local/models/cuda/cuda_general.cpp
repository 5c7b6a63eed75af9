// The layers of a step for the families that are not llama's kind, and for steps with adapters: separate kernels
// throughout, with norms, activations, experts and caps as the model's description has them.

#include "backends/local/models/cuda/cuda_decoder.hpp"

#include <algorithm>

#include "backends/local/models/cuda/cuda_step.hpp"

namespace ganglion::local {

using core::Result;
using cuda::Matrix;

namespace {

cuda::Activate activate_of(const ModelConfig& config) {
  switch (config.activation) {
    case Activation::gelu_tanh:
      return cuda::Activate::gelu_tanh_gate;
    case Activation::relu:
      return cuda::Activate::relu;
    case Activation::gelu:
      return cuda::Activate::gelu;
    case Activation::silu:
      break;
  }
  return cuda::Activate::silu_gate;
}

}  // namespace

Result<void> CudaDecoder::reserve_general() {
  const auto rows = static_cast<std::size_t>(rows_cap_);
  const auto of = [](std::int64_t a) { return static_cast<std::size_t>(a); };
  struct Want {
    DeviceBuffer& to;
    std::size_t bytes;
  };
  std::vector<Want> wants;
  if (config_.local_rope) {
    wants.push_back({local_cos_, rows * of(config_.rotated() / 2) * 4});
    wants.push_back({local_sin_, rows * of(config_.rotated() / 2) * 4});
  }
  if (weights_.project_in.rows > 0) wants.push_back({narrow_, rows * of(weights_.project_in.cols) * 2});
  if (config_.experts > 0) {
    const auto& layer = weights_.layers.front();
    const std::size_t slots = rows * of(config_.experts_used);
    wants.push_back({routes_, rows * of(layer.router.rows) * 4});
    wants.push_back({chosen_, slots * 4});
    wants.push_back({choice_weights_, slots * 4});
    wants.push_back({slots_, of(config_.experts) * rows * 4});
    wants.push_back({slot_counts_, of(config_.experts) * 4});
    wants.push_back({expert_up_, slots * of(layer.gate_up.rows / config_.experts) * 2});
    wants.push_back({expert_gated_, slots * of(inner_stride_) * 2});
    wants.push_back({expert_out_, slots * of(layer.down.rows / config_.experts) * 2});
  }
  if (adapters_.count() > 0) {
    wants.push_back({adapter_middle_, rows * cuda::kAdapterPartsMax * cuda::kAdapterRankMax * 4});
  }
  for (const Want& want : wants) {
    auto buffer = arena_.take(want.bytes, "the activations of one step");
    if (!buffer) return std::unexpected(buffer.error());
    want.to = std::move(*buffer);
  }
  return {};
}

Result<void> CudaDecoder::embed_general(const Shape& shape) {
  const bool projects = weights_.project_in.rows > 0;
  const int width = to_int(config_.embedding_width());
  const cuda::EmbedGeneral embed{.table = weights_.embedding.data,
                                 .stride = weights_.embedding.cols,
                                 .width = width,
                                 .rows = shape.rows,
                                 .tokens = device_->tokens,
                                 .positions = device_->positions,
                                 .scale = static_cast<float>(config_.embedding_scale),
                                 .hidden = projects ? nullptr : hidden_.as<float>(),
                                 .narrow = narrow_.data(),
                                 .narrow_stride = weights_.project_in.cols,
                                 .half = to_int(config_.rotated() / 2),
                                 .frequencies = weights_.frequencies,
                                 .long_frequencies = weights_.long_frequencies,
                                 .local_frequencies = weights_.local_frequencies,
                                 .long_rows = device_->long_rows,
                                 .magnitude = static_cast<float>(config_.rope.magnitude),
                                 .cos = cos_.as<float>(),
                                 .sin = sin_.as<float>(),
                                 .local_cos = local_cos_.as<float>(),
                                 .local_sin = local_sin_.as<float>()};
  // What stands before it in the stream is a copy: no overlap with that.
  auto ok = check(cuda::embed_general({stream_.get(), false}, embed), "the embedding");
  // hidden_ has rows of hidden_size, which the projection's padded rows must not pass: they are a multiple of 16.
  if (ok && projects) {
    ok = multiply(weights_.project_in, narrow_.data(), weights_.project_in.cols, shape.rows, hidden_.data(),
                  to_int(config_.hidden_size), true);
  }
  if (ok && config_.position_offset >= 0) {
    ok = check(
        cuda::add_positions(queue(), weights_.positions.data, weights_.positions.cols, to_int(config_.position_offset),
                            device_->positions, to_int(config_.hidden_size), shape.rows, hidden_.as<float>()),
        "positions");
  }
  return ok;
}

Result<void> CudaDecoder::adapt(const Shape& shape, int layer, LoraPlace place, const void* x, int x_stride, void* y,
                                int y_stride, bool wide) {
  if (!shape.adapted || adapters_.parts(layer, place) == nullptr) return {};
  const cuda::Adapt a{.parts = adapters_.parts(layer, place),
                      .adapters = device_->adapters,
                      .rows = shape.rows,
                      .x = x,
                      .x_stride = x_stride,
                      .y = y,
                      .y_stride = y_stride,
                      .wide = wide,
                      .middle = adapter_middle_.as<float>()};
  return check(cuda::adapt(queue(), a), "adapters");
}

// Leaves the part's result in added_.
Result<void> CudaDecoder::general_inner(const CudaLayer& layer, int index, const Shape& shape) {
  const int rows = shape.rows;
  auto ok = multiply(layer.gate_up, normed_.data(), width_stride_, rows, gate_up_.data(), layer.gate_up.rows, false);
  if (ok) {
    ok = adapt(shape, index, LoraPlace::gate_up, normed_.data(), width_stride_, gate_up_.data(), layer.gate_up.rows,
               false);
  }
  cuda::Gate gate{.gate_up = gate_up_.data(),
                  .in_stride = layer.gate_up.rows,
                  .width = to_int(config_.intermediate_size),
                  .rows = rows,
                  .out = gated_.data(),
                  .out_stride = inner_stride_};
  narrow_for(layer.down, rows, gate);
  if (ok) ok = check(cuda::activate(queue(), activate_of(config_), gate), "the activation");
  if (ok) ok = multiply(layer.down, gated_.data(), inner_stride_, rows, added_.data(), layer.out.rows, wide_added_);
  if (ok)
    ok = adapt(shape, index, LoraPlace::down, gated_.data(), inner_stride_, added_.data(), layer.out.rows, wide_added_);
  return ok;
}

Result<void> CudaDecoder::general_experts(const CudaLayer& layer, const Shape& shape) {
  const int rows = shape.rows, experts = to_int(config_.experts), used = to_int(config_.experts_used);
  auto ok = multiply(layer.router, normed_.data(), width_stride_, rows, routes_.data(), layer.router.rows, true);
  const cuda::Routes routes{.logits = routes_.as<float>(),
                            .stride = layer.router.rows,
                            .experts = experts,
                            .used = used,
                            .rows = rows,
                            .positions = device_->positions,
                            .chosen = chosen_.as<std::int32_t>(),
                            .weights = choice_weights_.as<float>(),
                            .slots = slots_.as<std::int32_t>(),
                            .counts = slot_counts_.as<std::int32_t>(),
                            .capacity = rows_cap_};
  if (ok) ok = check(cuda::route(queue(), routes), "routing");
  cuda::GroupedProduct product{.w = layer.gate_up,
                               .x = normed_.data(),
                               .x_stride = width_stride_,
                               .x_per_row = used,
                               .y = expert_up_.data(),
                               .y_stride = layer.gate_up.rows / experts,
                               .experts = experts,
                               .capacity = rows_cap_,
                               .slot_count = rows * used,
                               .slots = slots_.as<std::int32_t>(),
                               .counts = slot_counts_.as<std::int32_t>()};
  if (ok) ok = check(cuda::grouped_product(queue(), product), "experts");
  const cuda::Gate gate{.gate_up = expert_up_.data(),
                        .in_stride = product.y_stride,
                        .width = to_int(config_.intermediate_size),
                        .rows = rows * used,
                        .out = expert_gated_.data(),
                        .out_stride = inner_stride_};
  if (ok) ok = check(cuda::activate(queue(), activate_of(config_), gate), "the activation");
  product.w = layer.down, product.x = expert_gated_.data(), product.x_stride = inner_stride_, product.x_per_row = 1;
  product.y = expert_out_.data(), product.y_stride = layer.down.rows / experts;
  if (ok) ok = check(cuda::grouped_product(queue(), product), "experts");
  if (!ok) return ok;
  return check(cuda::combine(queue(), expert_out_.data(), product.y_stride, choice_weights_.as<float>(), used,
                             to_int(config_.hidden_size), rows, added_.data(), layer.out.rows, wide_added_),
               "experts");
}

Result<void> CudaDecoder::general_layers(const Shape& shape) {
  const int width = to_int(config_.hidden_size), rows = shape.rows;
  const auto settle = [&](const void* add, const cuda::NormWeights& after, const cuda::NormWeights& sum,
                          const cuda::NormWeights& next, const Matrix* consumer) {
    cuda::Settle s{.hidden = hidden_.as<float>(),
                   .add = add,
                   .add_wide = wide_added_,
                   .add_stride = weights_.layers.front().out.rows,
                   .width = width,
                   .rows = rows,
                   .after = after,
                   .sum = sum,
                   .next = next,
                   .eps = static_cast<float>(config_.norm_eps),
                   .out = normed_.data(),
                   .out_stride = width_stride_};
    if (consumer != nullptr) narrow_for(*consumer, rows, s);
    return check(cuda::settle(queue(), s), "normalisation");
  };
  auto ok = settle(nullptr, {}, {}, weights_.layers.front().before_attention, &weights_.layers.front().qkv);
  for (std::size_t i = 0; i < weights_.layers.size() && ok; ++i) {
    const CudaLayer& layer = weights_.layers[i];
    const int index = static_cast<int>(i);
    ok = show(index, shape);
    if (ok) ok = multiply(layer.qkv, normed_.data(), width_stride_, rows, qkv_.data(), layer.qkv.rows, wide_qkv_);
    if (ok)
      ok = adapt(shape, index, LoraPlace::qkv, normed_.data(), width_stride_, qkv_.data(), layer.qkv.rows, wide_qkv_);
    if (ok) ok = attention(layer, index, shape);
    if (ok) ok = narrow(layer.out, attended_.data(), heads_stride_, rows);
    if (ok) ok = multiply(layer.out, attended_.data(), heads_stride_, rows, added_.data(), layer.out.rows, wide_added_);
    if (ok)
      ok = adapt(shape, index, LoraPlace::out, attended_.data(), heads_stride_, added_.data(), layer.out.rows,
                 wide_added_);
    const bool routed = config_.experts > 0;
    if (ok) {
      ok = settle(added_.data(), layer.after_attention, layer.sum_attention, layer.before_mlp,
                  routed ? nullptr : &layer.gate_up);
    }
    if (ok) ok = routed ? general_experts(layer, shape) : general_inner(layer, index, shape);
    const bool last = i + 1 == weights_.layers.size();
    if (ok) {
      ok = settle(added_.data(), layer.after_mlp, layer.sum_mlp,
                  last ? cuda::NormWeights{} : weights_.layers[i + 1].before_attention,
                  last ? nullptr : &weights_.layers[i + 1].qkv);
    }
  }
  if (ok) ok = show(to_int(config_.layers), shape);
  return ok && shape.samples > 0 ? general_head(shape) : ok;
}

// Only the rows that are sampled from go through the head.
Result<void> CudaDecoder::general_head(const Shape& shape) {
  const int rows = shape.samples;
  cuda::Settle chosen{.hidden = hidden_.as<float>(),
                      .pick = device_->pick,
                      .width = to_int(config_.hidden_size),
                      .rows = rows,
                      .next = weights_.last,
                      .eps = static_cast<float>(config_.norm_eps),
                      .out = normed_.data(),
                      .out_stride = width_stride_};
  const bool projects = weights_.project_out.rows > 0;
  if (!projects) narrow_for(weights_.head, rows, chosen);
  auto ok = check(cuda::settle(queue(), chosen), "normalisation");
  const void* x = normed_.data();
  int stride = width_stride_;
  if (ok && projects) {
    stride = weights_.project_in.cols;
    ok = multiply(weights_.project_out, normed_.data(), width_stride_, rows, narrow_.data(), stride, false);
    x = narrow_.data();
    if (ok) ok = narrow(weights_.head, x, stride, rows);
  }
  if (ok) ok = multiply(weights_.head, x, stride, rows, logits_.data(), weights_.head.rows, true);
  if (ok && config_.logit_softcap > 0) {
    ok = check(cuda::soft_cap(queue(), logits_.as<float>(), weights_.head.rows, to_int(config_.vocab_size), rows,
                              static_cast<float>(config_.logit_softcap)),
               "capping logits");
  }
  return ok;
}

}  // namespace ganglion::local
