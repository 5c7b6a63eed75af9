// Tests ("x is ..."), and the look-up of filters, tests and methods by name.

#include <algorithm>

#include "backends/local/chat/builtins.hpp"
#include "backends/local/chat/evaluator.hpp"
#include "backends/local/chat/text.hpp"

namespace ganglion::local::jinja {

namespace {

template <Kind K>
bool is_kind(Evaluator&, const Value& v, const Value&) {
  return v.is(K);
}
template <Kind K>
bool is_not_kind(Evaluator&, const Value& v, const Value&) {
  return !v.is(K);
}
template <bool B>
bool is_bool(Evaluator&, const Value& v, const Value&) {
  return v.is(Kind::boolean) && v.as_bool() == B;
}
template <Op O>
bool compares(Evaluator& run, const Value& v, const Value& other) {
  return ordered(run, O, v, other);
}

bool is_number(Evaluator&, const Value& v, const Value&) {
  return v.is_number();
}
bool is_sequence(Evaluator&, const Value& v, const Value&) {
  return v.is(Kind::string) || v.is(Kind::dict) || v.is(Kind::undefined) ||
         (v.is(Kind::list) && v.as_list().sequence != Sequence::generator);
}
bool is_iterable(Evaluator&, const Value& v, const Value&) {
  return v.is(Kind::string) || v.is(Kind::dict) || v.is(Kind::undefined) || v.is(Kind::list) || v.is(Kind::loop);
}

template <int Rest>
bool is_remainder_two(Evaluator& run, const Value& v, const Value&) {
  const Value rest = run.arithmetic(Op::mod, v, Value::integer(2));
  return !run.failed() && equal(rest, Value::integer(Rest));
}
bool is_divisible(Evaluator& run, const Value& v, const Value& by) {
  const Value rest = run.arithmetic(Op::mod, v, by);
  return !run.failed() && equal(rest, Value::integer(0));
}
bool is_in(Evaluator& run, const Value& v, const Value& container) {
  return run.contains(container, v);
}
bool is_same(Evaluator&, const Value& v, const Value& other) {
  if (v.kind() != other.kind()) return false;
  const bool scalar = v.is_number() || v.is(Kind::none) || v.is(Kind::undefined);
  return scalar ? equal(v, other) : v.identity() == other.identity();
}
template <std::string (*Map)(std::string_view), std::string (*Other)(std::string_view)>
bool has_case(Evaluator&, const Value& v, const Value&) {
  const std::string s = to_text(v);
  return s == Map(s) && s != Other(s);  // at least one letter that has case
}
bool names_filter(Evaluator&, const Value& v, const Value&) {
  return find_filter(to_text(v)) != nullptr;
}
bool names_test(Evaluator&, const Value& v, const Value&) {
  return find_test(to_text(v)) != nullptr;
}

template <class Info>
const Info* find_in(std::span<const Info> table, std::string_view name) {
  const auto found = std::ranges::find(table, name, &Info::name);
  return found == table.end() ? nullptr : &*found;
}

// Lists and dicts of a template never change, so what would change them fails with the sandbox's words.
Value forbidden(Evaluator& run, const Value&, const Arguments&) {
  return run.fail("a template cannot change a list or dict: build a new one, or use a namespace");
}

Value dict_items(Evaluator& run, const Value& self, const Bound&) {
  std::vector<Value> out;
  for (const auto& [key, value] : self.as_dict().entries) out.push_back(run.list({key, value}, Sequence::tuple));
  return run.list(std::move(out));
}
Value dict_keys(Evaluator& run, const Value& self, const Bound&) {
  return run.list(run.iterate(self));
}
Value dict_values(Evaluator& run, const Value& self, const Bound&) {
  std::vector<Value> out;
  for (const auto& [key, value] : self.as_dict().entries) out.push_back(value);
  return run.list(std::move(out));
}
Value dict_get(Evaluator& run, const Value& self, const Bound& a) {
  if (!a.given(0)) return run.fail("get needs a key");
  if (!run.charge(self.as_dict().entries.size())) return {};
  const Value* found = self.as_dict().find(a[0]);
  return found != nullptr ? *found : a.given(1) ? a[1] : Value::none();
}
Value copy(Evaluator&, const Value& self, const Bound&) {
  return self;
}
Value list_count(Evaluator& run, const Value& self, const Bound& a) {
  if (!a.given(0)) return run.fail("count needs a value");
  return Value::integer(std::ranges::count_if(self.as_list().items, [&](const Value& v) { return equal(v, a[0]); }));
}
Value list_index(Evaluator& run, const Value& self, const Bound& a) {
  const auto& items = self.as_list().items;
  const auto found = std::ranges::find_if(items, [&](const Value& v) { return equal(v, a[0]); });
  return found == items.end() ? run.fail(repr(a[0]) + " is not in list") : Value::integer(found - items.begin());
}
Value loop_cycle(Evaluator& run, const Value& self, const Arguments& a) {
  if (a.positional.empty()) return run.fail("no items for cycling given");
  return a.positional[self.as_loop().index0 % a.positional.size()];
}
Value loop_changed(Evaluator& run, const Value& self, const Arguments& a) {
  LoopState& loop = self.as_loop();
  if (std::ranges::any_of(a.positional, &Value::holds_mutable))
    return run.fail("loop.changed cannot watch a namespace");
  const bool same = loop.changed_called && std::ranges::equal(loop.changed, a.positional, equal);
  loop.changed = a.positional;
  loop.changed_called = true;
  return Value::boolean(!same);
}

const std::vector<TestInfo>& tests() {
  static const std::vector<TestInfo> kTests = {
      {"!=", 1, compares<Op::ne>},
      {"<", 1, compares<Op::lt>},
      {"<=", 1, compares<Op::le>},
      {"==", 1, compares<Op::eq>},
      {">", 1, compares<Op::gt>},
      {">=", 1, compares<Op::ge>},
      {"boolean", 0, is_kind<Kind::boolean>},
      {"callable", 0, is_kind<Kind::callable>},
      {"defined", 0, is_not_kind<Kind::undefined>},
      {"divisibleby", 1, is_divisible},
      {"eq", 1, compares<Op::eq>},
      {"equalto", 1, compares<Op::eq>},
      {"even", 0, is_remainder_two<0>},
      {"false", 0, is_bool<false>},
      {"filter", 0, names_filter},
      {"float", 0, is_kind<Kind::real>},
      {"ge", 1, compares<Op::ge>},
      {"greaterthan", 1, compares<Op::gt>},
      {"gt", 1, compares<Op::gt>},
      {"in", 1, is_in},
      {"integer", 0, is_kind<Kind::integer>},
      {"iterable", 0, is_iterable},
      {"le", 1, compares<Op::le>},
      {"lessthan", 1, compares<Op::lt>},
      {"lower", 0, has_case<lower, upper>},
      {"lt", 1, compares<Op::lt>},
      {"mapping", 0, is_kind<Kind::dict>},
      {"ne", 1, compares<Op::ne>},
      {"none", 0, is_kind<Kind::none>},
      {"number", 0, is_number},
      {"odd", 0, is_remainder_two<1>},
      {"sameas", 1, is_same},
      {"sequence", 0, is_sequence},
      {"string", 0, is_kind<Kind::string>},
      {"test", 0, names_test},
      {"true", 0, is_bool<true>},
      {"undefined", 0, is_kind<Kind::undefined>},
      {"upper", 0, has_case<upper, lower>},
  };
  return kTests;
}

const std::vector<MethodInfo>& container_methods() {
  static const std::vector<MethodInfo> kMethods = [] {
    std::vector<MethodInfo> out = {
        {.receiver = Receiver::dict, .name = "copy", .parameters = {}, .run = copy},
        {.receiver = Receiver::dict, .name = "get", .parameters = {"key", "default"}, .run = dict_get},
        {.receiver = Receiver::dict, .name = "items", .parameters = {}, .run = dict_items},
        {.receiver = Receiver::dict, .name = "keys", .parameters = {}, .run = dict_keys},
        {.receiver = Receiver::dict, .name = "values", .parameters = {}, .run = dict_values},
        {.receiver = Receiver::list, .name = "copy", .parameters = {}, .run = copy},
        {.receiver = Receiver::list, .name = "count", .parameters = {"value"}, .run = list_count},
        {.receiver = Receiver::list, .name = "index", .parameters = {"value"}, .run = list_index},
        {.receiver = Receiver::loop, .name = "changed", .parameters = {}, .raw = loop_changed},
        {.receiver = Receiver::loop, .name = "cycle", .parameters = {}, .raw = loop_cycle},
    };
    for (const std::string_view name : {"clear", "pop", "popitem", "setdefault", "update"}) {
      out.push_back({.receiver = Receiver::dict, .name = name, .parameters = {}, .raw = forbidden});
    }
    for (const std::string_view name : {"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"}) {
      out.push_back({.receiver = Receiver::list, .name = name, .parameters = {}, .raw = forbidden});
    }
    return out;
  }();
  return kMethods;
}

}  // namespace

const FilterInfo* find_filter(std::string_view name) {
  const FilterInfo* found = find_in(text_filters(), name);
  return found != nullptr ? found : find_in(sequence_filters(), name);
}

const TestInfo* find_test(std::string_view name) {
  return find_in(std::span<const TestInfo>(tests()), name);
}

const MethodInfo* find_method(Receiver receiver, std::string_view name) {
  const std::span<const MethodInfo> table = receiver == Receiver::string ? string_methods() : container_methods();
  const auto found =
      std::ranges::find_if(table, [&](const MethodInfo& m) { return m.receiver == receiver && m.name == name; });
  return found == table.end() ? nullptr : &*found;
}

bool any_method(std::string_view name) {
  return find_in(string_methods(), name) != nullptr || find_in(std::span<const MethodInfo>(container_methods()), name);
}

}  // namespace ganglion::local::jinja
