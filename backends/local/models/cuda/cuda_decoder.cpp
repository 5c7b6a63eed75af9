// Making a decoder, and a step's way in and out: laying out its inputs, running or replaying it, fetching the outcome.
// The layers themselves are in cuda_layers.cpp.

#include "backends/local/models/cuda/cuda_decoder.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "backends/local/models/cuda/cuda_step.hpp"

namespace ganglion::local {

using core::ErrorKind;
using core::Result;

namespace {

// Adjustments (biases, penalties) of one step, 16 bytes each: room at first, and at most. A group of devices has more
// at once: it cannot ask for memory while others of it may be in a step.
constexpr std::size_t kAdjustFirst = std::size_t{1} << 18, kAdjustOfGroup = std::size_t{1} << 20,
                      kAdjustMost = std::size_t{1} << 22;
constexpr int kFewColumnsMax = 128;  // query heads times rows of a chunk that share keys: sixteen tiles of the kernel
constexpr int kMixedRowsMax = 128;   // of a step with prompt chunks that is replayed from a graph
constexpr std::size_t kGraphsMax = 256;

// Steps of decode tokens alone are padded to one of these sizes, so that few graphs serve them all.
int bucket_of(int rows) {
  if (rows <= 2) return rows;
  for (int size : {4, 8, 16, 24, 32, 48, 64}) {
    if (rows <= size) return size;
  }
  return to_int(cuda::padded(rows, rows <= 512 ? 32 : 64));
}

// The longest sequence of a step, in classes that share a graph.
int context_class(int context) {
  return context <= 512 ? 512 : context <= 2048 ? 2048 : context <= 4096 ? 4096 : 1 << 20;
}

// The same for what else a small mixed step holds: rows that are sampled from, and tiles of a few query rows.
int sample_bucket(int samples) {
  return samples <= 8 ? 8 : samples <= 32 ? 32 : to_int(cuda::padded(samples, 64));
}
int few_bucket(int tiles) {
  int size = 4;
  while (size < tiles) size *= 2;
  return size;
}

Result<void> supported(const ModelConfig& config) {
  if (config.family == ModelFamily::bert) {
    return core::fail(ErrorKind::unsupported, "a bert model makes embeddings; it cannot generate text");
  }
  const Activation a = config.activation;
  if (config.gated ? a != Activation::silu && a != Activation::gelu_tanh
                   : a != Activation::relu && a != Activation::gelu) {
    return core::fail(ErrorKind::unsupported, "config.json: the activation is not implemented for this model family");
  }
  if (config.head_dim % 4 != 0 || cuda::head_width(to_int(config.head_dim)) == 0) {
    return core::fail(ErrorKind::unsupported, "config.json: head_dim must be a multiple of 4 and at most 256 on a GPU");
  }
  if (config.hidden_size % cuda::kRowBlock != 0 && config.embedding_width() != config.hidden_size) {
    return core::fail(ErrorKind::unsupported, "config.json: hidden_size must be a multiple of 16 on a GPU");
  }
  return {};
}

// Whether the fused kernels compute what the model's layers are.
bool is_llama_kind(const ModelConfig& c) {
  return c.norm == NormKind::rms && c.residual == Residual::before && c.gated && c.activation == Activation::silu &&
         c.final_norm && c.rotated() == c.head_dim && c.head_dim <= 128 && !c.local_rope && c.embedding_scale == 1.0 &&
         c.attention_softcap == 0 && c.logit_softcap == 0 && c.experts == 0 && c.embedding_width() == c.hidden_size;
}

}  // namespace

Result<ModelConfig> share_of(const ModelConfig& config, int ranks) {
  if (ranks <= 1) return config;
  const DecoderNames names = decoder_names(config);
  if (!is_llama_kind(config) || !names.qkv.empty() || !names.gate_up.empty()) {
    return core::fail(ErrorKind::unsupported, "models of this family run on one GPU");
  }
  ModelConfig out = config;
  for (auto* const part : {&out.heads, &out.kv_heads, &out.intermediate_size}) {
    if (*part % ranks != 0) {
      return core::fail(ErrorKind::unsupported, "a model with " + std::to_string(config.heads) + " query heads, " +
                                                    std::to_string(config.kv_heads) +
                                                    " key heads and an inner width of " +
                                                    std::to_string(config.intermediate_size) + " cannot be cut into " +
                                                    std::to_string(ranks) + " equal parts");
    }
    *part /= ranks;
  }
  return out;
}

CudaDecoder::CudaDecoder(const ModelConfig& config, const CudaOptions& options)
    : config_(config), options_(options), arena_(options.device) {}

CudaDecoder::~CudaDecoder() {
  if (stream_) cudaStreamSynchronize(stream_.get());
}

Result<std::unique_ptr<CudaDecoder>> CudaDecoder::load(const Checkpoint& checkpoint, const ModelConfig& config,
                                                       const CudaOptions& options) {
  return make(&checkpoint, config, options, 0);
}

Result<std::unique_ptr<CudaDecoder>> CudaDecoder::random(const ModelConfig& config, const CudaOptions& options,
                                                         std::uint64_t seed) {
  return make(nullptr, config, options, seed);
}

Result<std::unique_ptr<CudaDecoder>> CudaDecoder::make(const Checkpoint* checkpoint, const ModelConfig& config,
                                                       const CudaOptions& options, std::uint64_t seed) {
  if (auto ok = supported(config); !ok) return std::unexpected(ok.error());
  auto share = share_of(config, options.shard.ranks);
  if (!share) return std::unexpected(share.error());
  std::unique_ptr<CudaDecoder> out(new CudaDecoder(*share, options));
  CudaDecoder& d = *out;
  d.options_.batch_max = std::clamp(options.batch_max, 1, 4096);
  d.options_.rows_max = std::clamp(options.rows_max, std::max(d.options_.batch_max, 16), 65536);
  d.context_max_ = config.max_position;
  if (config.rope.type == RopeType::dynamic && config.rope.original_max_position > 0) {
    d.context_max_ = std::min(d.context_max_, config.rope.original_max_position);
  }
  if (options.context_max > 0) d.context_max_ = std::min<std::int64_t>(d.context_max_, options.context_max);
  cudaDeviceProp properties{};
  auto ok = check(cudaSetDevice(options.device), "choosing the GPU");
  if (ok) ok = check(cudaGetDeviceProperties(&properties, options.device), "reading the GPU's properties");
  if (!ok) return std::unexpected(ok.error());
  d.multiprocessors_ = properties.multiProcessorCount;
  d.capability_ = 10 * properties.major + properties.minor;
  d.overlap_ = d.capability_ >= 90;
  int kilohertz = 0, bits = 0;  // both edges of the clock count
  ok = check(cudaDeviceGetAttribute(&kilohertz, cudaDevAttrMemoryClockRate, options.device),
             "reading the memory's clock");
  if (ok)
    ok = check(cudaDeviceGetAttribute(&bits, cudaDevAttrGlobalMemoryBusWidth, options.device),
               "reading the memory's width");
  if (!ok) return std::unexpected(ok.error());
  d.memory_gb_ = 2e-6 * kilohertz * bits / 8;
  auto stream = make_stream();
  auto begun = make_event(true, false), ended = make_event(true, options.sleep);
  if (!stream || !begun || !ended) return core::fail(ErrorKind::overloaded, "the GPU cannot make a stream");
  d.stream_ = std::move(*stream), d.begun_ = std::move(*begun), d.ended_ = std::move(*ended);
  auto blas = Blas::make(d.arena_);
  if (!blas) return std::unexpected(blas.error());
  d.blas_ = std::move(*blas);
  auto weights = CudaWeightLoader(d.arena_, checkpoint, d.config_, options.format, options.int4_group, options.shard,
                                  seed + static_cast<std::uint64_t>(options.shard.rank) * 1'000'003)
                     .load();
  if (!weights) return std::unexpected(weights.error());
  d.weights_ = std::move(*weights);
  // The fused kernels know no zero points either.
  d.general_ = !is_llama_kind(config) || d.weights_.zero_points;
  ok = d.adapters_.load(d.arena_, options.adapters, config, decoder_names(config));
  if (ok) ok = d.reserve_rows();
  if (ok) ok = d.reserve_general();
  if (ok) ok = d.reserve_meta();
  if (ok) ok = d.reserve_masks();
  if (ok) ok = d.reserve_whole();
  if (ok) ok = d.tune();
  if (!ok) return std::unexpected(ok.error());
  return out;
}

Result<void> CudaDecoder::reserve_rows() {
  const auto& layer = weights_.layers.front();
  width_stride_ = layer.qkv.cols, heads_stride_ = layer.out.cols, inner_stride_ = layer.down.cols;
  rows_cap_ = to_int(cuda::padded(options_.rows_max, 128));  // as the library's products are
  const int dim = to_int(config_.head_dim), width = cuda::head_width(dim),
            samples = sample_rows(std::max(options_.batch_max, options_.samples_max));
  kv_ = {.layers = to_int(config_.layers),
         .kv_heads = to_int(config_.kv_heads),
         .head_dim = dim,
         .head_width = width,
         .format = options_.kv};
  kv_.page_bytes = cuda::kv_page_bytes(kv_.layers, kv_.kv_heads, width, kv_.format);
  wide_qkv_ = kv_.format == cuda::KvFormat::fp16 &&
              std::ranges::all_of(weights_.layers, [](const auto& l) { return l.qkv.format == cuda::Format::bf16; });
  wide_added_ = wide_qkv_ && options_.group == nullptr;
  const int widest = std::max({width_stride_, heads_stride_, inner_stride_});
  // What no product and no library reads is unpacked first; experts never are. Our own product of 8 bits shares sums.
  std::size_t unpacked = 0, sums = 0;
  bool streams = false;
  const auto note = [&](const cuda::Matrix& m) {
    if (m.format == cuda::Format::bf16) return;
    streams = streams || streams_eight_bit(m, std::min(cuda::kEightBitRowsMax, options_.eight_bit_rows_max));
    if (takes_eight_bit(m) && adapters_.count() == 0) return;
    unpacked = std::max(unpacked, static_cast<std::size_t>(m.rows) * static_cast<std::size_t>(m.cols) * 2);
  };
  const auto size_for = [&](const cuda::Matrix& m) {
    note(m);
    if (m.format != cuda::Format::int8 || !takes_eight_bit(m)) return;
    sums = std::max(sums, static_cast<std::size_t>(int8_rows(m)) * static_cast<std::size_t>(m.rows) * 4);
  };
  note(weights_.head);  // whose sums are where the logits will be
  for (const CudaLayer& l : weights_.layers) {
    size_for(l.qkv), size_for(l.out);
    if (config_.experts == 0) size_for(l.gate_up), size_for(l.down);
  }
  const auto rows = static_cast<std::size_t>(rows_cap_);
  const auto of = [](std::int64_t a) { return static_cast<std::size_t>(a); };
  struct Want {
    DeviceBuffer& to;
    std::size_t bytes;
  };
  const std::size_t parts = of(cuda::decode_partial_floats(4 * multiprocessors_, width, 1)) * 4;
  const Want wants[] = {
      {hidden_, rows * of(config_.hidden_size) * 4},
      {normed_, rows * of(width_stride_) * 2},
      {qkv_, rows * of(layer.qkv.rows) * (wide_qkv_ ? 4 : 2)},
      {query_, rows * of(config_.heads * width) * 2},
      {attended_, rows * of(heads_stride_) * 2},
      {gate_up_, config_.experts > 0 ? 1 : rows * of(layer.gate_up.rows) * 2},
      {gated_, config_.experts > 0 ? 1 : rows * of(inner_stride_) * 2},
      {added_, rows * of(layer.out.rows) * (wide_added_ ? 4 : 2)},
      {squares_, of(cuda::kFusedRowsMax) * of(layer.out.rows)},
      {cos_, rows * of(dim / 2) * 4},
      {sin_, rows * of(dim / 2) * 4},
      {eight_, rows * of(widest)},
      {eight_scales_, rows * 4},
      {eight_partial_, streams ? of(cuda::eight_bit_partial_bytes(multiprocessors_)) : 1},
      {eight_arrived_, streams ? of(cuda::kEightBitTilesMax) * 4 : 1},
      {sums_, std::max<std::size_t>(sums, 1)},
      {logits_, std::max<std::size_t>(of(samples) * of(weights_.head.rows) * 4, 1)},
      {partial_, parts},
      {arrived_, of(std::max(samples, kFewTilesMax)) * of(config_.heads) * 4},
      {unpacked_, std::max<std::size_t>(unpacked, 1)},
  };
  for (const Want& want : wants) {
    auto buffer = arena_.take(want.bytes, "the activations of one step");
    if (!buffer) return std::unexpected(buffer.error());
    want.to = std::move(*buffer);
  }
  return {};
}

Result<void> CudaDecoder::reserve_meta() {
  const int pages_each = to_int((context_max_ + cuda::kPageTokens - 1) / cuda::kPageTokens);
  const MetaSizes sizes{rows_cap_, sample_rows(std::max(options_.batch_max, options_.samples_max)),
                        rows_cap_ / cuda::kPrefillRows + options_.batch_max + 1,
                        static_cast<std::int64_t>(options_.batch_max + 8) * pages_each};
  const std::size_t bytes = Meta::bytes(sizes);
  const std::size_t results = static_cast<std::size_t>(sizes.samples) * sizeof(cuda::SampleResult);
  adjust_max_ = options_.group != nullptr ? kAdjustOfGroup : kAdjustFirst;
  adjust_most_ = options_.group != nullptr ? kAdjustOfGroup : kAdjustMost;
  auto meta = PinnedBuffer::make(bytes), adjust = PinnedBuffer::make(adjust_max_ * sizeof(cuda::SampleAdjust)),
       host = PinnedBuffer::make(results);
  if (!meta || !adjust || !host) return core::fail(ErrorKind::overloaded, "no pinned memory for a step's inputs");
  meta_host_ = std::move(*meta), adjust_host_ = std::move(*adjust), results_host_ = std::move(*host);
  auto meta_device = arena_.take(bytes, "a step's inputs"), device = arena_.take(results, "a step's outcome"),
       adjust_device = arena_.take(adjust_host_.size(), "a step's inputs");
  if (!meta_device || !device || !adjust_device)
    return core::fail(ErrorKind::overloaded, "no memory for a step's inputs");
  meta_device_ = std::move(*meta_device), results_device_ = std::move(*device),
  adjust_device_ = std::move(*adjust_device);
  host_ = std::make_unique<Meta>(meta_host_.data(), sizes);
  device_ = std::make_unique<Meta>(meta_device_.as<char>(), sizes);
  return {};
}

// Between two steps. Where there is no memory for it what is there has to do, and rows that find no place say so.
void CudaDecoder::grow_adjust(std::size_t count) {
  if (count <= adjust_max_ || adjust_max_ >= adjust_most_) return;
  const std::size_t most = std::min(std::bit_ceil(count), adjust_most_);
  auto host = PinnedBuffer::make(most * sizeof(cuda::SampleAdjust));
  auto device = arena_.take(most * sizeof(cuda::SampleAdjust), "a step's inputs");
  // A step that broke off may still be copying.
  if (!host || !device || !check(cudaStreamSynchronize(stream_.get()), "a step's inputs")) {
    adjust_most_ = adjust_max_;  // not asked for again with every step
    return;
  }
  graphs_.clear();  // they read from the old place
  adjust_host_ = std::move(*host), adjust_device_ = std::move(*device);
  adjust_max_ = most;
}

// One mask for each row that can be sampled from: 16 KiB for a vocabulary of 128,000.
Result<void> CudaDecoder::reserve_masks() {
  const int rows = sample_rows(std::max(options_.batch_max, options_.samples_max));
  const std::size_t bytes = static_cast<std::size_t>(rows) * mask_words() * 4;
  auto host = PinnedBuffer::make(bytes);
  if (!host) return core::fail(ErrorKind::overloaded, "no pinned memory for a step's inputs");
  auto device = arena_.take(bytes, "a step's inputs");
  if (!device) return std::unexpected(device.error());
  masks_host_ = std::move(*host), masks_device_ = std::move(*device);
  return {};
}

Result<void> CudaDecoder::reserve_pages(std::int64_t pages) {
  cudaSetDevice(options_.device);
  auto buffer = arena_.take(static_cast<std::size_t>(pages * kv_.page_bytes), "keys and values");
  if (!buffer) return std::unexpected(buffer.error());
  pages_ = std::move(*buffer);
  kv_.base = pages_.data();
  page_count_ = pages;
  return {};
}

std::uint64_t CudaDecoder::free_bytes() const {
  std::size_t free = 0, total = 0;
  cudaSetDevice(options_.device);
  return cudaMemGetInfo(&free, &total) == cudaSuccess ? free : 0;
}

// ---- a step's inputs ----

void CudaDecoder::add_rows(const Slice& slice, int first_row, int table_from) {
  for (std::size_t i = 0; i < slice.tokens.size(); ++i) {
    const int row = first_row + static_cast<int>(i), position = slice.position + static_cast<int>(i);
    host_->tokens[row] = slice.tokens[i];
    host_->positions[row] = position;
    host_->row_pages[row] = slice.kept ? -1 : slice.pages[position / cuda::kPageTokens];
    host_->page_from[row] = table_from;
    host_->adapters[row] = slice.adapter;
    host_->long_rows[row] = slice.long_positions ? 1 : 0;
  }
}

// A chunk of a prompt whose rows the decode kernel attends, a few a tile: where the prefill kernel would have too few
// blocks to fill the device.
bool CudaDecoder::is_few(int count) const {
  return count * to_int(config_.heads / config_.kv_heads) <= kFewColumnsMax;
}

void CudaDecoder::add_tiles(Shape& shape, const Slice& slice) {
  const int count = static_cast<int>(slice.tokens.size());
  if (count == 1 && !shape.mixed) return;
  const int each = shape.mixed || is_few(count) ? cuda::few_rows(to_int(config_.heads), to_int(config_.kv_heads)) : 0;
  const bool few = each > 0 && shape.few + (count + each - 1) / each <= kFewTilesMax;
  const int step = few ? each : cuda::kPrefillRows;
  for (int at = 0; at < count; at += step) {
    const cuda::PrefillTile tile{shape.rows + at, std::min(step, count - at), slice.position + at, table_used_};
    (few ? host_->few[shape.few++] : host_->tiles[shape.tiles++]) = tile;
  }
}

// For the row so many before the last one so far.
void CudaDecoder::add_sample(Shape& shape, const SampleSpec* sample, int from_last) {
  if (sample != nullptr) shape.sampled = true;
  cuda::SampleRow& row = host_->samples[shape.samples];
  row = sample != nullptr ? sample->row : cuda::SampleRow{};
  row.logits_row = shape.fused ? shape.rows - 1 - from_last : shape.samples;
  row.adjust_from = adjust_used_, row.adjust_count = 0;
  if (sample != nullptr && static_cast<std::size_t>(adjust_used_) + sample->adjust.size() > adjust_max_) {
    no_room_.push_back(shape.samples);  // sampled without them, which nobody is to see
  } else if (sample != nullptr) {
    row.adjust_count = static_cast<int>(sample->adjust.size());
    std::memcpy(adjust_host_.data() + static_cast<std::size_t>(adjust_used_) * sizeof(cuda::SampleAdjust),
                sample->adjust.data(), sample->adjust.size() * sizeof(cuda::SampleAdjust));
    adjust_used_ += row.adjust_count;
  }
  row.mask_from = -1;
  if (sample != nullptr && sample->mask != nullptr) {
    const std::size_t words = mask_words(), from = static_cast<std::size_t>(masks_used_++) * words;
    row.mask_from = to_int(static_cast<std::int64_t>(from));
    std::memcpy(masks_host_.data() + from * 4, sample->mask, words * 4);
  }
  host_->pick[shape.samples] = shape.rows - 1 - from_last;
  ++shape.samples;
}

// Fills a step up to the size of a graph.
void CudaDecoder::pad(Shape& shape) {
  const int rows = bucket_of(shape.mixed ? std::max(shape.rows, cuda::kFusedRowsMax) : shape.rows);
  for (int row = shape.rows; row < rows; ++row) {
    host_->tokens[row] = 0, host_->positions[row] = -1, host_->row_pages[row] = 0, host_->page_from[row] = 0;
    host_->adapters[row] = -1, host_->long_rows[row] = 0;
  }
  const int samples = shape.mixed ? sample_bucket(shape.samples) : rows;
  for (int i = shape.samples; i < samples; ++i) {
    // Rows of logits that nobody else samples from.
    host_->samples[i] = {.logits_row = shape.mixed && shape.fused ? cuda::kFusedRowsMax + i : i};
    host_->pick[i] = shape.mixed ? 0 : i;
  }
  if (shape.mixed) {
    const int tiles = few_bucket(shape.few);
    while (shape.few < tiles) host_->few[shape.few++] = {0, 0, 0, 0};
  } else {
    shape.decode = rows;
  }
  shape.rows = rows, shape.samples = samples;
}

Result<CudaDecoder::Shape> CudaDecoder::plan(std::span<const Slice> slices) {
  Shape shape;
  order_.clear();
  std::size_t total = 0, adjustments = 0;
  bool few = true;
  for (std::size_t i = 0; i < slices.size(); ++i) {
    if (slices[i].tokens.size() == 1) order_.push_back(static_cast<int>(i));
    total += slices[i].tokens.size();
    few = few && is_few(static_cast<int>(slices[i].tokens.size()));
    shape.adapted = shape.adapted || (slices[i].adapter >= 0 && slices[i].adapter < adapters_.count());
    for (int k = 0; slices[i].sample != nullptr && k < slices[i].samples; ++k) {
      adjustments += slices[i].sample[k].adjust.size();
    }
  }
  shape.decode = static_cast<int>(order_.size());
  for (std::size_t i = 0; i < slices.size(); ++i) {
    if (slices[i].tokens.size() != 1) order_.push_back(static_cast<int>(i));
  }
  result_of_.assign(slices.size(), -1);
  result_count_.assign(slices.size(), 0);
  no_room_.clear();
  table_used_ = adjust_used_ = masks_used_ = 0;
  if (total > static_cast<std::size_t>(options_.rows_max) ||
      slices.size() > static_cast<std::size_t>(options_.batch_max)) {
    return core::fail(ErrorKind::internal, "a step larger than the device was prepared for");
  }
  grow_adjust(adjustments);
  const bool pure = shape.decode == static_cast<int>(slices.size());
  shape.fused = total <= static_cast<std::size_t>(cuda::kFusedRowsMax) && !general_ && !shape.adapted &&
                options_.group == nullptr;
  adapted_step_ = shape.adapted;
  shape.mixed = !pure && few && total <= static_cast<std::size_t>(kMixedRowsMax);
  if (shape.mixed) shape.decode = 0;
  for (const int index : order_) {
    const Slice& s = slices[static_cast<std::size_t>(index)];
    const int count = static_cast<int>(s.tokens.size()), pages = (s.position + count - 1) / cuda::kPageTokens + 1;
    std::memcpy(host_->table + table_used_, s.pages, static_cast<std::size_t>(pages) * 4);
    add_rows(s, shape.rows, table_used_);
    add_tiles(shape, s);
    shape.context = std::max(shape.context, s.position + count);
    table_used_ += pages;
    shape.rows += count;
    if (!s.logits && !pure) continue;
    if (s.logits) {
      result_of_[static_cast<std::size_t>(index)] = shape.samples;
      result_count_[static_cast<std::size_t>(index)] = s.samples;
    }
    for (int i = 0; i < s.samples; ++i) {
      add_sample(shape, s.sample != nullptr ? s.sample + i : nullptr, s.samples - 1 - i);
    }
  }
  shape.context = context_class(shape.context);
  shape.graph = (pure || shape.mixed) && options_.graphs && shape.sampled && !tap_;
  if (shape.graph) pad(shape);
  return shape;
}

Result<void> CudaDecoder::upload() {
  const std::size_t bytes = host_->used_bytes(table_used_);
  auto ok = check(cudaMemcpyAsync(meta_device_.data(), meta_host_.data(), bytes, cudaMemcpyHostToDevice, stream_.get()),
                  "a step's inputs");
  if (ok && adjust_used_ > 0) {
    ok = check(cudaMemcpyAsync(adjust_device_.data(), adjust_host_.data(),
                               static_cast<std::size_t>(adjust_used_) * sizeof(cuda::SampleAdjust),
                               cudaMemcpyHostToDevice, stream_.get()),
               "a step's inputs");
  }
  if (ok && masks_used_ > 0) {
    ok = check(cudaMemcpyAsync(masks_device_.data(), masks_host_.data(),
                               static_cast<std::size_t>(masks_used_) * mask_words() * 4, cudaMemcpyHostToDevice,
                               stream_.get()),
               "a step's inputs");
  }
  return ok;
}

// ---- running ----

Result<void> CudaDecoder::submit(std::span<const Slice> slices) {
  cudaSetDevice(options_.device);
  auto shape = plan(slices);
  if (!shape) return std::unexpected(shape.error());
  auto ok = check(cudaEventRecord(begun_.get(), stream_.get()), "a step");
  if (ok) ok = upload();
  if (ok) ok = run(*shape);
  if (ok && shape->sampled && leads()) {
    ok = check(cudaMemcpyAsync(results_host_.data(), results_device_.data(),
                               static_cast<std::size_t>(shape->samples) * sizeof(cuda::SampleResult),
                               cudaMemcpyDeviceToHost, stream_.get()),
               "a step's outcome");
  }
  if (ok) ok = check(cudaEventRecord(ended_.get(), stream_.get()), "a step");
  pending_ = ok.has_value();
  return ok;
}

Result<void> CudaDecoder::run(const Shape& shape) {
  return shape.graph ? run_graph(shape) : enqueue(shape);
}

// The first step of a size runs as it is, so that whatever loads lazily has loaded; the second is captured.
Result<void> CudaDecoder::run_graph(const Shape& shape) {
  const GraphKey key{shape.rows, shape.context, shape.few, shape.samples, shape.adapted};
  if (graphs_.size() >= kGraphsMax && !graphs_.contains(key)) return enqueue(shape);
  Captured& captured = graphs_[key];
  if (captured.uses++ == 0) return enqueue(shape);
  if (!captured.exec) {
    auto ok = check(cudaStreamBeginCapture(stream_.get(), cudaStreamCaptureModeThreadLocal), "capturing a step");
    if (ok) ok = enqueue(shape);
    cudaGraph_t graph = nullptr;
    const auto ended = cudaStreamEndCapture(stream_.get(), &graph);
    const Graph owner(graph);
    if (!ok) return ok;
    cudaGraphExec_t exec = nullptr;
    ok = check(ended, "capturing a step");
    if (ok) ok = check(cudaGraphInstantiate(&exec, graph, 0), "capturing a step");
    if (!ok) return ok;
    captured.exec = GraphExec(exec);
  }
  return check(cudaGraphLaunch(captured.exec.get(), stream_.get()), "replaying a step");
}

Result<std::span<const cuda::SampleResult>> CudaDecoder::collect() {
  if (!pending_) return core::fail(ErrorKind::internal, "no step was queued");
  pending_ = false;
  if (auto ok = check(cudaEventSynchronize(ended_.get()), "a step"); !ok) return std::unexpected(ok.error());
  const auto* rows = reinterpret_cast<const cuda::SampleResult*>(results_host_.data());
  results_.clear();
  for (std::size_t i = 0; i < result_of_.size() && leads(); ++i) {
    for (int k = 0; k < result_count_[i]; ++k) {
      const int row = result_of_[i] + k;
      results_.push_back(rows[row]);
      if (std::ranges::find(no_room_, row) != no_room_.end()) results_.back().ok = kNoRoom;
    }
  }
  return std::span<const cuda::SampleResult>(results_);
}

Result<bool> CudaDecoder::done() const {
  const auto status = cudaEventQuery(ended_.get());
  if (status == cudaErrorNotReady) return false;
  if (auto ok = check(status, "a step"); !ok) return std::unexpected(ok.error());
  return true;
}

double CudaDecoder::last_step_ms() const {
  float ms = 0;
  return cudaEventElapsedTime(&ms, begun_.get(), ended_.get()) == cudaSuccess ? static_cast<double>(ms) : 0.0;
}

Result<std::vector<float>> CudaDecoder::logits() {
  auto ok = check(cudaStreamSynchronize(stream_.get()), "a step");
  if (!ok) return std::unexpected(ok.error());
  pending_ = false;
  std::vector<float> out;
  const auto vocab = static_cast<std::size_t>(config_.vocab_size);
  for (const int sample : result_of_) {
    if (sample < 0) continue;
    const auto row = static_cast<std::size_t>(host_->samples[sample].logits_row);
    out.resize(out.size() + vocab);
    ok = check(cudaMemcpy(out.data() + out.size() - vocab,
                          logits_.as<float>() + row * static_cast<std::size_t>(weights_.head.rows), vocab * 4,
                          cudaMemcpyDeviceToHost),
               "reading logits");
    if (!ok) return std::unexpected(ok.error());
  }
  return out;
}

}  // namespace ganglion::local
