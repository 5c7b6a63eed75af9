// Append-only array of accepted values: readers follow its published size without a lock.

#include "metrics/bounded_label.hpp"

#include <algorithm>

namespace ganglion::metrics {

BoundedLabel::BoundedLabel(std::size_t values_max)
    : capacity_(values_max + 2), values_(std::make_unique<std::string[]>(values_max + 2)) {
  values_[kOther] = kOtherLabel;
  values_[kUnknown] = kUnknownLabel;
}

std::uint32_t BoundedLabel::accept(std::string_view value) {
  if (value.empty() || value == kUnknownLabel) return kUnknown;
  if (value == kOtherLabel) return kOther;
  const std::lock_guard lock(mutex_);
  const std::size_t size = size_.load(std::memory_order_relaxed);
  const std::string* const begin = values_.get();
  const std::string* const end = begin + size;
  const std::string* const found = std::find(begin, end, value);
  if (found != end) return static_cast<std::uint32_t>(found - begin);
  if (size == capacity_) {
    overflows_.fetch_add(1, std::memory_order_relaxed);
    return kOther;
  }
  values_[size] = value;
  size_.store(size + 1, std::memory_order_release);
  return static_cast<std::uint32_t>(size);
}

std::uint32_t BoundedLabelReader::id(std::string_view value) {
  if (value.empty()) return BoundedLabel::kUnknown;
  if (const auto found = ids_.find(value); found != ids_.end()) return found->second;
  sync();
  if (const auto found = ids_.find(value); found != ids_.end()) return found->second;
  if (seen_ == label_->capacity_) {  // full, and this reader knows every value
    label_->overflows_.fetch_add(1, std::memory_order_relaxed);
    return BoundedLabel::kOther;
  }
  const std::uint32_t id = label_->accept(value);
  sync();
  return id;
}

void BoundedLabelReader::sync() {
  const std::size_t size = label_->size_.load(std::memory_order_acquire);
  for (; seen_ < size; ++seen_) ids_.emplace(label_->values_[seen_], static_cast<std::uint32_t>(seen_));
}

}  // namespace ganglion::metrics
