#pragma once
// A decoder's weights on the device: read from a checkpoint through a pinned double buffer and packed there, or made
// up at random in the same shapes for measurements. Used while a model loads.

#include <array>
#include <string>
#include <vector>

#include "backends/local/device/arena.hpp"
#include "backends/local/device/stream.hpp"
#include "backends/local/kernels/cuda/general.hpp"
#include "backends/local/kernels/cuda/kernels.hpp"
#include "backends/local/kernels/thread_pool.hpp"
#include "backends/local/models/decoder_names.hpp"
#include "backends/local/models/packed_weights.hpp"
#include "backends/local/weights/checkpoint.hpp"
#include "backends/local/weights/model_config.hpp"
#include "core/error.hpp"

namespace ganglion::local {

// Of a model's sizes, which kernels take as int.
inline int to_int(std::int64_t v) {
  return static_cast<int>(v);
}

struct CudaLayer {
  cuda::Matrix qkv, out;
  cuda::Matrix gate_up, down;  // of all experts, one after the other, where there are any
  cuda::Matrix router;
  cuda::NormWeights before_attention, after_attention, sum_attention, before_mlp, after_mlp, sum_mlp;
  const float *input_norm = nullptr, *post_norm = nullptr;  // before_attention's and before_mlp's weights
  const float *q_norm = nullptr, *k_norm = nullptr;
  int window = 0;
  bool local_rope = false;
};

struct CudaWeights {
  cuda::Matrix embedding, positions;  // bf16
  cuda::Matrix project_in, project_out;
  cuda::Matrix head;
  std::vector<CudaLayer> layers;
  const float* final_norm = nullptr;
  cuda::NormWeights last;  // final_norm's
  const float *frequencies = nullptr, *long_frequencies = nullptr, *local_frequencies = nullptr;
  bool zero_points = false;    // some matrix has them
  std::size_t step_bytes = 0;  // read by one decode step: all matrices but the embedding table
  std::vector<DeviceBuffer> owned;
};

// Which part of every layer this device has, where several share a model: its share of the heads and of the inner
// width. The head and the biases of what is summed up over the devices are the first one's alone.
struct Shard {
  int rank = 0, ranks = 1;
};

class CudaWeightLoader {
 public:
  // `checkpoint` null: random weights, from `seed`. `config` is this device's share of the model. `format` is that of
  // the linear layers; the head is int8 beside int4 ones, else of the same format.
  CudaWeightLoader(Arena& arena, const Checkpoint* checkpoint, const ModelConfig& config, cuda::Format format,
                   int int4_group, Shard shard, std::uint64_t seed);
  core::Result<CudaWeights> load();

 private:
  struct Piece {
    std::string name;  // "<name>.weight", "<name>.bias"
    int rows;
    int from = 0, of = 0;                  // the tensor has `of` rows (0: rows), of which these begin at `from`
    int columns_from = 0, columns_of = 0;  // and the same of its columns
  };
  // The shard's rows or columns of a tensor.
  Piece row_part(const std::string& name, int rows) const {
    return {name, rows, shard_.rank * rows, shard_.ranks * rows};
  }
  Piece column_part(const std::string& name, int rows, int cols) const {
    return {name, rows, 0, 0, shard_.rank * cols, shard_.ranks * cols};
  }
  core::Result<void> load_layer(int index);
  core::Result<void> load_inner(CudaLayer& layer, const std::string& prefix);
  core::Result<void> load_head();
  core::Result<void> load_norm(const std::string& name, cuda::NormWeights& to);
  core::Result<void> matrix(const std::vector<Piece>& pieces, int cols, bool bias, bool interleave, cuda::Format format,
                            cuda::Matrix& to) {
    return matrices({pieces}, cols, bias, interleave, format, to);
  }
  // Several of one shape, one after the other.
  core::Result<void> matrices(const std::vector<std::vector<Piece>>& groups, int cols, bool bias, bool interleave,
                              cuda::Format format, cuda::Matrix& to);
  core::Result<void> vector(const std::string& name, int size, const float*& to, bool plus_one = false);
  core::Result<void> table(const std::string& name, int rows, int cols, cuda::Matrix& to);
  core::Result<void> frequencies();
  // How a matrix of quantised pieces is kept: in their own format where ours keeps it without loss.
  struct Kept {
    cuda::Format format = cuda::Format::bf16;
    int group = 0;
    bool zeros = false;
  };
  core::Result<Kept> kept_as(const std::vector<std::vector<Piece>>& groups, int cols, cuda::Format format) const;
  core::Result<void> pack_quantised(const Piece& piece, const PackedTensor& tensor, const cuda::Matrix& to,
                                    cuda::PackPlace place);
  core::Result<void> keep_floats(const std::vector<float>& values, const float*& to, const std::string& what);
  // Packs a piece's rows into `to`, chunk by chunk; cols 0: of a vector.
  core::Result<void> pack(const Piece& piece, const char* suffix, int cols, const cuda::Matrix& to,
                          cuda::PackPlace place);
  core::Result<void*> keep(std::size_t bytes, const std::string& what);
  core::Result<const TensorView*> find(const std::string& name, std::span<const std::int64_t> shape) const;
  bool has(const std::string& name) const;

  struct Stage {
    PinnedBuffer host;
    DeviceBuffer device;
    Event done;
  };
  core::Result<void> make_stages();
  // Into pinned memory, by several threads: one cannot keep up with the bus, nor with a fast disk's read-ahead.
  void copy_in(void* to, const void* from, std::size_t bytes);

  Arena& arena_;
  const Checkpoint* checkpoint_;
  const ModelConfig& config_;
  DecoderNames names_;
  cuda::Format format_;
  int group_;
  Shard shard_;
  std::uint64_t seed_;
  ThreadPool pool_;
  Stream stream_;
  std::array<Stage, 2> stages_;
  std::size_t turn_ = 0;
  CudaWeights out_;
};

}  // namespace ganglion::local
