#pragma once
// The decoder-only transformer of models/decoder on a GPU: one forward pass over a ragged batch of decode tokens and
// prompt chunks, with sampling. A step is queued by submit() and its outcome fetched by collect(), so that the caller
// can work in between. One caller at a time, one step at a time.
//
// Up to eight rows run through fused kernels (six launches a layer); more go through separate kernels and, past what
// the streaming products and those of 8 by 8 bits take, cuBLASLt. Steps of decode tokens alone, and small ones
// with short prompt chunks, are replayed from captured graphs.

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <tuple>
#include <vector>

#include "backends/local/device/arena.hpp"
#include "backends/local/device/blas.hpp"
#include "backends/local/device/collective.hpp"
#include "backends/local/device/stream.hpp"
#include "backends/local/device/whole_device.hpp"
#include "backends/local/kernels/cuda/kernels.hpp"
#include "backends/local/kernels/cuda/step.hpp"
#include "backends/local/models/cuda/cuda_adapters.hpp"
#include "backends/local/models/cuda/cuda_weights.hpp"
#include "backends/local/weights/checkpoint.hpp"
#include "backends/local/weights/model_config.hpp"
#include "core/error.hpp"

namespace ganglion::local {

struct CudaOptions {
  int device = 0;
  cuda::Format format = cuda::Format::bf16;
  int int4_group = 64;  // or 128
  // int8 weights: activations too, a scale a token, in steps past what the fused kernels take (before 9.0 past
  // kSmallRowsMax).
  bool int8_activations = false;
  std::size_t sums_bytes = std::size_t{64} << 20;  // for what such products sum up, as many rows at a time
  cuda::KvFormat kv = cuda::KvFormat::fp16;
  int rows_max = 2048;  // tokens in one step
  int batch_max = 64;   // sequences in one step
  int samples_max = 0;  // tokens sampled in one step, if that may be more than sequences
  int context_max = 0;  // tokens of one sequence; 0: the model's
  bool graphs = true;
  bool whole = true;                                // decode steps of few sequences in one kernel, where that can be
  std::optional<cuda::StepLimits> whole_limits;     // for measurements: in place of step_limits()
  bool tune = true;                                 // try the library's ways to multiply few rows at load
  int eight_bit_rows_max = cuda::kEightBitRowsMax;  // past them products of 8 by 8 bits are the library's
  std::int64_t tuned_weights_min = std::int64_t{1} << 20;  // of a matrix; a smaller one is read in no time
  bool sleep = true;                                       // collect() sleeps instead of spinning
  int ring_stages = 0;  // of the streaming products, for measurements; 0: what is usual for each shape
  std::vector<std::filesystem::path> adapters;  // numbered from 0
  // One of several devices that share the model: it has its part of every layer, and all take every step. The first
  // one alone makes logits and samples.
  Shard shard;
  Collective* group = nullptr;
};

// A device's share of the model. Error unsupported: it cannot be cut into so many parts.
core::Result<ModelConfig> share_of(const ModelConfig& config, int ranks);

class CudaDecoder {
 public:
  // Errors: unsupported (model or GPU), overloaded (no memory), and the checkpoint's own.
  static core::Result<std::unique_ptr<CudaDecoder>> load(const Checkpoint& checkpoint, const ModelConfig& config,
                                                         const CudaOptions& options);
  // Random weights of the config's shapes, for measurements.
  static core::Result<std::unique_ptr<CudaDecoder>> random(const ModelConfig& config, const CudaOptions& options,
                                                           std::uint64_t seed);
  ~CudaDecoder();

  // The KV store; once, before the first step.
  core::Result<void> reserve_pages(std::int64_t pages);
  std::int64_t page_bytes() const { return kv_.page_bytes; }
  std::uint64_t free_bytes() const;  // of the device, now

  // SampleResult::ok of a row that was not sampled as asked: the step's adjustments were more than there is room for.
  static constexpr std::int32_t kNoRoom = -1;

  struct SampleSpec {
    cuda::SampleRow row;  // logits_row, adjust_* and mask_from are filled in here
    std::vector<cuda::SampleAdjust> adjust;
    const std::uint32_t* mask = nullptr;  // one bit a token: those that may be chosen; null: all
  };
  // Consecutive tokens of one sequence, whose earlier keys and values are in its pages.
  struct Slice {
    std::span<const std::int32_t> tokens;
    const std::int32_t* pages = nullptr;
    int position = 0;
    bool logits = false;                 // of the last token
    const SampleSpec* sample = nullptr;  // and the choice from them
    bool kept = false;                   // keys and values of these tokens are in the pages too: none are written
    int adapter = -1;                    // the same in all slices of a sequence
    bool long_positions = false;         // likewise; see DecoderSlice
    int samples = 1;                     // with logits: of so many last tokens, by sample[0], sample[1] ...
  };
  // Queues the step and returns. The slices are not needed after that.
  core::Result<void> submit(std::span<const Slice> slices);
  // Waits for it. The results of each slice that asked for logits, in order; valid until the next submit.
  core::Result<std::span<const cuda::SampleResult>> collect();
  // Whether the submitted step is through, or its error; does not wait.
  core::Result<bool> done() const;
  // The last step's logits where nothing was sampled, one row for each slice that asked; for tests.
  core::Result<std::vector<float>> logits();

  // For tests: called before each layer and behind the last one (as layer number layers) with the residual stream,
  // fp32 [rows][hidden_size], one-token slices' rows first. While there is one, steps are neither replayed from graphs
  // nor one kernel, and submit() waits for every layer. Empty: none.
  using Tap = std::function<void(int layer, std::span<const float> hidden)>;
  void set_tap(Tap tap) { tap_ = std::move(tap); }

  // For measurements: whether steps may be one kernel, from the next one on.
  void set_whole(bool whole) {
    options_.whole = whole;
    graphs_.clear();
  }
  // For measurements: the streaming products' other ways, from the next step on.
  void set_ring(int stages) {
    options_.ring_stages = stages;
    graphs_.clear();
  }

  // Whether decode steps of few sequences may be one kernel; see WholeDeviceRight.
  bool steps_whole() const { return whole_right_ && options_.whole; }

  std::int64_t vocab_size() const { return config_.vocab_size; }
  std::int64_t context_max() const { return context_max_; }
  std::size_t weight_bytes() const { return weights_.step_bytes; }
  std::size_t device_bytes() const { return arena_.held(); }
  std::int64_t eight_bit_products() const { return eight_bit_products_; }  // queued so far, of our own kernel
  double last_step_ms() const;                                             // of the device, once collected
  std::span<const Blas::Tuned> tuned() const { return blas_->tuned(); }

 private:
  struct Meta;   // one step's inputs, laid out alike on host and device
  struct Shape;  // what decides the launches
  CudaDecoder(const ModelConfig& config, const CudaOptions& options);
  static core::Result<std::unique_ptr<CudaDecoder>> make(const Checkpoint* checkpoint, const ModelConfig& config,
                                                         const CudaOptions& options, std::uint64_t seed);
  core::Result<void> reserve_rows();
  core::Result<void> reserve_meta();
  core::Result<void> reserve_masks();
  void grow_adjust(std::size_t count);
  std::size_t mask_words() const { return static_cast<std::size_t>((config_.vocab_size + 31) / 32); }

  core::Result<Shape> plan(std::span<const Slice> slices);
  void add_rows(const Slice& slice, int first_row, int table_from);
  void add_tiles(Shape& shape, const Slice& slice);
  void add_sample(Shape& shape, const SampleSpec* sample, int from_last);
  void pad(Shape& shape);
  bool is_few(int count) const;
  core::Result<void> upload();
  core::Result<void> run(const Shape& shape);
  core::Result<void> run_graph(const Shape& shape);
  core::Result<void> enqueue(const Shape& shape);
  core::Result<void> fused_layers(const Shape& shape);
  // The whole step in one kernel, where the model and the step are such.
  core::Result<void> reserve_whole();
  cuda::DecodeStep whole_step(const Shape& shape);
  bool takes_whole(const Shape& shape);
  core::Result<void> layers(const Shape& shape);
  core::Result<void> attention(const CudaLayer& layer, int index, const Shape& shape);
  core::Result<void> finish(const Shape& shape);
  // Shows the tap what hidden_ holds once the work queued so far is done.
  core::Result<void> show(int layer, const Shape& shape);
  // Families that are not llama's kind, and steps with adapters.
  core::Result<void> reserve_general();
  core::Result<void> embed_general(const Shape& shape);
  core::Result<void> general_layers(const Shape& shape);
  core::Result<void> general_inner(const CudaLayer& layer, int index, const Shape& shape);
  core::Result<void> general_experts(const CudaLayer& layer, const Shape& shape);
  core::Result<void> general_head(const Shape& shape);
  core::Result<void> adapt(const Shape& shape, int layer, LoraPlace place, const void* x, int x_stride, void* y,
                           int y_stride, bool wide);
  // y = w x for rows past the fused kernels. `wide`: fp32.
  core::Result<void> multiply(const cuda::Matrix& w, const void* x, int x_stride, int rows, void* y, int y_stride,
                              bool wide);
  // Adds up what the devices of a group have each for itself.
  core::Result<void> sum_up(int rows);
  bool leads() const { return options_.shard.rank == 0; }
  bool small(const cuda::Matrix& w, int rows) const;
  bool takes_eight_bit(const cuda::Matrix& w) const;
  bool eight_bit(const cuda::Matrix& w, int rows) const;
  // Such a product is our own kernel's.
  bool streams_eight_bit(const cuda::Matrix& w, int rows) const;
  // Has a row-wise operation quantise its result where the product that reads it next takes eight bits.
  template <class Op>
  void narrow_for(const cuda::Matrix& consumer, int rows, Op& op) const {
    if (!eight_bit(consumer, rows)) return;
    op.out = eight_.data(), op.out_scales = eight_scales_.as<float>();
    op.int8 = consumer.format == cuda::Format::int8;
  }
  // The same for rows that lie there as bf16.
  core::Result<void> narrow(const cuda::Matrix& consumer, const void* x, int stride, int rows);
  // Rows whose sums have room at once.
  int int8_rows(const cuda::Matrix& w) const;
  Blas::Call sums_call(const cuda::Matrix& w, int first, int rows, void* sums) const;
  Blas::Call product_call(const cuda::Matrix& w, const void* x, int rows, void* y, int y_stride, bool wide) const;
  core::Result<void> tune();
  core::Result<void> multiply_int8(const cuda::Matrix& w, int rows, void* y, int y_stride, bool wide);
  cuda::Queue queue() { return {stream_.get(), overlap_}; }

  ModelConfig config_;
  CudaOptions options_;
  int multiprocessors_ = 0, capability_ = 0;
  double memory_gb_ = 0;  // a second, by the device's own word
  std::int64_t context_max_ = 0;
  bool overlap_ = false;
  Arena arena_;
  std::unique_ptr<Blas> blas_;
  Stream stream_;
  Event begun_, ended_;
  CudaWeights weights_;
  CudaAdapters adapters_;
  bool general_ = false;       // the model is not llama's kind
  bool adapted_step_ = false;  // the step at hand has adapters, which read activations as bf16
  cuda::KvLayout kv_;
  // Queries, keys and values come out of their product as fp32, so that fp16 pages are their only rounding, and so does
  // what is added to the residual stream: a third of what logits of bf16 weights are off by is theirs. With narrower
  // weights it is nothing beside those. A group of devices sums up in bf16.
  bool wide_qkv_ = false, wide_added_ = false;
  DeviceBuffer pages_;
  std::int64_t page_count_ = 0;

  // Rows of one step.
  DeviceBuffer hidden_, normed_, qkv_, query_, attended_, gate_up_, gated_, added_, squares_, cos_, sin_;
  DeviceBuffer eight_, eight_scales_, eight_partial_, eight_arrived_, sums_, unpacked_, logits_, partial_, arrived_;
  DeviceBuffer local_cos_, local_sin_, narrow_, adapter_middle_;
  DeviceBuffer whole_layers_, whole_counter_, whole_handed_;
  WholeDeviceRight whole_right_;  // with whole_layers_, or not at all
  DeviceBuffer routes_, chosen_, choice_weights_, slots_, slot_counts_, expert_up_, expert_gated_, expert_out_;
  int rows_cap_ = 0, width_stride_ = 0, inner_stride_ = 0, heads_stride_ = 0;

  // The step's inputs and outcome.
  PinnedBuffer meta_host_, adjust_host_, masks_host_, results_host_;
  DeviceBuffer meta_device_, adjust_device_, masks_device_, results_device_;
  std::unique_ptr<Meta> host_, device_;
  std::vector<int> order_;  // batch order -> slice
  std::vector<cuda::SampleResult> results_;
  std::vector<int> result_of_;                             // slice order -> first row of results
  std::vector<int> result_count_;                          // likewise, how many
  std::vector<int> no_room_;                               // rows of results whose adjustments found no place
  std::size_t adjust_max_ = 0, adjust_most_ = 0;           // of a step: with the room there is; with what may be had
  int table_used_ = 0, adjust_used_ = 0, masks_used_ = 0;  // masks: rows
  bool pending_ = false;
  std::int64_t eight_bit_products_ = 0;
  Tap tap_;

  struct Captured {
    int uses = 0;
    GraphExec exec;
  };
  // By padded rows, class of context, tiles of a few rows, rows that are sampled from, and whether any have adapters.
  using GraphKey = std::tuple<int, int, int, int, bool>;
  std::map<GraphKey, Captured> graphs_;
};

}  // namespace ganglion::local
