#pragma once
// The BERT encoder of models/bert on a GPU, in bf16. Sequences of a pass lie one after the other, without padding;
// small passes are replayed from captured graphs. One caller at a time.

#include <map>
#include <memory>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "backends/local/device/arena.hpp"
#include "backends/local/device/blas.hpp"
#include "backends/local/device/stream.hpp"
#include "backends/local/kernels/cuda/encoder.hpp"
#include "backends/local/models/encoder.hpp"
#include "backends/local/weights/checkpoint.hpp"
#include "backends/local/weights/model_config.hpp"
#include "core/error.hpp"

namespace ganglion::local {

struct CudaBertOptions {
  int device = 0;
  int rows_max = 32'768;  // tokens of one pass
  bool graphs = true;
  // GELU inside the matrix product, in its tanh form, for passes that the library multiplies; else by the error
  // function, in a kernel of its own.
  bool fused_gelu = true;
};

class CudaBert final : public Encoder {
 public:
  // Errors: unsupported (model or GPU), overloaded (no memory), the checkpoint's own. `checkpoint` null: random
  // weights, for measurements.
  static core::Result<std::unique_ptr<CudaBert>> load(const Checkpoint* checkpoint, const ModelConfig& config,
                                                      const CudaBertOptions& options);
  ~CudaBert() override;

  core::Result<std::vector<std::vector<float>>> encode(
      std::span<const std::span<const std::int32_t>> sequences) override;
  int dimensions() const override { return static_cast<int>(config_.hidden_size); }
  int context_max() const override;
  std::string device() const override { return name_; }
  double last_pass_ms() const;  // of the device
  std::size_t device_bytes() const { return arena_.held(); }

 private:
  class Loader;
  struct Norm {
    const float *weight = nullptr, *bias = nullptr;
  };
  struct Layer {
    cuda::Matrix qkv, out, up, down;
    Norm attention_norm, output_norm;
  };
  // What decides a pass's launches, and where its inputs lie: all counts as padded for a graph.
  struct Shape {
    int rows = 0, tiles = 0, sequences = 0;
    bool graph = false;
    std::size_t bytes() const { return at_counts() + static_cast<std::size_t>(sequences) * 4; }
    std::size_t at_places() const { return static_cast<std::size_t>(rows) * 4; }
    std::size_t at_tiles() const { return static_cast<std::size_t>(cuda::padded(std::int64_t{rows} * 8, 16)); }
    std::size_t at_firsts() const { return at_tiles() + static_cast<std::size_t>(tiles) * sizeof(cuda::EncodeTile); }
    std::size_t at_counts() const { return at_firsts() + static_cast<std::size_t>(sequences) * 4; }
  };

  CudaBert(const ModelConfig& config, const CudaBertOptions& options);
  core::Result<void> reserve();
  Shape plan(std::span<const std::span<const std::int32_t>> sequences);
  core::Result<void> run(const Shape& shape);
  core::Result<void> enqueue(const Shape& shape);
  core::Result<void> run_layer(const Layer& layer, const Shape& shape);
  core::Result<void> multiply(const cuda::Matrix& w, const void* x, int x_stride, int rows, void* y, int y_stride,
                              bool gelu);
  core::Result<void> normalise(const Norm& norm, const void* add, int add_stride, int rows);
  cuda::Queue queue() const { return {stream_.get(), overlap_}; }
  template <class T>
  T* input(std::size_t at) const {
    return reinterpret_cast<T*>(inputs_.as<char>() + at);
  }

  ModelConfig config_;
  CudaBertOptions options_;
  std::string name_;
  bool overlap_ = false;
  Arena arena_;
  std::unique_ptr<Blas> blas_;
  Stream stream_;
  Event begun_, ended_;
  std::vector<DeviceBuffer> owned_;
  cuda::Matrix words_, positions_, types_;
  Norm embedding_norm_;
  std::vector<Layer> layers_;

  DeviceBuffer hidden_, qkv_, attended_, added_, inner_, vectors_, inputs_;
  PinnedBuffer inputs_host_, vectors_host_;
  struct Captured {
    int uses = 0;
    GraphExec exec;
  };
  std::map<std::tuple<int, int, int>, Captured> graphs_;
};

}  // namespace ganglion::local
