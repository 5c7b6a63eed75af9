#pragma once
// The decoder-only transformer of the llama, mistral, qwen2 and qwen3 families: one forward pass over a ragged batch
// of prompt chunks and single decode tokens. It computes; what runs when is the engine's business. One caller at a
// time.

#include <atomic>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backends/local/kernels/attention.hpp"
#include "backends/local/kernels/linear.hpp"
#include "backends/local/models/compute.hpp"
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
};

class Decoder {
 public:
  // `rows_max`: most tokens in one forward(). Reads every tensor; errors name the one at fault.
  static core::Result<std::unique_ptr<Decoder>> load(Checkpoint checkpoint, const ModelConfig& config, Compute compute,
                                                     bool quantize_int8, int rows_max);

  // Appends each slice's keys and values to its pages and writes one row of vocab_size() logits for each slice that
  // asks, in slice order, to `logits`. Tokens must be in [0, vocab_size()). Errors: no memory; cancelled
  // when `give_up`, looked at between layers, came true: nothing that counts was changed, and the same call can be made
  // again.
  core::Result<void> forward(KvStore& kv, std::span<const DecoderSlice> slices, float* logits,
                             const std::atomic<bool>* give_up = nullptr);

  KvShape kv_shape(bool half) const;
  std::int64_t vocab_size() const { return config_.vocab_size; }
  std::int64_t context_max() const;  // positions that the model's rotary angles are made for
  int rows_max() const { return rows_max_; }
  bool full_precision() const { return layers_.front().qkv.type() == WeightType::f32; }
  std::size_t weight_bytes() const;  // packed, as streamed by one decode step

 private:
  struct Layer {
    std::vector<float> input_norm, post_norm, q_norm, k_norm;
    Linear qkv, out, gate_up, down;
    int window = 0;
  };
  struct RowOrigin {
    std::int32_t page;  // negative: nothing is written
    int slot, position;
  };

  Decoder(Checkpoint checkpoint, const ModelConfig& config, Compute compute, int rows_max);
  core::Result<void> load_layer(const WeightLoader& loader, std::int64_t index);
  core::Result<void> load_weights(const WeightLoader& loader);
  bool reserve_rows();
  void embed(std::span<const DecoderSlice> slices);
  bool attention(KvStore& kv, const Layer& layer, int index);
  void rotate_and_store(KvStore& kv, const Layer& layer, int index);
  bool feed_forward(const Layer& layer);
  void normalise(const std::vector<float>& weight, const float* from, float* to, int rows) const;
  bool multiply(const Linear& linear, const float* x, float* y, int rows);

  Checkpoint checkpoint_;  // the embedding table is read from it
  ModelConfig config_;
  Compute compute_;
  int rows_max_;
  EmbeddingTable embedding_;
  std::vector<Layer> layers_;
  std::vector<float> final_norm_;
  Linear head_;
  std::vector<float> frequencies_;

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
  float* cos_ = nullptr;
  float* sin_ = nullptr;
};

}  // namespace ganglion::local
