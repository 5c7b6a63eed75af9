// See gateway/tape.hpp.

#include "gateway/tape.hpp"

#include <algorithm>

namespace ganglion::gateway {
namespace {

// Seven bits a byte, least significant first.
void put(std::string& out, std::size_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
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
    return;
  }
  if (event_bytes_ > kEventBytesMax) {
    full_ = true;
    std::string{}.swap(rest_);  // its memory too
    return;
  }
  const std::size_t most = std::min(first_.size(), event.size());
  const auto ahead = static_cast<std::size_t>(
      std::mismatch(event.begin(), event.begin() + static_cast<std::ptrdiff_t>(most), first_.begin()).first -
      event.begin());
  const auto behind = static_cast<std::size_t>(
      std::mismatch(event.rbegin(), event.rbegin() + static_cast<std::ptrdiff_t>(most - ahead), first_.rbegin()).first -
      event.rbegin());
  put(rest_, ahead);
  put(rest_, behind);
  put(rest_, event.size() - ahead - behind);
  rest_ += event.substr(ahead, event.size() - ahead - behind);
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
