// Decode steps in one kernel: which ones, and what it is given. Everything else about a step is cuda_layers.cpp's.

#include <vector>

#include "backends/local/models/cuda/cuda_decoder.hpp"
#include "backends/local/models/cuda/cuda_step.hpp"

namespace ganglion::local {

using core::Result;
using cuda::Format;

namespace {

bool same_shape(const cuda::Matrix& a, const cuda::Matrix& b) {
  return a.format == b.format && a.rows == b.rows && a.cols == b.cols && a.group == b.group;
}

}  // namespace

// What the kernel reads of each layer; none where its layers are not all alike.
Result<void> CudaDecoder::reserve_whole() {
  if (general_ || !options_.whole || options_.group != nullptr || capability_ != 90) return {};
  std::vector<cuda::StepLayer> layers;
  const CudaLayer& first = weights_.layers.front();
  for (std::size_t i = 0; i < weights_.layers.size(); ++i) {
    const CudaLayer& l = weights_.layers[i];
    const cuda::Matrix* own[] = {&l.qkv, &l.out, &l.gate_up, &l.down};
    const cuda::Matrix* like[] = {&first.qkv, &first.out, &first.gate_up, &first.down};
    cuda::StepLayer to{};
    for (int m = 0; m < cuda::kStepMatrices; ++m) {
      if (!same_shape(*own[m], *like[m]) || own[m]->zeros != nullptr) return {};
      to.data[m] = own[m]->data, to.scales[m] = own[m]->scales, to.bias[m] = own[m]->bias;
    }
    to.out_norm = l.post_norm;
    to.down_norm = i + 1 == weights_.layers.size() ? weights_.final_norm : weights_.layers[i + 1].input_norm;
    to.q_norm = l.q_norm, to.k_norm = l.k_norm, to.window = l.window;
    layers.push_back(to);
  }
  Shape smallest;
  smallest.rows = smallest.decode = smallest.samples = 1;
  const cuda::DecodeStep step = whole_step(smallest);
  if (!cuda::decode_step_fits(step)) return {};
  WholeDeviceRight right = WholeDeviceRight::take(options_.device);
  if (!right) return {};
  const std::size_t bytes = layers.size() * sizeof(cuda::StepLayer), handed_bytes = cuda::step_handed_bytes(step);
  auto table = arena_.take(bytes, "the layers' places"), counter = arena_.take(8, "a counter"),
       handed = arena_.take(handed_bytes, "what a step's parts leave to each other");
  if (!table) return std::unexpected(table.error());
  if (!counter) return std::unexpected(counter.error());
  if (!handed) return std::unexpected(handed.error());
  whole_layers_ = std::move(*table), whole_counter_ = std::move(*counter), whole_handed_ = std::move(*handed);
  whole_right_ = std::move(right);
  const auto set = cudaMemsetAsync(whole_handed_.data(), 0xff, handed_bytes, nullptr);
  const auto ok =
      check(set == cudaSuccess ? cudaStreamSynchronize(nullptr) : set, "what a step's parts leave to each other");
  if (!ok) return ok;
  return check(cudaMemcpy(whole_layers_.data(), layers.data(), bytes, cudaMemcpyHostToDevice), "the layers' places");
}

cuda::DecodeStep CudaDecoder::whole_step(const Shape& shape) {
  const CudaLayer& layer = weights_.layers.front();
  cuda::DecodeStep s{.layers = whole_layers_.as<cuda::StepLayer>(),
                     .layer_count = to_int(config_.layers),
                     .matrices = {layer.qkv, layer.out, layer.gate_up, layer.down},
                     .rows = shape.rows,
                     .width = to_int(config_.hidden_size),
                     .inner = to_int(config_.intermediate_size),
                     .heads = to_int(config_.heads),
                     .norm_eps = static_cast<float>(config_.norm_eps),
                     .normed = normed_.data(),
                     .normed_stride = width_stride_,
                     .hidden = hidden_.as<float>(),
                     .squares = squares_.as<float>(),
                     .logits = logits_.as<float>(),
                     .handed = whole_handed_.data(),
                     .kv = kv_,
                     .score_scale = static_cast<float>(config_.score_scale()),
                     .cos = cos_.as<float>(),
                     .sin = sin_.as<float>(),
                     .positions = device_->positions,
                     .row_pages = device_->row_pages,
                     .page_from = device_->page_from,
                     .page_table = device_->table,
                     .partial = partial_.as<float>(),
                     .arrived = arrived_.as<std::uint32_t>(),
                     .counter = whole_counter_.as<std::uint32_t>()};
  // A head of another format, as checkpoints come that were quantised before, is a product of its own.
  const bool same = weights_.head.format == cuda::step_head_format(layer.qkv.format);
  if (shape.samples > 0 && same) s.head = weights_.head;
  s.splits = cuda::step_splits(s, shape.context, multiprocessors_);
  return s;
}

bool CudaDecoder::takes_whole(const Shape& shape) {
  const Format format = weights_.layers.front().qkv.format;
  const cuda::StepLimits most = options_.whole_limits.value_or(cuda::step_limits(format, memory_gb_));
  if (!steps_whole() || tap_ || shape.rows > most.rows || shape.context > most.context) return false;
  if (shape.tiles > 0 || shape.few > 0) return false;
  return shape.decode == shape.rows && cuda::decode_step_fits(whole_step(shape));
}

}  // namespace ganglion::local
