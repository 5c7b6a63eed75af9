#pragma once
// The BERT encoder (BGE, MiniLM and kin) on the CPU.

#include <memory>
#include <span>
#include <vector>

#include "backends/local/kernels/attention.hpp"
#include "backends/local/kernels/linear.hpp"
#include "backends/local/models/compute.hpp"
#include "backends/local/models/encoder.hpp"
#include "backends/local/models/weight_loader.hpp"
#include "backends/local/weights/checkpoint.hpp"
#include "backends/local/weights/model_config.hpp"
#include "core/error.hpp"

namespace ganglion::local {

class Bert final : public Encoder {
 public:
  // `rows_max`: most tokens in one encode(). Errors name the tensor at fault.
  static core::Result<std::unique_ptr<Bert>> load(Checkpoint checkpoint, const ModelConfig& config, Compute compute,
                                                  bool quantize_int8, int rows_max);

  core::Result<std::vector<std::vector<float>>> encode(
      std::span<const std::span<const std::int32_t>> sequences) override;
  int dimensions() const override { return static_cast<int>(config_.hidden_size); }
  int context_max() const override;
  std::string device() const override { return "cpu"; }
  int rows_max() const { return rows_max_; }

 private:
  struct Norm {
    std::vector<float> weight, bias;
  };
  struct Layer {
    Linear qkv, out, up, down;
    Norm attention_norm, output_norm;
  };

  Bert(Checkpoint checkpoint, const ModelConfig& config, Compute compute, int rows_max);
  core::Result<void> load_weights(const WeightLoader& loader);
  core::Result<void> load_layer(const WeightLoader& loader, std::size_t index);
  bool reserve_rows();
  void embed(std::span<const std::span<const std::int32_t>> sequences);
  bool run_layer(const Layer& layer);
  void add_and_normalise(const Norm& norm, const float* add);
  bool multiply(const Linear& linear, const float* x, float* y);
  std::vector<float> pool(int first, int count) const;

  Checkpoint checkpoint_;
  ModelConfig config_;
  Compute compute_;
  int rows_max_;
  EmbeddingTable words_, positions_, types_;
  Norm embedding_norm_;
  std::vector<Layer> layers_;

  int rows_ = 0;
  std::vector<std::vector<std::int32_t>> tables_;  // pages of each sequence of the pass
  std::vector<AttendSlice> slices_;
  KvStore kv_;  // one layer's keys and values, written anew by each layer
  AttentionPlan plan_;
  LinearScratch scratch_;
  Buffer memory_;
  float* hidden_ = nullptr;
  float* wide_ = nullptr;  // q, k and v; or the inner layer
  float* query_ = nullptr;
  float* result_ = nullptr;
};

}  // namespace ganglion::local
