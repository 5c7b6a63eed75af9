// The merging of BPE: always the pair of lowest rank, the leftmost of equals, until no pair is left. Two ways to the
// same result: a scan over a short word, a heap over a linked list for a long one (n log n).

#include <algorithm>

#include "backends/local/tokenizer/bpe.hpp"

namespace ganglion::local::tok {
namespace {

constexpr std::uint32_t kNoRank = ~std::uint32_t{0};

// std heap functions keep the greatest in front.
bool later(const MergeCandidate& a, const MergeCandidate& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.at > b.at;
}

}  // namespace

void Bpe::merge_short(Scratch& scratch) const {
  std::vector<std::int32_t>& symbols = scratch.symbols;
  if (symbols.size() < 2) return;
  std::vector<MergePair>& pairs = scratch.pairs;
  const auto rate = [&](std::size_t i) {
    const Merge* merge = i + 1 < pairs.size() ? merges_.find(pairs[i].id, pairs[i + 1].id) : nullptr;
    pairs[i].rank = merge != nullptr ? merge->rank : kNoRank;
    pairs[i].merged = merge != nullptr ? merge->id : -1;
  };
  pairs.clear();
  for (std::int32_t id : symbols) pairs.push_back({id, kNoRank, -1});
  for (std::size_t i = 0; i + 1 < pairs.size(); ++i) rate(i);
  while (true) {
    const auto best = std::ranges::min_element(pairs, {}, &MergePair::rank);
    if (best->rank == kNoRank) break;
    best->id = best->merged;
    const auto i = static_cast<std::size_t>(best - pairs.begin());
    pairs.erase(best + 1);
    rate(i);
    if (i > 0) rate(i - 1);
  }
  symbols.clear();
  for (const MergePair& pair : pairs) symbols.push_back(pair.id);
}

void Bpe::merge_long(Scratch& scratch) const {
  std::vector<MergeSymbol>& chain = scratch.chain;
  std::vector<MergeCandidate>& heap = scratch.heap;
  chain.clear();
  heap.clear();
  const auto count = static_cast<std::int32_t>(scratch.symbols.size());
  for (std::int32_t i = 0; i < count; ++i) {
    chain.push_back({scratch.symbols[static_cast<std::size_t>(i)], i - 1, i + 1 < count ? i + 1 : -1, true});
  }
  const auto symbol = [&](std::int32_t i) -> MergeSymbol& { return chain[static_cast<std::size_t>(i)]; };
  const auto pair_at = [&](std::int32_t i) -> const Merge* {
    return i >= 0 && symbol(i).next >= 0 ? merges_.find(symbol(i).id, symbol(symbol(i).next).id) : nullptr;
  };
  const auto push = [&](std::int32_t i) {
    if (const Merge* merge = pair_at(i)) {
      heap.push_back({merge->rank, i, merge->id});
      std::ranges::push_heap(heap, later);
    }
  };
  for (std::int32_t i = 0; i < count; ++i) {
    if (const Merge* merge = pair_at(i)) heap.push_back({merge->rank, i, merge->id});
  }
  std::ranges::make_heap(heap, later);
  while (!heap.empty()) {
    std::ranges::pop_heap(heap, later);
    const MergeCandidate top = heap.back();
    heap.pop_back();
    // The pair may have changed since it was queued.
    if (!symbol(top.at).live) continue;
    const Merge* merge = pair_at(top.at);
    if (merge == nullptr || merge->id != top.id) continue;
    const std::int32_t right = symbol(top.at).next;
    symbol(top.at).id = top.id;
    symbol(top.at).next = symbol(right).next;
    symbol(right).live = false;
    if (symbol(right).next >= 0) symbol(symbol(right).next).prev = top.at;
    push(symbol(top.at).prev);
    push(top.at);
  }
  scratch.symbols.clear();
  for (std::int32_t i = 0; i >= 0 && count > 0; i = symbol(i).next) scratch.symbols.push_back(symbol(i).id);
}

}  // namespace ganglion::local::tok
