// The dozen entry points of cuBLASLt that are needed, and the plans. Row-major y[m][n] = x[m][k] w[n][k]^T is, for the
// column-major library, Y(n x m) = W(k x n)^T X(k x m).

#include "backends/local/device/blas.hpp"

#include <cublasLt.h>
#include <dlfcn.h>

#include <array>

#include "backends/local/device/status.hpp"

namespace ganglion::local {

using core::ErrorKind;
using core::Result;

namespace {
constexpr std::size_t kWorkspaceBytes = std::size_t{64} << 20;
constexpr std::size_t kPlansMax = 4096;
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

Result<const Blas::Plan*> Blas::plan_for(const Call& c) {
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
  cublasLtMatmulPreference_t preference = nullptr;
  ok = ok && library_->preference_create(&preference) == CUBLAS_STATUS_SUCCESS;
  cublasLtMatmulHeuristicResult_t found{};
  int count = 0;
  if (ok) {
    library_->preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kWorkspaceBytes,
                             sizeof kWorkspaceBytes);
    ok = library_->heuristic(static_cast<cublasLtHandle_t>(handle_), plan->desc, plan->w, plan->x, plan->y, plan->y,
                             preference, 1, &found, &count) == CUBLAS_STATUS_SUCCESS &&
         count > 0;
    library_->preference_destroy(preference);
  }
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

Result<void> Blas::multiply(cudaStream_t stream, const Call& c) {
  if (plans_.size() > kPlansMax) plans_.clear();
  auto plan = plan_for(c);
  if (!plan) return std::unexpected(plan.error());
  auto* desc = (*plan)->desc;
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
  const auto status =
      library_->matmul(static_cast<cublasLtHandle_t>(handle_), desc, alpha, c.w, (*plan)->w, c.x, (*plan)->x, beta, c.y,
                       (*plan)->y, c.y, (*plan)->y, &(*plan)->algorithm, workspace_.data(), kWorkspaceBytes, stream);
  if (status == CUBLAS_STATUS_SUCCESS) return {};
  return core::fail(ErrorKind::overloaded,
                    "the GPU failed at a matrix product: cuBLASLt status " + std::to_string(static_cast<int>(status)));
}

}  // namespace ganglion::local
