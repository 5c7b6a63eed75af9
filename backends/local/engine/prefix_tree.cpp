// See prefix_tree.hpp. One hash table finds a page by the place that it hangs at and its tokens.

#include "backends/local/engine/prefix_tree.hpp"

#include <algorithm>
#include <cassert>
#include <new>
#include <random>
#include <utility>

namespace ganglion::local {
namespace {

std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a ^ 0x9e3779b97f4a7c15ULL) * (b ^ 0xd6e8feb86659fd93ULL);
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

std::uint64_t random_seed() {
  std::random_device device;
  return device() | std::uint64_t{device()} << 32;
}

}  // namespace

std::size_t PrefixTree::Hash::operator()(const Key& key) const {
  std::uint64_t h = mix(tree->seed_, static_cast<std::uint64_t>(key.parent));
  for (int i = 0; i < kPageTokens; i += 2) {
    const auto low = static_cast<std::uint32_t>(key.tokens[i]), high = static_cast<std::uint32_t>(key.tokens[i + 1]);
    h = mix(h, low | std::uint64_t{high} << 32);
  }
  return h;
}

std::size_t PrefixTree::Hash::operator()(std::int32_t page) const {
  const Node& n = tree->nodes_[static_cast<std::size_t>(page)];
  return (*this)(Key{n.parent, n.tokens.data()});
}

bool PrefixTree::Equal::operator()(const Key& key, std::int32_t page) const {
  const Node& n = tree->nodes_[static_cast<std::size_t>(page)];
  return n.parent == key.parent && std::equal(n.tokens.begin(), n.tokens.end(), key.tokens);
}

PrefixTree::PrefixTree(PagePool& pool)
    : pool_(pool),
      nodes_(static_cast<std::size_t>(pool.total())),
      seed_(random_seed()),
      known_(0, Hash{this}, Equal{this}) {}

PrefixTree::Place PrefixTree::root_of(const std::string& space, bool make) {
  if (const auto found = spaces_.find(space); found != spaces_.end()) return found->second;
  if (!make) return kNone;
  const Place root = next_root_--;
  roots_.emplace(root, Root{space, 0});  // first: what a space leads to must be there
  spaces_.emplace(space, root);
  return root;
}

void PrefixTree::hold(std::int32_t page) {
  Node& n = node(page);
  if (pool_.references(page) == 1) {
    --idle_;
    if (n.children == 0) leaves_.erase({n.used, page});
  }
  pool_.retain(page);
}

void PrefixTree::let_go(std::int32_t page) {
  pool_.release(page);
  Node& n = node(page);
  if (n.parent == kNone || pool_.references(page) != 1) return;
  ++idle_;
  if (n.children > 0) return;
  try {
    leaves_.insert({n.used, page});
  } catch (const std::bad_alloc&) {  // it could not be found again when there is need
    cut(page);
  }
}

void PrefixTree::match(const std::string& space, std::span<const std::int32_t> tokens,
                       std::vector<std::int32_t>& pages) {
  assert(pages.empty());
  Place at = root_of(space, false);
  if (at == kNone) return;
  widen_table(pages, tokens.size() / kPageTokens);
  const std::uint64_t now = ++clock_;
  for (; tokens.size() >= kPageTokens; tokens = tokens.subspan(kPageTokens)) {
    const auto found = known_.find(Key{at, tokens.data()});
    if (found == known_.end()) return;
    hold(*found);
    node(*found).used = now;
    pages.push_back(*found);
    at = *found;
  }
}

// A page that goes into the tree has its one reference from the sequence, and gets the tree's.
void PrefixTree::hang(std::int32_t page, Place parent, const std::int32_t* tokens) {
  Node& n = node(page);
  std::copy_n(tokens, kPageTokens, n.tokens.begin());
  n.parent = parent;
  n.children = 0;
  n.used = clock_;
  try {
    known_.insert(page);
  } catch (const std::bad_alloc&) {
    n.parent = kNone;
    throw;
  }
  ++(parent >= 0 ? node(static_cast<std::int32_t>(parent)).children : roots_.at(parent).children);
  pool_.retain(page);
}

int PrefixTree::publish(const std::string& space, std::span<const std::int32_t> tokens,
                        std::vector<std::int32_t>& pages, int known) {
  const int whole = static_cast<int>(tokens.size()) / kPageTokens;
  if (known >= whole) return known;
  ++clock_;
  Place at = known == 0 ? root_of(space, true) : pages[static_cast<std::size_t>(known) - 1];
  for (; known < whole; ++known) {
    std::int32_t& page = pages[static_cast<std::size_t>(known)];
    const std::int32_t* ids = tokens.data() + static_cast<std::ptrdiff_t>(known) * kPageTokens;
    if (const auto found = known_.find(Key{at, ids}); found != known_.end()) {
      hold(*found);
      node(*found).used = clock_;
      pool_.release(page);
      page = *found;
    } else {
      hang(page, at, ids);
    }
    at = page;
  }
  return known;
}

std::optional<std::int32_t> PrefixTree::take() {
  if (pool_.free() == 0) {
    if (leaves_.empty()) return std::nullopt;
    cut(leaves_.begin()->second);
    ++evicted_;
  }
  return pool_.take();
}

void PrefixTree::release(std::vector<std::int32_t>& pages) {
  ++clock_;
  for (auto page = pages.rbegin(); page != pages.rend(); ++page) {
    if (holds(*page)) node(*page).used = clock_;
    let_go(*page);
  }
  pages.clear();
}

void PrefixTree::lose_child(Place parent, Leaves::node_type leaf) {
  if (parent < 0) {
    const auto root = roots_.find(parent);
    if (--root->second.children > 0) return;
    spaces_.erase(root->second.space);
    roots_.erase(root);
    return;
  }
  const auto page = static_cast<std::int32_t>(parent);
  Node& n = node(page);
  if (--n.children > 0 || pool_.references(page) != 1) return;
  if (leaf.empty()) {
    leaves_.insert({n.used, page});
    return;
  }
  leaf.value() = {n.used, page};
  leaves_.insert(std::move(leaf));
}

void PrefixTree::cut(std::int32_t page) {
  Node& n = node(page);
  auto leaf = leaves_.extract(std::pair{n.used, page});
  known_.erase(page);
  const Place parent = std::exchange(n.parent, kNone);
  --idle_;
  pool_.release(page);
  lose_child(parent, std::move(leaf));
}

void PrefixTree::forget(const std::string& space, std::span<const std::int32_t> tokens) {
  std::vector<std::int32_t> pages, chain;
  chain.reserve(tokens.size() / kPageTokens);
  match(space, tokens, pages);
  chain.assign(pages.begin(), pages.end());
  release(pages);
  for (auto page = chain.rbegin(); page != chain.rend(); ++page) {
    if (pool_.references(*page) == 1 && node(*page).children == 0) cut(*page);
  }
}

void PrefixTree::forget_all() {
  while (!leaves_.empty()) cut(leaves_.begin()->second);
}

}  // namespace ganglion::local
