#pragma once
// Which pages hold what: a tree over token ids whose edges are pages (kPageTokens ids each), so that a prompt that
// begins as an earlier one did finds those keys and values computed. One tree for each space; nothing is ever found
// across spaces. The tree holds one reference of every page in it, sequences hold the others. A page that the tree
// alone holds is kept for as long as nobody needs its room; those used longest ago go first, from the ends of the
// branches.
//
// What makes this simple: whoever holds a page of the tree holds all pages before it, too. So a page that only the tree
// holds has no page after it in use, and every one of them can be had back. Engine thread only.

#include <array>
#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "backends/local/engine/page_pool.hpp"
#include "backends/local/kernels/cpu/table.hpp"

namespace ganglion::local {

class PrefixTree {
 public:
  explicit PrefixTree(PagePool& pool);
  PrefixTree(const PrefixTree&) = delete;
  PrefixTree& operator=(const PrefixTree&) = delete;

  // The longest run of known whole pages that `tokens` begin with. Each is appended to `pages`, which must be empty,
  // with a reference for the caller.
  void match(const std::string& space, std::span<const std::int32_t> tokens, std::vector<std::int32_t>& pages);

  // Makes the whole pages of `tokens`, all of them computed, known from the page number `known` on; returns how many of
  // `pages` are known now. Where another sequence was faster its page takes the place of the caller's.
  int publish(const std::string& space, std::span<const std::int32_t> tokens, std::vector<std::int32_t>& pages,
              int known);

  // A free page, or the one used longest ago of those that only the tree holds. nullopt: all are in use.
  std::optional<std::int32_t> take();
  // The caller's references; a sequence's whole table. Does not throw: a page that cannot be kept for want of memory is
  // free.
  void release(std::vector<std::int32_t>& pages);

  // Forgets what `tokens` lead to in a space that nobody else uses.
  void forget(const std::string& space, std::span<const std::int32_t> tokens);
  void forget_all();  // every page that no sequence holds; needs no memory

  int available() const { return pool_.free() + idle_; }  // what take() could give
  int idle() const { return idle_; }                      // pages that only the tree holds
  bool holds(std::int32_t page) const { return nodes_[static_cast<std::size_t>(page)].parent != kNone; }
  std::uint64_t evicted() const { return evicted_; }
  const PagePool& pool() const { return pool_; }

 private:
  // Where a page hangs: at another page (its number) or at a space's root (a negative number, never used twice).
  using Place = std::int64_t;
  static constexpr Place kNone = INT64_MIN;
  struct Node {  // of the page with the same number
    std::array<std::int32_t, kPageTokens> tokens{};
    Place parent = kNone;  // kNone: not in the tree
    std::int32_t children = 0;
    std::uint64_t used = 0;  // ascends with time
  };
  struct Root {
    std::string space;
    std::int32_t children = 0;
  };
  // (used, page): idle and without children.
  using Leaves = std::set<std::pair<std::uint64_t, std::int32_t>>;
  struct Key {
    Place parent;
    const std::int32_t* tokens;
  };
  struct Hash {
    using is_transparent = void;
    const PrefixTree* tree;
    std::size_t operator()(const Key& key) const;
    std::size_t operator()(std::int32_t page) const;
  };
  struct Equal {
    using is_transparent = void;
    const PrefixTree* tree;
    bool operator()(std::int32_t a, std::int32_t b) const { return a == b; }
    bool operator()(const Key& key, std::int32_t page) const;
    bool operator()(std::int32_t page, const Key& key) const { return (*this)(key, page); }
  };

  Node& node(std::int32_t page) { return nodes_[static_cast<std::size_t>(page)]; }
  Place root_of(const std::string& space, bool make);
  void hold(std::int32_t page);  // one reference more, by a sequence
  void let_go(std::int32_t page);
  void hang(std::int32_t page, Place parent, const std::int32_t* tokens);
  void cut(std::int32_t page);                            // a leaf that only the tree holds
  void lose_child(Place parent, Leaves::node_type leaf);  // `leaf`: to be used again, if there is one

  PagePool& pool_;
  std::vector<Node> nodes_;  // by page
  std::unordered_map<std::string, Place> spaces_;
  std::unordered_map<Place, Root> roots_;
  std::uint64_t seed_;  // of the hash: token ids are the clients' choice
  std::unordered_set<std::int32_t, Hash, Equal> known_;
  Leaves leaves_;
  int idle_ = 0;
  Place next_root_ = -1;
  std::uint64_t clock_ = 0;
  std::uint64_t evicted_ = 0;
};

}  // namespace ganglion::local
