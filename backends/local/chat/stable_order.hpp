#pragma once
// A stable sort of indices by a bottom-up merge. Unlike std::sort it stays in bounds whatever the comparison says:
// values of a template (NaN, lists of mixed types) need not have a strict weak order.

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <utility>
#include <vector>

namespace ganglion::local::jinja {

// The order of 0..n-1 under less(i, j).
template <class Less>
std::vector<std::size_t> stable_order(std::size_t n, Less less) {
  std::vector<std::size_t> from(n);
  std::iota(from.begin(), from.end(), std::size_t{0});
  std::vector<std::size_t> to(n);
  for (std::size_t width = 1; width < n; width *= 2) {
    for (std::size_t begin = 0; begin < n; begin += 2 * width) {
      const std::size_t middle = std::min(begin + width, n);
      const std::size_t end = std::min(begin + 2 * width, n);
      std::size_t left = begin;
      std::size_t right = middle;
      for (std::size_t i = begin; i < end; ++i) {
        const bool take_right = left == middle || (right < end && less(from[right], from[left]));
        to[i] = from[take_right ? right++ : left++];
      }
    }
    std::swap(from, to);
  }
  return from;
}

}  // namespace ganglion::local::jinja
