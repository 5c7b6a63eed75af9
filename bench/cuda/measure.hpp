#pragma once
// What all parts of the GPU benchmark share: errors that end the program, medians, a step's time, formats' names, and
// the 7 B shape.

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "backends/local/device/stream.hpp"
#include "backends/local/models/cuda/cuda_decoder.hpp"

namespace ganglion::local::bench {

[[noreturn]] inline void die(const std::string& what) {
  std::printf("FAILED: %s\n", what.c_str());
  std::exit(1);
}

inline void must(cudaError_t status, const char* what) {
  if (status != cudaSuccess) die(std::string(what) + ": " + cudaGetErrorName(status));
}

template <class T>
T must(core::Result<T> result) {
  if (!result) die(result.error().message);
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

inline double median(std::vector<double> v) {
  std::ranges::sort(v);
  return v[v.size() / 2];
}

// Median milliseconds of one of the `times` calls that `work` queues on the stream; the first `warm` rounds do not
// count.
template <class Work>
double ms_each(cudaStream_t stream, int times, int warm, int rounds, const Work& work) {
  const Event begin = must(make_event(true, false)), end = must(make_event(true, false));
  std::vector<double> ms;
  for (int i = 0; i < warm + rounds; ++i) {
    must(cudaEventRecord(begin.get(), stream), "event");
    work();
    must(cudaEventRecord(end.get(), stream), "event");
    must(cudaEventSynchronize(end.get()), "work");
    float t = 0;
    must(cudaEventElapsedTime(&t, begin.get(), end.get()), "event");
    if (i >= warm) ms.push_back(static_cast<double>(t) / times);
  }
  return median(std::move(ms));
}

// Milliseconds of the device for a step; the first four load and capture what they need. slices_of(i) is the i-th
// step's input, and valid until the next one.
template <class SlicesOf>
double step_ms(CudaDecoder& d, int steps, const SlicesOf& slices_of) {
  std::vector<double> ms;
  for (int i = 0; i < steps; ++i) {
    must(d.submit(slices_of(i)));
    must(d.collect());
    if (i > 3) ms.push_back(d.last_step_ms());
  }
  return median(std::move(ms));
}

inline ModelConfig llama_2_7b(int layers) {
  ModelConfig c;
  c.vocab_size = 32'000, c.hidden_size = 4'096, c.layers = layers, c.heads = c.kv_heads = 32, c.head_dim = 128;
  c.intermediate_size = 11'008, c.max_position = 4'096;
  return c;
}

inline const char* name_of(cuda::Format f) {
  constexpr const char* kNames[] = {"bf16", "int8", "fp8", "int4"};
  return kNames[static_cast<int>(f)];
}
inline const char* kv_name(cuda::KvFormat format) {
  switch (format) {
    case cuda::KvFormat::bf16:
      return " kvb16";
    case cuda::KvFormat::fp8:
      return " kv8";
    case cuda::KvFormat::int8:
      return " kvi8";
    case cuda::KvFormat::fp16:
      break;
  }
  return "";
}

}  // namespace ganglion::local::bench
