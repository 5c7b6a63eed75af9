// Arithmetic, comparison, containment, iteration and slicing with Python's meaning. Integers are 64 bits wide:
// what Python would grow beyond that is an error here.

#include <algorithm>
#include <cmath>

#include "backends/local/chat/evaluator.hpp"
#include "backends/local/chat/text.hpp"

namespace ganglion::local::jinja {

namespace {

std::string_view symbol(Op op) {
  switch (op) {
    case Op::add:
      return "+";
    case Op::sub:
      return "-";
    case Op::mul:
      return "*";
    case Op::div:
      return "/";
    case Op::floor_div:
      return "//";
    case Op::mod:
      return "%";
    case Op::pow:
      return "**";
    default:
      return "?";
  }
}

Value bad_operands(Evaluator& run, Op op, const Value& a, const Value& b) {
  return run.fail("unsupported operand types for " + std::string{symbol(op)} + ": '" + std::string{type_name(a)} +
                  "' and '" + std::string{type_name(b)} + "'");
}

Value integer_power(Evaluator& run, std::int64_t base, std::int64_t exponent) {
  if (exponent < 0) return Value::real(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  std::int64_t result = 1;
  // Past 64 doublings anything but 0, 1 and -1 has overflowed.
  for (std::int64_t i = 0; i < exponent; ++i) {
    if (__builtin_mul_overflow(result, base, &result)) return run.fail("integer too large");
    if (base == 0 || base == 1 || (base == -1 && i > 0)) {
      return Value::integer(base == -1 ? (exponent % 2 == 0 ? 1 : -1) : base);
    }
  }
  return Value::integer(result);
}

Value integer_arithmetic(Evaluator& run, Op op, std::int64_t a, std::int64_t b) {
  std::int64_t out = 0;
  switch (op) {
    case Op::add:
      return __builtin_add_overflow(a, b, &out) ? run.fail("integer too large") : Value::integer(out);
    case Op::sub:
      return __builtin_sub_overflow(a, b, &out) ? run.fail("integer too large") : Value::integer(out);
    case Op::mul:
      return __builtin_mul_overflow(a, b, &out) ? run.fail("integer too large") : Value::integer(out);
    case Op::pow:
      return integer_power(run, a, b);
    default:
      break;
  }
  if (b == 0) return run.fail("division by zero");
  if (op == Op::div) return Value::real(static_cast<double>(a) / static_cast<double>(b));
  if (b == -1) return op == Op::mod ? Value::integer(0) : integer_arithmetic(run, Op::sub, 0, a);
  const bool round_down = a % b != 0 && ((a < 0) != (b < 0));
  if (op == Op::floor_div) return Value::integer(a / b - (round_down ? 1 : 0));
  return Value::integer(a % b + (round_down ? b : 0));
}

Value real_arithmetic(Evaluator& run, Op op, double a, double b) {
  switch (op) {
    case Op::add:
      return Value::real(a + b);
    case Op::sub:
      return Value::real(a - b);
    case Op::mul:
      return Value::real(a * b);
    case Op::pow:
      return Value::real(std::pow(a, b));
    default:
      break;
  }
  if (b == 0.0) return run.fail("division by zero");
  if (op == Op::div) return Value::real(a / b);
  // By the remainder, as Python does: 1 // 0.1 is 9.
  double rest = std::fmod(a, b);
  double quotient = (a - rest) / b;
  if (rest != 0.0 && ((rest < 0) != (b < 0))) {
    rest += b;
    quotient -= 1.0;
  }
  if (op == Op::mod) return Value::real(rest);
  const double whole = std::floor(quotient);
  return Value::real(quotient - whole > 0.5 ? whole + 1.0 : whole);
}

Value repeat(Evaluator& run, const Value& what, std::int64_t times) {
  const std::size_t n = times > 0 ? static_cast<std::size_t>(times) : 0;
  const std::size_t size = what.is(Kind::string) ? what.as_string().size() : what.as_list().items.size();
  if (n > 0 && size > run.input().limits.output_bytes_max / n) return run.fail("a repeated value is too large");
  if (what.is(Kind::string)) {
    std::string out;
    out.reserve(size * n);
    for (std::size_t i = 0; i < n && size > 0; ++i) out += what.as_string();
    return run.text(std::move(out));
  }
  if (!run.charge(size * n * sizeof(Value))) return {};
  std::vector<Value> items;
  for (std::size_t i = 0; i < n && size > 0; ++i) {
    items.insert(items.end(), what.as_list().items.begin(), what.as_list().items.end());
  }
  return run.list(std::move(items), what.as_list().sequence);
}

bool is_sequence(const Value& v) {
  return v.is(Kind::list) && v.as_list().sequence != Sequence::generator;
}

// Python's slice.indices(): clamps start and stop for a sequence of `size`.
struct Indices {
  std::int64_t start;
  std::int64_t stop;
  std::int64_t step;
};
Indices indices(std::int64_t size, const Value& start, const Value& stop, std::int64_t step) {
  const std::int64_t low = step < 0 ? -1 : 0;
  const std::int64_t high = step < 0 ? size - 1 : size;
  const auto clamp = [&](const Value& v, std::int64_t absent) {
    if (v.is(Kind::none)) return absent;
    const std::int64_t i = v.as_int() < 0 ? v.as_int() + size : v.as_int();
    return std::clamp(i, low, high);
  };
  return {clamp(start, step < 0 ? high : low), clamp(stop, step < 0 ? low : high), step};
}

}  // namespace

Value Evaluator::arithmetic(Op op, const Value& a, const Value& b) {
  if (a.is(Kind::undefined)) return fail_undefined(a);
  if (op == Op::mod && a.is(Kind::string)) {
    const bool tuple = b.is(Kind::list) && b.as_list().sequence == Sequence::tuple;
    return percent_format(a.as_string(),
                          {.positional = tuple ? b.as_list().items : std::vector<Value>{b}, .named = {}});
  }
  if (b.is(Kind::undefined)) return fail_undefined(b);
  if (a.is_number() && b.is_number()) {
    return a.is_integral() && b.is_integral() ? integer_arithmetic(*this, op, a.as_int(), b.as_int())
                                              : real_arithmetic(*this, op, a.as_real(), b.as_real());
  }
  if (op == Op::add && a.is(Kind::string) && b.is(Kind::string)) return text(a.as_string() + b.as_string());
  if (op == Op::add && is_sequence(a) && is_sequence(b) && a.as_list().sequence == b.as_list().sequence) {
    std::vector<Value> items = a.as_list().items;
    items.insert(items.end(), b.as_list().items.begin(), b.as_list().items.end());
    return list(std::move(items), a.as_list().sequence);
  }
  if (op == Op::mul && b.is_integral() && (a.is(Kind::string) || is_sequence(a))) return repeat(*this, a, b.as_int());
  if (op == Op::mul && a.is_integral() && (b.is(Kind::string) || is_sequence(b))) return repeat(*this, b, a.as_int());
  return bad_operands(*this, op, a, b);
}

bool ordered(Evaluator& run, Op op, const Value& a, const Value& b) {
  if (op == Op::eq) return equal(a, b);
  if (op == Op::ne) return !equal(a, b);
  if (a.is(Kind::undefined) || b.is(Kind::undefined)) {
    run.fail_undefined(a.is(Kind::undefined) ? a : b);
    return false;
  }
  if (a.is(Kind::real) || b.is(Kind::real)) {
    if (a.is_number() && b.is_number()) {
      const double x = a.as_real();
      const double y = b.as_real();
      return op == Op::lt ? x < y : op == Op::le ? x <= y : op == Op::gt ? x > y : x >= y;
    }
  }
  const Order order = compare(a, b);
  if (order == Order::incomparable) {
    run.fail("'" + std::string{type_name(a)} + "' and '" + std::string{type_name(b)} + "' cannot be ordered");
    return false;
  }
  switch (op) {
    case Op::lt:
      return order == Order::less;
    case Op::le:
      return order != Order::greater;
    case Op::gt:
      return order == Order::greater;
    default:
      return order != Order::less;
  }
}

std::vector<Value> Evaluator::iterate(const Value& v) {
  std::vector<Value> out;
  if (failed_) return out;
  switch (v.kind()) {
    case Kind::undefined:
      return out;
    case Kind::list: {
      const List& items = v.as_list();
      if (items.sequence == Sequence::generator && std::exchange(items.spent, true)) return out;
      if (charge(items.items.size() * sizeof(Value))) out = items.items;
      return out;
    }
    case Kind::dict:
      if (charge(v.as_dict().entries.size() * sizeof(Value))) {
        for (const auto& [key, value] : v.as_dict().entries) out.push_back(key);
      }
      return out;
    case Kind::string: {
      const std::string& s = v.as_string();
      // A string of its own for each character.
      if (!charge(s.size() * (sizeof(Value) + sizeof(std::string)))) return out;
      for (std::size_t i = 0; i < s.size();) {
        const std::size_t bytes = code_point_at(s, i).bytes;
        out.push_back(Value::string(s.substr(i, bytes)));
        i += bytes;
      }
      return out;
    }
    default:
      fail("'" + std::string{type_name(v)} + "' object is not iterable");
      return out;
  }
}

std::optional<std::size_t> Evaluator::length(const Value& v) {
  switch (v.kind()) {
    case Kind::undefined:
      return 0;
    case Kind::string:
      charge(v.as_string().size());
      return text_length(v.as_string());
    case Kind::list:
      if (v.as_list().sequence == Sequence::generator) return std::nullopt;
      return v.as_list().items.size();
    case Kind::dict:
      return v.as_dict().entries.size();
    default:
      return std::nullopt;
  }
}

bool Evaluator::contains(const Value& container, const Value& wanted) {
  if (container.is(Kind::string)) {
    if (!wanted.is(Kind::string)) {
      fail("'in <string>' requires a string, not " + std::string{type_name(wanted)});
      return false;
    }
    if (!charge(container.as_string().size())) return false;
    return container.as_string().find(wanted.as_string()) != std::string::npos;
  }
  if (container.is(Kind::dict)) {
    return charge(container.as_dict().entries.size()) && container.as_dict().find(wanted) != nullptr;
  }
  const std::vector<Value> items = iterate(container);
  return !failed_ && std::ranges::any_of(items, [&](const Value& v) { return equal(v, wanted); });
}

Value slice(Evaluator& run, const Value& object, const Value& start, const Value& stop, const Value& step) {
  if (object.is(Kind::undefined)) return run.fail_undefined(object);
  if (!object.is(Kind::string) && !is_sequence(object)) {
    return run.fail("'" + std::string{type_name(object)} + "' object cannot be sliced");
  }
  for (const Value* v : {&start, &stop, &step}) {
    if (!v->is(Kind::none) && !v->is_integral()) return run.fail("slice indices must be integers or none");
  }
  const std::int64_t by = step.is(Kind::none) ? 1 : step.as_int();
  if (by == 0) return run.fail("slice step cannot be zero");
  const bool is_text = object.is(Kind::string);
  const std::size_t size = is_text ? text_length(object.as_string()) : object.as_list().items.size();
  const Indices at = indices(static_cast<std::int64_t>(size), start, stop, by);
  if (is_text && by == 1) {
    const std::string& s = object.as_string();
    const std::size_t first = byte_offset(s, static_cast<std::size_t>(at.start));
    if (at.stop <= at.start) return run.text({});
    const std::string_view tail = std::string_view(s).substr(first);
    return run.text(std::string{tail.substr(0, byte_offset(tail, static_cast<std::size_t>(at.stop - at.start)))});
  }
  const std::vector<Value> chars = is_text ? run.iterate(object) : std::vector<Value>{};
  if (run.failed()) return {};
  const std::vector<Value>& items = is_text ? chars : object.as_list().items;
  std::vector<Value> out;
  // Bounded by the sequence's size; __builtin_add_overflow ends a huge step.
  for (std::int64_t i = at.start; by > 0 ? i < at.stop : i > at.stop;) {
    out.push_back(items[static_cast<std::size_t>(i)]);
    if (__builtin_add_overflow(i, by, &i)) break;
  }
  if (!is_text) return run.list(std::move(out), object.as_list().sequence);
  std::string joined;
  for (const Value& c : out) joined += c.as_string();
  return run.text(std::move(joined));
}

}  // namespace ganglion::local::jinja
