#pragma once
// For tests that need a GPU: they are skipped, saying so, where there is none. Typed device arrays, random input, and
// readings of the packed weight formats that share nothing with the kernels.

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "backends/local/device/arena.hpp"
#include "backends/local/device/devices.hpp"
#include "backends/local/device/status.hpp"
#include "backends/local/device/stream.hpp"
#include "backends/local/kernels/cuda/kernels.hpp"
#include "backends/local/kernels/reference.hpp"

namespace ganglion::local {

class DeviceTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto found = find_devices();
    if (!found) GTEST_SKIP() << found.error().message;
    arena = std::make_unique<Arena>(found->front().index);
    auto made = make_stream();
    ASSERT_TRUE(made) << made.error().message;
    stream = std::move(*made);
    multiprocessors = found->front().multiprocessors;
    capability = 10 * found->front().major + found->front().minor;
  }
  // Launches are checked, then waited for.
  void run(cudaError_t status) {
    ASSERT_EQ(cudaGetErrorName(status), std::string(cudaGetErrorName(cudaSuccess)));
    const auto done = cudaStreamSynchronize(stream.get());
    ASSERT_EQ(cudaGetErrorName(done), std::string(cudaGetErrorName(cudaSuccess)));
  }
  cuda::Queue queue() const { return {stream.get(), false}; }

  DeviceBuffer room(std::size_t bytes, int poison = 0xff) {
    auto buffer = arena->take(bytes, "a test");
    EXPECT_TRUE(buffer);
    cudaMemset(buffer->data(), poison, bytes);
    cudaDeviceSynchronize();  // it need not be done, and the test's stream would not wait for it
    return std::move(*buffer);
  }
  template <class T>
  DeviceBuffer up(const std::vector<T>& values) {
    auto buffer = room(std::max<std::size_t>(values.size() * sizeof(T), 1));
    cudaMemcpy(buffer.data(), values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice);
    cudaDeviceSynchronize();
    return buffer;
  }
  template <class T>
  std::vector<T> down(const void* from, std::size_t count) {
    std::vector<T> out(count);
    EXPECT_EQ(cudaMemcpy(out.data(), from, count * sizeof(T), cudaMemcpyDeviceToHost), cudaSuccess);
    return out;
  }
  std::vector<float> normal(std::size_t count, float deviation) {
    std::normal_distribution<float> draw(0.0f, deviation);
    std::vector<float> out(count);
    for (float& v : out) v = draw(random);
    return out;
  }

  int multiprocessors = 0, capability = 0;
  std::unique_ptr<Arena> arena;
  Stream stream;
  std::mt19937 random{std::random_device{}()};
};

inline std::vector<std::uint16_t> to_bf16(const std::vector<float>& values) {
  std::vector<std::uint16_t> out;
  for (float v : values) out.push_back(reference::bf16_bits(v));
  return out;
}
inline float bf16_value(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}
inline double fp8_value(std::uint8_t bits) {
  const int exponent = bits >> 3 & 15, mantissa = bits & 7;
  const double size = exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
  return (bits & 0x80) != 0 ? -size : size;
}

template <class A, class B>
double relative_l2(const std::vector<A>& got, const std::vector<B>& want) {
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    difference += std::pow(static_cast<double>(got[i]) - static_cast<double>(want[i]), 2);
    size += std::pow(static_cast<double>(want[i]), 2);
  }
  return std::sqrt(difference / size);
}

}  // namespace ganglion::local
