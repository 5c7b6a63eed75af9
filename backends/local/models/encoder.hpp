#pragma once
// What makes embeddings: token sequences to one pooled vector each, on one device. One caller at a time.

#include <span>
#include <string>
#include <vector>

#include "core/error.hpp"

namespace ganglion::local {

class Encoder {
 public:
  virtual ~Encoder() = default;
  // One vector of dimensions() floats per sequence, pooled, and of unit length where the config says so. Sequences
  // have 1 to context_max() tokens in [0, vocab_size); together at most as many as it was made for. Errors: no memory,
  // and what the device says.
  virtual core::Result<std::vector<std::vector<float>>> encode(
      std::span<const std::span<const std::int32_t>> sequences) = 0;
  virtual int dimensions() const = 0;
  virtual int context_max() const = 0;
  virtual std::string device() const = 0;  // for the log: "cpu", "cuda:0 (NVIDIA H100 80GB HBM3)"
  // After a failure: nothing more will come of this encoder.
  virtual bool broken() const { return false; }
};

}  // namespace ganglion::local
