// Tensor by tensor, in chunks of rows: file mapping -> pinned memory -> device -> packed, two chunks in flight.

#include "backends/local/models/cuda/cuda_weights.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "backends/local/models/rope.hpp"

namespace ganglion::local {

using core::ErrorKind;
using core::Result;
using cuda::Format;
using cuda::Matrix;

namespace {

constexpr std::size_t kStageBytes = std::size_t{64} << 20;

int to_int(std::int64_t v) {
  return static_cast<int>(v);
}

Result<cuda::Source> source_of(const TensorView& tensor) {
  switch (tensor.dtype) {
    case Dtype::f32:
      return cuda::Source::f32;
    case Dtype::bf16:
      return cuda::Source::bf16;
    case Dtype::f16:
      return cuda::Source::f16;
    default:
      return core::fail(ErrorKind::unsupported, "tensor " + std::string(tensor.name) + " has element type " +
                                                    std::string(dtype_name(tensor.dtype)) +
                                                    "; weights can be F32, F16 or BF16");
  }
}

}  // namespace

CudaWeightLoader::CudaWeightLoader(Arena& arena, const Checkpoint* checkpoint, const ModelConfig& config, Format format,
                                   int int4_group, std::uint64_t seed)
    : arena_(arena), checkpoint_(checkpoint), config_(config), format_(format), group_(int4_group), seed_(seed) {}

Result<void> CudaWeightLoader::make_stages() {
  auto stream = make_stream();
  if (!stream) return std::unexpected(stream.error());
  stream_ = std::move(*stream);
  for (Stage& stage : stages_) {
    auto host = PinnedBuffer::make(checkpoint_ == nullptr ? 256 : kStageBytes);
    if (!host) return std::unexpected(host.error());
    auto device = arena_.take(kStageBytes, "loading weights");
    if (!device) return std::unexpected(device.error());
    auto event = make_event(false, false);
    if (!event) return std::unexpected(event.error());
    stage = {std::move(*host), std::move(*device), std::move(*event)};
  }
  return {};
}

Result<CudaWeights> CudaWeightLoader::load() {
  if (auto ok = make_stages(); !ok) return std::unexpected(ok.error());
  const int width = to_int(config_.hidden_size);
  auto ok = table("embed_tokens", to_int(config_.vocab_size), width, out_.embedding);
  out_.layers.resize(static_cast<std::size_t>(config_.layers));
  for (int i = 0; i < to_int(config_.layers) && ok; ++i) ok = load_layer(i);
  if (ok) ok = vector("norm.weight", width, out_.final_norm);
  if (ok) ok = load_head();
  if (ok) ok = frequencies();
  if (ok) ok = check(cudaDeviceSynchronize(), "loading weights");  // some copies went by the default stream
  if (!ok) return std::unexpected(ok.error());
  return std::move(out_);
}

Result<void> CudaWeightLoader::load_head() {
  const int width = to_int(config_.hidden_size), vocab = to_int(config_.vocab_size);
  const Format format = format_ == Format::int4 ? Format::int8 : format_;
  // Saved models drop a tied head; some untied configs come without one and mean the embedding too.
  const bool tied = config_.tie_embeddings || (checkpoint_ != nullptr && !has("lm_head.weight"));
  if (tied && format == Format::bf16) {
    out_.head = out_.embedding;
    out_.step_bytes += static_cast<std::size_t>(cuda::matrix_bytes(format, out_.head.rows, out_.head.cols));
    return {};
  }
  return matrix({{tied ? "embed_tokens" : "lm_head", vocab}}, width, false, false, format, out_.head);
}

Result<void> CudaWeightLoader::load_layer(int index) {
  CudaLayer& layer = out_.layers[static_cast<std::size_t>(index)];
  const std::string prefix = "layers." + std::to_string(index) + ".";
  const int width = to_int(config_.hidden_size), dim = to_int(config_.head_dim),
            q = to_int(config_.heads * config_.head_dim), kv = to_int(config_.kv_heads * config_.head_dim),
            inner = to_int(config_.intermediate_size);
  auto ok = vector(prefix + "input_layernorm.weight", width, layer.input_norm);
  if (ok) ok = vector(prefix + "post_attention_layernorm.weight", width, layer.post_norm);
  if (ok && config_.qk_norm) ok = vector(prefix + "self_attn.q_norm.weight", dim, layer.q_norm);
  if (ok && config_.qk_norm) ok = vector(prefix + "self_attn.k_norm.weight", dim, layer.k_norm);
  const std::string attention = prefix + "self_attn.", mlp = prefix + "mlp.";
  if (ok) {
    ok = matrix({{attention + "q_proj", q}, {attention + "k_proj", kv}, {attention + "v_proj", kv}}, width,
                config_.attention_bias, false, format_, layer.qkv);
  }
  if (ok) ok = matrix({{attention + "o_proj", width}}, q, config_.attention_out_bias, false, format_, layer.out);
  if (ok) {
    ok = matrix({{mlp + "gate_proj", inner}, {mlp + "up_proj", inner}}, width, config_.mlp_bias, true, format_,
                layer.gate_up);
  }
  if (ok) ok = matrix({{mlp + "down_proj", width}}, inner, config_.mlp_bias, false, format_, layer.down);
  const auto at = static_cast<std::size_t>(index);
  if (config_.sliding_window && at < config_.layer_sliding.size() && config_.layer_sliding[at]) {
    layer.window = to_int(std::min<std::int64_t>(*config_.sliding_window, 1 << 30));
  }
  return ok;
}

Result<void*> CudaWeightLoader::keep(std::size_t bytes, const std::string& what) {
  auto buffer = arena_.take(bytes, what);
  if (!buffer) return std::unexpected(buffer.error());
  out_.owned.push_back(std::move(*buffer));
  return out_.owned.back().data();
}

Result<void> CudaWeightLoader::matrix(const std::vector<Piece>& pieces, int cols, bool bias, bool interleave,
                                      Format format, Matrix& to) {
  std::int64_t rows = 0;
  for (const Piece& piece : pieces) rows += interleave ? cuda::padded(piece.rows, 8) : piece.rows;
  Matrix m{.format = format, .group = format == Format::int4 ? group_ : 0};
  m.rows = to_int(cuda::padded(rows, cuda::kRowBlock));
  m.cols = to_int(cuda::padded(cols, cuda::kColumnBlock));
  const std::string& what = pieces.front().name;
  const auto bytes = static_cast<std::size_t>(cuda::matrix_bytes(format, m.rows, m.cols));
  auto data = keep(bytes, what);
  if (!data) return std::unexpected(data.error());
  m.data = *data;
  const auto scales = static_cast<std::size_t>(cuda::scale_bytes(format, m.rows, m.cols, group_));
  if (scales > 0) {
    auto at = keep(scales, what);
    if (!at) return std::unexpected(at.error());
    m.scales = *at;
  }
  auto ok = check(cuda::pack_empty({stream_.get()}, m), what);
  Matrix biases{.rows = m.rows, .cols = 1};
  if (ok && bias) {
    auto at = keep(static_cast<std::size_t>(m.rows) * 2, what);
    if (!at) return std::unexpected(at.error());
    m.bias = biases.data = *at;
  }
  int offset = 0;
  for (const Piece& piece : pieces) {
    const cuda::PackPlace place{0, interleave ? 2 : 1, offset};
    if (ok) ok = pack(piece.name + ".weight", piece.rows, cols, m, place);
    if (ok && bias) ok = pack(piece.name + ".bias", piece.rows, 0, biases, place);
    offset += interleave ? 8 : piece.rows;
  }
  out_.step_bytes += bytes + scales;
  to = m;
  return ok;
}

Result<void> CudaWeightLoader::table(const std::string& name, int rows, int cols, Matrix& to) {
  to = {.rows = to_int(cuda::padded(rows, cuda::kRowBlock)), .cols = to_int(cuda::padded(cols, cuda::kColumnBlock))};
  auto data = keep(static_cast<std::size_t>(cuda::matrix_bytes(Format::bf16, to.rows, to.cols)), name);
  if (!data) return std::unexpected(data.error());
  to.data = *data;
  return pack(name + ".weight", rows, cols, to, {});
}

Result<void> CudaWeightLoader::vector(const std::string& name, int size, const float*& to) {
  auto data = keep(static_cast<std::size_t>(size) * 4, name);
  if (!data) return std::unexpected(data.error());
  auto* floats = static_cast<float*>(*data);
  to = floats;
  const std::int64_t shape[] = {size};
  if (checkpoint_ == nullptr) {
    const std::vector<float> ones(static_cast<std::size_t>(size), 1.0f);
    return check(cudaMemcpy(floats, ones.data(), ones.size() * 4, cudaMemcpyHostToDevice), name);
  }
  auto tensor = find(name, shape);
  if (!tensor) return std::unexpected(tensor.error());
  auto type = source_of(**tensor);
  if (!type) return std::unexpected(type.error());
  Stage& stage = stages_[turn_++ % 2];
  auto ok = check(cudaEventSynchronize(stage.done.get()), name);
  std::memcpy(stage.host.data(), (*tensor)->data.data(), (*tensor)->data.size());
  if (ok) {
    ok = check(cudaMemcpyAsync(stage.device.data(), stage.host.data(), (*tensor)->data.size(), cudaMemcpyHostToDevice,
                               stream_.get()),
               name);
  }
  if (ok) ok = check(cuda::widen_to_float({stream_.get()}, stage.device.data(), *type, size, floats), name);
  if (ok) ok = check(cudaEventRecord(stage.done.get(), stream_.get()), name);
  return ok;
}

Result<void> CudaWeightLoader::frequencies() {
  const auto values = rope_frequencies(config_.rope, config_.head_dim);
  auto data = keep(values.size() * 4, "rotary frequencies");
  if (!data) return std::unexpected(data.error());
  out_.frequencies = static_cast<const float*>(*data);
  return check(cudaMemcpy(*data, values.data(), values.size() * 4, cudaMemcpyHostToDevice), "rotary frequencies");
}

// cols 0: a vector, whose elements are the rows.
Result<void> CudaWeightLoader::pack(const std::string& name, int rows, int cols, const Matrix& to,
                                    cuda::PackPlace place) {
  const std::int64_t shape[] = {rows, cols};
  const TensorView* tensor = nullptr;
  cuda::Source type = cuda::Source::bf16;
  if (checkpoint_ != nullptr) {
    auto found = find(name, std::span(shape).first(cols == 0 ? 1 : 2));
    if (!found) return std::unexpected(found.error());
    auto source = source_of(**found);
    if (!source) return std::unexpected(source.error());
    tensor = *found;
    type = *source;
  }
  const std::size_t row_bytes = static_cast<std::size_t>(std::max(cols, 1)) * (type == cuda::Source::f32 ? 4 : 2);
  const int chunk = std::max(1, static_cast<int>(kStageBytes / row_bytes));
  for (int first = 0; first < rows; first += chunk) {
    const int count = std::min(chunk, rows - first);
    const std::size_t bytes = static_cast<std::size_t>(count) * row_bytes;
    Stage& stage = stages_[turn_++ % 2];
    if (auto ok = check(cudaEventSynchronize(stage.done.get()), name); !ok) return ok;
    cudaError_t status = cudaSuccess;
    if (tensor == nullptr) {
      status = cuda::fill_normal({stream_.get()}, stage.device.data(), type,
                                 static_cast<std::int64_t>(count) * std::max(cols, 1), 0.02f, seed_++);
    } else {
      std::memcpy(stage.host.data(), tensor->data.data() + static_cast<std::size_t>(first) * row_bytes, bytes);
      status = cudaMemcpyAsync(stage.device.data(), stage.host.data(), bytes, cudaMemcpyHostToDevice, stream_.get());
    }
    place.first = first;
    if (status == cudaSuccess) {
      status = cuda::pack_weights({stream_.get()}, stage.device.data(), type, count, std::max(cols, 1), to, place);
    }
    if (status == cudaSuccess) status = cudaEventRecord(stage.done.get(), stream_.get());
    if (auto ok = check(status, name); !ok) return ok;
  }
  if (tensor != nullptr) checkpoint_->drop_pages(*tensor);
  return {};
}

bool CudaWeightLoader::has(const std::string& name) const {
  return checkpoint_->find("model." + name) != nullptr || checkpoint_->find(name) != nullptr;
}

Result<const TensorView*> CudaWeightLoader::find(const std::string& name, std::span<const std::int64_t> shape) const {
  const std::string full = "model." + name;
  return checkpoint_->find(full) == nullptr && checkpoint_->find(name) != nullptr ? checkpoint_->require(name, shape)
                                                                                  : checkpoint_->require(full, shape);
}

}  // namespace ganglion::local
