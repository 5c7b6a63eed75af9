// The next token of each row of logits, one block a row, by the rules of engine/sampler: penalties, then temperature,
// top_k, top_p, min_p, then one draw with the row's own random number. Nothing is sorted: thresholds are found by
// counting (top_k) or weighing (top_p) the leading bits of the probabilities, eight at a time. Probabilities are
// summed as integers, so a result depends neither on the order of threads nor on the rest of the batch. Equal
// probabilities at a threshold are all kept (the CPU sampler keeps those of lowest id).

#include "backends/local/kernels/cuda/common.cuh"
#include "backends/local/kernels/cuda/launch.cuh"

namespace ganglion::local::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr float kGreedyTemperature = 1e-5f;
constexpr float kMassUnit = 1099511627776.0f;  // 2^40: probabilities relative to the likeliest, as integers

using Mass = unsigned long long;

struct Scratch {
  float reduce[32];
  Mass bins[256];
  Mass sums[kThreads / 32];
  float best_value[32];
  int best_id[32];
  Mass target;
  int id;
};

// Larger value first, then lower id.
__device__ __forceinline__ bool ahead(float a, int a_id, float b, int b_id) {
  return a != b ? a > b : a_id < b_id;
}

// The largest entry behind (limit, limit_id) in that order; id -1 when there is none.
__device__ __forceinline__ int block_best(const float* row, int n, float limit, int limit_id, Scratch& s,
                                          float& value) {
  float best = -INFINITY;
  int id = -1;
  for (int i = threadIdx.x; i < n; i += kThreads) {
    const float v = row[i];
    if (!ahead(limit, limit_id, v, i)) continue;
    if (id < 0 || ahead(v, i, best, id)) best = v, id = i;
  }
#pragma unroll
  for (int d = 16; d > 0; d /= 2) {
    const float v = __shfl_xor_sync(0xffffffffu, best, d);
    const int other = __shfl_xor_sync(0xffffffffu, id, d);
    if (other >= 0 && (id < 0 || ahead(v, other, best, id))) best = v, id = other;
  }
  const int warp = threadIdx.x / 32;
  if (threadIdx.x % 32 == 0) s.best_value[warp] = best, s.best_id[warp] = id;
  __syncthreads();
  best = s.best_value[0], id = s.best_id[0];
  for (int w = 1; w < kThreads / 32; ++w) {
    const float v = s.best_value[w];
    const int other = s.best_id[w];
    if (other >= 0 && (id < 0 || ahead(v, other, best, id))) best = v, id = other;
  }
  __syncthreads();
  value = best;
  return id;
}

__device__ __forceinline__ float block_log_sum(const float* row, int n, float top, Scratch& s) {
  float sum = 0;
  for (int i = threadIdx.x; i < n; i += kThreads) sum += expf(row[i] - top);
  return top + logf(block_reduce<false>(sum, s.reduce));
}

__device__ __forceinline__ Mass block_mass(Mass v, Scratch& s) {
#pragma unroll
  for (int d = 16; d > 0; d /= 2) v += __shfl_xor_sync(0xffffffffu, v, d);
  if (threadIdx.x % 32 == 0) s.sums[threadIdx.x / 32] = v;
  __syncthreads();
  v = 0;
  for (int w = 0; w < kThreads / 32; ++w) v += s.sums[w];
  __syncthreads();
  return v;
}

__device__ __forceinline__ Mass mass_of(float probability) {
  return static_cast<Mass>(probability * kMassUnit);
}

// The bits of the smallest probability such that those at or above it weigh at least `want`: each weighs 1 (Count) or
// its mass. Positive floats order as their bits do. `floor` bounds which entries take part.
template <bool Count>
__device__ std::uint32_t threshold(const float* row, int n, std::uint32_t floor, Mass want, Scratch& s) {
  std::uint32_t prefix = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int i = threadIdx.x; i < 256; i += kThreads) s.bins[i] = 0;
    __syncthreads();
    const std::uint32_t mask = shift == 24 ? 0u : 0xffffffffu << (shift + 8);
    for (int i = threadIdx.x; i < n; i += kThreads) {
      const std::uint32_t bits = __float_as_uint(row[i]);
      if (bits < floor || (bits & mask) != prefix || bits == 0) continue;
      atomicAdd(&s.bins[(bits >> shift) & 255], Count ? Mass{1} : mass_of(row[i]));
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      Mass left = want;
      int bin = 255;
      while (bin > 0 && s.bins[bin] < left) left -= s.bins[bin--];
      s.id = bin;
      s.target = left;
    }
    __syncthreads();
    prefix |= static_cast<std::uint32_t>(s.id) << shift;
    want = s.target;
    __syncthreads();
  }
  return prefix;
}

// Replaces logits by probabilities relative to the likeliest and returns the bits of the least one that may be drawn.
__device__ std::uint32_t filter(const SampleRow& r, float* row, int n, float top, Scratch& s) {
  const float scale = 1.0f / r.temperature;
  for (int i = threadIdx.x; i < n; i += kThreads) row[i] = __expf((row[i] - top) * scale);
  __syncthreads();
  std::uint32_t least = 1;
  if (r.top_k > 0 && r.top_k < n) least = max(least, threshold<true>(row, n, 1, static_cast<Mass>(r.top_k), s));
  if (r.top_p < 1) {
    Mass mine = 0;
    for (int i = threadIdx.x; i < n; i += kThreads) {
      if (__float_as_uint(row[i]) >= least) mine += mass_of(row[i]);
    }
    const Mass total = block_mass(mine, s);
    const Mass want = max(static_cast<Mass>(static_cast<double>(r.top_p) * static_cast<double>(total)), Mass{1});
    least = max(least, threshold<false>(row, n, least, want, s));
  }
  if (r.min_p > 0) least = max(least, __float_as_uint(r.min_p));
  return least;
}

// Walks the kept entries in id order to the one that holds the drawn mass.
__device__ int draw(const SampleRow& r, const float* row, int n, std::uint32_t least, Scratch& s) {
  const int share = (n + kThreads - 1) / kThreads, from = static_cast<int>(threadIdx.x) * share,
            to = min(from + share, n);
  Mass mine = 0;
  for (int i = from; i < to; ++i) {
    if (__float_as_uint(row[i]) >= least) mine += mass_of(row[i]);
  }
  const Mass total = block_mass(mine, s);
  Mass target = static_cast<Mass>(r.uniform * static_cast<double>(total));
  target = min(target, total - 1);
  // This thread's range of the running sum.
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  Mass upto = mine;
#pragma unroll
  for (int d = 1; d < 32; d *= 2) {
    const Mass other = __shfl_up_sync(0xffffffffu, upto, d);
    if (lane >= d) upto += other;
  }
  if (lane == 31) s.sums[warp] = upto;
  __syncthreads();
  for (int w = 0; w < warp; ++w) upto += s.sums[w];
  Mass at = upto - mine;
  if (target >= at && target < upto) {
    for (int i = from; i < to; ++i) {
      if (__float_as_uint(row[i]) < least) continue;
      at += mass_of(row[i]);
      if (target < at) {
        s.id = i;
        break;
      }
    }
  }
  __syncthreads();
  return s.id;
}

// What the row's grammar does not allow. Log-probabilities have been taken before.
__device__ __forceinline__ void forbid(const std::uint32_t* mask, float* row, int n) {
  for (int i = threadIdx.x; i < n; i += kThreads) {
    if ((mask[i / 32] >> (i % 32) & 1u) == 0) row[i] = -INFINITY;
  }
  __syncthreads();
}

// Biases and penalties, touching only the listed tokens.
__device__ __forceinline__ void adjust(const SampleRow& r, const SampleAdjust* list, float* row) {
  for (int i = threadIdx.x; i < r.adjust_count; i += kThreads) {
    const SampleAdjust a = list[r.adjust_from + i];
    float v = row[a.id] + a.bias;
    if (a.repeated != 0) v = v > 0 ? v / r.repetition : v * r.repetition;
    if (a.times > 0) v -= r.frequency * static_cast<float>(a.times) + r.presence;
    row[a.id] = v;
  }
  __syncthreads();
}

__global__ void __launch_bounds__(kThreads) sample_kernel(Sample a) {
  __shared__ Scratch s;
  let_next_start();
  wait_for_previous();
  const SampleRow r = a.rows[blockIdx.x];
  SampleResult& result = a.results[blockIdx.x];
  float* row = a.logits + static_cast<std::int64_t>(r.logits_row) * a.stride;
  if (threadIdx.x == 0) result.top_count = 0;
  bool bad = false;
  for (int i = threadIdx.x; i < a.vocab; i += kThreads) bad |= isnan(row[i]);
  bad = __syncthreads_or(bad);
  float top = -INFINITY;
  int id = bad ? -1 : block_best(row, a.vocab, INFINITY, -1, s, top);
  if (id < 0 || !isfinite(top)) {
    if (threadIdx.x == 0) result.ok = 0;
    return;
  }
  float log_sum = 0;
  if (r.logprobs != 0) {
    log_sum = block_log_sum(row, a.vocab, top, s);
    float value = INFINITY;
    int last = -1;
    for (int k = 0; k < r.top_logprobs && k < a.vocab; ++k) {
      last = block_best(row, a.vocab, value, last, s, value);
      if (threadIdx.x == 0) result.top_id[k] = last, result.top_logprob[k] = value - log_sum, result.top_count = k + 1;
    }
  }
  if (r.adjust_count > 0) adjust(r, a.adjust, row);
  if (r.mask_from >= 0) forbid(a.masks + r.mask_from, row, a.vocab);
  if (r.adjust_count > 0 || r.mask_from >= 0) {
    id = block_best(row, a.vocab, INFINITY, -1, s, top);
    if (id < 0 || !isfinite(top)) {
      if (threadIdx.x == 0) result.ok = 0;
      return;
    }
  }
  if (r.temperature >= kGreedyTemperature && r.top_k != 1) {
    const std::uint32_t least = filter(r, row, a.vocab, top, s);
    id = draw(r, row, a.vocab, least, s);
    if (threadIdx.x == 0) top += logf(row[id]) * r.temperature;  // the logit again
  }
  if (threadIdx.x != 0) return;
  float logit = top;  // adjusted; what is reported is the model's own
  for (int i = 0; r.logprobs != 0 && i < r.adjust_count; ++i) {
    const SampleAdjust adj = a.adjust[r.adjust_from + i];
    if (adj.id != id) continue;
    if (adj.times > 0) logit += r.frequency * static_cast<float>(adj.times) + r.presence;
    if (adj.repeated != 0) logit = logit > 0 ? logit * r.repetition : logit / r.repetition;
    logit -= adj.bias;
    break;
  }
  result.id = id;
  result.logprob = logit - log_sum;
  result.ok = 1;
}

}  // namespace

cudaError_t sample(Queue queue, const Sample& a) {
  return launch(queue, sample_kernel, static_cast<unsigned>(a.count), kThreads, 0, a);
}

}  // namespace ganglion::local::cuda
