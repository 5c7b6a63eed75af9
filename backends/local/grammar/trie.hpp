#pragma once
// Byte strings with numbers, laid out for walking all of them at once: nodes in depth-first order, each knowing where
// its subtree ends. Immutable once made.

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace ganglion::local::grammar {

class Trie {
 public:
  struct Node {
    std::uint8_t byte;
    std::uint16_t depth;  // 1 for the first byte
    std::uint32_t after;  // the node behind this one's subtree
    std::uint32_t ids_from;
    std::uint32_t ids;  // that end here
  };

  Trie() = default;
  // Empty strings are left out; equal ones share a node.
  explicit Trie(std::vector<std::pair<std::string, std::int32_t>> entries);

  std::span<const Node> nodes() const { return nodes_; }
  std::span<const std::int32_t> ids(const Node& node) const { return std::span(ids_).subspan(node.ids_from, node.ids); }
  std::size_t bytes_held() const { return nodes_.size() * sizeof(Node) + ids_.size() * sizeof(std::int32_t); }
  int depth_max() const { return depth_max_; }

 private:
  std::vector<Node> nodes_;
  std::vector<std::int32_t> ids_;
  int depth_max_ = 0;
};

}  // namespace ganglion::local::grammar
