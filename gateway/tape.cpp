// See gateway/tape.hpp.

#include "gateway/tape.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <iterator>

namespace ganglion::gateway {
namespace {

constexpr std::size_t kBytesAtFirst = 500;  // an answer of some fifty tokens asks for memory once
constexpr std::size_t kNumberBytesMax = 10;

// Seven bits a byte, least significant first. Returns the end.
char* put(char* to, std::size_t value) {
  for (; value >= 0x80; value >>= 7) *to++ = static_cast<char>(value | 0x80);
  *to++ = static_cast<char>(value);
  return to;
}

std::uint64_t differing_bits(const char* a, const char* b) {
  std::uint64_t words[2];
  std::memcpy(&words[0], a, sizeof words[0]);
  std::memcpy(&words[1], b, sizeof words[1]);
  return words[0] ^ words[1];
}

// How many of the first, or last, `most` bytes are the same: not less than `likely`, as a rule.
std::size_t shared_ahead(std::string_view a, std::string_view b, std::size_t most, std::size_t likely) {
  std::size_t n = likely <= most && std::memcmp(a.data(), b.data(), likely) == 0 ? likely : 0;
  for (; most - n >= 8; n += 8) {
    if (const std::uint64_t bits = differing_bits(a.data() + n, b.data() + n); bits != 0) {
      const int same = std::endian::native == std::endian::little ? std::countr_zero(bits) : std::countl_zero(bits);
      return n + static_cast<std::size_t>(same) / 8;
    }
  }
  while (n < most && a[n] == b[n]) ++n;
  return n;
}

std::size_t shared_behind(std::string_view a, std::string_view b, std::size_t most, std::size_t likely) {
  std::size_t n = likely <= most && a.substr(a.size() - likely) == b.substr(b.size() - likely) ? likely : 0;
  for (; most - n >= 8; n += 8) {
    const char* const end = a.data() + a.size() - n;
    if (const std::uint64_t bits = differing_bits(end - 8, b.data() + b.size() - n - 8); bits != 0) {
      const int same = std::endian::native == std::endian::little ? std::countl_zero(bits) : std::countr_zero(bits);
      return n + static_cast<std::size_t>(same) / 8;
    }
  }
  while (n < most && a[a.size() - 1 - n] == b[b.size() - 1 - n]) ++n;
  return n;
}

std::size_t get(std::string_view& in) {
  std::size_t value = 0;
  for (unsigned shift = 0;; shift += 7) {
    const auto byte = static_cast<unsigned char>(in.front());
    in.remove_prefix(1);
    value |= static_cast<std::size_t>(byte & 0x7F) << shift;
    if (byte < 0x80) return value;
  }
}

}  // namespace

void Tape::keep(std::string_view event) {
  if (full_) return;
  event_bytes_ += event.size();
  if (first_.empty()) {
    first_ = event;
    rest_.reserve(kBytesAtFirst);
    return;
  }
  if (event_bytes_ > kEventBytesMax) {
    full_ = true;
    std::string{}.swap(rest_);  // its memory too
    return;
  }
  const std::size_t most = std::min(first_.size(), event.size());
  const std::size_t ahead = shared_ahead(first_, event, most, likely_ahead_);
  const std::size_t behind = shared_behind(first_, event, most - ahead, likely_behind_);
  likely_ahead_ = std::min(ahead, likely_ahead_ == 0 ? ahead : likely_ahead_);
  likely_behind_ = std::min(behind, likely_behind_ == 0 ? behind : likely_behind_);
  const std::string_view own = event.substr(ahead, event.size() - ahead - behind);
  char entry[3 * kNumberBytesMax + 64];
  char* end = put(put(put(entry, ahead), behind), own.size());
  if (own.size() <= static_cast<std::size_t>(std::end(entry) - end)) {
    rest_.append(entry, std::copy(own.begin(), own.end(), end));
  } else {
    rest_.append(entry, end);
    rest_ += own;
  }
}

std::string Tape::events() const {
  std::string out = first_;
  for (std::string_view left = rest_; !left.empty();) {
    const std::size_t ahead = get(left);
    const std::size_t behind = get(left);
    const std::size_t own = get(left);
    out.append(first_, 0, ahead);
    out.append(left.substr(0, own));
    left.remove_prefix(own);
    out.append(first_, first_.size() - behind, behind);
  }
  return out;
}

}  // namespace ganglion::gateway
