// Methods of str, and the two ways of formatting text with values.

#include <algorithm>
#include <charconv>
#include <cmath>

#include "backends/local/chat/builtins.hpp"
#include "backends/local/chat/evaluator.hpp"
#include "backends/local/chat/text.hpp"

namespace ganglion::local::jinja {

namespace {

// The text argument at `i`; nullopt for an absent one or none.
std::optional<std::string_view> text_at(Evaluator& run, const Bound& a, std::size_t i) {
  if (!a.given(i) || a[i].is(Kind::none)) return std::nullopt;
  if (!a[i].is(Kind::string)) {
    run.fail("a string is needed, not " + std::string{type_name(a[i])});
    return std::string_view{};
  }
  return a[i].as_string();
}
std::string_view required(Evaluator& run, const Bound& a, std::size_t i) {
  const auto text = text_at(run, a, i);
  if (!text) run.fail("a string argument is missing");
  return text.value_or(std::string_view{});
}
std::int64_t limit_at(Evaluator& run, const Bound& a, std::size_t i) {
  if (!a.given(i)) return -1;
  if (!a[i].is_integral()) run.fail("an integer is needed, not " + std::string{type_name(a[i])});
  return a[i].is_integral() ? a[i].as_int() : -1;
}

template <std::string (*Map)(std::string_view)>
Value mapped(Evaluator& run, const Value& self, const Bound&) {
  return run.text(Map(self.as_string()));
}

template <bool Left, bool Right>
Value strip_method(Evaluator& run, const Value& self, const Bound& a) {
  const auto chars = text_at(run, a, 0);
  return run.failed() ? Value{} : run.text(std::string{strip(self.as_string(), chars, Left, Right)});
}

Value strings(Evaluator& run, std::vector<std::string> pieces) {
  std::vector<Value> out;
  for (std::string& piece : pieces) {
    out.push_back(run.text(std::move(piece)));
    if (run.failed()) return {};
  }
  return run.list(std::move(out));
}

template <bool Right>
Value split_method(Evaluator& run, const Value& self, const Bound& a) {
  const auto separator = text_at(run, a, 0);
  const std::int64_t limit = limit_at(run, a, 1);
  if (separator && separator->empty()) run.fail("empty separator");
  // Each piece is a string object of its own, whatever its length.
  if (run.failed() || !run.charge(self.as_string().size() * 4)) return {};
  return strings(run, split(self.as_string(), separator, limit, Right));
}

Value splitlines(Evaluator& run, const Value& self, const Bound& a) {
  if (!run.charge(self.as_string().size() * 4)) return {};
  return strings(run, split_lines(self.as_string(), truthy(a[0])));
}

// The part of a string that optional start and end arguments (at 1 and 2) leave.
struct Window {
  std::string_view text;
  std::int64_t start = 0;  // in characters
  bool valid = true;       // false: the start lies behind the end, where not even "" is found
};
Window window(Evaluator& run, const Value& self, const Bound& a) {
  const std::string& s = self.as_string();
  if (!a.given(1) && !a.given(2)) return {s, 0, true};
  const auto size = static_cast<std::int64_t>(text_length(s));
  const auto bound = [&](std::size_t i, std::int64_t absent) {
    if (!a.given(i) || a[i].is(Kind::none)) return absent;
    if (!a[i].is_integral()) run.fail("an integer is needed, not " + std::string{type_name(a[i])});
    const std::int64_t at = run.failed() ? absent : a[i].as_int();
    return std::max<std::int64_t>(at < 0 ? at + size : at, 0);
  };
  const std::int64_t start = bound(1, 0);
  const std::int64_t end = std::min(bound(2, size), size);
  if (start > end) return {{}, start, false};
  const std::size_t first = byte_offset(s, static_cast<std::size_t>(start));
  const std::string_view rest = std::string_view(s).substr(first);
  return {rest.substr(0, byte_offset(rest, static_cast<std::size_t>(end - start))), start, true};
}

template <bool Start>
Value affix(Evaluator& run, const Value& self, const Bound& a) {
  const Window in = window(run, self, a);
  const auto matches = [&](const Value& v) {
    if (!v.is(Kind::string)) run.fail("a string is needed, not " + std::string{type_name(v)});
    if (run.failed() || !in.valid) return false;
    return Start ? in.text.starts_with(v.as_string()) : in.text.ends_with(v.as_string());
  };
  if (a.given(0) && a[0].is(Kind::list) && a[0].as_list().sequence == Sequence::tuple) {
    return Value::boolean(std::ranges::any_of(a[0].as_list().items, matches));
  }
  return Value::boolean(matches(a[0]));
}

Value replace_method(Evaluator& run, const Value& self, const Bound& a) {
  const std::string_view from = required(run, a, 0);
  const std::string_view to = required(run, a, 1);
  const std::int64_t limit = limit_at(run, a, 2);
  if (run.failed()) return {};
  const std::size_t hits = count(self.as_string(), from);
  if (to.size() > from.size() && hits > run.input().limits.output_bytes_max / (to.size() - from.size())) {
    return run.fail("a string is too large");
  }
  return run.text(replace(self.as_string(), from, to, limit));
}

Value join_method(Evaluator& run, const Value& self, const Bound& a) {
  std::string out;
  bool first = true;
  for (const Value& item : run.iterate(a[0])) {
    if (!item.is(Kind::string)) return run.fail("join needs strings, not " + std::string{type_name(item)});
    if (!first) out += self.as_string();
    first = false;
    out += item.as_string();
    if (out.size() > run.input().limits.output_bytes_max) break;
  }
  return run.text(std::move(out));
}

// find, rfind, index, rindex: a position in characters, -1 or an error.
template <bool Right, bool Must>
Value find_method_of(Evaluator& run, const Value& self, const Bound& a) {
  const std::string_view wanted = required(run, a, 0);
  const Window in = window(run, self, a);
  if (run.failed()) return {};
  const std::size_t at = !in.valid ? std::string_view::npos : Right ? in.text.rfind(wanted) : in.text.find(wanted);
  if (at == std::string_view::npos) return Must ? run.fail("substring not found") : Value::integer(-1);
  return Value::integer(in.start + static_cast<std::int64_t>(text_length(in.text.substr(0, at))));
}

Value count_method(Evaluator& run, const Value& self, const Bound& a) {
  const std::string_view wanted = required(run, a, 0);
  const Window in = window(run, self, a);
  if (run.failed()) return {};
  return Value::integer(in.valid ? static_cast<std::int64_t>(count(in.text, wanted)) : 0);
}

template <bool Prefix>
Value remove_affix(Evaluator& run, const Value& self, const Bound& a) {
  std::string_view s = self.as_string();
  const std::string_view affix_text = required(run, a, 0);
  if (Prefix && s.starts_with(affix_text)) s.remove_prefix(affix_text.size());
  if (!Prefix && s.ends_with(affix_text)) s.remove_suffix(affix_text.size());
  return run.text(std::string{s});
}

template <bool (*Test)(char32_t)>
Value all_of(Evaluator&, const Value& self, const Bound&) {
  const std::string& s = self.as_string();
  for (std::size_t i = 0; i < s.size();) {
    const CodePoint c = code_point_at(s, i);
    if (!Test(c.value)) return Value::boolean(false);
    i += c.bytes;
  }
  return Value::boolean(!s.empty());
}
bool is_alnum(char32_t c) {
  return is_alpha(c) || is_digit(c);
}

template <std::string (*Map)(std::string_view), std::string (*Other)(std::string_view)>
Value has_case(Evaluator&, const Value& self, const Bound&) {
  const std::string& s = self.as_string();
  return Value::boolean(s == Map(s) && s != Other(s));
}

template <bool Right>
Value partition(Evaluator& run, const Value& self, const Bound& a) {
  const std::string& s = self.as_string();
  const std::string_view separator = required(run, a, 0);
  if (separator.empty()) run.fail("empty separator");
  if (run.failed()) return {};
  const std::size_t at = Right ? s.rfind(separator) : s.find(separator);
  std::string parts[3];
  if (at == std::string::npos) {
    parts[Right ? 2 : 0] = s;
  } else {
    parts[0] = s.substr(0, at);
    parts[1] = separator;
    parts[2] = s.substr(at + separator.size());
  }
  return run.list({run.text(parts[0]), run.text(parts[1]), run.text(parts[2])}, Sequence::tuple);
}

enum class Pad : std::uint8_t { left, right, zero };
template <Pad P>
Value pad(Evaluator& run, const Value& self, const Bound& a) {
  const std::string& s = self.as_string();
  if (!a[0].is_integral() || a[0].as_int() > 10'000) return run.fail("a width of at most 10000 is needed");
  const std::string fill = P == Pad::zero ? "0" : a.given(1) ? to_text(a[1]) : " ";
  const auto size = static_cast<std::int64_t>(text_length(s));
  std::string space;
  for (std::int64_t i = size; i < a[0].as_int(); ++i) space += fill;
  if (P == Pad::left) return run.text(s + space);
  const bool sign = P == Pad::zero && (s.starts_with('-') || s.starts_with('+'));
  return run.text(sign ? s.substr(0, 1) + space + s.substr(1) : space + s);
}

// "{}", "{0}", "{name}", "{{" and "}}"; no conversions or format specifications.
Value format_method(Evaluator& run, const Value& self, const Arguments& a) {
  const std::string& s = self.as_string();
  std::string out;
  std::size_t automatic = 0;
  for (std::size_t i = 0; i < s.size(); ++i) {
    if ((s[i] == '{' || s[i] == '}') && i + 1 < s.size() && s[i + 1] == s[i]) {
      out += s[i++];
      continue;
    }
    if (s[i] != '{') {
      out += s[i];
      continue;
    }
    const std::size_t end = s.find('}', i);
    if (end == std::string::npos) return run.fail("format: '{' is not closed");
    const std::string name = s.substr(i + 1, end - i - 1);
    if (name.find_first_of("!:.[") != std::string::npos) return run.fail("format: '{" + name + "}' is not supported");
    std::size_t index = automatic;
    const bool number = std::from_chars(name.data(), name.data() + name.size(), index).ec == std::errc{};
    if (name.empty()) ++automatic;
    const auto named = std::ranges::find(a.named, name, [](const auto& n) { return n.first; });
    if (name.empty() || number) {
      if (index >= a.positional.size()) return run.fail("format: there is no argument " + std::to_string(index));
      out += to_text(a.positional[index]);
    } else if (named != a.named.end()) {
      out += to_text(named->second);
    } else {
      return run.fail("format: there is no argument '" + name + "'");
    }
    i = end;
  }
  return run.text(std::move(out));
}

}  // namespace

// "%s %d %i %f %.2f %x %%" with positional values, "%(name)s" with named ones.
Value Evaluator::percent_format(const std::string& format, const Arguments& a) {
  std::string out;
  std::size_t next = 0;
  for (std::size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      out += format[i];
      continue;
    }
    if (++i >= format.size()) return fail("incomplete format");
    if (format[i] == '%') {
      out += '%';
      continue;
    }
    const Value* value = nullptr;
    if (format[i] == '(') {
      const std::size_t end = format.find(')', i);
      const std::string name = format.substr(i + 1, end == std::string::npos ? end : end - i - 1);
      const auto named = std::ranges::find(a.named, name, [](const auto& n) { return n.first; });
      if (end == std::string::npos || named == a.named.end())
        return fail("format: there is no argument '" + name + "'");
      value = &named->second;
      i = end + 1;
    }
    const std::size_t spec_at = i;
    while (i < format.size() && std::string_view("0123456789.-+").find(format[i]) != std::string_view::npos) ++i;
    const std::string spec = format.substr(spec_at, i - spec_at);
    if (i >= format.size() || spec.size() > 8) return fail("incomplete format");
    if (value == nullptr) {
      if (next >= a.positional.size()) return fail("not enough arguments for format string");
      value = &a.positional[next++];
    }
    char text[512];
    int n = -1;
    if (format[i] == 's' && spec.empty()) {
      out += to_text(*value);
      continue;
    }
    if (!value->is_number()) return fail(std::string("format: %") + format[i] + " needs a number");
    if (format[i] == 'd' || format[i] == 'i' || format[i] == 'x') {
      if (std::fabs(value->as_real()) >= 9.2e18) return fail("format: integer too large");
      const long long whole = value->is(Kind::real) ? static_cast<long long>(value->as_real()) : value->as_int();
      n = std::snprintf(text, sizeof text, ("%" + spec + "ll" + (format[i] == 'x' ? "x" : "d")).c_str(), whole);
    } else if (format[i] == 'f' || format[i] == 'g' || format[i] == 'e') {
      n = std::snprintf(text, sizeof text, ("%" + spec + format[i]).c_str(), value->as_real());
    }
    if (n < 0 || n >= static_cast<int>(sizeof text))
      return fail("format: '%" + spec + format[i] + "' is not supported");
    out.append(text, static_cast<std::size_t>(n));
  }
  return next < a.positional.size() ? fail("not all arguments were converted") : this->text(std::move(out));
}

std::span<const MethodInfo> string_methods() {
  constexpr Receiver kText = Receiver::string;
  static const std::vector<MethodInfo> kMethods = {
      {kText, "capitalize", {}, mapped<capitalize>},
      {kText, "count", {"sub", "start", "end"}, count_method},
      {kText, "endswith", {"suffix", "start", "end"}, affix<false>},
      {kText, "find", {"sub", "start", "end"}, find_method_of<false, false>},
      {.receiver = kText, .name = "format", .parameters = {}, .raw = format_method},
      {kText, "index", {"sub", "start", "end"}, find_method_of<false, true>},
      {kText, "isalnum", {}, all_of<is_alnum>},
      {kText, "isalpha", {}, all_of<is_alpha>},
      {kText, "isdigit", {}, all_of<is_digit>},
      {kText, "islower", {}, has_case<lower, upper>},
      {kText, "isspace", {}, all_of<is_space>},
      {kText, "isupper", {}, has_case<upper, lower>},
      {kText, "join", {"iterable"}, join_method},
      {kText, "ljust", {"width", "fillchar"}, pad<Pad::left>},
      {kText, "lower", {}, mapped<lower>},
      {kText, "lstrip", {"chars"}, strip_method<true, false>},
      {kText, "partition", {"sep"}, partition<false>},
      {kText, "removeprefix", {"prefix"}, remove_affix<true>},
      {kText, "removesuffix", {"suffix"}, remove_affix<false>},
      {kText, "replace", {"old", "new", "count"}, replace_method},
      {kText, "rfind", {"sub", "start", "end"}, find_method_of<true, false>},
      {kText, "rindex", {"sub", "start", "end"}, find_method_of<true, true>},
      {kText, "rjust", {"width", "fillchar"}, pad<Pad::right>},
      {kText, "rpartition", {"sep"}, partition<true>},
      {kText, "rsplit", {"sep", "maxsplit"}, split_method<true>},
      {kText, "rstrip", {"chars"}, strip_method<false, true>},
      {kText, "split", {"sep", "maxsplit"}, split_method<false>},
      {kText, "splitlines", {"keepends"}, splitlines},
      {kText, "startswith", {"prefix", "start", "end"}, affix<true>},
      {kText, "strip", {"chars"}, strip_method<true, true>},
      {kText, "swapcase", {}, mapped<swap_case>},
      {kText, "title", {}, mapped<title>},
      {kText, "upper", {}, mapped<upper>},
      {kText, "zfill", {"width"}, pad<Pad::zero>},
  };
  return kMethods;
}

}  // namespace ganglion::local::jinja
