#pragma once
// A decoder over one or several GPUs, each with its part of every layer (tensor parallel): a thread for every device
// but the first, all of which take every step together. One caller at a time, as CudaDecoder.

#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "backends/local/device/collective.hpp"
#include "backends/local/models/cuda/cuda_decoder.hpp"

namespace ganglion::local {

class CudaRanks {
 public:
  // Errors: CudaDecoder's; unsupported (the model cannot be cut into so many parts, no NCCL). `checkpoint` null: random
  // weights.
  static core::Result<std::unique_ptr<CudaRanks>> load(const Checkpoint* checkpoint, const ModelConfig& config,
                                                       const CudaOptions& options, std::span<const int> devices);
  ~CudaRanks();

  core::Result<void> reserve_pages(std::int64_t pages);
  std::uint64_t free_bytes() const;    // of the device that has least
  std::uint64_t device_bytes() const;  // held of the device that holds most
  core::Result<void> submit(std::span<const CudaDecoder::Slice> slices);
  core::Result<std::span<const cuda::SampleResult>> collect();
  core::Result<std::vector<float>> logits();
  // The first device's, which makes the logits; sizes are a device's own.
  CudaDecoder& first() { return *decoders_.front(); }
  const CudaDecoder& first() const { return *decoders_.front(); }
  std::size_t ranks() const { return decoders_.size(); }
  bool lost() const { return lost_; }

 private:
  class Hand;  // a thread that does one thing at a time
  CudaRanks() = default;
  // `work` for every rank, side by side; the first error.
  core::Result<void> everywhere(const std::function<core::Result<void>(std::size_t rank)>& work);
  void give_up();
  // Until the step is through on every device. One that fails would leave the others in a sum for ever.
  core::Result<void> await();

  std::vector<std::unique_ptr<Collective>> group_;
  std::vector<std::unique_ptr<CudaDecoder>> decoders_;
  std::vector<std::unique_ptr<Hand>> hands_;  // of ranks 1, 2 ...
  bool lost_ = false;
};

}  // namespace ganglion::local
