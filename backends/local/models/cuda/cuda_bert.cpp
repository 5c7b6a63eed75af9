// Post-norm encoder layers over a ragged pass: product, attention both ways, product, residual sum with LayerNorm,
// inner products with GELU, residual sum with LayerNorm. What a LayerNorm gives is bf16, which both its readers take.

#include "backends/local/models/cuda/cuda_bert.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "backends/local/device/devices.hpp"
#include "backends/local/device/status.hpp"

namespace ganglion::local {

using core::ErrorKind;
using core::Result;
using cuda::Matrix;

namespace {

constexpr int kGraphRowsMax = 1'024;
constexpr std::size_t kGraphsMax = 128;
constexpr int kWidthMax = 1'024;  // the row kernels keep a row in a warp's registers

int to_int(std::int64_t v) {
  return static_cast<int>(v);
}

int library_rows(int rows) {
  return to_int(cuda::padded(rows, rows <= 64 ? 16 : 64));
}

int power_of_two(int least, int n) {
  return std::max(least, static_cast<int>(std::bit_ceil(static_cast<unsigned>(n))));
}

Result<void> supported(const ModelConfig& c) {
  if (c.family != ModelFamily::bert || c.activation != Activation::gelu) {
    return core::fail(ErrorKind::unsupported, "this model is no BERT with GELU");
  }
  if (c.hidden_size % 8 != 0 || c.intermediate_size % 8 != 0 || c.hidden_size > kWidthMax || c.head_dim % 8 != 0 ||
      c.head_dim > 128) {
    return core::fail(
        ErrorKind::unsupported,
        "config.json: on a GPU widths must be multiples of 8, hidden_size at most 1024 and heads 128 wide");
  }
  return {};
}

}  // namespace

// ---- loading ----

class CudaBert::Loader {
 public:
  Loader(CudaBert& to, const Checkpoint* from) : to_(to), from_(from) {}

  Result<void> load() {
    const ModelConfig& c = to_.config_;
    Result<void> ok = table("embeddings.word_embeddings.weight", c.vocab_size, to_.words_);
    if (ok) ok = table("embeddings.position_embeddings.weight", c.max_position, to_.positions_);
    if (ok) ok = table("embeddings.token_type_embeddings.weight", c.type_vocab_size, to_.types_);
    if (ok) ok = norm("embeddings.LayerNorm", to_.embedding_norm_);
    to_.layers_.resize(static_cast<std::size_t>(c.layers));
    for (std::size_t i = 0; ok && i < to_.layers_.size(); ++i) ok = layer(i);
    return ok;
  }

 private:
  Result<void> layer(std::size_t index) {
    const std::string prefix = "encoder.layer." + std::to_string(index) + ".";
    const std::int64_t n = to_.config_.hidden_size, inner = to_.config_.intermediate_size;
    const std::string self = prefix + "attention.self.";
    Layer& l = to_.layers_[index];
    Result<void> ok = linear({self + "query", self + "key", self + "value"}, n, n, l.qkv);
    if (ok) ok = linear({prefix + "attention.output.dense"}, n, n, l.out);
    if (ok) ok = linear({prefix + "intermediate.dense"}, inner, n, l.up);
    if (ok) ok = linear({prefix + "output.dense"}, n, inner, l.down);
    if (ok) ok = norm(prefix + "attention.output.LayerNorm", l.attention_norm);
    if (ok) ok = norm(prefix + "output.LayerNorm", l.output_norm);
    return ok;
  }

  Result<void*> keep(std::int64_t bytes, const std::string& what) {
    auto buffer = to_.arena_.take(static_cast<std::size_t>(bytes), what);
    if (!buffer) return std::unexpected(buffer.error());
    to_.owned_.push_back(std::move(*buffer));
    return to_.owned_.back().data();
  }

  // A tensor as it is in the file, on the device; null: made up.
  Result<void*> stage(const std::string& name, std::span<const std::int64_t> shape, cuda::Source& type) {
    std::int64_t count = 1;
    for (const std::int64_t n : shape) count *= n;
    if (from_ == nullptr) {
      type = cuda::Source::bf16;
      if (auto ok = room(static_cast<std::size_t>(count) * 2); !ok) return std::unexpected(ok.error());
      const auto made = check(cuda::fill_normal({nullptr}, staged_.data(), type, count, 0.02f, seed_++), name);
      if (!made) return std::unexpected(made.error());
      return staged_.data();
    }
    const std::string full = from_->find(name) != nullptr ? name : "bert." + name;
    auto tensor = from_->require(full, shape);
    if (!tensor) return std::unexpected(tensor.error());
    switch ((*tensor)->dtype) {
      case Dtype::f32:
        type = cuda::Source::f32;
        break;
      case Dtype::bf16:
        type = cuda::Source::bf16;
        break;
      case Dtype::f16:
        type = cuda::Source::f16;
        break;
      default:
        return core::fail(ErrorKind::unsupported, "tensor " + full + ": weights can be F32, F16 or BF16");
    }
    if (auto ok = room((*tensor)->data.size()); !ok) return std::unexpected(ok.error());
    const auto copied =
        check(cudaMemcpy(staged_.data(), (*tensor)->data.data(), (*tensor)->data.size(), cudaMemcpyHostToDevice), name);
    if (!copied) return std::unexpected(copied.error());
    return staged_.data();
  }

  Result<void> room(std::size_t bytes) {
    if (staged_.size() >= bytes) return {};
    staged_ = {};
    auto buffer = to_.arena_.take(bytes, "loading weights");
    if (!buffer) return std::unexpected(buffer.error());
    staged_ = std::move(*buffer);
    return {};
  }

  // The device is waited for: what was staged is overwritten next.
  Result<void> pack(const std::string& name, std::int64_t rows, std::int64_t cols, const Matrix& to, int offset) {
    const std::int64_t shape[] = {rows, cols};
    cuda::Source type{};
    auto from = stage(name, std::span(shape).first(cols == 0 ? 1 : 2), type);
    if (!from) return std::unexpected(from.error());
    auto ok = check(cuda::pack_weights({nullptr}, *from, type, to_int(rows), to_int(std::max<std::int64_t>(cols, 1)),
                                       to, {0, 1, offset}),
                    name);
    if (ok) ok = check(cudaDeviceSynchronize(), name);
    return ok;
  }

  Result<void> table(const std::string& name, std::int64_t rows, Matrix& to) {
    to = {.rows = to_int(cuda::padded(rows, cuda::kRowBlock)),
          .cols = to_int(cuda::padded(to_.config_.hidden_size, cuda::kColumnBlock))};
    auto data = keep(cuda::matrix_bytes(cuda::Format::bf16, to.rows, to.cols), name);
    if (!data) return std::unexpected(data.error());
    to.data = *data;
    return pack(name, rows, to_.config_.hidden_size, to, 0);
  }

  Result<void> linear(const std::vector<std::string>& names, std::int64_t rows, std::int64_t cols, Matrix& to) {
    const auto all = rows * static_cast<std::int64_t>(names.size());
    to = {.rows = to_int(cuda::padded(all, cuda::kRowBlock)), .cols = to_int(cuda::padded(cols, cuda::kColumnBlock))};
    auto data = keep(cuda::matrix_bytes(cuda::Format::bf16, to.rows, to.cols), names.front());
    auto bias = keep(to.rows * 2, names.front());
    if (!data || !bias) return core::fail(ErrorKind::overloaded, "no memory on the GPU for " + names.front());
    to.data = *data;
    to.bias = *bias;
    const Matrix biases{.data = *bias, .rows = to.rows, .cols = 1};
    Result<void> ok;
    for (std::size_t i = 0; ok && i < names.size(); ++i) {
      const int offset = to_int(rows * static_cast<std::int64_t>(i));
      ok = pack(names[i] + ".weight", rows, cols, to, offset);
      if (ok) ok = pack(names[i] + ".bias", rows, 0, biases, offset);
    }
    return ok;
  }

  // Old checkpoints call a LayerNorm's weight and bias gamma and beta.
  Result<void> norm(const std::string& name, Norm& to) {
    const bool old = from_ != nullptr && from_->find(name + ".weight") == nullptr &&
                     from_->find("bert." + name + ".weight") == nullptr;
    auto ok = vector(name + (old ? ".gamma" : ".weight"), to.weight);
    if (ok) ok = vector(name + (old ? ".beta" : ".bias"), to.bias);
    return ok;
  }

  Result<void> vector(const std::string& name, const float*& to) {
    const std::int64_t shape[] = {to_.config_.hidden_size};
    cuda::Source type{};
    auto from = stage(name, shape, type);
    if (!from) return std::unexpected(from.error());
    auto data = keep(shape[0] * 4, name);
    if (!data) return std::unexpected(data.error());
    to = static_cast<const float*>(*data);
    auto ok = check(cuda::widen_to_float({nullptr}, *from, type, shape[0], static_cast<float*>(*data)), name);
    if (ok) ok = check(cudaDeviceSynchronize(), name);
    return ok;
  }

  CudaBert& to_;
  const Checkpoint* from_;
  DeviceBuffer staged_;
  std::uint64_t seed_ = 11;
};

CudaBert::CudaBert(const ModelConfig& config, const CudaBertOptions& options)
    : config_(config), options_(options), arena_(options.device) {}

CudaBert::~CudaBert() {
  if (stream_) cudaStreamSynchronize(stream_.get());
}

int CudaBert::context_max() const {
  const std::int64_t most = config_.max_seq_length > 0 ? config_.max_seq_length : config_.max_position;
  return to_int(std::min(most, config_.max_position));
}

Result<std::unique_ptr<CudaBert>> CudaBert::load(const Checkpoint* checkpoint, const ModelConfig& config,
                                                 const CudaBertOptions& options) {
  if (auto ok = supported(config); !ok) return std::unexpected(ok.error());
  std::unique_ptr<CudaBert> out(new CudaBert(config, options));
  CudaBert& b = *out;
  b.options_.rows_max = std::max(options.rows_max, b.context_max());
  cudaDeviceProp properties{};
  auto ok = check(cudaSetDevice(options.device), "choosing the GPU");
  if (ok) ok = check(cudaGetDeviceProperties(&properties, options.device), "reading the GPU's properties");
  if (!ok) return std::unexpected(ok.error());
  b.overlap_ = properties.major >= 9;
  b.name_ = "cuda:" + std::to_string(options.device) + " (" + properties.name + ")";
  auto stream = make_stream();
  auto begun = make_event(true, false), ended = make_event(true, true);
  if (!stream || !begun || !ended) return core::fail(ErrorKind::overloaded, "the GPU cannot make a stream");
  b.stream_ = std::move(*stream), b.begun_ = std::move(*begun), b.ended_ = std::move(*ended);
  auto blas = Blas::make(b.arena_);
  if (!blas) return std::unexpected(blas.error());
  b.blas_ = std::move(*blas);
  ok = Loader(b, checkpoint).load();
  if (ok) ok = b.reserve();
  if (!ok) return std::unexpected(ok.error());
  return out;
}

Result<void> CudaBert::reserve() {
  const Layer& layer = layers_.front();
  const auto rows = static_cast<std::size_t>(cuda::padded(options_.rows_max, 64));
  const auto of = [](std::int64_t n) { return static_cast<std::size_t>(n); };
  const Shape most{to_int(static_cast<std::int64_t>(rows)), 2 * to_int(static_cast<std::int64_t>(rows)),
                   to_int(static_cast<std::int64_t>(rows)), false};
  struct Want {
    DeviceBuffer& to;
    std::size_t bytes;
  };
  const Want wants[] = {{hidden_, rows * of(layer.qkv.cols) * 2},
                        {qkv_, rows * of(layer.qkv.rows) * 2},
                        {attended_, rows * of(layer.out.cols) * 2},
                        {added_, rows * of(layer.out.rows) * 2},
                        {inner_, rows * of(layer.down.cols) * 2},
                        {vectors_, rows * of(config_.hidden_size) * 4},
                        {inputs_, most.bytes()}};
  for (const Want& want : wants) {
    auto buffer = arena_.take(want.bytes, "the activations of one pass");
    if (!buffer) return std::unexpected(buffer.error());
    want.to = std::move(*buffer);
  }
  auto inputs = PinnedBuffer::make(most.bytes()), vectors = PinnedBuffer::make(vectors_.size());
  if (!inputs || !vectors) return core::fail(ErrorKind::overloaded, "no pinned memory for a pass");
  inputs_host_ = std::move(*inputs), vectors_host_ = std::move(*vectors);
  return {};
}

// ---- a pass ----

CudaBert::Shape CudaBert::plan(std::span<const std::span<const std::int32_t>> sequences) {
  Shape shape;
  for (const auto& tokens : sequences) {
    shape.rows += static_cast<int>(tokens.size());
    shape.tiles += (static_cast<int>(tokens.size()) + cuda::kPrefillRows - 1) / cuda::kPrefillRows;
  }
  shape.sequences = static_cast<int>(sequences.size());
  shape.graph = options_.graphs && shape.rows <= kGraphRowsMax;
  if (shape.graph) {
    shape.rows = power_of_two(16, shape.rows);
    shape.tiles = power_of_two(1, shape.tiles);
    shape.sequences = power_of_two(1, shape.sequences);
  }
  char* base = inputs_host_.data();
  std::memset(base, 0, shape.bytes());
  auto* tokens_at = reinterpret_cast<std::int32_t*>(base);
  auto* places = reinterpret_cast<std::int32_t*>(base + shape.at_places());
  auto* tiles = reinterpret_cast<cuda::EncodeTile*>(base + shape.at_tiles());
  auto* firsts = reinterpret_cast<std::int32_t*>(base + shape.at_firsts());
  auto* counts = reinterpret_cast<std::int32_t*>(base + shape.at_counts());
  int row = 0;
  for (const auto& tokens : sequences) {
    const int count = static_cast<int>(tokens.size());
    std::memcpy(tokens_at + row, tokens.data(), tokens.size() * 4);
    for (int i = 0; i < count; ++i) places[row + i] = i;
    for (int at = 0; at < count; at += cuda::kPrefillRows) {
      *tiles++ = {row + at, std::min(cuda::kPrefillRows, count - at), row, count};
    }
    *firsts++ = row;
    *counts++ = count;
    row += count;
  }
  return shape;
}

Result<std::vector<std::vector<float>>> CudaBert::encode(std::span<const std::span<const std::int32_t>> sequences) {
  cudaSetDevice(options_.device);
  std::size_t total = 0;
  for (const auto& tokens : sequences) total += tokens.size();
  if (total == 0 || total > static_cast<std::size_t>(options_.rows_max)) {
    return core::fail(ErrorKind::internal, "a pass larger than the device was prepared for");
  }
  const Shape shape = plan(sequences);
  auto ok = check(cudaEventRecord(begun_.get(), stream_.get()), "a pass");
  if (ok) {
    ok = check(
        cudaMemcpyAsync(inputs_.data(), inputs_host_.data(), shape.bytes(), cudaMemcpyHostToDevice, stream_.get()),
        "a pass's inputs");
  }
  if (ok) ok = run(shape);
  const auto width = static_cast<std::size_t>(config_.hidden_size);
  if (ok) {
    ok = check(cudaMemcpyAsync(vectors_host_.data(), vectors_.data(), sequences.size() * width * 4,
                               cudaMemcpyDeviceToHost, stream_.get()),
               "a pass's outcome");
  }
  if (ok) ok = check(cudaEventRecord(ended_.get(), stream_.get()), "a pass");
  if (ok) ok = check(cudaEventSynchronize(ended_.get()), "a pass");
  if (!ok) return std::unexpected(ok.error());
  std::vector<std::vector<float>> out;
  const auto* from = reinterpret_cast<const float*>(vectors_host_.data());
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    auto& v = out.emplace_back(from + i * width, from + (i + 1) * width);
    double squares = 0;
    for (const float x : v) squares += static_cast<double>(x) * x;
    if (!config_.normalize || squares <= 0) continue;
    const float scale = static_cast<float>(1.0 / std::sqrt(squares));
    for (float& x : v) x *= scale;
  }
  return out;
}

// The first pass of a size runs as it is, so that whatever loads lazily has loaded; the second is captured.
Result<void> CudaBert::run(const Shape& shape) {
  if (!shape.graph) return enqueue(shape);
  const std::tuple key{shape.rows, shape.tiles, shape.sequences};
  if (graphs_.size() >= kGraphsMax && !graphs_.contains(key)) return enqueue(shape);
  Captured& captured = graphs_[key];
  if (captured.uses++ == 0) return enqueue(shape);
  if (!captured.exec) {
    auto ok = check(cudaStreamBeginCapture(stream_.get(), cudaStreamCaptureModeThreadLocal), "capturing a pass");
    if (ok) ok = enqueue(shape);
    cudaGraph_t graph = nullptr;
    const auto ended = cudaStreamEndCapture(stream_.get(), &graph);
    const Graph owner(graph);
    cudaGraphExec_t exec = nullptr;
    if (ok) ok = check(ended, "capturing a pass");
    if (ok) ok = check(cudaGraphInstantiate(&exec, graph, 0), "capturing a pass");
    if (!ok) return ok;
    captured.exec = GraphExec(exec);
  }
  return check(cudaGraphLaunch(captured.exec.get(), stream_.get()), "replaying a pass");
}

Result<void> CudaBert::enqueue(const Shape& shape) {
  const cuda::EncoderEmbed embed{.words = words_.data,
                                 .positions = positions_.data,
                                 .types = types_.data,
                                 .tokens = input<std::int32_t>(0),
                                 .places = input<std::int32_t>(shape.at_places()),
                                 .norm = {.out = hidden_.data(),
                                          .rows = shape.rows,
                                          .width = to_int(config_.hidden_size),
                                          .stride = words_.cols,
                                          .weight = embedding_norm_.weight,
                                          .bias = embedding_norm_.bias,
                                          .eps = static_cast<float>(config_.norm_eps)}};
  // What stands before it in the stream is a copy: no overlap with that.
  auto ok = check(cuda::encoder_embed({stream_.get(), false}, embed), "the embedding");
  for (std::size_t i = 0; ok && i < layers_.size(); ++i) ok = run_layer(layers_[i], shape);
  if (!ok) return ok;
  const cuda::PoolRows pool{.x = hidden_.data(),
                            .stride = words_.cols,
                            .width = to_int(config_.hidden_size),
                            .sequences = shape.sequences,
                            .firsts = input<std::int32_t>(shape.at_firsts()),
                            .counts = input<std::int32_t>(shape.at_counts()),
                            .pool = config_.pooling == Pooling::mean         ? cuda::Pool::mean
                                    : config_.pooling == Pooling::max        ? cuda::Pool::max
                                    : config_.pooling == Pooling::last_token ? cuda::Pool::last
                                                                             : cuda::Pool::first,
                            .out = vectors_.as<float>()};
  return check(cuda::pool_rows(queue(), pool), "pooling");
}

Result<void> CudaBert::multiply(const Matrix& w, const void* x, int x_stride, int rows, void* y, int y_stride,
                                bool gelu) {
  if (rows <= cuda::kSmallRowsMax) {
    const cuda::Product p{.w = w,
                          .x = x,
                          .x_stride = x_stride,
                          .rows = rows,
                          .epilogue = cuda::Epilogue::store_bf16,
                          .y = y,
                          .y_stride = y_stride,
                          .y_cols = w.rows};
    auto ok = check(cuda::product(queue(), p), "a projection");
    if (ok && gelu)
      ok = check(cuda::gelu(queue(), y, rows, to_int(config_.intermediate_size), y_stride), "the activation");
    return ok;
  }
  const Blas::Call call{.x = x,
                        .w = w.data,
                        .y = y,
                        .m = library_rows(rows),
                        .n = w.rows,
                        .k = w.cols,
                        .y_stride = y_stride,
                        .bias = w.bias,
                        .gelu = gelu && options_.fused_gelu};
  auto ok = blas_->multiply(stream_.get(), call);
  if (ok && gelu && !options_.fused_gelu) {
    ok = check(cuda::gelu(queue(), y, rows, to_int(config_.intermediate_size), y_stride), "the activation");
  }
  return ok;
}

Result<void> CudaBert::normalise(const Norm& norm, const void* add, int add_stride, int rows) {
  const cuda::LayerNorm n{.x = hidden_.data(),
                          .add = add,
                          .out = hidden_.data(),
                          .rows = rows,
                          .width = to_int(config_.hidden_size),
                          .stride = words_.cols,
                          .add_stride = add_stride,
                          .weight = norm.weight,
                          .bias = norm.bias,
                          .eps = static_cast<float>(config_.norm_eps)};
  return check(cuda::layer_norm(queue(), n), "normalisation");
}

Result<void> CudaBert::run_layer(const Layer& layer, const Shape& shape) {
  const int rows = shape.rows;
  auto ok = multiply(layer.qkv, hidden_.data(), words_.cols, rows, qkv_.data(), layer.qkv.rows, false);
  if (ok) {
    const cuda::EncodeAttention attention{
        .qkv = qkv_.data(),
        .stride = layer.qkv.rows,
        .heads = to_int(config_.heads),
        .head_dim = to_int(config_.head_dim),
        .scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(config_.head_dim))),
        .tiles = input<cuda::EncodeTile>(shape.at_tiles()),
        .tile_count = shape.tiles,
        .out = attended_.data(),
        .out_stride = layer.out.cols};
    ok = check(cuda::attend_encode(queue(), attention), "attention");
  }
  if (ok) ok = multiply(layer.out, attended_.data(), layer.out.cols, rows, added_.data(), layer.out.rows, false);
  if (ok) ok = normalise(layer.attention_norm, added_.data(), layer.out.rows, rows);
  if (ok) ok = multiply(layer.up, hidden_.data(), words_.cols, rows, inner_.data(), layer.down.cols, true);
  if (ok) ok = multiply(layer.down, inner_.data(), layer.down.cols, rows, added_.data(), layer.down.rows, false);
  if (ok) ok = normalise(layer.output_norm, added_.data(), layer.down.rows, rows);
  return ok;
}

double CudaBert::last_pass_ms() const {
  float ms = 0;
  return cudaEventElapsedTime(&ms, begun_.get(), ended_.get()) == cudaSuccess ? static_cast<double>(ms) : 0.0;
}

}  // namespace ganglion::local
