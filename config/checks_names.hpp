#pragma once
// What checks across fields are written with: nodes by path, and the names that a list defines.

#include <algorithm>
#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "config/config.hpp"
#include "config/reader.hpp"
#include "config/units.hpp"

namespace ganglion::config {

using Step = std::variant<std::string_view, std::size_t>;

// The node at a path, or the deepest one on the way that exists.
inline const Node& at(const Node& root, const std::vector<Step>& path) {
  const Node* node = &root;
  for (const Step& step : path) {
    const Node* next = nullptr;
    if (const auto* key = std::get_if<std::string_view>(&step)) {
      next = node->find(*key);
    } else if (const std::size_t i = std::get<std::size_t>(step); node->kind == Node::Kind::list && i < node->size()) {
      next = &node->items[i];
    }
    if (next == nullptr) break;
    node = next;
  }
  return *node;
}

struct Place {
  Reader& reader;
  const Node& root;

  void error(const std::vector<Step>& path, const std::string& message) const {
    reader.error(at(root, path), written(path) + message);
  }
  void warn(const std::vector<Step>& path, const std::string& message) const {
    reader.warn(at(root, path), written(path) + message);
  }
  static std::string written(const std::vector<Step>& path) {
    std::string out;
    for (const Step& step : path) {
      if (const auto* key = std::get_if<std::string_view>(&step)) {
        out.append(out.empty() ? "" : ".").append(*key);
      } else {
        out += "[" + std::to_string(std::get<std::size_t>(step)) + "]";
      }
    }
    return out + ": ";
  }
};

// Names defined by a list, with duplicates reported. `complete` is false when an item's name could not be read: then
// a reference that is not found may be fine, and nothing is said about it.
struct Names {
  std::vector<std::string> all;
  bool complete = true;
  bool has(std::string_view name) const { return std::ranges::find(all, name) != all.end(); }
};

template <class Item, class Get>
Names names_of(const Place& place, std::string_view list, std::string_view key, const std::vector<Item>& items,
               Get get) {
  Names names;
  std::map<std::string, std::size_t> first;
  for (std::size_t i = 0; i < items.size(); ++i) {
    const std::string& name = get(items[i]);
    if (name.empty()) {
      names.complete = false;
      continue;
    }
    const auto [found, fresh] = first.emplace(name, i);
    if (fresh) {
      names.all.push_back(name);
    } else {
      const Node& before = at(place.root, {list, found->second, key});
      place.error({list, i, key}, "`" + name + "` is defined twice, first on line " + std::to_string(before.line));
    }
  }
  return names;
}

inline void check_reference(const Place& place, const std::vector<Step>& path, const Names& names,
                            const std::string& name, std::string_view what) {
  if (!names.complete || names.has(name)) return;
  place.error(path, "there is no " + std::string(what) + " `" + name + "`" + did_you_mean(name, names.all));
}

// Budgets, and what belongs to them.
void check_budgets(const Place& place, const Config& config, const Names& tenants, const Names& gateways,
                   const Names& models);

}  // namespace ganglion::config
