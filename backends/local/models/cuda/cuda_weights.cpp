// Tensor by tensor, in chunks of rows: file mapping -> pinned memory -> device -> packed, two chunks in flight.

#include "backends/local/models/cuda/cuda_weights.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <thread>

#include "backends/local/kernels/cpu/table.hpp"
#include "backends/local/models/rope.hpp"
#include "backends/local/models/weight_loader.hpp"

namespace ganglion::local {

using core::ErrorKind;
using core::Result;
using cuda::Format;
using cuda::Matrix;

namespace {

constexpr std::size_t kStageBytes = std::size_t{64} << 20;
constexpr int kThreadsMax = 8;

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
                                   int int4_group, Shard shard, std::uint64_t seed)
    : arena_(arena),
      checkpoint_(checkpoint),
      config_(config),
      names_(decoder_names(config)),
      format_(format),
      group_(int4_group),
      shard_(shard),
      seed_(seed),
      pool_(checkpoint == nullptr ? 1 : std::clamp(to_int(std::thread::hardware_concurrency()), 1, kThreadsMax)) {}

void CudaWeightLoader::copy_in(void* to, const void* from, std::size_t bytes) {
  constexpr std::size_t kPart = std::size_t{1} << 20;
  pool_.split(static_cast<std::int64_t>((bytes + kPart - 1) / kPart), 1,
              [&](std::int64_t begin, std::int64_t end, int) {
                const std::size_t first = static_cast<std::size_t>(begin) * kPart;
                std::memcpy(static_cast<char*>(to) + first, static_cast<const char*>(from) + first,
                            std::min(bytes, static_cast<std::size_t>(end) * kPart) - first);
              });
}

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
  const int width = to_int(config_.hidden_size), narrow = to_int(config_.embedding_width());
  auto ok = table(names_.embedding, to_int(config_.vocab_size), narrow, out_.embedding);
  if (ok && config_.position_offset >= 0) {
    ok = table(names_.positions, to_int(config_.max_position + config_.position_offset), width, out_.positions);
  }
  if (ok && !names_.project_in.empty()) {
    ok = matrix({{names_.project_in, width}}, narrow, false, false, Format::bf16, out_.project_in);
  }
  if (ok && !names_.project_out.empty()) {
    ok = matrix({{names_.project_out, narrow}}, width, false, false, Format::bf16, out_.project_out);
  }
  out_.layers.resize(static_cast<std::size_t>(config_.layers));
  for (int i = 0; i < to_int(config_.layers) && ok; ++i) ok = load_layer(i);
  if (ok && config_.final_norm) ok = load_norm(names_.final_norm, out_.last);
  out_.final_norm = out_.last.weight;
  if (ok && shard_.rank == 0) ok = load_head();
  if (ok) ok = frequencies();
  if (ok) ok = check(cudaDeviceSynchronize(), "loading weights");  // some copies went by the default stream
  if (!ok) return std::unexpected(ok.error());
  return std::move(out_);
}

Result<void> CudaWeightLoader::load_head() {
  const int width = to_int(config_.embedding_width()), vocab = to_int(config_.vocab_size);
  const Format format = format_ == Format::int4 ? Format::int8 : format_;
  // Saved models drop a tied head; some untied configs come without one and mean the embedding too.
  const bool tied = config_.tie_embeddings || (checkpoint_ != nullptr && !has(names_.head + ".weight"));
  if (tied && format == Format::bf16) {
    out_.head = out_.embedding;
    out_.step_bytes += static_cast<std::size_t>(cuda::matrix_bytes(format, out_.head.rows, out_.head.cols));
    return {};
  }
  return matrix({{tied ? names_.embedding : names_.head, vocab}}, width, false, false, format, out_.head);
}

Result<void> CudaWeightLoader::load_norm(const std::string& name, cuda::NormWeights& to) {
  const int width = to_int(config_.hidden_size);
  auto ok = vector(name + ".weight", width, to.weight, config_.norm == NormKind::rms_plus_one);
  if (ok && config_.norm == NormKind::layer) ok = vector(name + ".bias", width, to.bias);
  return ok;
}

Result<void> CudaWeightLoader::load_layer(int index) {
  CudaLayer& layer = out_.layers[static_cast<std::size_t>(index)];
  const std::string prefix = names_.layer(index);
  const int width = to_int(config_.hidden_size), dim = to_int(config_.head_dim),
            q = to_int(config_.heads * config_.head_dim), kv = to_int(config_.kv_heads * config_.head_dim);
  Result<void> ok;
  const auto norm = [&](const std::string& name, cuda::NormWeights& to) {
    if (ok && !name.empty()) ok = load_norm(prefix + name, to);
  };
  norm(names_.before_attention, layer.before_attention);
  norm(names_.after_attention, layer.after_attention);
  norm(names_.sum_attention, layer.sum_attention);
  norm(names_.before_mlp, layer.before_mlp);
  norm(names_.after_mlp, layer.after_mlp);
  norm(names_.sum_mlp, layer.sum_mlp);
  layer.input_norm = layer.before_attention.weight, layer.post_norm = layer.before_mlp.weight;
  const bool plus_one = config_.norm == NormKind::rms_plus_one;
  if (ok && !names_.q_norm.empty()) ok = vector(prefix + names_.q_norm + ".weight", dim, layer.q_norm, plus_one);
  if (ok && !names_.k_norm.empty()) ok = vector(prefix + names_.k_norm + ".weight", dim, layer.k_norm, plus_one);
  if (ok && !names_.qkv.empty()) {
    ok = matrix({{prefix + names_.qkv, q + 2 * kv}}, width, config_.attention_bias, false, format_, layer.qkv);
  } else if (ok) {
    ok = matrix({row_part(prefix + names_.q, q), row_part(prefix + names_.k, kv), row_part(prefix + names_.v, kv)},
                width, config_.attention_bias, false, format_, layer.qkv);
  }
  if (ok) {
    ok = matrix({column_part(prefix + names_.out, width, q)}, q, config_.attention_out_bias && shard_.rank == 0, false,
                format_, layer.out);
  }
  if (ok) ok = load_inner(layer, prefix);
  if (config_.slides(index)) {
    layer.window = to_int(std::min<std::int64_t>(*config_.sliding_window, 1 << 30));
    layer.local_rope = config_.local_rope.has_value();
  }
  return ok;
}

Result<void> CudaWeightLoader::load_inner(CudaLayer& layer, const std::string& prefix) {
  const int width = to_int(config_.hidden_size), inner = to_int(config_.intermediate_size);
  if (config_.experts > 0) {
    std::vector<std::vector<Piece>> up, down;
    for (std::int64_t e = 0; e < config_.experts; ++e) {
      up.push_back({{prefix + names_.expert(e, "w1"), inner}, {prefix + names_.expert(e, "w3"), inner}});
      down.push_back({{prefix + names_.expert(e, "w2"), width}});
    }
    auto ok =
        matrix({{prefix + names_.router, to_int(config_.experts)}}, width, false, false, Format::bf16, layer.router);
    const std::size_t before = out_.step_bytes;
    if (ok) ok = matrices(up, width, false, true, format_, layer.gate_up);
    if (ok) ok = matrices(down, inner, false, false, format_, layer.down);
    // A decoding token reads its own experts alone.
    const auto used = static_cast<std::size_t>(config_.experts_used), all = static_cast<std::size_t>(config_.experts);
    out_.step_bytes = before + (out_.step_bytes - before) * used / all;
    return ok;
  }
  std::vector<Piece> up{row_part(prefix + names_.up, inner)};
  if (config_.gated) up.insert(up.begin(), row_part(prefix + names_.gate, inner));
  if (!names_.gate_up.empty()) {
    up = {{prefix + names_.gate_up, inner, 0, 2 * inner}, {prefix + names_.gate_up, inner, inner, 2 * inner}};
  }
  auto ok = matrix(up, width, config_.mlp_bias, config_.gated, format_, layer.gate_up);
  if (ok) {
    ok = matrix({column_part(prefix + names_.down, width, inner)}, inner, config_.mlp_bias && shard_.rank == 0, false,
                format_, layer.down);
  }
  return ok;
}

Result<void*> CudaWeightLoader::keep(std::size_t bytes, const std::string& what) {
  auto buffer = arena_.take(bytes, what);
  if (!buffer) return std::unexpected(buffer.error());
  out_.owned.push_back(std::move(*buffer));
  return out_.owned.back().data();
}

Result<void> CudaWeightLoader::matrices(const std::vector<std::vector<Piece>>& groups, int cols, bool bias,
                                        bool interleave, Format format, Matrix& to) {
  std::int64_t each = 0;
  for (const Piece& piece : groups.front()) each += interleave ? cuda::padded(piece.rows, 8) : piece.rows;
  each = cuda::padded(each, cuda::kRowBlock);
  const auto kept = kept_as(groups, cols, format);
  if (!kept) return std::unexpected(kept.error());
  format = kept->format;
  Matrix m{.format = format, .group = kept->group};
  m.rows = to_int(each * static_cast<std::int64_t>(groups.size()));
  m.cols = to_int(cuda::padded(cols, cuda::kColumnBlock));
  const std::string& what = groups.front().front().name;
  const auto bytes = static_cast<std::size_t>(cuda::matrix_bytes(format, m.rows, m.cols));
  auto data = keep(bytes, what);
  if (!data) return std::unexpected(data.error());
  m.data = *data;
  const auto scales = static_cast<std::size_t>(cuda::scale_bytes(format, m.rows, m.cols, m.group));
  if (scales > 0) {
    auto at = keep(scales, what);
    if (!at) return std::unexpected(at.error());
    m.scales = *at;
  }
  if (kept->zeros) {
    auto at = keep(scales, what);
    if (!at) return std::unexpected(at.error());
    m.zeros = *at;
    out_.zero_points = true;
  }
  auto ok = check(cuda::pack_empty({stream_.get()}, m), what);
  Matrix biases{.rows = m.rows, .cols = 1};
  if (ok && bias) {
    auto at = keep(static_cast<std::size_t>(m.rows) * 2, what);
    if (!at) return std::unexpected(at.error());
    m.bias = biases.data = *at;
  }
  int group_offset = 0;
  for (const auto& pieces : groups) {
    int offset = group_offset;
    for (const Piece& piece : pieces) {
      const cuda::PackPlace place{0, interleave ? 2 : 1, offset};
      if (ok) ok = pack(piece, ".weight", cols, m, place);
      if (ok && bias) ok = pack(piece, ".bias", 0, biases, place);
      offset += interleave ? 8 : piece.rows;
    }
    group_offset += to_int(each);
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
  return pack({name, rows}, ".weight", cols, to, {});
}

Result<void> CudaWeightLoader::vector(const std::string& name, int size, const float*& to, bool plus_one) {
  auto data = keep(static_cast<std::size_t>(size) * 4, name);
  if (!data) return std::unexpected(data.error());
  auto* floats = static_cast<float*>(*data);
  to = floats;
  const std::int64_t shape[] = {size};
  if (checkpoint_ == nullptr) {
    const std::vector<float> ones(static_cast<std::size_t>(size), 1.0f);
    return check(cudaMemcpy(floats, ones.data(), ones.size() * 4, cudaMemcpyHostToDevice), name);
  }
  if (plus_one) {  // added in float: the file's type would round it
    auto found = find(name, shape);
    if (!found) return std::unexpected(found.error());
    auto values = widened(**found);
    if (!values) return std::unexpected(values.error());
    for (float& v : *values) v += 1.0f;
    return check(cudaMemcpy(floats, values->data(), values->size() * 4, cudaMemcpyHostToDevice), name);
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

Result<CudaWeightLoader::Kept> CudaWeightLoader::kept_as(const std::vector<std::vector<Piece>>& groups, int cols,
                                                         Format format) const {
  Kept kept{format, format == Format::int4 ? group_ : 0, false};
  const PackedScheme scheme = config_.packed.scheme;
  // Asked for another format than the file's: what the file has is widened and quantised anew.
  const bool as_it_is = format == Format::bf16 || (format == Format::int8 && scheme == PackedScheme::int8);
  if (checkpoint_ == nullptr || !as_it_is || scheme == PackedScheme::none) return kept;
  int group = 128;
  bool by_row = true, zeros = false;
  for (const auto& pieces : groups) {
    for (const Piece& piece : pieces) {
      auto packed = PackedTensor::find(*checkpoint_, names_.prefixes, piece.name, piece.of > 0 ? piece.of : piece.rows,
                                       cols, config_.packed);
      if (!packed) return std::unexpected(packed.error());
      if (!packed->has_value()) return kept;
      const PackedTensor& p = **packed;
      if (p.scheme() == PackedScheme::fp8 || p.scheme() == PackedScheme::int8) {
        by_row = by_row && p.bytes_by_row();
      } else {
        group = std::min(group, p.int4_group());
        zeros = zeros || !p.symmetric();
      }
    }
  }
  if (scheme == PackedScheme::int8) return Kept{Format::int8, 0, false};
  if (scheme == PackedScheme::fp8) return by_row ? Kept{Format::fp8, 0, false} : kept;
  // The experts' kernel has no zero points.
  if (group == 0 || (zeros && groups.size() > 1)) return kept;
  return Kept{Format::int4, group, zeros};
}

// Rows of a quantised projection: as they are where the matrix keeps their format, else widened to fp16 and packed as
// unquantised ones are.
Result<void> CudaWeightLoader::pack_quantised(const Piece& piece, const PackedTensor& tensor, const Matrix& to,
                                              cuda::PackPlace place) {
  const std::int64_t cols = tensor.cols();
  const bool int4 = to.format == Format::int4 && tensor.int4_group() % std::max(to.group, 1) == 0 &&
                    tensor.int4_group() > 0 && format_ == Format::bf16;
  const bool bytes = (to.format == Format::fp8 && tensor.scheme() == PackedScheme::fp8 && tensor.bytes_by_row() &&
                      format_ == Format::bf16) ||
                     (to.format == Format::int8 && tensor.scheme() == PackedScheme::int8);
  const std::int64_t groups = int4 ? (cols + to.group - 1) / to.group : 1;
  const std::int64_t row_bytes = int4    ? cuda::padded(cols, 4) + 8 * groups
                                 : bytes ? cuda::padded(cols, 4) + 4
                                         : 2 * cols;
  const int chunk = std::max(8, to_int(static_cast<std::int64_t>(kStageBytes) / row_bytes / 8 * 8));
  for (int first = 0; first < piece.rows; first += chunk) {
    const int count = std::min(chunk, piece.rows - first);
    Stage& stage = stages_[turn_++ % 2];
    auto ok = check(cudaEventSynchronize(stage.done.get()), piece.name);
    if (!ok) return ok;
    char* host = stage.host.data();
    const auto* device = stage.device.as<char>();
    const std::int64_t values = cuda::padded(count * cols, 4), from = piece.from + first;
    std::int64_t size = values;
    const auto rows_of = [&](auto&& f) {  // f(first row, count) by several threads
      pool_.split((count + 63) / 64, 1, [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t r = 64 * begin; r < std::min<std::int64_t>(64 * end, count); r += 64) {
          f(r, std::min<std::int64_t>(64, count - r));
        }
      });
    };
    if (int4) {
      auto* scales = reinterpret_cast<float*>(host + values);
      rows_of([&](std::int64_t r, std::int64_t some) {
        tensor.int4_rows(from + r, some, to.group, reinterpret_cast<std::int8_t*>(host) + r * cols, scales + r * groups,
                         scales + (count + r) * groups);
      });
      size += 8 * count * groups;
    } else if (bytes) {
      tensor.byte_rows(from, count, reinterpret_cast<std::uint8_t*>(host), reinterpret_cast<float*>(host + values));
      size += 4 * count;
    } else {
      rows_of([&](std::int64_t r, std::int64_t some) {
        std::vector<float> wide(static_cast<std::size_t>(some * cols));
        tensor.dequantise(from + r, some, wide.data());
        scalar_kernels().narrow_f16(wide.data(), reinterpret_cast<std::uint16_t*>(host) + r * cols,
                                    to_int(some * cols));
      });
      size = 2 * count * cols;
    }
    ok = check(cudaMemcpyAsync(stage.device.data(), host, static_cast<std::size_t>(size), cudaMemcpyHostToDevice,
                               stream_.get()),
               piece.name);
    if (!ok) return ok;
    place.first = first;
    const cuda::Queue queue{stream_.get()};
    const auto* scales = reinterpret_cast<const float*>(device + values);
    const cudaError_t status =
        int4    ? cuda::place_int4(queue, reinterpret_cast<const std::int8_t*>(device), scales, scales + count * groups,
                                   count, to_int(cols), to, place)
        : bytes ? cuda::place_bytes(queue, reinterpret_cast<const std::uint8_t*>(device), scales, count, to_int(cols),
                                    to, place)
                : cuda::pack_weights(queue, device, cuda::Source::f16, count, to_int(cols), to, place);
    ok = check(status, piece.name);
    if (ok) ok = check(cudaEventRecord(stage.done.get(), stream_.get()), piece.name);
    if (!ok) return ok;
  }
  tensor.drop_pages(*checkpoint_);
  return {};
}

Result<void> CudaWeightLoader::keep_floats(const std::vector<float>& values, const float*& to,
                                           const std::string& what) {
  auto data = keep(std::max<std::size_t>(values.size() * 4, 4), what);
  if (!data) return std::unexpected(data.error());
  to = static_cast<const float*>(*data);
  return check(cudaMemcpy(*data, values.data(), values.size() * 4, cudaMemcpyHostToDevice), what);
}

Result<void> CudaWeightLoader::frequencies() {
  const std::string what = "rotary frequencies";
  const std::int64_t dims = config_.rotated();
  if (dims == 0) return {};
  auto ok = keep_floats(rope_frequencies(config_.rope, dims), out_.frequencies, what);
  if (ok && config_.rope.type == RopeType::longrope) {
    ok = keep_floats(rope_frequencies(config_.rope, dims, true), out_.long_frequencies, what);
  }
  if (ok && config_.local_rope) {
    ok = keep_floats(rope_frequencies(*config_.local_rope, dims), out_.local_frequencies, what);
  }
  return ok;
}

Result<void> CudaWeightLoader::pack(const Piece& piece, const char* suffix, int cols, const Matrix& to,
                                    cuda::PackPlace place) {
  const std::string name = piece.name + suffix;
  const int rows = piece.rows;
  if (checkpoint_ != nullptr && cols > 0) {
    auto packed = PackedTensor::find(*checkpoint_, names_.prefixes, piece.name, piece.of > 0 ? piece.of : rows, cols,
                                     config_.packed);
    if (!packed) return std::unexpected(packed.error());
    if (packed->has_value() && shard_.ranks > 1) {
      return core::fail(ErrorKind::unsupported, "a checkpoint that is quantised already runs on one GPU");
    }
    if (packed->has_value()) return pack_quantised(piece, **packed, to, place);
  }
  const int columns = cols > 0 && piece.columns_of > 0 ? piece.columns_of : cols;
  const std::int64_t shape[] = {piece.of > 0 ? piece.of : rows, columns};
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
  const std::size_t element = row_bytes / static_cast<std::size_t>(std::max(cols, 1)),
                    pitch = static_cast<std::size_t>(std::max(columns, 1)) * element;
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
      const auto* from = tensor->data.data() + static_cast<std::size_t>(piece.from + first) * pitch +
                         (pitch > row_bytes ? static_cast<std::size_t>(piece.columns_from) * element : 0);
      for (int r = 0; pitch > row_bytes && r < count; ++r) {
        std::memcpy(stage.host.data() + static_cast<std::size_t>(r) * row_bytes,
                    from + static_cast<std::size_t>(r) * pitch, row_bytes);
      }
      if (pitch == row_bytes) copy_in(stage.host.data(), from, bytes);
      status = cudaMemcpyAsync(stage.device.data(), stage.host.data(), bytes, cudaMemcpyHostToDevice, stream_.get());
    }
    place.first = first;
    if (status == cudaSuccess) {
      status = cuda::pack_weights({stream_.get()}, stage.device.data(), type, count, std::max(cols, 1), to, place);
    }
    if (status == cudaSuccess) status = cudaEventRecord(stage.done.get(), stream_.get());
    if (auto ok = check(status, name); !ok) return ok;
  }
  if (tensor != nullptr && shard_.ranks == 1) checkpoint_->drop_pages(*tensor);
  return {};
}

bool CudaWeightLoader::has(const std::string& name) const {
  return std::ranges::any_of(names_.prefixes,
                             [&](const std::string& p) { return checkpoint_->find(p + name) != nullptr; });
}

Result<const TensorView*> CudaWeightLoader::find(const std::string& name, std::span<const std::int64_t> shape) const {
  for (const std::string& prefix : names_.prefixes) {
    if (checkpoint_->find(prefix + name) != nullptr) return checkpoint_->require(prefix + name, shape);
  }
  return checkpoint_->require(names_.prefixes.front() + name, shape);  // the error that names it
}

}  // namespace ganglion::local
