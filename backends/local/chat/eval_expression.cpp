// Expressions: names, attributes and items, calls, tests and filters.

#include <algorithm>

#include "backends/local/chat/evaluator.hpp"
#include "backends/local/chat/text.hpp"

namespace ganglion::local::jinja {

namespace {

std::string object_name(const Value& v) {
  return v.is(Kind::none) ? "None" : std::string{type_name(v)} + " object";
}

std::optional<Receiver> receiver_of(const Value& v) {
  switch (v.kind()) {
    case Kind::string:
      return Receiver::string;
    case Kind::list:
      return Receiver::list;
    case Kind::dict:
      return Receiver::dict;
    case Kind::loop:
      return Receiver::loop;
    default:
      return std::nullopt;
  }
}

Value loop_attribute(const LoopState& loop, std::string_view name) {
  const auto integer = [](std::size_t i) { return Value::integer(static_cast<std::int64_t>(i)); };
  const std::size_t size = loop.items.size();
  if (name == "index") return integer(loop.index0 + 1);
  if (name == "index0") return integer(loop.index0);
  if (name == "revindex") return integer(size - loop.index0);
  if (name == "revindex0") return integer(size - loop.index0 - 1);
  if (name == "first") return Value::boolean(loop.index0 == 0);
  if (name == "last") return Value::boolean(loop.index0 + 1 >= size);
  if (name == "length") return integer(size);
  if (name == "depth") return integer(static_cast<std::size_t>(loop.depth));
  if (name == "depth0") return integer(static_cast<std::size_t>(loop.depth - 1));
  if (name == "previtem") {
    return loop.index0 > 0 ? loop.items[loop.index0 - 1] : Value::undefined("there is no previous item");
  }
  if (name == "nextitem") {
    return loop.index0 + 1 < size ? loop.items[loop.index0 + 1] : Value::undefined("there is no next item");
  }
  return Value::undefined("'loop' has no attribute '" + std::string{name} + "'");
}

}  // namespace

Value Evaluator::eval(const Expr& e) {
  if (depth_ >= kEvalDepthMax) return fail("recursion too deep");
  if (!step(e.line)) return {};
  ++depth_;
  Value out;
  switch (e.kind) {
    case ExprKind::literal:
      out = e.value;
      break;
    case ExprKind::name:
      out = eval_name(e);
      break;
    case ExprKind::attribute:
      if (const Value object = eval(*e.children[0]); !failed_) out = attribute(object, e.text);
      break;
    case ExprKind::item: {
      const Value object = eval(*e.children[0]);
      const Value key = eval(*e.children[1]);
      if (!failed_) out = item(object, key);
      break;
    }
    case ExprKind::slice:
      out = eval_slice(e);
      break;
    case ExprKind::call:
      out = eval_call(e);
      break;
    case ExprKind::filter: {
      const Value value = eval(*e.children[0]);
      const Arguments arguments = eval_arguments(e);
      if (!failed_) out = filter(*e.filter, value, arguments);
      break;
    }
    case ExprKind::test: {
      const Value value = eval(*e.children[0]);
      const Value argument = e.children.size() > 1 ? eval(*e.children[1]) : Value{};
      if (!failed_) out = Value::boolean(e.test->run(*this, value, argument));
      break;
    }
    case ExprKind::negate:
    case ExprKind::plus:
      out = eval_sign(e);
      break;
    case ExprKind::logical_not:
    case ExprKind::logical_and:
    case ExprKind::logical_or:
    case ExprKind::conditional:
      out = eval_logical(e);
      break;
    case ExprKind::compare:
      out = eval_compare(e);
      break;
    case ExprKind::arithmetic: {
      const Value a = eval(*e.children[0]);
      const Value b = eval(*e.children[1]);
      if (!failed_) out = arithmetic(e.ops[0], a, b);
      break;
    }
    case ExprKind::concat:
      out = eval_concat(e);
      break;
    case ExprKind::list:
      out = list(eval_all(e.children, 0));
      break;
    case ExprKind::tuple:
      out = list(eval_all(e.children, 0), Sequence::tuple);
      break;
    case ExprKind::dict:
      out = eval_dict(e);
      break;
  }
  --depth_;
  return failed_ ? Value{} : out;
}

Value Evaluator::eval_logical(const Expr& e) {
  Value first = eval(*e.children[0]);
  if (failed_) return {};
  switch (e.kind) {
    case ExprKind::logical_not:
      return Value::boolean(!truthy(first));
    case ExprKind::logical_and:
      return truthy(first) ? eval(*e.children[1]) : first;
    case ExprKind::logical_or:
      return truthy(first) ? first : eval(*e.children[1]);
    default:
      break;
  }
  if (truthy(first)) return eval(*e.children[1]);
  if (e.children[2]) return eval(*e.children[2]);
  return Value::undefined("the inline if in line " + std::to_string(e.line) + " is false and has no else");
}

Value Evaluator::eval_name(const Expr& e) {
  if (const Value* found = scope_->find(e.text)) return *found;
  if (const GlobalInfo* global = find_global(e.text)) {
    auto callable = std::make_shared<Callable>();
    callable->global = global;
    return Value::object(std::shared_ptr<const Callable>(std::move(callable)));
  }
  return Value::undefined("'" + e.text + "' is undefined");
}

std::vector<Value> Evaluator::eval_all(const std::vector<ExprPtr>& exprs, std::size_t from) {
  std::vector<Value> out;
  for (std::size_t i = from; i < exprs.size() && !failed_; ++i) out.push_back(eval(*exprs[i]));
  return out;
}

Arguments Evaluator::eval_arguments(const Expr& e) {
  Arguments out{.positional = eval_all(e.children, 1), .named = {}};
  for (const auto& [name, expr] : e.named) out.named.emplace_back(name, eval(*expr));
  return out;
}

Value Evaluator::eval_call(const Expr& e) {
  const Expr& callee = *e.children[0];
  if (callee.kind != ExprKind::attribute) {
    const Value function = eval(callee);
    Arguments arguments = eval_arguments(e);
    return failed_ ? Value{} : call(function, std::move(arguments));
  }
  // A method of a value runs without making a bound method first.
  const Value object = eval(*callee.children[0]);
  Arguments arguments = eval_arguments(e);
  if (failed_) return {};
  line_ = e.line;
  const auto receiver = receiver_of(object);
  const MethodInfo* method = receiver ? find_method(*receiver, callee.text) : nullptr;
  if (method == nullptr) return call(attribute(object, callee.text), std::move(arguments));
  if (method->raw != nullptr) return method->raw(*this, object, arguments);
  const Bound bound = bind(method->name, method->parameters, arguments);
  return failed_ ? Value{} : method->run(*this, object, bound);
}

Value Evaluator::call(const Value& callee, Arguments arguments) {
  if (failed_) return {};
  if (callee.is(Kind::undefined)) return fail_undefined(callee);
  if (!callee.is(Kind::callable)) return fail("'" + std::string{type_name(callee)} + "' object is not callable");
  if (depth_ >= kEvalDepthMax) return fail("recursion too deep");
  const Callable& c = callee.as_callable();
  if (c.global != nullptr) return c.global->run(*this, arguments);
  if (c.macro != nullptr) return call_macro(c, std::move(arguments));
  if (c.method->raw != nullptr) return c.method->raw(*this, c.receiver, arguments);
  const Bound bound = bind(c.method->name, c.method->parameters, arguments);
  return failed_ ? Value{} : c.method->run(*this, c.receiver, bound);
}

Bound Evaluator::bind(std::string_view what, const std::vector<std::string_view>& parameters,
                      const Arguments& arguments) {
  std::vector<Value> slots(parameters.size());
  std::vector<bool> given(parameters.size(), false);
  if (arguments.positional.size() > parameters.size()) {
    fail("'" + std::string{what} + "' takes at most " + std::to_string(parameters.size()) + " arguments");
    return {std::move(slots), std::move(given)};
  }
  for (std::size_t i = 0; i < arguments.positional.size(); ++i) {
    slots[i] = arguments.positional[i];
    given[i] = true;
  }
  for (const auto& [name, value] : arguments.named) {
    const auto found = std::ranges::find(parameters, name);
    const auto at = static_cast<std::size_t>(found - parameters.begin());
    if (found == parameters.end() || given[at]) {
      fail("'" + std::string{what} + "' got an unexpected argument '" + name + "'");
      break;
    }
    slots[at] = value;
    given[at] = true;
  }
  return {std::move(slots), std::move(given)};
}

Value Evaluator::filter(const FilterInfo& info, const Value& value, const Arguments& arguments) {
  if (failed_) return {};
  if (info.raw != nullptr) return info.raw(*this, value, arguments);
  const Bound bound = bind(info.name, info.parameters, arguments);
  return failed_ ? Value{} : info.run(*this, value, bound);
}

Value Evaluator::eval_compare(const Expr& e) {
  Value left = eval(*e.children[0]);
  for (std::size_t i = 0; i < e.ops.size() && !failed_; ++i) {
    Value right = eval(*e.children[i + 1]);
    if (failed_) break;
    const Op op = e.ops[i];
    bool holds = false;
    if (op == Op::in || op == Op::not_in) {
      holds = contains(right, left) == (op == Op::in);
    } else {
      holds = ordered(*this, op, left, right);
    }
    if (!holds) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

Value Evaluator::eval_slice(const Expr& e) {
  const Value object = eval(*e.children[0]);
  Value bounds[3];
  for (std::size_t i = 0; i < 3; ++i) bounds[i] = e.children[i + 1] ? eval(*e.children[i + 1]) : Value::none();
  return failed_ ? Value{} : slice(*this, object, bounds[0], bounds[1], bounds[2]);
}

Value Evaluator::eval_concat(const Expr& e) {
  std::string out;
  for (const ExprPtr& child : e.children) {
    const Value v = eval(*child);
    if (failed_ || out.size() > input_.limits.output_bytes_max) break;
    out += to_text(v);
  }
  return text(std::move(out));
}

Value Evaluator::eval_dict(const Expr& e) {
  std::vector<Value::Entry> entries;
  for (std::size_t i = 0; i + 1 < e.children.size() && !failed_; i += 2) {
    Value key = eval(*e.children[i]);
    Value value = eval(*e.children[i + 1]);
    if (key.is(Kind::list) || key.is(Kind::dict)) return fail("unhashable type: '" + std::string{type_name(key)} + "'");
    const auto found = std::ranges::find_if(entries, [&](const Value::Entry& x) { return equal(x.first, key); });
    if (found != entries.end()) {
      found->second = std::move(value);
    } else {
      entries.emplace_back(std::move(key), std::move(value));
    }
  }
  return dict(std::move(entries));
}

Value Evaluator::eval_sign(const Expr& e) {
  const Value v = eval(*e.children[0]);
  if (failed_) return {};
  if (v.is(Kind::undefined)) return fail_undefined(v);
  if (!v.is_number()) return fail("bad operand type for a sign: '" + std::string{type_name(v)} + "'");
  const bool minus = e.kind == ExprKind::negate;
  if (v.is(Kind::real)) return Value::real(minus ? -v.as_real() : v.as_real());
  return minus ? arithmetic(Op::sub, Value::integer(0), v) : Value::integer(v.as_int());
}

Value Evaluator::attribute(const Value& object, std::string_view name) {
  if (object.is(Kind::undefined)) return fail_undefined(object);
  if (object.is(Kind::name_space)) {
    if (const Value* found = object.as_namespace().find(name)) return *found;
    return Value::undefined("'namespace object' has no attribute '" + std::string{name} + "'");
  }
  // As in Jinja, x.items is the method even where x has a key of that name; x['items'] is the key.
  const auto receiver = receiver_of(object);
  if (const MethodInfo* method = receiver ? find_method(*receiver, name) : nullptr) {
    auto callable = std::make_shared<Callable>();
    callable->method = method;
    callable->receiver = object;
    return Value::object(std::shared_ptr<const Callable>(std::move(callable)));
  }
  if (object.is(Kind::loop)) return loop_attribute(object.as_loop(), name);
  if (object.is(Kind::dict)) {
    if (const Value* found = object.as_dict().find(name)) return *found;
  }
  return Value::undefined("'" + object_name(object) + "' has no attribute '" + std::string{name} + "'");
}

Value Evaluator::item(const Value& object, const Value& key) {
  if (object.is(Kind::undefined)) return fail_undefined(object);
  if (object.is(Kind::dict)) {
    if (!charge(object.as_dict().entries.size())) return {};
    if (const Value* found = object.as_dict().find(key)) return *found;
  }
  if (key.is_integral()) {
    const std::int64_t index = key.as_int();
    if (object.is(Kind::list) && object.as_list().sequence != Sequence::generator) {
      const auto& items = object.as_list().items;
      const std::int64_t size = static_cast<std::int64_t>(items.size());
      const std::int64_t at = index < 0 ? index + size : index;
      if (at >= 0 && at < size) return items[static_cast<std::size_t>(at)];
    } else if (object.is(Kind::string)) {
      const std::string& s = object.as_string();
      if (!charge(s.size())) return {};
      const std::int64_t size = static_cast<std::int64_t>(text_length(s));
      const std::int64_t at = index < 0 ? index + size : index;
      if (at >= 0 && at < size) {
        const std::size_t byte = byte_offset(s, static_cast<std::size_t>(at));
        return text(s.substr(byte, code_point_at(s, byte).bytes));
      }
    }
  }
  if (key.is(Kind::string)) return attribute(object, key.as_string());
  return Value::undefined(object_name(object) + " has no element " + repr(key));
}

Value Evaluator::path(const Value& object, const Value& where) {
  if (where.is(Kind::integer)) return item(object, where);
  if (!where.is(Kind::string)) return item(object, where);
  Value current = object;
  for (const std::string& part : split(where.as_string(), ".", -1, false)) {
    const bool number =
        !part.empty() && part.size() < 18 && std::ranges::all_of(part, [](char c) { return c >= '0' && c <= '9'; });
    current = item(current, number ? Value::integer(std::stoll(part)) : Value::string(part));
  }
  return current;
}

}  // namespace ganglion::local::jinja
