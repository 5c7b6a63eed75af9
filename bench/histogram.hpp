#pragma once
// Latencies as HDR histograms keep them: log-linear buckets, every quantile within 1.6 %, whatever the range.

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace ganglion::bench {

// Log-linear: 64 sub-buckets per power of two, under 1.6 % error, from 1 ns to hours.
class Histogram {
 public:
  void add(std::int64_t ns) {
    const auto value = static_cast<std::uint64_t>(ns < 1 ? 1 : ns);
    ++counts_[index(value)];
    ++total_;
    if (value > max_) max_ = value;
  }
  std::uint64_t total() const { return total_; }
  double max_us() const { return static_cast<double>(max_) / 1e3; }
  double quantile_us(double q) const {
    if (total_ == 0) return 0;
    auto left = static_cast<std::uint64_t>(q * static_cast<double>(total_ - 1)) + 1;
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      if (counts_[i] >= left) return std::min(static_cast<double>(upper(i)) / 1e3, max_us());
      left -= counts_[i];
    }
    return max_us();
  }

 private:
  static constexpr unsigned kSubBits = 6;
  static std::size_t index(std::uint64_t value) {
    const auto width = static_cast<unsigned>(std::bit_width(value));
    if (width <= kSubBits + 1) return static_cast<std::size_t>(value);
    const unsigned shift = width - kSubBits - 1;
    return (static_cast<std::size_t>(shift) << kSubBits) + static_cast<std::size_t>(value >> shift);
  }
  static std::uint64_t upper(std::size_t index) {
    if (index < (2U << kSubBits)) return index;
    const std::size_t shift = (index >> kSubBits) - 1;
    return (((index & ((1U << kSubBits) - 1)) | (1U << kSubBits)) + 1) << shift;
  }
  std::array<std::uint64_t, (64 << kSubBits)> counts_{};
  std::uint64_t total_ = 0;
  std::uint64_t max_ = 0;
};

}  // namespace ganglion::bench
