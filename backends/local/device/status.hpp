#pragma once
// CUDA status codes as errors of the product. No call here ends the process.

#include <cuda_runtime_api.h>

#include <string>
#include <string_view>

#include "core/error.hpp"

namespace ganglion::local {

// After these nothing on the device can be trusted until the process ends its context: launch failures, illegal
// addresses, ECC errors.
inline bool is_sticky(cudaError_t status) {
  return status != cudaSuccess && status != cudaErrorMemoryAllocation && status != cudaErrorInvalidValue &&
         status != cudaErrorNotReady && status != cudaErrorInvalidConfiguration;
}

// The request may succeed on another backend: 503.
inline core::Error device_error(cudaError_t status, std::string_view what) {
  return core::make_error(core::ErrorKind::overloaded,
                          "the GPU failed at " + std::string(what) + ": " + cudaGetErrorName(status));
}

inline core::Result<void> check(cudaError_t status, std::string_view what) {
  if (status == cudaSuccess) return {};
  if (!is_sticky(status)) cudaGetLastError();  // leaves no trace for the next check
  return std::unexpected(device_error(status, what));
}

}  // namespace ganglion::local
