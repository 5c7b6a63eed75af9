// Filters on lists and dicts.

#include <algorithm>

#include "backends/local/chat/builtins.hpp"
#include "backends/local/chat/evaluator.hpp"
#include "backends/local/chat/stable_order.hpp"
#include "backends/local/chat/text.hpp"

namespace ganglion::local::jinja {

namespace {

bool absent(const Bound& a, std::size_t i) {
  return !a.given(i) || a[i].is(Kind::none);
}

Value fold_case(const Value& v, bool case_sensitive) {
  return !case_sensitive && v.is(Kind::string) ? Value::string(lower(v.as_string())) : v;
}

// The items of `v`, each with what it is compared by.
std::vector<std::pair<Value, Value>> keyed(Evaluator& run, const Value& v, const Value& attribute,
                                           bool case_sensitive) {
  std::vector<std::pair<Value, Value>> out;
  const bool plain = attribute.is(Kind::undefined) || attribute.is(Kind::none);
  for (Value& item : run.iterate(v)) {
    Value key = fold_case(plain ? item : run.path(item, attribute), case_sensitive);
    if (run.failed()) break;
    out.emplace_back(std::move(key), std::move(item));
  }
  return out;
}

// Sorts by the keys; fails on keys without an order. Jinja's multi-attribute form ("a,b") is not here.
void sort_pairs(Evaluator& run, std::vector<std::pair<Value, Value>>& pairs, bool reverse) {
  for (std::size_t i = 1; i < pairs.size(); ++i) {
    if (compare(pairs[0].first, pairs[i].first) == Order::incomparable) {
      run.fail("'" + std::string{type_name(pairs[0].first)} + "' and '" + std::string{type_name(pairs[i].first)} +
               "' cannot be ordered");
      return;
    }
  }
  if (!run.charge(pairs.size() * 64)) return;
  const std::vector<std::size_t> order = stable_order(pairs.size(), [&](std::size_t a, std::size_t b) {
    return compare(pairs[reverse ? b : a].first, pairs[reverse ? a : b].first) == Order::less;
  });
  std::vector<std::pair<Value, Value>> sorted;
  for (const std::size_t i : order) sorted.push_back(std::move(pairs[i]));
  pairs = std::move(sorted);
}

Value seconds(Evaluator& run, std::vector<std::pair<Value, Value>> pairs) {
  std::vector<Value> out;
  for (auto& [key, value] : pairs) out.push_back(std::move(value));
  return run.list(std::move(out));
}

Value length_filter(Evaluator& run, const Value& v, const Bound&) {
  const auto n = run.length(v);
  if (!n) return run.fail("object of type '" + std::string{type_name(v)} + "' has no length");
  return Value::integer(static_cast<std::int64_t>(*n));
}

Value default_filter(Evaluator& run, const Value& v, const Bound& a) {
  const bool replaced = v.is(Kind::undefined) || (truthy(a[1]) && !truthy(v));
  if (!replaced) return v;
  return a.given(0) ? a[0] : run.text({});
}

Value join(Evaluator& run, const Value& v, const Bound& a) {
  const std::string between = a.given(0) ? to_text(a[0]) : std::string{};
  std::string out;
  bool first = true;
  for (const Value& item : run.iterate(v)) {
    if (!first) out += between;
    first = false;
    out += to_text(absent(a, 1) ? item : run.path(item, a[1]));
    if (run.failed() || out.size() > run.input().limits.output_bytes_max) break;
  }
  return run.text(std::move(out));
}

Value first(Evaluator& run, const Value& v, const Bound&) {
  const std::vector<Value> items = run.iterate(v);
  return items.empty() ? Value::undefined("No first item, sequence was empty.") : items.front();
}

Value last(Evaluator& run, const Value& v, const Bound&) {
  if (v.is(Kind::list) && v.as_list().sequence == Sequence::generator) {
    return run.fail("'generator' object is not reversible");
  }
  const std::vector<Value> items = run.iterate(v);
  return items.empty() ? Value::undefined("No last item, sequence was empty.") : items.back();
}

Value list_filter(Evaluator& run, const Value& v, const Bound&) {
  return run.list(run.iterate(v));
}

Value pairs_of(Evaluator& run, const std::vector<Value::Entry>& entries, Sequence sequence) {
  std::vector<Value> out;
  for (const auto& [key, value] : entries) out.push_back(run.list({key, value}, Sequence::tuple));
  return run.list(std::move(out), sequence);
}

Value items_filter(Evaluator& run, const Value& v, const Bound&) {
  if (v.is(Kind::undefined)) return run.list({}, Sequence::generator);
  if (!v.is(Kind::dict)) return run.fail("items needs a mapping, not " + std::string{type_name(v)});
  return pairs_of(run, v.as_dict().entries, Sequence::generator);
}

Value dictsort(Evaluator& run, const Value& v, const Bound& a) {
  if (v.is(Kind::undefined)) return run.fail_undefined(v);
  if (!v.is(Kind::dict)) return run.fail("dictsort needs a mapping, not " + std::string{type_name(v)});
  const std::string by = a.given(1) ? to_text(a[1]) : "key";
  if (by != "key" && by != "value") return run.fail("dictsort: by must be key or value");
  std::vector<std::pair<Value, Value>> pairs;
  for (const auto& [key, value] : v.as_dict().entries) {
    pairs.emplace_back(fold_case(by == "key" ? key : value, truthy(a[0])), run.list({key, value}, Sequence::tuple));
  }
  sort_pairs(run, pairs, truthy(a[2]));
  return seconds(run, std::move(pairs));
}

Value sort_filter(Evaluator& run, const Value& v, const Bound& a) {
  auto pairs = keyed(run, v, a[2], truthy(a[1]));
  sort_pairs(run, pairs, truthy(a[0]));
  return seconds(run, std::move(pairs));
}

Value unique(Evaluator& run, const Value& v, const Bound& a) {
  std::vector<Value> seen;
  std::vector<Value> out;
  for (auto& [key, item] : keyed(run, v, a[1], truthy(a[0]))) {
    if (!run.charge(seen.size())) break;
    if (std::ranges::any_of(seen, [&, &k = key](const Value& s) { return equal(s, k); })) continue;
    seen.push_back(key);
    out.push_back(std::move(item));
  }
  return run.list(std::move(out), Sequence::generator);
}

template <bool Largest>
Value extreme(Evaluator& run, const Value& v, const Bound& a) {
  auto pairs = keyed(run, v, a[1], truthy(a[0]));
  if (pairs.empty()) return Value::undefined("No aggregated item, sequence was empty.");
  std::size_t best = 0;
  for (std::size_t i = 1; i < pairs.size() && !run.failed(); ++i) {
    const Op op = Largest ? Op::gt : Op::lt;
    if (ordered(run, op, pairs[i].first, pairs[best].first)) best = i;
  }
  return pairs[best].second;
}

Value reverse(Evaluator& run, const Value& v, const Bound&) {
  std::vector<Value> items = run.iterate(v);
  std::ranges::reverse(items);
  if (!v.is(Kind::string)) return run.list(std::move(items), Sequence::generator);
  std::string out;
  for (const Value& c : items) out += c.as_string();
  return run.text(std::move(out));
}

Value sum(Evaluator& run, const Value& v, const Bound& a) {
  Value total = a.given(1) ? a[1] : Value::integer(0);
  if (total.is(Kind::string)) return run.fail("sum cannot start from a string; use join");
  for (const Value& item : run.iterate(v)) {
    total = run.arithmetic(Op::add, total, absent(a, 0) ? item : run.path(item, a[0]));
    if (run.failed()) break;
  }
  return total;
}

Value attr(Evaluator& run, const Value& v, const Bound& a) {
  if (!a.given(0)) return run.fail("attr needs a name");
  // Attributes only: keys of a dict are items.
  if (v.is(Kind::dict) && find_method(Receiver::dict, to_text(a[0])) == nullptr) {
    return Value::undefined("'dict object' has no attribute '" + to_text(a[0]) + "'");
  }
  return run.attribute(v, to_text(a[0]));
}

Value batch(Evaluator& run, const Value& v, const Bound& a) {
  if (!a.given(0) || !a[0].is(Kind::integer) || a[0].as_int() < 1 || a[0].as_int() > kRangeMax) {
    return run.fail("batch needs a positive line count");
  }
  const auto size = static_cast<std::size_t>(a[0].as_int());
  std::vector<Value> out;
  std::vector<Value> line;
  for (Value& item : run.iterate(v)) {
    line.push_back(std::move(item));
    if (line.size() == size) out.push_back(run.list(std::exchange(line, {})));
  }
  if (!line.empty()) {
    while (!absent(a, 1) && line.size() < size) line.push_back(a[1]);
    out.push_back(run.list(std::move(line)));
  }
  return run.list(std::move(out), Sequence::generator);
}

// What map and the select family go through: as in Jinja, nothing where the value is false, iterable or not.
std::vector<Value> iterate_if_true(Evaluator& run, const Value& v) {
  return truthy(v) ? run.iterate(v) : std::vector<Value>{};
}

// map(attribute=..., default=...) or map('filter', arguments...).
Value map_filter(Evaluator& run, const Value& v, const Arguments& a) {
  std::vector<Value> out;
  if (a.positional.empty()) {
    Value attribute;
    Value otherwise;
    bool has_default = false;
    for (const auto& [name, value] : a.named) {
      if (name == "attribute") {
        attribute = value;
      } else if (name == "default") {
        otherwise = value;
        has_default = true;
      } else {
        return run.fail("map has no argument '" + name + "'");
      }
    }
    if (attribute.is(Kind::undefined)) return run.fail("map needs a filter or an attribute");
    for (const Value& item : iterate_if_true(run, v)) {
      Value found = run.path(item, attribute);
      out.push_back(has_default && found.is(Kind::undefined) ? otherwise : std::move(found));
      if (run.failed()) break;
    }
  } else {
    const FilterInfo* filter = find_filter(to_text(a.positional[0]));
    if (filter == nullptr) return run.fail("no filter named '" + to_text(a.positional[0]) + "'");
    const Arguments rest{.positional = {a.positional.begin() + 1, a.positional.end()}, .named = a.named};
    for (const Value& item : iterate_if_true(run, v)) {
      out.push_back(run.filter(*filter, item, rest));
      if (run.failed()) break;
    }
  }
  return run.list(std::move(out), Sequence::generator);
}

// select, reject ('test', argument) and selectattr, rejectattr ('attribute', 'test', argument).
template <bool Attribute, bool Keep>
Value choose(Evaluator& run, const Value& v, const Arguments& a) {
  constexpr std::size_t kAt = Attribute ? 1 : 0;
  if (a.positional.size() < kAt) return run.fail("an attribute is needed");
  if (!a.named.empty()) return run.fail("unexpected argument '" + a.named[0].first + "'");
  const TestInfo* test = nullptr;
  if (a.positional.size() > kAt) {
    test = find_test(to_text(a.positional[kAt]));
    if (test == nullptr) return run.fail("no test named '" + to_text(a.positional[kAt]) + "'");
    if (a.positional.size() - kAt - 1 != test->arguments) {
      return run.fail("test '" + std::string{test->name} + "' takes " + std::to_string(test->arguments) +
                      " argument(s)");
    }
  }
  const Value argument = a.positional.size() > kAt + 1 ? a.positional[kAt + 1] : Value{};
  std::vector<Value> out;
  for (Value& item : iterate_if_true(run, v)) {
    const Value subject = Attribute ? run.path(item, a.positional[0]) : item;
    const bool holds = test == nullptr ? truthy(subject) : test->run(run, subject, argument);
    if (run.failed()) break;
    if (holds == Keep) out.push_back(std::move(item));
  }
  return run.list(std::move(out), Sequence::generator);
}

}  // namespace

std::span<const FilterInfo> sequence_filters() {
  static const std::vector<FilterInfo> kFilters = {
      {.name = "attr", .parameters = {"name"}, .run = attr},
      {.name = "batch", .parameters = {"linecount", "fill_with"}, .run = batch},
      {.name = "count", .parameters = {}, .run = length_filter},
      {.name = "d", .parameters = {"default_value", "boolean"}, .run = default_filter},
      {.name = "default", .parameters = {"default_value", "boolean"}, .run = default_filter},
      {.name = "dictsort", .parameters = {"case_sensitive", "by", "reverse"}, .run = dictsort},
      {.name = "first", .parameters = {}, .run = first},
      {.name = "items", .parameters = {}, .run = items_filter},
      {.name = "join", .parameters = {"d", "attribute"}, .run = join},
      {.name = "last", .parameters = {}, .run = last},
      {.name = "length", .parameters = {}, .run = length_filter},
      {.name = "list", .parameters = {}, .run = list_filter},
      {.name = "map", .parameters = {}, .raw = map_filter},
      {.name = "max", .parameters = {"case_sensitive", "attribute"}, .run = extreme<true>},
      {.name = "min", .parameters = {"case_sensitive", "attribute"}, .run = extreme<false>},
      {.name = "reject", .parameters = {}, .raw = choose<false, false>},
      {.name = "rejectattr", .parameters = {}, .raw = choose<true, false>},
      {.name = "reverse", .parameters = {}, .run = reverse},
      {.name = "select", .parameters = {}, .raw = choose<false, true>},
      {.name = "selectattr", .parameters = {}, .raw = choose<true, true>},
      {.name = "sort", .parameters = {"reverse", "case_sensitive", "attribute"}, .run = sort_filter},
      {.name = "sum", .parameters = {"attribute", "start"}, .run = sum},
      {.name = "unique", .parameters = {"case_sensitive", "attribute"}, .run = unique},
  };
  return kFilters;
}

}  // namespace ganglion::local::jinja
