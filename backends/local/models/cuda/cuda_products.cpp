// One product of a step: by a streaming kernel, by that of 8 by 8 bits, or by cuBLASLt, as the weights' format and the
// number of rows want it; and which of the library's ways that is.

#include <algorithm>
#include <set>
#include <tuple>

#include "backends/local/models/cuda/cuda_decoder.hpp"
#include "backends/local/models/cuda/cuda_step.hpp"

namespace ganglion::local {

using core::Result;
using cuda::Epilogue;
using cuda::Format;
using cuda::Matrix;

namespace {

constexpr int kInt8RowsMax = 32'768;  // a kernel's blocks are a row each
constexpr int kTunedRowsMax = 512;    // with more, the library's choice is within a few percent

// The library wants few different shapes, and e4m3 multiples of 16. Its one way to multiply e4m3 with scales a row
// takes as long for 192 rows as for 256, or longer.
int library_rows(int rows, bool fp8) {
  return to_int(cuda::padded(rows, rows <= 64 ? 16 : fp8 ? 128 : 64));
}

}  // namespace

bool CudaDecoder::small(const Matrix& w, int rows) const {
  // bf16 past the fused kernels is the library's; the others avoid unpacking or quantising while rows are few.
  if (streams_eight_bit(w, rows)) return false;
  switch (w.format) {
    case Format::bf16:
      return rows <= 8;
    case Format::fp8:
      return rows <= (capability_ >= 90 ? 16 : cuda::kSmallRowsMax);
    default:
      return rows <= cuda::kSmallRowsMax;
  }
}

bool CudaDecoder::takes_eight_bit(const Matrix& w) const {
  return w.format == Format::int8 ? options_.int8_activations && w.cols <= cuda::kInt8ColumnsMax
                                  : w.format == Format::fp8 && capability_ >= 90;
}

bool CudaDecoder::streams_eight_bit(const Matrix& w, int rows) const {
  return takes_eight_bit(w) && !adapted_step_ && rows > cuda::kFusedRowsMax && rows <= options_.eight_bit_rows_max &&
         cuda::eight_bit_product_fits(w, rows, capability_);
}

bool CudaDecoder::eight_bit(const Matrix& w, int rows) const {
  return takes_eight_bit(w) && !adapted_step_ && !small(w, rows);
}

Result<void> CudaDecoder::narrow(const Matrix& consumer, const void* x, int stride, int rows) {
  if (!eight_bit(consumer, rows)) return {};
  return check(cuda::quantise_rows(queue(), x, stride, stride, rows, eight_.data(), stride, eight_scales_.as<float>(),
                                   consumer.format == Format::int8),
               "quantising activations");
}

int CudaDecoder::int8_rows(const Matrix& w) const {
  const std::size_t fit = options_.sums_bytes / 4 / static_cast<std::size_t>(w.rows) / 64 * 64;
  return to_int(std::clamp<std::int64_t>(static_cast<std::int64_t>(fit), 64, std::min(rows_cap_, kInt8RowsMax)));
}

// The library leaves sums of integers, which a kernel of ours turns into what they stand for: where they are, or by way
// of a buffer that is kept small enough for most of it to stay in the cache between the two.
Result<void> CudaDecoder::multiply_int8(const Matrix& w, int rows, void* y, int y_stride, bool wide) {
  const bool in_place = wide && y_stride == w.rows;
  const int each = in_place ? rows : int8_rows(w);
  for (int first = 0; first < rows; first += each) {
    const int some = std::min(each, rows - first);
    char* to = static_cast<char*>(y) + static_cast<std::int64_t>(first) * y_stride * (wide ? 4 : 2);
    void* sums = in_place ? static_cast<void*>(to) : sums_.data();
    const Blas::Call call = sums_call(w, first, some, sums);
    if (auto ok = blas_->multiply(stream_.get(), call); !ok) return ok;
    const cuda::Rescale rescale{.sums = static_cast<const std::int32_t*>(sums),
                                .rows = some,
                                .cols = w.rows,
                                .x_scales = eight_scales_.as<float>() + first,
                                .w_scales = static_cast<const float*>(w.scales),
                                .bias = w.bias,
                                .y = to,
                                .y_stride = y_stride,
                                .wide = wide};
    if (auto ok = check(cuda::rescale(queue(), rescale), "a projection's scales"); !ok) return ok;
  }
  return {};
}

// What the library is asked for: the sums of int8 rows [first, first + rows) of eight_.
Blas::Call CudaDecoder::sums_call(const Matrix& w, int first, int rows, void* sums) const {
  return {.input = Blas::Input::int8,
          .x = eight_.as<char>() + static_cast<std::int64_t>(first) * w.cols,
          .w = w.data,
          .y = sums,
          .m = library_rows(rows, false),
          .n = w.rows,
          .k = w.cols,
          .y_stride = w.rows};
}

// The same of e4m3 rows in eight_, or of bf16 rows x; weights of other formats are unpacked_.
Blas::Call CudaDecoder::product_call(const Matrix& w, const void* x, int rows, void* y, int y_stride, bool wide) const {
  const bool fp8 = eight_bit(w, rows);
  Blas::Call call{.x = x,
                  .w = w.format == Format::bf16 ? w.data : unpacked_.data(),
                  .y = y,
                  .m = library_rows(rows, fp8),
                  .n = w.rows,
                  .k = w.cols,
                  .y_stride = y_stride,
                  .wide = wide};
  if (!fp8) return call;
  call.input = Blas::Input::fp8;
  call.x = eight_.data(), call.w = w.data;
  call.x_scales = eight_scales_.as<float>(), call.w_scales = static_cast<const float*>(w.scales);
  return call;
}

// The library's estimate of its own ways is off where rows are few, for integers most (a batch of 512 in w8a8: 24.9 ms
// a step, 22.6 with the tried ones): it is asked for them, and they are tried. Layers may be of different formats, each
// of which has its own products.
Result<void> CudaDecoder::tune() {
  if (!options_.tune) return {};
  Result<void> ok;
  std::set<std::tuple<Blas::Input, int, int, int, int, bool>> tried;
  const auto tune = [&](const Matrix& w, const DeviceBuffer& x, void* y, bool wide, int rows_most) {
    if (std::int64_t{w.rows} * w.cols < options_.tuned_weights_min) return;
    for (int rows = 16; rows <= std::min(rows_most, kTunedRowsMax) && ok; rows += rows < 64 ? 16 : 64) {
      if (small(w, rows) || streams_eight_bit(w, rows)) continue;
      const bool sums = w.format == Format::int8 && eight_bit(w, rows);
      if (sums && !wide && rows > int8_rows(w)) break;
      const Blas::Call call =
          sums ? sums_call(w, 0, rows, wide ? y : sums_.data()) : product_call(w, x.data(), rows, y, w.rows, wide);
      if (call.m != rows) continue;  // the same as for more
      if (!tried.emplace(call.input, call.m, call.n, call.k, call.y_stride, call.wide).second) continue;
      ok = blas_->tune(stream_.get(), call);
      if (!ok && ok.error().kind == core::ErrorKind::unsupported) ok = {};  // said when it is needed, if ever
    }
  };
  for (const CudaLayer& layer : weights_.layers) {
    tune(layer.qkv, normed_, qkv_.data(), wide_qkv_, rows_cap_);
    tune(layer.out, attended_, added_.data(), wide_added_, rows_cap_);
    if (config_.experts > 0) continue;
    tune(layer.gate_up, normed_, gate_up_.data(), false, rows_cap_);
    tune(layer.down, gated_, added_.data(), wide_added_, rows_cap_);
  }
  const int samples = sample_rows(std::max(options_.batch_max, options_.samples_max));
  if (leads()) tune(weights_.head, normed_, logits_.data(), true, std::min(samples, rows_cap_));
  return ok;
}

Result<void> CudaDecoder::multiply(const Matrix& w, const void* x, int x_stride, int rows, void* y, int y_stride,
                                   bool wide) {
  if (small(w, rows)) {
    const cuda::Product p{.w = w,
                          .x = x,
                          .x_stride = x_stride,
                          .rows = rows,
                          .epilogue = wide ? Epilogue::store_f32 : Epilogue::store_bf16,
                          .y = y,
                          .y_stride = y_stride,
                          .y_cols = w.rows};
    const bool ring = capability_ >= 90 && w.zeros == nullptr && cuda::stream_product_fits(p);
    auto ok = check(
        ring ? cuda::stream_product(queue(), p, multiprocessors_, options_.ring_stages) : cuda::product(queue(), p),
        "a projection");
    if (ok && w.zeros != nullptr) {
      ok = check(cuda::correct_zeros(queue(), w, x, x_stride, rows, y, y_stride, wide), "zero points");
    }
    return ok;
  }
  if (streams_eight_bit(w, rows)) {
    const cuda::EightBitProduct p{.w = w,
                                  .x = eight_.data(),
                                  .x_scales = eight_scales_.as<float>(),
                                  .rows = rows,
                                  .y = y,
                                  .y_stride = y_stride,
                                  .wide = wide,
                                  .partial = eight_partial_.as<float>(),
                                  .arrived = eight_arrived_.as<std::uint32_t>()};
    ++eight_bit_products_;
    return check(cuda::eight_bit_product(queue(), p, multiprocessors_), "a projection");
  }
  if (w.format == Format::int8 && eight_bit(w, rows)) return multiply_int8(w, rows, y, y_stride, wide);
  const Blas::Call call = product_call(w, x, rows, y, y_stride, wide);
  if (call.w == unpacked_.data()) {
    if (auto ok = check(cuda::unpack_weights(queue(), w, unpacked_.data()), "unpacking weights"); !ok) return ok;
  }
  if (auto ok = blas_->multiply(stream_.get(), call); !ok) return ok;
  if (w.bias == nullptr) return {};
  return check(cuda::add_bias(queue(), w.bias, w.rows, rows, y, y_stride, wide), "a bias");
}

}  // namespace ganglion::local
