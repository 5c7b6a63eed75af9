#pragma once
// Matrix products through cuBLASLt, which is looked for at run time: a build with CUDA starts where it is not
// installed, and says so when a GPU model is loaded. One caller at a time.

#include <cuda_runtime_api.h>

#include <map>
#include <memory>
#include <span>
#include <tuple>
#include <vector>

#include "backends/local/device/arena.hpp"
#include "core/error.hpp"

namespace ganglion::local {

class Blas {
 public:
  // unsupported: the library is not installed.
  static core::Result<std::unique_ptr<Blas>> make(Arena& arena);
  ~Blas();
  Blas(const Blas&) = delete;
  Blas& operator=(const Blas&) = delete;

  enum class Input : std::uint8_t { bf16, fp8, int8 };
  struct Call {
    Input input = Input::bf16;        // of x and w; fp8: e4m3
    const void* x = nullptr;          // [m][k]
    const void* w = nullptr;          // [n][k]
    const float* x_scales = nullptr;  // fp8: one a row of x
    const float* w_scales = nullptr;  // fp8: one a row of w
    void* y = nullptr;                // [m][y_stride], bf16, or fp32 when `wide`; int8: int32, the sums as they are
    int m = 0, n = 0, k = 0, y_stride = 0;
    bool wide = false;
    const void* bias = nullptr;  // bf16[n], added to each row of y; only where both are bf16
    bool gelu = false;           // and y = gelu of that, in its tanh form; only with a bias
  };
  // Times the library's ways to this shape on these matrices (w from memory, as in a step) and keeps the fastest; its
  // own first choice is up to two thirds slower (int8). Waits for the stream, writes y; not while capturing.
  core::Result<void> tune(cudaStream_t stream, const Call& call);
  struct Tuned {
    int m, n, k, ways;
    float first_ms, best_ms;  // the library's first choice, and what was taken
  };
  std::span<const Tuned> tuned() const { return tuned_; }
  // y = x w^T. e4m3 needs compute capability 9.0; both 8-bit inputs m, n, k in multiples of 16. Plans are kept by
  // shape; the first call of a shape asks the library for one (some tens of microseconds).
  core::Result<void> multiply(cudaStream_t stream, const Call& call);

 private:
  struct Library;
  struct Plan;
  Blas() = default;
  core::Result<Plan*> plan_for(const Call& call);
  int run(cudaStream_t stream, const Plan& plan, const Call& call);  // the library's status

  std::unique_ptr<Library> library_;
  void* handle_ = nullptr;
  DeviceBuffer workspace_;
  using Key = std::tuple<int, int, int, int, Input, bool, bool, bool>;
  std::map<Key, std::unique_ptr<Plan>> plans_;
  std::vector<Tuned> tuned_;
};

}  // namespace ganglion::local
