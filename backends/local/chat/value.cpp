// Construction, truth, equality, order and printing of template values, as Python has them.

#include "backends/local/chat/value.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "backends/local/chat/callable.hpp"
#include "backends/local/chat/text.hpp"

namespace ganglion::local::jinja {

namespace {

std::string join_repr(const std::vector<Value>& items) {
  std::string out;
  for (const Value& item : items) {
    if (!out.empty()) out += ", ";
    out += repr(item);
  }
  return out;
}

std::string quote(std::string_view s) {
  const bool use_double = s.find('\'') != std::string_view::npos && s.find('"') == std::string_view::npos;
  const char mark = use_double ? '"' : '\'';
  std::string out(1, mark);
  for (std::size_t i = 0; i < s.size();) {
    const CodePoint c = code_point_at(s, i);
    static constexpr char kHex[] = "0123456789abcdef";
    if (c.value == static_cast<char32_t>(mark) || c.value == '\\') {
      out += '\\';
      out += static_cast<char>(c.value);
    } else if (c.value == '\n') {
      out += "\\n";
    } else if (c.value == '\r') {
      out += "\\r";
    } else if (c.value == '\t') {
      out += "\\t";
    } else if (c.value < 0x20 || (c.value >= 0x7F && c.value < 0xA1) || c.value == 0xAD) {
      out += "\\x";
      out += kHex[c.value >> 4];
      out += kHex[c.value & 15];
    } else {
      out.append(s.substr(i, c.bytes));
    }
    i += c.bytes;
  }
  return out += mark;
}

Order order_of(double a, double b) {
  if (std::isnan(a) || std::isnan(b)) return Order::greater;  // neither less nor same, and still comparable
  return a < b ? Order::less : a > b ? Order::greater : Order::same;
}

}  // namespace

Value Value::undefined(std::string why) {
  Value v;
  v.v_ = Undefined{std::make_shared<const std::string>(std::move(why))};
  return v;
}
Value Value::none() {
  Value v;
  v.v_ = std::monostate{};
  return v;
}
Value Value::boolean(bool b) {
  Value v;
  v.v_ = b;
  return v;
}
Value Value::integer(std::int64_t i) {
  Value v;
  v.v_ = i;
  return v;
}
Value Value::real(double d) {
  Value v;
  v.v_ = d;
  return v;
}
Value Value::string(std::string s) {
  return string(std::make_shared<const std::string>(std::move(s)));
}
Value Value::string(std::shared_ptr<const std::string> s) {
  Value v;
  v.v_ = std::move(s);
  return v;
}

Value Value::list(std::vector<Value> items, Sequence sequence) {
  auto list = std::make_shared<List>();
  for (const Value& item : items) {
    list->depth = std::max(list->depth, item.depth() + 1);
    list->holds_mutable = list->holds_mutable || item.holds_mutable();
  }
  list->items = std::move(items);
  list->sequence = sequence;
  Value v;
  v.v_ = std::shared_ptr<const List>(std::move(list));
  return v;
}

Value Value::dict(std::vector<Entry> entries) {
  auto dict = std::make_shared<Dict>();
  for (const auto& [key, value] : entries) {
    dict->depth = std::max({dict->depth, key.depth() + 1, value.depth() + 1});
    dict->holds_mutable = dict->holds_mutable || value.holds_mutable();
  }
  dict->entries = std::move(entries);
  Value v;
  v.v_ = std::shared_ptr<const Dict>(std::move(dict));
  return v;
}

Value Value::object(std::shared_ptr<Namespace> n) {
  Value v;
  v.v_ = std::move(n);
  return v;
}
Value Value::object(std::shared_ptr<LoopState> l) {
  Value v;
  v.v_ = std::move(l);
  return v;
}
Value Value::object(std::shared_ptr<const Callable> c) {
  Value v;
  v.v_ = std::move(c);
  return v;
}

const std::string& Value::why() const {
  static const std::string kNothing;
  const auto& undefined = std::get<Undefined>(v_);
  return undefined.why ? *undefined.why : kNothing;
}
std::int64_t Value::as_int() const {
  return is(Kind::boolean) ? static_cast<std::int64_t>(as_bool()) : std::get<std::int64_t>(v_);
}
double Value::as_real() const {
  return is(Kind::real) ? std::get<double>(v_) : static_cast<double>(as_int());
}

int Value::depth() const {
  if (is(Kind::list)) return as_list().depth;
  if (is(Kind::dict)) return as_dict().depth;
  // A bound method keeps its receiver alive, so it counts as one more level around it.
  if (is(Kind::callable)) return as_callable().receiver.depth() + 1;
  return 0;
}

bool Value::holds_mutable() const {
  if (is(Kind::list)) return as_list().holds_mutable;
  if (is(Kind::dict)) return as_dict().holds_mutable;
  if (is(Kind::callable)) return as_callable().receiver.holds_mutable();
  return is(Kind::name_space) || is(Kind::loop);
}

const void* Value::identity() const {
  switch (kind()) {
    case Kind::string:
      return &as_string();
    case Kind::list:
      return &as_list();
    case Kind::dict:
      return &as_dict();
    case Kind::name_space:
      return &as_namespace();
    case Kind::loop:
      return &as_loop();
    case Kind::callable:
      return &as_callable();
    default:
      return nullptr;
  }
}

const Value* Dict::find(const Value& key) const {
  for (const auto& [k, v] : entries) {
    if (equal(k, key)) return &v;
  }
  return nullptr;
}
const Value* Dict::find(std::string_view key) const {
  for (const auto& [k, v] : entries) {
    if (k.is(Kind::string) && k.as_string() == key) return &v;
  }
  return nullptr;
}

const Value* Namespace::find(std::string_view name) const {
  for (const auto& [k, v] : attributes) {
    if (k == name) return &v;
  }
  return nullptr;
}
void Namespace::set(std::string_view name, Value value) {
  for (auto& [k, v] : attributes) {
    if (k == name) {
      v = std::move(value);
      return;
    }
  }
  attributes.emplace_back(std::string{name}, std::move(value));
}

bool truthy(const Value& v) {
  switch (v.kind()) {
    case Kind::undefined:
    case Kind::none:
      return false;
    case Kind::boolean:
      return v.as_bool();
    case Kind::integer:
      return v.as_int() != 0;
    case Kind::real:
      return v.as_real() != 0.0;
    case Kind::string:
      return !v.as_string().empty();
    case Kind::list:
      return v.as_list().sequence == Sequence::generator || !v.as_list().items.empty();
    case Kind::dict:
      return !v.as_dict().entries.empty();
    case Kind::name_space:
    case Kind::loop:
    case Kind::callable:
      return true;
  }
  return false;
}

bool equal(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is_integral() && b.is_integral()) return a.as_int() == b.as_int();
    return a.as_real() == b.as_real();
  }
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::undefined:
    case Kind::none:
      return true;
    case Kind::string:
      return a.as_string() == b.as_string();
    case Kind::list: {
      const List& x = a.as_list();
      const List& y = b.as_list();
      if (&x == &y) return true;
      if (x.sequence != y.sequence || x.sequence == Sequence::generator || x.items.size() != y.items.size()) {
        return false;
      }
      return std::equal(x.items.begin(), x.items.end(), y.items.begin(), equal);
    }
    case Kind::dict: {
      const Dict& x = a.as_dict();
      const Dict& y = b.as_dict();
      if (&x == &y) return true;
      if (x.entries.size() != y.entries.size()) return false;
      return std::all_of(x.entries.begin(), x.entries.end(), [&](const Value::Entry& e) {
        const Value* other = y.find(e.first);
        return other != nullptr && equal(e.second, *other);
      });
    }
    default:
      return a.identity() == b.identity();
  }
}

Order compare(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is_integral() && b.is_integral()) {
      return a.as_int() < b.as_int() ? Order::less : a.as_int() > b.as_int() ? Order::greater : Order::same;
    }
    return order_of(a.as_real(), b.as_real());
  }
  if (a.is(Kind::string) && b.is(Kind::string)) {
    // Byte order of UTF-8 is code point order.
    const int c = a.as_string().compare(b.as_string());
    return c < 0 ? Order::less : c > 0 ? Order::greater : Order::same;
  }
  if (a.is(Kind::list) && b.is(Kind::list)) {
    const List& x = a.as_list();
    const List& y = b.as_list();
    if (x.sequence != y.sequence || x.sequence == Sequence::generator) return Order::incomparable;
    const std::size_t common = std::min(x.items.size(), y.items.size());
    for (std::size_t i = 0; i < common; ++i) {
      if (!equal(x.items[i], y.items[i])) return compare(x.items[i], y.items[i]);
    }
    return x.items.size() < y.items.size()   ? Order::less
           : x.items.size() > y.items.size() ? Order::greater
                                             : Order::same;
  }
  return Order::incomparable;
}

std::string real_text(double v) {
  if (std::isnan(v)) return "nan";
  if (std::isinf(v)) return v > 0 ? "inf" : "-inf";
  char buffer[64];
  // Shortest digits that read back the same, laid out as Python does: an exponent below 1e-4 and from 1e16 on.
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, v, std::chars_format::scientific).ptr;
  const std::string_view text(buffer, static_cast<std::size_t>(end - buffer));
  const std::size_t e = text.find('e');
  int exponent = 0;
  const std::size_t digits_at = e + (text[e + 1] == '+' ? 2 : 1);
  std::from_chars(buffer + digits_at, end, exponent);
  if (v != 0.0 && (exponent < -4 || exponent >= 16)) return std::string{text};
  const auto fixed_end = std::to_chars(buffer, buffer + sizeof buffer, v, std::chars_format::fixed).ptr;
  std::string out(buffer, static_cast<std::size_t>(fixed_end - buffer));
  if (out.find('.') == std::string::npos) out += ".0";
  return out;
}

std::string repr(const Value& v) {
  switch (v.kind()) {
    case Kind::undefined:
      return "Undefined";
    case Kind::none:
      return "None";
    case Kind::boolean:
      return v.as_bool() ? "True" : "False";
    case Kind::integer:
      return std::to_string(v.as_int());
    case Kind::real:
      return real_text(v.as_real());
    case Kind::string:
      return quote(v.as_string());
    case Kind::list: {
      const List& list = v.as_list();
      if (list.sequence == Sequence::tuple) {
        return "(" + join_repr(list.items) + (list.items.size() == 1 ? ",)" : ")");
      }
      return list.sequence == Sequence::generator ? "<generator>" : "[" + join_repr(list.items) + "]";
    }
    case Kind::dict: {
      std::string out = "{";
      for (const auto& [key, value] : v.as_dict().entries) {
        if (out.size() > 1) out += ", ";
        out += repr(key) + ": " + repr(value);
      }
      return out + "}";
    }
    case Kind::name_space: {
      std::string out = "<Namespace {";
      for (const auto& [key, value] : v.as_namespace().attributes) {
        if (out.size() > 12) out += ", ";
        out += quote(key) + ": " + repr(value);
      }
      return out + "}>";
    }
    case Kind::loop: {
      const LoopState& loop = v.as_loop();
      return "<LoopContext " + std::to_string(loop.index0 + 1) + "/" + std::to_string(loop.items.size()) + ">";
    }
    case Kind::callable:
      return "<callable>";
  }
  return {};
}

std::string to_text(const Value& v) {
  if (v.is(Kind::string)) return v.as_string();
  if (v.is(Kind::undefined)) return {};
  return repr(v);
}

std::string_view type_name(const Value& v) {
  switch (v.kind()) {
    case Kind::undefined:
      return "Undefined";
    case Kind::none:
      return "NoneType";
    case Kind::boolean:
      return "bool";
    case Kind::integer:
      return "int";
    case Kind::real:
      return "float";
    case Kind::string:
      return "str";
    case Kind::list:
      return v.as_list().sequence == Sequence::tuple       ? "tuple"
             : v.as_list().sequence == Sequence::generator ? "generator"
                                                           : "list";
    case Kind::dict:
      return "dict";
    case Kind::name_space:
      return "Namespace";
    case Kind::loop:
      return "LoopContext";
    case Kind::callable:
      return "function";
  }
  return {};
}

}  // namespace ganglion::local::jinja
