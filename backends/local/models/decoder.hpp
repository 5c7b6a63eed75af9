#pragma once
// The decoder-only transformer, of any family that ModelConfig and DecoderNames describe: one forward pass over a
// ragged batch of prompt chunks and single decode tokens. It computes; what runs when is the engine's business. One
// caller at a time.

#include <atomic>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backends/local/kernels/attention.hpp"
#include "backends/local/kernels/linear.hpp"
#include "backends/local/models/compute.hpp"
#include "backends/local/models/decoder_names.hpp"
#include "backends/local/models/lora.hpp"
#include "backends/local/models/weight_loader.hpp"
#include "backends/local/weights/checkpoint.hpp"
#include "backends/local/weights/model_config.hpp"
#include "core/error.hpp"

namespace ganglion::local {

// Consecutive tokens of one sequence. The keys and values of all earlier positions are already in its pages.
struct DecoderSlice {
  std::span<const std::int32_t> tokens;
  const std::int32_t* pages = nullptr;  // covers position + tokens.size() tokens
  int position = 0;                     // of tokens[0]
  bool logits = false;                  // of the last token
  bool kept = false;                    // keys and values of these tokens are there too: none are written
  int adapter = -1;                     // a number that load_adapter() gave; all of a sequence's slices have the same
  bool long_positions = false;          // longrope: the sequence is longer than the model was first made for; likewise
  int wanted = 1;                       // with logits: of so many last tokens, a row each
};

class Decoder {
 public:
  // `rows_max`: most tokens in one forward(). Reads every tensor; errors name the one at fault.
  static core::Result<std::unique_ptr<Decoder>> load(Checkpoint checkpoint, const ModelConfig& config, Compute compute,
                                                     bool quantize_int8, int rows_max);
  // Before the first forward(). Adapters are numbered from 0 in the order of their loading.
  core::Result<void> load_adapter(const std::filesystem::path& dir);

  // Appends each slice's keys and values to its pages and writes one row of vocab_size() logits for each slice that
  // asks, in slice order, to `logits`. Tokens must be in [0, vocab_size()). Errors: no memory; cancelled
  // when `give_up`, looked at between layers, came true: nothing that counts was changed, and the same call can be made
  // again.
  core::Result<void> forward(KvStore& kv, std::span<const DecoderSlice> slices, float* logits,
                             const std::atomic<bool>* give_up = nullptr);
  // For tests: called before each layer and behind the last one (as layer number layers) with the residual stream,
  // `rows` rows of hidden_size.
  using Tap = void (*)(void* context, int layer, const float* hidden, int rows);
  void set_tap(Tap tap, void* context) { tap_ = tap, tap_context_ = context; }

  KvShape kv_shape(KvElement element) const;
  std::int64_t vocab_size() const { return config_.vocab_size; }
  std::int64_t context_max() const;  // positions that the model's rotary angles are made for
  int rows_max() const { return rows_max_; }
  bool full_precision() const { return full_precision_; }
  std::size_t weight_bytes() const;  // packed, as streamed by one decode step

 private:
  struct Norm {
    std::vector<float> weight, bias;
    bool empty() const { return weight.empty(); }
  };
  struct Inner {
    Linear gate_up, down;
  };
  struct Layer {
    Norm before_attention, after_attention, sum_attention, before_mlp, after_mlp, sum_mlp;
    std::vector<float> q_norm, k_norm;
    Linear qkv, out;
    Inner inner;  // or experts
    Linear router;
    std::vector<Inner> experts;
    int window = 0;
    bool local_rope = false;
  };
  struct RowOrigin {
    std::int32_t page;  // negative: nothing is written
    int slot, position;
    bool long_positions;
  };
  struct Angles {  // rows of the step
    float *cos = nullptr, *sin = nullptr;
  };

  Decoder(Checkpoint checkpoint, const ModelConfig& config, Compute compute, int rows_max);
  core::Result<void> load_weights(const WeightLoader& loader);
  core::Result<void> load_layer(const WeightLoader& loader, std::int64_t index);
  core::Result<void> load_inner(const WeightLoader& loader, std::int64_t index);
  core::Result<void> load_norm(const WeightLoader& loader, const std::string& name, Norm& to) const;
  bool reserve_rows();

  void place_rows(std::span<const DecoderSlice> slices);
  bool embed(std::span<const DecoderSlice> slices);
  bool attention(KvStore& kv, const Layer& layer, int index);
  void rotate_and_store(KvStore& kv, const Layer& layer, int index);
  bool feed_forward(const Layer& layer, int index);
  bool inner(const Inner& part, const float* x, int rows, float* y, int adapted_layer);
  bool experts(const Layer& layer);
  void activate(const float* wide, int rows, float* out);
  void settle(const Norm& after, const Norm& sum, float* part);
  bool head(std::span<const DecoderSlice> slices, float* logits);
  void normalise(const Norm& norm, const float* from, float* to, int rows) const;
  bool multiply(const Linear& linear, const float* x, float* y, int rows);

  Checkpoint checkpoint_;  // the embedding tables are read from it
  ModelConfig config_;
  DecoderNames names_;
  Compute compute_;
  int rows_max_;
  bool full_precision_ = true;
  EmbeddingTable embedding_, position_table_;
  Linear project_in_, project_out_;
  std::vector<Layer> layers_;
  Norm final_norm_;
  Linear head_;
  std::vector<float> frequencies_, long_frequencies_, local_frequencies_;
  LoraSet adapters_;
  Tap tap_ = nullptr;
  void* tap_context_ = nullptr;

  // The step at hand: rows_ rows of each.
  int rows_ = 0;
  std::vector<RowOrigin> origin_;
  AttentionPlan plan_;
  LinearScratch scratch_;
  Buffer memory_;
  float* hidden_ = nullptr;  // the residual stream
  float* normed_ = nullptr;
  float* wide_ = nullptr;   // q, k and v; or gate and up
  float* query_ = nullptr;  // rotated queries; later the attention's result; or the gated product
  Angles angles_, local_angles_;
  float* mixed_ = nullptr;     // the experts' sum
  float* gathered_ = nullptr;  // an expert's rows
  float* routes_ = nullptr;    // the router's logits
};

}  // namespace ganglion::local
