// The dozen entry points of cuBLASLt that are needed, and the plans. Row-major y[m][n] = x[m][k] w[n][k]^T is, for the
// column-major library, Y(n x m) = W(k x n)^T X(k x m).

#include "backends/local/device/blas.hpp"

#include <cublasLt.h>
#include <dlfcn.h>

#include <algorithm>
#include <array>

#include "backends/local/device/status.hpp"
#include "backends/local/device/stream.hpp"

namespace ganglion::local {

using core::ErrorKind;
using core::Result;

namespace {
constexpr std::size_t kWorkspaceBytes = std::size_t{64} << 20;
constexpr std::size_t kPlansMax = 4096;
constexpr int kWaysMax = 16, kTrials = 4;  // tried when tuning
constexpr float kWorthIt = 0.97f;          // of the first choice's time
constexpr std::array kNames{"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so",
                            "/usr/local/cuda/lib64/libcublasLt.so.13"};
}  // namespace

struct Blas::Library {
  void* handle = nullptr;
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtDestroy) destroy = nullptr;
  decltype(&cublasLtMatmul) matmul = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic = nullptr;
  decltype(&cublasLtMatmulDescCreate) desc_create = nullptr;
  decltype(&cublasLtMatmulDescDestroy) desc_destroy = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) layout_create = nullptr;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create = nullptr;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set = nullptr;

  ~Library() {
    if (handle != nullptr) dlclose(handle);
  }
  template <class F>
  bool find(F& function, const char* name) {
    function = reinterpret_cast<F>(dlsym(handle, name));
    return function != nullptr;
  }
  bool load() {
    for (const char* name : kNames) {
      if (handle = dlopen(name, RTLD_NOW | RTLD_LOCAL); handle != nullptr) break;
    }
    return handle != nullptr && find(create, "cublasLtCreate") && find(destroy, "cublasLtDestroy") &&
           find(matmul, "cublasLtMatmul") && find(heuristic, "cublasLtMatmulAlgoGetHeuristic") &&
           find(desc_create, "cublasLtMatmulDescCreate") && find(desc_destroy, "cublasLtMatmulDescDestroy") &&
           find(desc_set, "cublasLtMatmulDescSetAttribute") && find(layout_create, "cublasLtMatrixLayoutCreate") &&
           find(layout_destroy, "cublasLtMatrixLayoutDestroy") &&
           find(preference_create, "cublasLtMatmulPreferenceCreate") &&
           find(preference_destroy, "cublasLtMatmulPreferenceDestroy") &&
           find(preference_set, "cublasLtMatmulPreferenceSetAttribute");
  }
};

struct Blas::Plan {
  explicit Plan(const Library& l) : library(l) {}
  ~Plan() {
    if (desc != nullptr) library.desc_destroy(desc);
    for (auto* layout : {w, x, y}) {
      if (layout != nullptr) library.layout_destroy(layout);
    }
  }
  const Library& library;
  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatrixLayout_t w = nullptr, x = nullptr, y = nullptr;
  cublasLtMatmulAlgo_t algorithm{};

  // The library's proposals, its favourite first; how many.
  int propose(void* handle, std::span<cublasLtMatmulHeuristicResult_t> to) const {
    cublasLtMatmulPreference_t preference = nullptr;
    if (library.preference_create(&preference) != CUBLAS_STATUS_SUCCESS) return 0;
    library.preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kWorkspaceBytes,
                           sizeof kWorkspaceBytes);
    int count = 0;
    const auto status = library.heuristic(static_cast<cublasLtHandle_t>(handle), desc, w, x, y, y, preference,
                                          static_cast<int>(to.size()), to.data(), &count);
    library.preference_destroy(preference);
    return status == CUBLAS_STATUS_SUCCESS ? count : 0;
  }
};

Result<std::unique_ptr<Blas>> Blas::make(Arena& arena) {
  std::unique_ptr<Blas> out(new Blas);
  out->library_ = std::make_unique<Library>();
  if (!out->library_->load()) {
    return core::fail(ErrorKind::unsupported,
                      "cuBLASLt (libcublasLt.so.13 or .12, part of the CUDA Toolkit) was not found");
  }
  cublasLtHandle_t handle = nullptr;
  if (out->library_->create(&handle) != CUBLAS_STATUS_SUCCESS) {
    return core::fail(ErrorKind::unsupported, "cuBLASLt could not start on this GPU");
  }
  out->handle_ = handle;
  auto workspace = arena.take(kWorkspaceBytes, "the matrix library's workspace");
  if (!workspace) return std::unexpected(workspace.error());
  out->workspace_ = std::move(*workspace);
  return out;
}

Blas::~Blas() {
  plans_.clear();
  if (handle_ != nullptr) library_->destroy(static_cast<cublasLtHandle_t>(handle_));
}

Result<Blas::Plan*> Blas::plan_for(const Call& c) {
  const bool fp8 = c.input == Input::fp8, int8 = c.input == Input::int8;
  auto& slot = plans_[Key{c.m, c.n, c.k, c.y_stride, c.input, c.wide, c.bias != nullptr, c.gelu}];
  if (slot != nullptr) return slot.get();
  auto plan = std::make_unique<Plan>(*library_);
  const cudaDataType_t in = fp8 ? CUDA_R_8F_E4M3 : int8 ? CUDA_R_8I : CUDA_R_16BF;
  const cudaDataType_t out = int8 ? CUDA_R_32I : c.wide ? CUDA_R_32F : CUDA_R_16BF;
  const cublasOperation_t transposed = CUBLAS_OP_T, plain = CUBLAS_OP_N;
  const auto n = static_cast<std::uint64_t>(c.n), m = static_cast<std::uint64_t>(c.m),
             k = static_cast<std::uint64_t>(c.k);
  bool ok = library_->desc_create(&plan->desc, int8 ? CUBLAS_COMPUTE_32I : CUBLAS_COMPUTE_32F,
                                  int8 ? CUDA_R_32I : CUDA_R_32F) == CUBLAS_STATUS_SUCCESS;
  const auto set = [&](cublasLtMatmulDescAttributes_t key, const auto& value) {
    ok = ok && library_->desc_set(plan->desc, key, &value, sizeof value) == CUBLAS_STATUS_SUCCESS;
  };
  set(CUBLASLT_MATMUL_DESC_TRANSA, transposed);
  set(CUBLASLT_MATMUL_DESC_TRANSB, plain);
  if (c.bias != nullptr) {
    const auto epilogue = c.gelu ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_BIAS;
    const auto type = CUDA_R_16BF;
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
    set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type);
    set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, c.bias);
  }
  if (fp8) {
    const auto mode = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, mode);
    set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, mode);
    set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, c.w_scales);
    set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, c.x_scales);
  }
  ok = ok && library_->layout_create(&plan->w, in, k, n, c.k) == CUBLAS_STATUS_SUCCESS &&
       library_->layout_create(&plan->x, in, k, m, c.k) == CUBLAS_STATUS_SUCCESS &&
       library_->layout_create(&plan->y, out, n, m, c.y_stride) == CUBLAS_STATUS_SUCCESS;
  cublasLtMatmulHeuristicResult_t found{};
  ok = ok && plan->propose(handle_, {&found, 1}) > 0;
  if (!ok) {
    return core::fail(ErrorKind::unsupported, "cuBLASLt has no way to multiply " + std::to_string(c.m) + " x " +
                                                  std::to_string(c.k) + " by " + std::to_string(c.n) + " columns in " +
                                                  (fp8    ? "fp8"
                                                   : int8 ? "int8"
                                                          : "bf16"));
  }
  plan->algorithm = found.algo;
  slot = std::move(plan);
  return slot.get();
}

int Blas::run(cudaStream_t stream, const Plan& plan, const Call& c) {
  auto* desc = plan.desc;
  if (c.input == Input::fp8) {  // the plan is shared by all matrices of this shape
    library_->desc_set(desc, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &c.w_scales, sizeof c.w_scales);
    library_->desc_set(desc, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &c.x_scales, sizeof c.x_scales);
  }
  if (c.bias != nullptr) library_->desc_set(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &c.bias, sizeof c.bias);
  const float one = 1.0f, zero = 0.0f;
  const std::int32_t whole_one = 1, whole_zero = 0;
  const bool int8 = c.input == Input::int8;
  const void *alpha = int8 ? static_cast<const void*>(&whole_one) : &one,
             *beta = int8 ? static_cast<const void*>(&whole_zero) : &zero;
  return library_->matmul(static_cast<cublasLtHandle_t>(handle_), desc, alpha, c.w, plan.w, c.x, plan.x, beta, c.y,
                          plan.y, c.y, plan.y, &plan.algorithm, workspace_.data(), kWorkspaceBytes, stream);
}

Result<void> Blas::multiply(cudaStream_t stream, const Call& c) {
  if (plans_.size() > kPlansMax) plans_.clear();
  auto plan = plan_for(c);
  if (!plan) return std::unexpected(plan.error());
  const int status = run(stream, **plan, c);
  if (status == CUBLAS_STATUS_SUCCESS) return {};
  return core::fail(ErrorKind::overloaded,
                    "the GPU failed at a matrix product: cuBLASLt status " + std::to_string(status));
}

Result<void> Blas::tune(cudaStream_t stream, const Call& c) {
  auto plan = plan_for(c);
  auto begun = make_event(true, false), ended = make_event(true, false);
  if (!plan) return std::unexpected(plan.error());
  if (!begun || !ended) return core::fail(ErrorKind::overloaded, "the GPU cannot make an event");
  std::array<cublasLtMatmulHeuristicResult_t, kWaysMax> ways{};
  const int count = (*plan)->propose(handle_, ways);
  Tuned out{.m = c.m, .n = c.n, .k = c.k, .ways = count, .first_ms = 0, .best_ms = 0};
  auto best = (*plan)->algorithm;
  for (int i = 0; i < count; ++i) {
    (*plan)->algorithm = ways[static_cast<std::size_t>(i)].algo;
    float least = 0;
    for (int trial = 0; trial < kTrials; ++trial) {
      // Writing as much as the second-level cache holds leaves nothing of w there, and lets the rest be queued ahead.
      auto ok = check(cudaMemsetAsync(workspace_.data(), 0, kWorkspaceBytes, stream), "trying matrix products");
      if (ok) ok = check(cudaEventRecord(begun->get(), stream), "trying matrix products");
      if (!ok) return ok;
      if (run(stream, **plan, c) != CUBLAS_STATUS_SUCCESS) {
        least = 0;
        break;
      }
      ok = check(cudaEventRecord(ended->get(), stream), "trying matrix products");
      if (ok) ok = check(cudaEventSynchronize(ended->get()), "trying matrix products");
      float ms = 0;
      if (ok) ok = check(cudaEventElapsedTime(&ms, begun->get(), ended->get()), "trying matrix products");
      if (!ok) return ok;
      if (trial > 0) least = least == 0 ? ms : std::min(least, ms);  // the first one loads what it needs
    }
    if (least == 0) continue;
    const bool first = out.first_ms == 0;  // of those that run
    if (first) out.first_ms = least;
    if (first || (least < kWorthIt * out.first_ms && least < out.best_ms)) {
      out.best_ms = least;
      best = (*plan)->algorithm;
    }
  }
  (*plan)->algorithm = best;
  tuned_.push_back(out);
  return {};
}

}  // namespace ganglion::local
