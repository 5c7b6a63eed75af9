#pragma once
// The GPU's encoder, in builds with CUDA.

#include <memory>
#include <string>

#include "backends/local/models/encoder.hpp"
#include "backends/local/weights/checkpoint.hpp"
#include "backends/local/weights/model_config.hpp"

namespace ganglion::local {

// `device`: "cuda:<number>", or "auto": the GPU with the most free memory. Errors: unsupported (no GPU, or the model
// cannot run on one), overloaded (no memory), the checkpoint's own.
core::Result<std::unique_ptr<Encoder>> make_cuda_encoder(const Checkpoint& checkpoint, const ModelConfig& config,
                                                         const std::string& device, int rows_max);

}  // namespace ganglion::local
