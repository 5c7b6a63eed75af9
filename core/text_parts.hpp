#pragma once
// A text that lies in a few places: what is spliced is not copied together.

#include <array>
#include <concepts>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace ganglion::core {

// Borrows every part.
class TextParts {
 public:
  static constexpr std::size_t kPartsMax = 7;

  TextParts() = default;
  template <std::convertible_to<std::string_view> Text>
  TextParts(const Text& whole) {  // NOLINT(google-explicit-constructor): a text is one part
    add(whole);
  }

  // At most kPartsMax that are not empty.
  void add(std::string_view part) {
    if (part.empty()) return;
    parts_.at(count_++) = part;
    size_ += part.size();
  }

  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  std::span<const std::string_view> parts() const { return std::span{parts_}.first(count_); }

  // All of it: the only part, or put together in `out`, whose old content is replaced.
  std::string_view whole(std::string& out) const {
    if (count_ <= 1) return parts_.front();
    out.clear();
    out.reserve(size_);
    for (const std::string_view part : parts()) out.append(part);
    return out;
  }

 private:
  std::array<std::string_view, kPartsMax> parts_;
  std::size_t count_ = 0;
  std::size_t size_ = 0;
};

}  // namespace ganglion::core
