// From conditions to rules. See schema.hpp.

#include "backends/local/grammar/schema.hpp"

#include <algorithm>
#include <functional>
#include <utility>

#include "backends/local/grammar/characters.hpp"
#include "backends/local/grammar/explore.hpp"
#include "backends/local/grammar/pattern.hpp"
#include "backends/local/grammar/schema_parts.hpp"

namespace ganglion::local::grammar {
namespace {

using core::ErrorKind;
using core::Result;

// Schemas within each other, references followed, and choices among alternatives that must hold together: each takes
// some of the compiling thread's stack.
constexpr int kRulesDeepMax = 300;

const Json& nothing() {
  static const Json schema = false;
  return schema;
}

class Compiler {
 public:
  Compiler(AutomatonBuilder& builder, JsonRules& json, const Json& root, const SchemaOptions& options)
      : builder_(builder), json_(json), reader_(root, builder), options_(options) {}

  Result<RuleId> rule(Schemas schemas) {
    if (schemas.empty()) return json_.any_value();
    std::sort(schemas.begin(), schemas.end());
    if (const auto known = known_.find(schemas); known != known_.end()) return known->second;
    auto id = builder_.declare();
    if (!id) return id;
    known_[schemas] = *id;
    Conditions conditions;
    for (const Json* s : schemas) {
      if (auto ok = reader_.absorb(conditions, *s); !ok) return std::unexpected(ok.error());
    }
    const std::string outside = std::exchange(place_, reader_.place(*schemas.front()));
    const auto ok = define(*id, std::move(conditions));
    place_ = outside;
    if (!ok) return std::unexpected(ok.error());
    return *id;
  }

 private:
  using Make = std::function<Result<void>(RuleId)>;

  Result<void> define(RuleId id, Conditions c);
  Result<void> define_within(RuleId id, Conditions c);
  Result<void> define_group(RuleId id, Conditions c);
  Result<void> define_values(RuleId id, const Conditions& c);
  Result<void> define_number(RuleId id, const Conditions& c);
  Result<void> define_string(RuleId id, const Conditions& c);
  Result<void> define_array(RuleId id, const Conditions& c);
  Result<void> define_object(RuleId id, Conditions c);
  Result<void> constant(RuleGraph& g, std::uint32_t from, std::uint32_t to, const Json& value);
  Result<bool> holds(const Conditions& c, const Json& value);
  Result<std::vector<ByteTable>> tables(const std::vector<std::string>& patterns);

  Result<void> same_as(RuleId id, Result<RuleId> other) {
    if (!other) return std::unexpected(other.error());
    RuleGraph g;
    const auto end = g.add();
    g.call(0, end, *other);
    g.end(end);
    return builder_.define(id, g);
  }

  AutomatonBuilder& builder_;
  JsonRules& json_;
  SchemaReader reader_;
  SchemaOptions options_;
  std::map<Schemas, RuleId> known_;
  std::string place_;  // of the schema at hand, for messages
  int depth_ = 0;
};

Result<void> Compiler::define(RuleId id, Conditions c) {
  if (depth_ > kRulesDeepMax) {
    return core::fail(ErrorKind::invalid_value, "the schema is nested too deeply at " + place_);
  }
  ++depth_;
  auto ok = define_within(id, std::move(c));
  --depth_;
  return ok;
}

Result<void> Compiler::define_within(RuleId id, Conditions c) {
  if (auto ok = builder_.spend(2'000); !ok) return ok;
  if (!c.groups.empty()) return define_group(id, std::move(c));
  if (!c.typed && c.mentioned != 0) c.types &= c.mentioned;
  if (c.values) return define_values(id, c);
  if (c.types == kAnyType && c.mentioned == 0) return same_as(id, json_.any_value());
  std::vector<Make> makes;
  if ((c.types & kNull) != 0) makes.emplace_back([&](RuleId r) { return same_as(r, json_.null()); });
  if ((c.types & kBoolean) != 0) makes.emplace_back([&](RuleId r) { return same_as(r, json_.boolean()); });
  if ((c.types & kNumber) != 0) makes.emplace_back([&](RuleId r) { return define_number(r, c); });
  if ((c.types & kString) != 0) makes.emplace_back([&](RuleId r) { return define_string(r, c); });
  if ((c.types & kArray) != 0) makes.emplace_back([&](RuleId r) { return define_array(r, c); });
  if ((c.types & kObject) != 0) makes.emplace_back([&](RuleId r) { return define_object(r, c); });
  if (makes.empty()) return same_as(id, json_.never());
  if (makes.size() == 1) return makes.front()(id);
  RuleGraph g;
  const auto end = g.add();
  g.end(end);
  for (const Make& make : makes) {
    auto part = builder_.declare();
    if (!part) return std::unexpected(part.error());
    if (auto ok = make(*part); !ok) return ok;
    g.call(0, end, *part);
  }
  return builder_.define(id, g);
}

// One rule for each alternative, with all else that must hold.
Result<void> Compiler::define_group(RuleId id, Conditions c) {
  const Conditions::Group group = std::move(c.groups.front());  // in order: their properties come in that order too
  c.groups.erase(c.groups.begin());
  if (group.exclusive) {
    for (std::size_t i = 0; i < group.alternatives.size(); ++i) {
      for (std::size_t j = 0; j < i; ++j) {
        if (auto ok = builder_.spend(2'000); !ok) return ok;
        if (apart(reader_, {group.alternatives[i]}, {group.alternatives[j]})) continue;
        return core::fail(ErrorKind::unsupported, "the schema's " + group.where + " has alternatives " +
                                                      std::to_string(j) + " and " + std::to_string(i) +
                                                      " that one value might satisfy both; use anyOf, or a required "
                                                      "property with different constants");
      }
    }
  }
  RuleGraph g;
  const auto end = g.add();
  g.end(end);
  // Where nothing else must hold the alternatives are rules that others may use too.
  const bool alone = c.types == kAnyType && !c.typed && c.mentioned == 0 && c.groups.empty();
  for (const Json* alternative : group.alternatives) {
    Result<RuleId> part = alone ? rule({alternative}) : builder_.declare();
    if (!part) return std::unexpected(part.error());
    g.call(0, end, *part);
    if (alone) continue;
    Conditions both = c;
    if (auto ok = reader_.absorb(both, *alternative); !ok) return ok;
    if (auto ok = define(*part, std::move(both)); !ok) return ok;
  }
  return builder_.define(id, g);
}

Result<bool> Compiler::holds(const Conditions& c, const Json& value) {
  if (value.is_number()) {
    const auto number = Decimal::parse(value.dump());
    const bool whole = number && number->fraction.empty();
    if (number && (c.types & (whole ? kNumber : kFraction)) == 0) return false;
    const bool limits =
        c.number.minimum || c.number.maximum || c.number.multiple_of != 0 || c.number.fraction_max != kFractionMax;
    if (!limits) return (c.types & (value.is_number_integer() ? kInteger : kNumber)) != 0;
    if (!number)
      return core::fail(ErrorKind::unsupported, "the schema's " + place_ + " bounds a constant of more than 40 digits");
    if (static_cast<int>(number->fraction.size()) > c.number.fraction_max || !within(*number, c.number)) return false;
    if (c.number.multiple_of == 0) return true;
    std::uint32_t rest = 0;
    for (const char d : number->whole) rest = (rest * 10 + static_cast<std::uint32_t>(d - '0')) % c.number.multiple_of;
    return whole && rest == 0;
  }
  const unsigned type = value.is_null()      ? kNull
                        : value.is_boolean() ? kBoolean
                        : value.is_string()  ? kString
                        : value.is_array()   ? kArray
                                             : kObject;
  if ((c.types & type) == 0) return false;
  if ((type & (kArray | kObject)) != 0 && (c.mentioned & type) != 0) {
    return core::fail(
        ErrorKind::unsupported,
        "the schema's " + place_ + " restricts constant arrays or objects further, which is not supported");
  }
  if (type != kString) return true;
  const std::string text = spelled(value.get_ref<const std::string&>());
  auto all = tables(c.patterns);
  if (!all) return std::unexpected(all.error());
  for (const ByteTable& table : *all) {
    std::uint32_t at = 0;
    for (const char b : text) {
      if (at != ByteTable::kNone) at = table.rows[at].next[static_cast<std::uint8_t>(b)];
    }
    if (at == ByteTable::kNone || !table.rows[at].final) return false;
  }
  std::size_t length = 0;
  for (const char b : value.get_ref<const std::string&>()) length += (static_cast<unsigned char>(b) & 0xC0) != 0x80;
  return length >= c.length_min && length <= c.length_max;
}

Result<void> Compiler::define_values(RuleId id, const Conditions& c) {
  RuleGraph g;
  const auto end = g.add();
  g.end(end);
  Result<void> ok;
  for (const Json& value : *c.values) {
    auto good = holds(c, value);
    if (!good) return std::unexpected(good.error());
    if (*good) ok = constant(g, 0, end, value);
    if (!ok) return ok;
  }
  return builder_.define(id, g);
}

// The value's text; between its parts white space as anywhere.
Result<void> Compiler::constant(RuleGraph& g, std::uint32_t from, std::uint32_t to, const Json& value) {
  if (auto ok = builder_.spend(100); !ok) return ok;
  if (!value.is_structured() || value.empty()) {
    g.text(from, to, value.dump());
    return {};
  }
  Result<void> ok;
  auto at = g.add();
  g.byte(from, at, value.is_array() ? '[' : '{');
  const auto spaced = [&](std::uint32_t before) {
    const auto behind = g.add();
    if (ok) ok = json_.space(g, before, behind);
    g.empty(before, behind);
    return behind;
  };
  bool first = true;
  for (const auto& [key, part] : value.items()) {
    if (!std::exchange(first, false)) {
      const auto comma = g.add();
      g.byte(at, comma, ',');
      at = comma;
    }
    at = spaced(at);
    if (value.is_object()) {
      const auto colon = g.add();
      g.text(at, colon, '"' + spelled(key) + "\":");
      at = spaced(colon);
    }
    const auto behind = g.add();
    if (ok) ok = constant(g, at, behind, part);
    at = behind;
  }
  if (ok) ok = json_.space_and(g, at, to, value.is_array() ? ']' : '}');
  return ok;
}

Result<void> Compiler::define_number(RuleId id, const Conditions& c) {
  NumberSpec spec = c.number;
  spec.integer = (c.types & kFraction) == 0 || spec.multiple_of != 0;
  const bool plain = !spec.minimum && !spec.maximum && spec.multiple_of == 0 && spec.fraction_max == kFractionMax;
  if (plain) return same_as(id, spec.integer ? json_.integer() : json_.number());
  auto table = number_table(builder_, spec);
  if (!table) return std::unexpected(table.error());
  return builder_.define(id, *table);
}

Result<std::vector<ByteTable>> Compiler::tables(const std::vector<std::string>& patterns) {
  std::vector<ByteTable> out;
  for (const std::string& pattern : patterns) {
    auto table = pattern_table(builder_, pattern);
    if (!table) {
      return core::fail(table.error().kind, "the schema's " + place_ + ": " + table.error().message);
    }
    out.push_back(std::move(*table));
  }
  return out;
}

Result<void> Compiler::define_string(RuleId id, const Conditions& c) {
  if (c.length_min > c.length_max) return same_as(id, json_.never());
  const bool measured = c.length_min > 0 || c.length_max != kNoLimit;
  if (c.patterns.empty() && !measured) return same_as(id, json_.string());
  if (c.patterns.empty()) {
    RuleGraph g;
    const auto inside = g.add(), end = g.add();
    g.byte(0, inside, '"');
    if (c.length_max > 0) add_any_spelling(g, inside, inside, {CountOp::Kind::below, c.length_max});
    g.byte(inside, end, '"', c.length_min > 0 ? CountOp{CountOp::Kind::at_least, c.length_min} : CountOp{});
    g.end(end);
    return builder_.define(id, g);
  }
  // With patterns the length is part of the state: only so it is known which lengths can still be reached.
  auto all = tables(c.patterns);
  if (!all) return std::unexpected(all.error());
  using Key = std::vector<std::uint32_t>;  // where (0 before, 1 inside, 2 behind), phase, length, a row of each table
  const std::uint32_t counted = c.length_max != kNoLimit ? c.length_max + 1 : c.length_min;
  Key start{0, 0, 0};
  start.resize(3 + all->size(), 0);
  auto table = explore(
      builder_, start,
      [&](const Key& k, std::uint8_t byte) -> std::optional<Key> {
        Key to = k;
        if (k[0] == 0) return byte == '"' ? (to[0] = 1, std::optional(to)) : std::nullopt;
        if (k[0] == 2) return std::nullopt;
        if (byte == '"' && k[1] == CharacterPhase::kBoundary) {
          for (std::size_t i = 0; i < all->size(); ++i) {
            if (!(*all)[i].rows[k[3 + i]].final) return std::nullopt;
          }
          if (k[2] < c.length_min || k[2] > c.length_max) return std::nullopt;
          std::fill(to.begin(), to.end(), 0);
          return to[0] = 2, std::optional(to);
        }
        to[1] = CharacterPhase::next(static_cast<std::uint8_t>(k[1]), byte);
        if (to[1] == CharacterPhase::kBoundary && measured) to[2] = std::min(k[2] + 1, counted);
        if (to[2] > c.length_max) return std::nullopt;
        for (std::size_t i = 0; i < all->size(); ++i) {
          to[3 + i] = (*all)[i].rows[k[3 + i]].next[byte];
          if (to[3 + i] == ByteTable::kNone) return std::nullopt;
        }
        return to;
      },
      [](const Key& k) { return k[0] == 2; });
  if (!table) return core::fail(table.error().kind, "the schema's " + place_ + ": " + table.error().message);
  return builder_.define(id, *table);
}

Result<void> Compiler::define_array(RuleId id, const Conditions& c) {
  if (c.items_min > c.items_max) return same_as(id, json_.never());
  RuleGraph g;
  const auto open = g.add(), end = g.add();
  g.byte(0, open, '[');
  g.end(end);
  Result<void> ok;
  std::uint32_t at = open, count = 0;                         // behind `count` items
  const auto to_item = [&](std::uint32_t from, CountOp op) {  // past a comma and space, to where an item begins
    const auto item = g.add();
    std::uint32_t before = from;
    if (count > 0) g.byte(from, before = g.add(), ',', op);
    if (ok) ok = json_.space(g, before, item);
    g.empty(before, item);
    return item;
  };
  const auto item_rule = [&](const Schemas& schemas) {
    auto r = rule(schemas);
    if (!r) ok = std::unexpected(r.error());
    return r.value_or(0);
  };
  for (; count < c.prefix.size() && ok; ++count) {
    if (count >= c.items_min) ok = json_.space_and(g, at, end, ']');
    if (count >= c.items_max) break;
    const auto item = to_item(at, {}), behind = g.add();
    g.call(item, behind, item_rule(c.prefix[count]));
    at = behind;
  }
  if (ok && count == c.prefix.size()) {
    if (count >= c.items_min) ok = json_.space_and(g, at, end, ']');
    if (count < c.items_max) {
      const auto loop = g.add();
      const RuleId one = item_rule(c.items);
      g.call(to_item(at, {}), loop, one);
      // The counter counts the commas in the loop: one less than the items in it.
      const std::uint32_t first = ++count;
      const bool bounded = c.items_max != kNoLimit || c.items_min > first;
      const std::uint32_t most = c.items_max == kNoLimit ? kNoLimit : c.items_max - first;
      if (most > 0) g.call(to_item(loop, bounded ? CountOp{CountOp::Kind::below, most} : CountOp{}), loop, one);
      const CountOp enough = c.items_min > first ? CountOp{CountOp::Kind::at_least, c.items_min - first} : CountOp{};
      if (ok) ok = json_.space_and(g, loop, end, ']', enough);
    }
  }
  if (!ok) return ok;
  return builder_.define(id, g, true);
}

Result<void> Compiler::define_object(RuleId id, Conditions c) {
  if (!c.additional_said && !options_.open_objects) c.additional.push_back(&nothing());
  for (const std::string& name : c.required) {
    if (std::ranges::find(c.properties, name, &std::pair<std::string, Schemas>::first) == c.properties.end()) {
      c.properties.emplace_back(name, c.additional);
    }
  }
  RuleGraph g;
  const auto open = g.add(), end = g.add();
  g.byte(0, open, '{');
  g.end(end);
  Result<void> ok;
  const auto value = [&](std::uint32_t from, std::uint32_t to, const Schemas& schemas) {  // from behind the name
    const auto before = g.add(), content = g.add();
    g.byte(from, before, ':');
    if (ok) ok = json_.space(g, before, content);
    g.empty(before, content);
    auto r = rule(schemas);
    if (!r) ok = std::unexpected(r.error());
    g.call(content, to, r.value_or(0));
  };
  const auto to_name = [&](std::uint32_t first, std::uint32_t next, std::uint32_t name) {
    const auto comma = g.add();
    if (ok) ok = json_.space(g, first, name);
    g.empty(first, name);
    g.byte(next, comma, ',');
    if (ok) ok = json_.space(g, comma, name);
    g.empty(comma, name);
  };
  // Two rows of nodes: nothing written yet, something written.
  std::uint32_t none = open, some = g.add();
  std::vector<std::string> names;
  for (const auto& [name, schemas] : c.properties) {
    names.push_back(name);
    const auto key = g.add(), colon = g.add(), none_next = g.add(), some_next = g.add();
    to_name(none, some, key);
    g.text(key, colon, '"' + spelled(name) + '"');
    value(colon, some_next, schemas);
    if (!c.required.contains(name)) g.empty(none, none_next), g.empty(some, some_next);
    none = none_next, some = some_next;
    if (!ok) return ok;
  }
  const bool closed = std::ranges::any_of(c.additional, [](const Json* s) { return *s == false; });
  if (!closed) {
    auto key = json_.key(names);
    if (!key) return std::unexpected(key.error());
    const auto name = g.add(), colon = g.add();
    to_name(none, some, name);
    g.call(name, colon, *key);
    value(colon, some, c.additional);
  }
  if (ok) ok = json_.space_and(g, none, end, '}');
  if (ok) ok = json_.space_and(g, some, end, '}');
  if (!ok) return ok;
  return builder_.define(id, g, true);
}

}  // namespace

Result<RuleId> schema_rule(AutomatonBuilder& builder, JsonRules& json, const nlohmann::ordered_json& schema,
                           const SchemaOptions& options) {
  return Compiler(builder, json, schema, options).rule({&schema});
}

}  // namespace ganglion::local::grammar
