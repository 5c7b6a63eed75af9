#pragma once
// A YAML document as a plain tree with the place of every node. Duplicate keys are kept, so that they can be
// reported; anchors are resolved into copies.

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/diagnostic.hpp"

namespace ganglion::config {

struct Node {
  enum class Kind : std::uint8_t { null, scalar, list, map };

  Kind kind = Kind::null;
  int line = 0;    // from 1
  int column = 0;  // from 1
  bool quoted = false;
  std::string text;         // scalar
  std::vector<Node> items;  // list; of a map: key, value, key, value, ...

  std::size_t size() const { return kind == Kind::map ? items.size() / 2 : items.size(); }
  const Node& key(std::size_t i) const { return items[2 * i]; }
  const Node& value(std::size_t i) const { return items[2 * i + 1]; }
  // The first entry of that name; nullptr: none, or not a map.
  const Node* find(std::string_view name) const;
};

std::string_view kind_name(const Node& node);

// The document, or the one syntax error that stopped the parser. An empty document is an empty map.
std::expected<Node, Diagnostic> parse_yaml(std::string_view text, const std::string& file);

}  // namespace ganglion::config
