#pragma once
// Low-rank adapters over a decoder's projections: y += scale B (A x) for the rows of a step that ask for an adapter.
// Rows of several adapters and of none share a step. Read from PEFT's files; A and B stay apart from the weights, so
// that one copy of the model serves all.

#include <array>
#include <filesystem>
#include <vector>

#include "backends/local/kernels/linear.hpp"
#include "backends/local/models/compute.hpp"
#include "backends/local/models/decoder_names.hpp"
#include "backends/local/weights/checkpoint.hpp"
#include "core/error.hpp"

namespace ganglion::local {

inline constexpr std::int64_t kLoraRankMax = 64;

// The matrices that a decoder multiplies with; an adapter's parts belong to some of their rows.
enum class LoraPlace : std::uint8_t { qkv, out, gate_up, down };
inline constexpr std::size_t kLoraPlaces = 4;

// One projection's pair, as floats: A is [rank][cols], B is [rows][rank] with the scale multiplied in.
struct LoraPair {
  std::int64_t layer = 0;
  LoraPlace place = LoraPlace::qkv;
  std::int64_t first_row = 0, rows = 0, cols = 0, rank = 0;  // rows of the place's matrix, from first_row on
  std::vector<float> a, b;
};

// Reads adapter_config.json and adapter_model.safetensors. Errors: not_found; unsupported, which names what it is
// (another kind of adapter, a module that is not a projection of the layers, a rank over kLoraRankMax); invalid_value.
core::Result<std::vector<LoraPair>> read_lora(const std::filesystem::path& dir, const ModelConfig& config,
                                              const DecoderNames& names);

// The adapters of one decoder on the CPU. One caller at a time.
class LoraSet {
 public:
  core::Result<void> load(const std::filesystem::path& dir, const ModelConfig& config, const DecoderNames& names,
                          ThreadPool& pool);
  int count() const { return static_cast<int>(adapters_.size()); }

  void begin_step() { runs_.clear(); }
  // Rows [first, first + count) of the step; adapter below 0: none. In ascending order.
  void add_rows(int adapter, int first, int count);
  // Adds to y what the rows' adapters have for this place of this layer. False: no memory.
  bool apply(LoraPlace place, int layer, const Compute& compute, const float* x, std::int64_t ldx, float* y,
             std::int64_t ldy);

 private:
  struct Part {
    Linear a, b;
    std::int64_t first_row;
  };
  using Layer = std::array<std::vector<Part>, kLoraPlaces>;
  struct Run {
    int adapter, first, count;
  };
  std::vector<std::vector<Layer>> adapters_;
  std::vector<Run> runs_;
  LinearScratch scratch_, results_;
};

}  // namespace ganglion::local
