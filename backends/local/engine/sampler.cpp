// One pass for the maximum, one for the exponentials; only the few likeliest tokens are ever sorted.

#include "backends/local/engine/sampler.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace ganglion::local {
namespace {

std::uint64_t mix(std::uint64_t x) {  // the finaliser of splitmix64 (public domain, S. Vigna)
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

using Scored = std::pair<std::int32_t, float>;
bool likelier(const Scored& a, const Scored& b) {
  return a.second != b.second ? a.second > b.second : a.first < b.first;
}

// The `count` largest entries, sorted.
std::vector<Scored> largest(std::span<const float> row, std::size_t count) {
  std::vector<Scored> heap;  // the least likely of the kept ones in front
  for (std::size_t i = 0; i < row.size(); ++i) {
    const Scored item{static_cast<std::int32_t>(i), row[i]};
    if (heap.size() == count) {
      if (!likelier(item, heap.front())) continue;
      std::pop_heap(heap.begin(), heap.end(), likelier);
      heap.pop_back();
    }
    heap.push_back(item);
    std::push_heap(heap.begin(), heap.end(), likelier);
  }
  std::sort(heap.begin(), heap.end(), likelier);
  return heap;
}

std::int32_t first_equal(std::span<const float> row, float value) {
  return static_cast<std::int32_t>(std::find(row.begin(), row.end(), value) - row.begin());
}

// Adds biases and penalties; returns the touched entries as they were.
std::vector<Scored> adjust(std::span<float> logits, const SamplingParams& params, const TokenHistory& history) {
  std::vector<Scored> before;
  const auto touch = [&](std::int32_t id) -> float& {
    before.emplace_back(id, logits[static_cast<std::size_t>(id)]);
    return logits[static_cast<std::size_t>(id)];
  };
  for (const auto& [id, bias] : params.logit_bias) touch(id) += bias;
  if (params.repetition_penalty != 1.0f) {
    const auto repeat = [&](std::int32_t id) {
      float& logit = touch(id);
      logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    };
    for (std::int32_t id : history.prompt) repeat(id);
    for (const auto& entry : history.generated) {
      if (!history.prompt.contains(entry.first)) repeat(entry.first);
    }
  }
  if (params.frequency_penalty != 0 || params.presence_penalty != 0) {
    for (const auto& [id, times] : history.generated) {
      touch(id) -= params.frequency_penalty * static_cast<float>(times) + params.presence_penalty;
    }
  }
  return before;
}

void forbid(std::span<float> row, const std::uint32_t* mask, float value) {
  for (std::size_t i = 0; i < row.size(); ++i) {
    if ((mask[i / 32] >> (i % 32) & 1U) == 0) row[i] = value;
  }
}

// The candidates that top_k, top_p and min_p leave, likeliest first. `p` sums to 1.
std::vector<Scored> filter(const Kernels& kernels, std::span<const float> p, const SamplingParams& params) {
  const float top = kernels.max(p.data(), static_cast<int>(p.size()));
  const auto k = static_cast<std::size_t>(std::max(params.top_k, 0));
  const bool nucleus_of_k = k > 0 && params.top_p < 1;  // a share of what top_k leaves: all of that has to be known
  std::vector<Scored> kept;
  // Gather above a falling threshold until the filters' outcome is certain.
  for (float threshold = top * 1e-2f;; threshold *= 1e-3f) {
    if (params.min_p > 0 && !nucleus_of_k) threshold = std::max(threshold, params.min_p * top);
    if (threshold < 1e-30f) threshold = 0;
    kept.clear();
    double sum = 0;
    for (std::size_t i = 0; i < p.size(); ++i) {
      if (p[i] < threshold || p[i] <= 0) continue;
      kept.emplace_back(static_cast<std::int32_t>(i), p[i]);
      sum += p[i];
    }
    const bool certain = (k > 0 && kept.size() >= k) || threshold == 0 ||
                         (!nucleus_of_k && ((params.top_p < 1 && sum >= params.top_p) ||
                                            (params.min_p > 0 && threshold <= params.min_p * top)));
    if (certain) break;
  }
  std::sort(kept.begin(), kept.end(), likelier);
  if (k > 0 && kept.size() > k) kept.resize(k);
  if (params.top_p < 1) {
    // Over the whole vocabulary, or over what top_k left.
    double total = 1.0;
    if (k > 0) {
      total = 0;
      for (const Scored& item : kept) total += item.second;
    }
    double sum = 0;
    std::size_t count = 0;
    while (count < kept.size() && (count == 0 || sum < params.top_p * total)) sum += kept[count++].second;
    kept.resize(count);
  }
  if (params.min_p > 0) std::erase_if(kept, [&](const Scored& item) { return item.second < params.min_p * top; });
  return kept;
}

std::int32_t draw(const Kernels& kernels, std::span<float> logits, float top, const SamplingParams& params, double u,
                  const std::uint32_t* mask) {
  const float scale = 1.0f / params.temperature;
  for (float& logit : logits) logit = (logit - top) * scale;
  kernels.softmax(logits.data(), static_cast<int>(logits.size()));
  if (mask != nullptr) forbid(logits, mask, 0);  // the exponential of very little is not nothing
  if (params.top_k <= 0 && params.top_p >= 1 && params.min_p <= 0) {
    double left = 0;
    for (float p : logits) left += p;
    left *= u;
    std::size_t last = 0;
    for (std::size_t i = 0; i < logits.size(); ++i) {
      if (logits[i] <= 0) continue;
      last = i;
      if ((left -= logits[i]) < 0) break;
    }
    return static_cast<std::int32_t>(last);
  }
  const std::vector<Scored> kept = filter(kernels, logits, params);
  double left = 0;
  for (const Scored& item : kept) left += item.second;
  left *= u;
  for (const Scored& item : kept) {
    if ((left -= item.second) < 0) return item.first;
  }
  return kept.back().first;
}

}  // namespace

double uniform_at(std::uint64_t seed, std::uint64_t index) {
  return static_cast<double>(mix(mix(seed) ^ mix(index ^ 0x5851f42d4c957f2dull)) >> 11) * 0x1.0p-53;
}

Choice choose_token(const Kernels& kernels, std::span<float> logits, const SamplingParams& params,
                    const TokenHistory& history, std::uint64_t seed, std::uint64_t index, const std::uint32_t* mask) {
  Choice out;
  const int n = static_cast<int>(logits.size());
  const float raw_top = kernels.max(logits.data(), n);
  if (!std::isfinite(raw_top)) return out;
  float log_sum = 0;
  if (params.logprobs) {
    log_sum = raw_top + std::log(kernels.sum_exp(logits.data(), n, raw_top));
    if (params.top_logprobs > 0) out.top = largest(logits, static_cast<std::size_t>(std::min(params.top_logprobs, n)));
    for (auto& item : out.top) item.second -= log_sum;
  }
  const std::vector<Scored> before = adjust(logits, params, history);
  if (mask != nullptr) forbid(logits, mask, -std::numeric_limits<float>::infinity());
  const float top = before.empty() && mask == nullptr ? raw_top : kernels.max(logits.data(), n);
  if (!std::isfinite(top)) return out;
  std::vector<float> raw;
  if (params.temperature < kGreedyTemperature) {
    out.id = first_equal(logits, top);
  } else {
    if (params.logprobs) raw.assign(logits.begin(), logits.end());
    out.id = draw(kernels, logits, top, params, uniform_at(seed, index), mask);
  }
  if (params.logprobs) {
    const auto touched = std::find_if(before.begin(), before.end(), [&](const Scored& b) { return b.first == out.id; });
    const auto at = static_cast<std::size_t>(out.id);
    out.logprob = (touched != before.end() ? touched->second : raw.empty() ? logits[at] : raw[at]) - log_sum;
  }
  out.ok = true;
  return out;
}

}  // namespace ganglion::local
