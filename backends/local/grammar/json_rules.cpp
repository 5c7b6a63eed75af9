// See json_rules.hpp.

#include "backends/local/grammar/json_rules.hpp"

#include <algorithm>
#include <map>

#include "backends/local/grammar/characters.hpp"
#include "backends/local/grammar/explore.hpp"
#include "backends/local/grammar/numbers.hpp"
#include "backends/local/grammar/pattern.hpp"

namespace ganglion::local::grammar {

using core::Result;

namespace {

// Makes a rule once: `make` defines it.
template <class Make>
Result<RuleId> once(AutomatonBuilder& builder, std::optional<RuleId>& known, Make make) {
  if (known) return *known;
  auto id = builder.declare();
  if (!id) return id;
  known = *id;
  if (Result<void> ok = make(*id); !ok) return std::unexpected(ok.error());
  return *id;
}

}  // namespace

Result<RuleId> JsonRules::string() {
  return once(builder_, string_, [&](RuleId id) {
    RuleGraph g;
    const auto inside = g.add(), end = g.add();
    g.byte(0, inside, '"');
    add_any_spelling(g, inside, inside, {});
    g.byte(inside, end, '"');
    g.end(end);
    return builder_.define(id, g);
  });
}

Result<RuleId> JsonRules::number() {
  return once(builder_, number_, [&](RuleId id) -> Result<void> {
    auto table = number_table(builder_, {});
    if (!table) return std::unexpected(table.error());
    return builder_.define(id, *table);
  });
}

Result<RuleId> JsonRules::integer() {
  return once(builder_, integer_, [&](RuleId id) -> Result<void> {
    NumberSpec spec;
    spec.integer = true;
    auto table = number_table(builder_, spec);
    if (!table) return std::unexpected(table.error());
    return builder_.define(id, *table);
  });
}

Result<RuleId> JsonRules::boolean() {
  return once(builder_, boolean_, [&](RuleId id) {
    RuleGraph g;
    const auto end = g.add();
    g.text(0, end, "true");
    g.text(0, end, "false");
    g.end(end);
    return builder_.define(id, g);
  });
}

Result<RuleId> JsonRules::null() {
  return once(builder_, null_, [&](RuleId id) {
    RuleGraph g;
    const auto end = g.add();
    g.text(0, end, "null");
    g.end(end);
    return builder_.define(id, g);
  });
}

Result<RuleId> JsonRules::never() {
  return once(builder_, never_, [&](RuleId id) { return builder_.define(id, RuleGraph()); });
}

Result<RuleId> JsonRules::key(const std::vector<std::string>& but) {
  if (but.empty()) return string();
  if (!strings_) {
    auto all = any_string_table(builder_);
    if (!all) return std::unexpected(all.error());
    strings_ = std::move(*all);
  }
  // A tree of the names that are left out, walked beside all strings.
  std::vector<std::map<std::uint8_t, std::uint32_t>> next(1);
  std::vector<bool> ends(1, false);
  for (const std::string& name : but) {
    std::uint32_t at = 0;
    for (const char c : spelled(name)) {
      const auto [to, fresh] =
          next[at].try_emplace(static_cast<std::uint8_t>(c), static_cast<std::uint32_t>(next.size()));
      at = to->second;
      if (fresh) next.emplace_back(), ends.push_back(false);
    }
    ends[at] = true;
  }
  struct Key {
    enum Part : std::uint8_t { before, inside, behind } part;
    std::uint32_t row, node;  // node kNoLimit: none of the names any more
    auto operator<=>(const Key&) const = default;
  };
  auto table = explore(
      builder_, Key{Key::before, 0, 0},
      [&](const Key& k, std::uint8_t byte) -> std::optional<Key> {
        if (k.part == Key::before) return byte == '"' ? std::optional(Key{Key::inside, 0, 0}) : std::nullopt;
        if (k.part == Key::behind) return std::nullopt;
        if (byte == '"' && strings_->rows[k.row].final) {
          if (k.node != kNoLimit && ends[k.node]) return std::nullopt;
          return Key{Key::behind, 0, 0};
        }
        const std::uint32_t row = strings_->rows[k.row].next[byte];
        if (row == ByteTable::kNone) return std::nullopt;
        std::uint32_t node = kNoLimit;
        if (k.node != kNoLimit) {
          if (const auto to = next[k.node].find(byte); to != next[k.node].end()) node = to->second;
        }
        return Key{Key::inside, row, node};
      },
      [](const Key& k) { return k.part == Key::behind; });
  if (!table) return std::unexpected(table.error());
  auto id = builder_.declare();
  if (!id) return id;
  if (auto ok = builder_.define(*id, *table); !ok) return std::unexpected(ok.error());
  return *id;
}

Result<void> JsonRules::space(RuleGraph& graph, std::uint32_t from, std::uint32_t to, CountOp op) {
  auto indent = once(builder_, indent_, [&](RuleId id) {
    RuleGraph g;
    const CountOp count{CountOp::Kind::below, kIndentMax};
    g.byte(0, 0, ' ', count);
    g.byte(0, 0, '\t', count);
    g.end(0);
    return builder_.define(id, g);
  });
  if (!indent) return std::unexpected(indent.error());
  const auto line = graph.add();
  graph.byte(from, to, ' ', op);
  graph.byte(from, line, '\n', op);
  graph.call(line, to, *indent);
  return {};
}

Result<void> JsonRules::space_and(RuleGraph& graph, std::uint32_t from, std::uint32_t to, char c, CountOp op) {
  const auto behind = graph.add();
  if (auto ok = space(graph, from, behind, op); !ok) return ok;
  graph.byte(from, to, c, op);
  graph.byte(behind, to, c);
  return {};
}

Result<RuleId> JsonRules::any_value() {
  if (!value_) {
    if (auto ok = define_values(); !ok) return std::unexpected(ok.error());
  }
  return *value_;
}

Result<RuleId> JsonRules::any_object() {
  if (!object_) {
    if (auto ok = define_values(); !ok) return std::unexpected(ok.error());
  }
  return *object_;
}

Result<void> JsonRules::define_values() {
  for (auto* rule : {&value_, &object_, &array_}) {
    auto id = builder_.declare();
    if (!id) return std::unexpected(id.error());
    *rule = *id;
  }
  RuleGraph value;
  const auto value_end = value.add();
  value.end(value_end);
  for (const auto& part : {string(), number(), boolean(), null()}) {
    if (!part) return std::unexpected(part.error());
    value.call(0, value_end, *part);
  }
  value.call(0, value_end, *object_), value.call(0, value_end, *array_);
  // [ (item (, item)*)? ] and the same with "key": before each item.
  RuleGraph array, object;
  Result<void> ok;
  for (const bool keyed : {false, true}) {
    RuleGraph& g = keyed ? object : array;
    const auto open = g.add(), item = g.add(), behind = g.add(), comma = g.add(), end = g.add();
    const char closing = keyed ? '}' : ']';
    g.byte(0, open, keyed ? '{' : '[');
    if (ok) ok = space(g, open, item);
    g.empty(open, item);
    if (ok) ok = space_and(g, open, end, closing);
    if (keyed) {
      const auto colon = g.add(), before = g.add(), content = g.add();
      g.call(item, colon, *string_);
      g.byte(colon, before, ':');
      if (ok) ok = space(g, before, content);
      g.empty(before, content);
      g.call(content, behind, *value_);
    } else {
      g.call(item, behind, *value_);
    }
    g.byte(behind, comma, ',');
    if (ok) ok = space(g, comma, item);
    g.empty(comma, item);
    if (ok) ok = space_and(g, behind, end, closing);
    g.end(end);
  }
  if (ok) ok = builder_.define(*value_, value);
  if (ok) ok = builder_.define(*array_, array, true);
  if (ok) ok = builder_.define(*object_, object, true);
  return ok;
}

}  // namespace ganglion::local::grammar
