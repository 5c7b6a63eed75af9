#pragma once
// Random rows for kernel tests; the same on every run.

#include <cstdint>
#include <random>
#include <vector>

#include "backends/local/kernels/cpu/dispatch.hpp"
#include "backends/local/kernels/reference.hpp"

namespace ganglion::local {

class RandomRows {
 public:
  explicit RandomRows(std::uint32_t seed) : engine_(seed) {}
  std::vector<float> floats(std::size_t n, float spread = 1.0f) {
    std::normal_distribution<float> normal(0.0f, spread);
    std::vector<float> out(n);
    for (float& v : out) v = normal(engine_);
    return out;
  }
  int below(int n) { return static_cast<int>(engine_() % static_cast<std::uint32_t>(n)); }

 private:
  std::mt19937 engine_;
};

inline reference::Row widen(const float* x, std::size_t n) {
  return {x, x + n};
}
inline reference::Row widen(const std::vector<float>& x) {
  return {x.begin(), x.end()};
}

// The levels that this machine can run; tests go through all of them.
inline std::vector<Isa> supported_isas() {
  std::vector<Isa> out;
  for (int i = 0; i < kIsaCount; ++i) {
    if (isa_supported(static_cast<Isa>(i))) out.push_back(static_cast<Isa>(i));
  }
  return out;
}

}  // namespace ganglion::local
