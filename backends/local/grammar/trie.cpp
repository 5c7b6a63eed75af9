// See trie.hpp.

#include "backends/local/grammar/trie.hpp"

#include <algorithm>

namespace ganglion::local::grammar {

Trie::Trie(std::vector<std::pair<std::string, std::int32_t>> entries) {
  std::erase_if(entries, [](const auto& e) { return e.first.empty() || e.first.size() > UINT16_MAX; });
  std::sort(entries.begin(), entries.end());
  std::vector<std::uint32_t> path;  // the nodes of the string at hand
  const auto leave = [&](std::size_t depth) {
    for (; path.size() > depth; path.pop_back()) nodes_[path.back()].after = static_cast<std::uint32_t>(nodes_.size());
  };
  std::string_view last;
  for (const auto& [text, id] : entries) {
    const auto apart = std::mismatch(text.begin(), text.end(), last.begin(), last.end());
    leave(static_cast<std::size_t>(apart.first - text.begin()));
    for (std::size_t i = path.size(); i < text.size(); ++i) {
      path.push_back(static_cast<std::uint32_t>(nodes_.size()));
      nodes_.push_back({static_cast<std::uint8_t>(text[i]), static_cast<std::uint16_t>(i + 1), 0,
                        static_cast<std::uint32_t>(ids_.size()), 0});
    }
    // Sorted: the ids of one node come one after the other, before those of its subtree.
    Node& node = nodes_[path.back()];
    if (node.ids == 0) node.ids_from = static_cast<std::uint32_t>(ids_.size());
    ++node.ids;
    ids_.push_back(id);
    depth_max_ = std::max(depth_max_, static_cast<int>(text.size()));
    last = text;
  }
  leave(0);
}

}  // namespace ganglion::local::grammar
