#pragma once
// Bounded label values: the first N distinct values of a label keep their name, all later ones are "other", so that
// no client can grow the number of series. One BoundedLabel per label and process; one reader per worker.

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

namespace ganglion::metrics {

inline constexpr std::string_view kOtherLabel = "other";      // past the bound
inline constexpr std::string_view kUnknownLabel = "unknown";  // no value

// Thread-safe. Accepted values are never forgotten.
class BoundedLabel {
 public:
  static constexpr std::uint32_t kOther = 0;    // id of "other"
  static constexpr std::uint32_t kUnknown = 1;  // id of "unknown", what the empty value becomes

  explicit BoundedLabel(std::size_t values_max);
  // Ids are dense from 2 in the order of acceptance.
  std::uint32_t accept(std::string_view value);
  std::string_view text(std::uint32_t id) const { return values_[id]; }
  // Observations that went to "other".
  std::uint64_t overflows() const { return overflows_.load(std::memory_order_relaxed); }

 private:
  friend class BoundedLabelReader;
  const std::size_t capacity_;             // values_max + the two fixed ones
  std::unique_ptr<std::string[]> values_;  // written under mutex_, then published by size_
  std::atomic<std::size_t> size_{2};
  std::atomic<std::uint64_t> overflows_{0};
  std::mutex mutex_;
};

// One worker's view: a lookup is one hash of the value, without a lock unless the value is new and there is room.
class BoundedLabelReader {
 public:
  explicit BoundedLabelReader(BoundedLabel& label) : label_(&label) {}
  std::uint32_t id(std::string_view value);
  std::string_view text(std::uint32_t id) const { return label_->text(id); }

 private:
  void sync();
  BoundedLabel* label_;
  std::size_t seen_ = 2;
  std::unordered_map<std::string_view, std::uint32_t> ids_;  // keys are owned by label_
};

}  // namespace ganglion::metrics
