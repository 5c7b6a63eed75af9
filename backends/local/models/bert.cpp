// Post-norm encoder layers over a ragged batch; attention sees the whole sequence both ways and uses the same paged
// kernel as the decoders, over pages that live for one layer.

#include "backends/local/models/bert.hpp"

#include <algorithm>
#include <cmath>

namespace ganglion::local {

using core::ErrorKind;
using core::Result;

Bert::Bert(Checkpoint checkpoint, const ModelConfig& config, Compute compute, int rows_max)
    : checkpoint_(std::move(checkpoint)), config_(config), compute_(compute), rows_max_(rows_max) {}

int Bert::context_max() const {
  const std::int64_t most = config_.max_seq_length > 0 ? config_.max_seq_length : config_.max_position;
  return static_cast<int>(std::min(most, config_.max_position));
}

Result<std::unique_ptr<Bert>> Bert::load(Checkpoint checkpoint, const ModelConfig& config, Compute compute,
                                         bool quantize_int8, int rows_max) {
  if (config.family != ModelFamily::bert) {
    return core::fail(ErrorKind::unsupported, "config.json: model_type must be bert for an embedding model");
  }
  if (config.activation != Activation::gelu) {
    return core::fail(ErrorKind::unsupported, "config.json: hidden_act must be gelu for a bert model");
  }
  std::unique_ptr<Bert> out(new Bert(std::move(checkpoint), config, compute, rows_max));
  out->rows_max_ = std::max(rows_max, out->context_max());
  const WeightLoader loader(out->checkpoint_, {"", "bert."}, *compute.pool, quantize_int8);
  if (auto loaded = out->load_weights(loader); !loaded) return std::unexpected(loaded.error());
  if (!out->reserve_rows()) return core::fail(ErrorKind::internal, "no memory for the activations of one pass");
  return out;
}

namespace {

// Old checkpoints call a LayerNorm's weight and bias gamma and beta.
Result<void> load_norm(const WeightLoader& loader, const std::string& name, std::int64_t size,
                       std::vector<float>& weight, std::vector<float>& bias) {
  const bool old = !loader.has(name + ".weight") && loader.has(name + ".gamma");
  auto w = loader.vector(name + (old ? ".gamma" : ".weight"), size);
  if (!w) return std::unexpected(w.error());
  auto b = loader.vector(name + (old ? ".beta" : ".bias"), size);
  if (!b) return std::unexpected(b.error());
  weight = std::move(*w);
  bias = std::move(*b);
  return {};
}

}  // namespace

Result<void> Bert::load_weights(const WeightLoader& loader) {
  auto table = [&](const char* name, std::int64_t rows, EmbeddingTable& to) -> Result<void> {
    auto found = loader.table(name, rows, config_.hidden_size);
    if (!found) return std::unexpected(found.error());
    to = *found;
    return {};
  };
  Result<void> ok = table("embeddings.word_embeddings.weight", config_.vocab_size, words_);
  if (ok) ok = table("embeddings.position_embeddings.weight", config_.max_position, positions_);
  if (ok) ok = table("embeddings.token_type_embeddings.weight", config_.type_vocab_size, types_);
  if (ok) {
    ok = load_norm(loader, "embeddings.LayerNorm", config_.hidden_size, embedding_norm_.weight, embedding_norm_.bias);
  }
  layers_.resize(static_cast<std::size_t>(config_.layers));
  for (std::size_t i = 0; ok && i < layers_.size(); ++i) ok = load_layer(loader, i);
  return ok;
}

Result<void> Bert::load_layer(const WeightLoader& loader, std::size_t index) {
  Layer& layer = layers_[index];
  const std::string prefix = "encoder.layer." + std::to_string(index) + ".";
  const std::int64_t n = config_.hidden_size, inner = config_.intermediate_size;
  auto linear = [&](std::vector<WeightLoader::Piece> pieces, std::int64_t cols, Linear& to) -> Result<void> {
    for (auto& piece : pieces) piece.name = prefix + piece.name;
    auto packed = loader.linear(pieces, cols, true);
    if (!packed) return std::unexpected(packed.error());
    to = std::move(*packed);
    return {};
  };
  Result<void> ok =
      linear({{"attention.self.query", n}, {"attention.self.key", n}, {"attention.self.value", n}}, n, layer.qkv);
  if (ok) ok = linear({{"attention.output.dense", n}}, n, layer.out);
  if (ok) ok = linear({{"intermediate.dense", inner}}, n, layer.up);
  if (ok) ok = linear({{"output.dense", n}}, inner, layer.down);
  Norm& first = layer.attention_norm;
  Norm& second = layer.output_norm;
  if (ok) ok = load_norm(loader, prefix + "attention.output.LayerNorm", n, first.weight, first.bias);
  if (ok) ok = load_norm(loader, prefix + "output.LayerNorm", n, second.weight, second.bias);
  return ok;
}

bool Bert::reserve_rows() {
  const std::int64_t n = config_.hidden_size, wide = std::max(3 * n, config_.intermediate_size);
  memory_ = Buffer(static_cast<std::size_t>(rows_max_ * (3 * n + wide)) * sizeof(float));
  hidden_ = memory_.as<float>();
  result_ = hidden_ + rows_max_ * n;
  query_ = result_ + rows_max_ * n;
  wide_ = query_ + rows_max_ * n;
  // Every sequence may leave its last page unfilled, and there are at most rows_max of them.
  const KvShape shape{1, static_cast<int>(config_.heads), static_cast<int>(config_.head_dim), KvElement::f32};
  kv_ = KvStore(shape, rows_max_);
  return memory_.data() != nullptr && kv_.valid();
}

Result<std::vector<std::vector<float>>> Bert::encode(std::span<const std::span<const std::int32_t>> sequences) {
  embed(sequences);
  bool ok = true;
  for (std::size_t i = 0; ok && i < layers_.size(); ++i) ok = run_layer(layers_[i]);
  if (!ok) return core::fail(ErrorKind::internal, "no memory for a pass's packed activations");
  std::vector<std::vector<float>> out;
  for (const AttendSlice& slice : slices_) out.push_back(pool(slice.first_row, slice.rows));
  return out;
}

void Bert::embed(std::span<const std::span<const std::int32_t>> sequences) {
  const Kernels& kernels = *compute_.kernels;
  const std::int64_t n = config_.hidden_size;
  tables_.clear();
  slices_.clear();
  rows_ = 0;
  std::int32_t page = 0;
  std::vector<float> part(static_cast<std::size_t>(n));
  for (const auto& tokens : sequences) {
    auto& table = tables_.emplace_back();
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (i % kPageTokens == 0) table.push_back(page++);
      float* row = hidden_ + (rows_ + static_cast<std::int64_t>(i)) * n;
      words_.read(kernels, tokens[i], row);
      positions_.read(kernels, static_cast<std::int64_t>(i), part.data());
      kernels.add(row, part.data(), static_cast<int>(n));
      types_.read(kernels, 0, part.data());
      kernels.add(row, part.data(), static_cast<int>(n));
    }
    slices_.push_back({nullptr, rows_, static_cast<int>(tokens.size()), 0, false});
    rows_ += static_cast<int>(tokens.size());
  }
  for (std::size_t s = 0; s < slices_.size(); ++s) slices_[s].pages = tables_[s].data();
  plan_.build(slices_, static_cast<int>(config_.heads), static_cast<int>(config_.heads));
  add_and_normalise(embedding_norm_, nullptr);
}

bool Bert::multiply(const Linear& linear, const float* x, float* y) {
  return linear.forward(*compute_.kernels, *compute_.pool, scratch_, x, linear.cols(), rows_, y, linear.rows());
}

void Bert::add_and_normalise(const Norm& norm, const float* add) {
  const int n = static_cast<int>(config_.hidden_size);
  compute_.pool->split(rows_, ThreadPool::grain_for(n * 4), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t r = begin; r < end; ++r) {
      float* row = hidden_ + r * n;
      if (add != nullptr) compute_.kernels->add(row, add + r * n, n);
      compute_.kernels->layer_norm(row, norm.weight.data(), norm.bias.data(), row, n,
                                   static_cast<float>(config_.norm_eps));
    }
  });
}

bool Bert::run_layer(const Layer& layer) {
  const Kernels& kernels = *compute_.kernels;
  const std::int64_t n = config_.hidden_size;
  if (!multiply(layer.qkv, hidden_, wide_)) return false;
  const float scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(config_.head_dim)));
  const auto sequences = static_cast<std::int64_t>(slices_.size());
  compute_.pool->split(sequences, ThreadPool::grain_for(rows_ / sequences * n * 8),
                       [&](std::int64_t begin, std::int64_t end, int) {
                         for (std::int64_t s = begin; s < end; ++s) {
                           const AttendSlice& slice = slices_[static_cast<std::size_t>(s)];
                           for (int i = 0; i < slice.rows; ++i) {
                             const std::int64_t r = slice.first_row + i;
                             const float* row = wide_ + r * 3 * n;
                             for (std::int64_t d = 0; d < n; ++d) query_[r * n + d] = row[d] * scale;
                             kv_.write(kernels, 0, slice.pages[i / kPageTokens], i % kPageTokens, row + n, row + 2 * n);
                           }
                         }
                       });
  plan_.run(kernels, *compute_.pool, kv_, 0, 0, query_, wide_);
  if (!multiply(layer.out, wide_, result_)) return false;
  add_and_normalise(layer.attention_norm, result_);
  if (!multiply(layer.up, hidden_, wide_)) return false;
  const std::int64_t inner = config_.intermediate_size;
  compute_.pool->split(rows_, ThreadPool::grain_for(inner * 16), [&](std::int64_t begin, std::int64_t end, int) {
    kernels.gelu(wide_ + begin * inner, static_cast<int>((end - begin) * inner));
  });
  if (!multiply(layer.down, wide_, result_)) return false;
  add_and_normalise(layer.output_norm, result_);
  return true;
}

std::vector<float> Bert::pool(int first, int count) const {
  const std::int64_t n = config_.hidden_size;
  const float* rows = hidden_ + first * n;
  std::vector<float> out(rows, rows + n);  // cls: the first row
  if (config_.pooling == Pooling::last_token) out.assign(rows + (count - 1) * n, rows + count * n);
  for (int i = 1; i < count; ++i) {
    for (std::int64_t d = 0; d < n; ++d) {
      float& to = out[static_cast<std::size_t>(d)];
      if (config_.pooling == Pooling::mean) to += rows[i * n + d];
      if (config_.pooling == Pooling::max) to = std::max(to, rows[i * n + d]);
    }
  }
  double squares = 0;
  for (float& v : out) {
    if (config_.pooling == Pooling::mean) v /= static_cast<float>(count);
    squares += static_cast<double>(v) * v;
  }
  if (config_.normalize && squares > 0) {
    const float scale = static_cast<float>(1.0 / std::sqrt(squares));
    for (float& v : out) v *= scale;
  }
  return out;
}

}  // namespace ganglion::local
