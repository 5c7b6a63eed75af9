// Filters on text and numbers.

#include <algorithm>
#include <charconv>
#include <cmath>

#include "backends/local/chat/builtins.hpp"
#include "backends/local/chat/evaluator.hpp"
#include "backends/local/chat/json.hpp"
#include "backends/local/chat/text.hpp"

namespace ganglion::local::jinja {

namespace {

template <std::string (*Map)(std::string_view)>
Value mapped(Evaluator& run, const Value& v, const Bound&) {
  return run.text(Map(to_text(v)));
}

std::optional<std::int64_t> whole(Evaluator& run, const Bound& a, std::size_t i, std::int64_t absent, std::int64_t low,
                                  std::int64_t high) {
  if (!a.given(i)) return absent;
  if (!a[i].is_integral() || a[i].as_int() < low || a[i].as_int() > high) {
    run.fail("argument " + std::to_string(i + 1) + " must be an integer from " + std::to_string(low) + " to " +
             std::to_string(high));
    return std::nullopt;
  }
  return a[i].as_int();
}

Value trim(Evaluator& run, const Value& v, const Bound& a) {
  const std::string s = to_text(v);
  const bool chars = a.given(0) && !a[0].is(Kind::none);
  const std::string set = chars ? to_text(a[0]) : std::string{};
  return run.text(std::string{strip(s, chars ? std::optional<std::string_view>{set} : std::nullopt, true, true)});
}

Value replace_filter(Evaluator& run, const Value& v, const Bound& a) {
  if (!a.given(0) || !a.given(1)) return run.fail("replace needs the old and the new text");
  const auto limit = whole(run, a, 2, -1, -1, INT64_MAX);
  if (!limit) return {};
  return run.text(replace(to_text(v), to_text(a[0]), to_text(a[1]), *limit));
}

Value tojson(Evaluator& run, const Value& v, const Bound& a) {
  JsonStyle style;
  style.ensure_ascii = truthy(a[0]);
  if (a.given(1) && !a[1].is(Kind::none)) {
    const auto indent = whole(run, a, 1, 0, 0, 64);
    if (!indent) return {};
    style.indent = static_cast<int>(*indent);
    style.item_separator = ",";
  }
  if (a.given(2) && !a[2].is(Kind::none)) {
    if (!a[2].is(Kind::list) || a[2].as_list().items.size() != 2) return run.fail("separators must be a pair");
    style.item_separator = to_text(a[2].as_list().items[0]);
    style.key_separator = to_text(a[2].as_list().items[1]);
  }
  style.sort_keys = truthy(a[3]);
  auto json = dump_json(v, style);
  return json ? run.text(std::move(*json)) : run.fail(json.error().message);
}

// Jinja's indent appends a newline first, hence a last line that is blank.
Value indent(Evaluator& run, const Value& v, const Bound& a) {
  std::string by;
  if (a.given(0) && a[0].is(Kind::string)) {
    by = a[0].as_string();
  } else {
    const auto width = whole(run, a, 0, 4, 0, 1000);
    if (!width) return {};
    by.assign(static_cast<std::size_t>(*width), ' ');
  }
  const bool first = truthy(a[1]);
  const bool blank = truthy(a[2]);
  const std::vector<std::string> lines = split_lines(to_text(v) + "\n", false);
  std::string out;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += '\n';
    if (i == 0 ? first : blank || !lines[i].empty()) out += by;
    out += lines[i];
  }
  return run.text(std::move(out));
}

Value escape(Evaluator& run, const Value& v, const Bound&) {
  std::string out;
  for (const char c : to_text(v)) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return run.text(std::move(out));
}

Value striptags(Evaluator& run, const Value& v, const Bound&) {
  const std::string s = to_text(v);
  std::string out;
  for (std::size_t i = 0; i < s.size();) {
    const std::string_view rest = std::string_view(s).substr(i);
    const bool comment = rest.starts_with("<!--");
    const std::size_t end = rest[0] != '<' ? std::string_view::npos : rest.find(comment ? "-->" : ">");
    if (end == std::string_view::npos) {
      out += rest[0];
      ++i;
    } else {
      i += end + (comment ? 3 : 1);
    }
  }
  std::string joined;
  for (const std::string& word : split(out, std::nullopt, -1, false)) joined += (joined.empty() ? "" : " ") + word;
  static constexpr std::pair<std::string_view, std::string_view> kEntities[] = {
      {"&lt;", "<"}, {"&gt;", ">"}, {"&quot;", "\""}, {"&#34;", "\""}, {"&#39;", "'"}, {"&amp;", "&"}};
  for (const auto& [from, to] : kEntities) joined = replace(joined, from, to, -1);
  return run.text(std::move(joined));
}

Value truncate(Evaluator& run, const Value& v, const Bound& a) {
  const std::string s = to_text(v);
  const std::string end = a.given(2) ? to_text(a[2]) : "...";
  const auto length = whole(run, a, 0, 255, 0, INT32_MAX);
  const auto leeway = whole(run, a, 3, 5, 0, INT32_MAX);
  if (!length || !leeway) return {};
  const auto tail = static_cast<std::int64_t>(text_length(end));
  if (*length < tail) return run.fail("truncate: the length is shorter than the end mark");
  if (static_cast<std::int64_t>(text_length(s)) <= *length + *leeway) return run.text(s);
  std::string cut = s.substr(0, byte_offset(s, static_cast<std::size_t>(*length - tail)));
  if (!truthy(a[1])) cut = cut.substr(0, cut.rfind(' '));
  return run.text(cut + end);
}

Value center(Evaluator& run, const Value& v, const Bound& a) {
  const std::string s = to_text(v);
  const auto width = whole(run, a, 0, 80, 0, 10'000);
  if (!width) return {};
  const auto size = static_cast<std::int64_t>(text_length(s));
  const std::int64_t space = std::max<std::int64_t>(*width - size, 0);
  // Python puts the odd blank on the left when the width is odd.
  const std::int64_t left = space / 2 + (space & *width & 1);
  return run.text(std::string(static_cast<std::size_t>(left), ' ') + s +
                  std::string(static_cast<std::size_t>(space - left), ' '));
}

Value wordcount(Evaluator& run, const Value& v, const Bound&) {
  const std::string s = to_text(v);
  std::int64_t words = 0;
  bool inside = false;
  for (std::size_t i = 0; i < s.size();) {
    const CodePoint c = code_point_at(s, i);
    const bool word = is_alpha(c.value) || is_digit(c.value) || c.value == '_';
    words += word && !inside ? 1 : 0;
    inside = word;
    i += c.bytes;
  }
  (void)run;
  return Value::integer(words);
}

Value format_filter(Evaluator& run, const Value& v, const Arguments& a) {
  return run.percent_format(to_text(v), a);
}

std::optional<double> parse_real(std::string_view s) {
  s = strip(s, std::nullopt, true, true);
  if (s.starts_with('+')) s.remove_prefix(1);
  double out = 0;
  const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), out);
  return error == std::errc{} && end == s.data() + s.size() && !s.empty() ? std::optional{out} : std::nullopt;
}

Value truncated(Evaluator& run, double d, const Value& otherwise) {
  // 2^63 is the first double that no int64 holds.
  if (std::isnan(d) || std::isinf(d)) return otherwise;
  if (d >= 9223372036854775808.0 || d < -9223372036854775808.0) return run.fail("integer too large");
  return Value::integer(static_cast<std::int64_t>(d));
}

Value int_filter(Evaluator& run, const Value& v, const Bound& a) {
  if (v.is(Kind::undefined)) return run.fail_undefined(v);
  const Value otherwise = a.given(0) ? a[0] : Value::integer(0);
  if (v.is_integral()) return Value::integer(v.as_int());
  if (v.is(Kind::real)) return truncated(run, v.as_real(), otherwise);
  if (!v.is(Kind::string)) return otherwise;
  const auto base = whole(run, a, 1, 10, 2, 36);
  if (!base) return {};
  std::string_view s = strip(v.as_string(), std::nullopt, true, true);
  if (s.starts_with('+')) s.remove_prefix(1);
  std::int64_t out = 0;
  const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), out, static_cast<int>(*base));
  if (error == std::errc{} && end == s.data() + s.size() && !s.empty()) return Value::integer(out);
  const auto real = parse_real(v.as_string());
  return real ? truncated(run, *real, otherwise) : otherwise;
}

Value float_filter(Evaluator& run, const Value& v, const Bound& a) {
  if (v.is(Kind::undefined)) return run.fail_undefined(v);
  const Value otherwise = a.given(0) ? a[0] : Value::real(0.0);
  if (v.is_number()) return Value::real(v.as_real());
  const auto real = v.is(Kind::string) ? parse_real(v.as_string()) : std::nullopt;
  return real ? Value::real(*real) : otherwise;
}

Value abs_filter(Evaluator& run, const Value& v, const Bound&) {
  if (v.is(Kind::undefined)) return run.fail_undefined(v);
  if (!v.is_number()) return run.fail("abs needs a number, not " + std::string{type_name(v)});
  if (v.is(Kind::real)) return Value::real(std::fabs(v.as_real()));
  return v.as_int() < 0 ? run.arithmetic(Op::sub, Value::integer(0), v) : Value::integer(v.as_int());
}

Value round_filter(Evaluator& run, const Value& v, const Bound& a) {
  if (!v.is_number()) return run.fail("round needs a number, not " + std::string{type_name(v)});
  const auto precision = whole(run, a, 0, 0, -15, 15);
  if (!precision) return {};
  const std::string method = a.given(1) ? to_text(a[1]) : "common";
  if (method != "common" && method != "ceil" && method != "floor") {
    return run.fail("round: method must be common, ceil or floor");
  }
  const double scale = std::pow(10.0, static_cast<double>(*precision));
  const double d = v.as_real();
  if (method == "common") {
    if (v.is_integral() && *precision >= 0) return Value::integer(v.as_int());
    if (*precision < 0) {
      const double rounded = std::nearbyint(d * scale) / scale;
      return v.is_integral() ? truncated(run, rounded, v) : Value::real(rounded);
    }
    // The C library rounds the exact binary value half to even, as Python's round() does.
    char text[400];
    const int n = std::snprintf(text, sizeof text, "%.*f", static_cast<int>(*precision), d);
    if (n < 0 || n >= static_cast<int>(sizeof text)) return v;
    double out = 0;
    std::from_chars(text, text + n, out);
    return Value::real(out);
  }
  return Value::real((method == "ceil" ? std::ceil(d * scale) : std::floor(d * scale)) / scale);
}

Value text_of(Evaluator& run, const Value& v, const Bound&) {
  return v.is(Kind::string) ? v : run.text(to_text(v));
}

}  // namespace

std::span<const FilterInfo> text_filters() {
  static const std::vector<FilterInfo> kFilters = {
      {.name = "abs", .parameters = {}, .run = abs_filter},
      {.name = "capitalize", .parameters = {}, .run = mapped<capitalize>},
      {.name = "center", .parameters = {"width"}, .run = center},
      {.name = "e", .parameters = {}, .run = escape},
      {.name = "escape", .parameters = {}, .run = escape},
      {.name = "float", .parameters = {"default"}, .run = float_filter},
      {.name = "format", .parameters = {}, .raw = format_filter},
      {.name = "indent", .parameters = {"width", "first", "blank"}, .run = indent},
      {.name = "int", .parameters = {"default", "base"}, .run = int_filter},
      {.name = "lower", .parameters = {}, .run = mapped<lower>},
      {.name = "replace", .parameters = {"old", "new", "count"}, .run = replace_filter},
      {.name = "round", .parameters = {"precision", "method"}, .run = round_filter},
      // Without autoescape Jinja's safe text prints as it is.
      {.name = "safe", .parameters = {}, .run = text_of},
      {.name = "string", .parameters = {}, .run = text_of},
      {.name = "striptags", .parameters = {}, .run = striptags},
      {.name = "title", .parameters = {}, .run = mapped<title_words>},
      {.name = "tojson", .parameters = {"ensure_ascii", "indent", "separators", "sort_keys"}, .run = tojson},
      {.name = "trim", .parameters = {"chars"}, .run = trim},
      {.name = "truncate", .parameters = {"length", "killwords", "end", "leeway"}, .run = truncate},
      {.name = "upper", .parameters = {}, .run = mapped<upper>},
      {.name = "wordcount", .parameters = {}, .run = wordcount},
  };
  return kFilters;
}

}  // namespace ganglion::local::jinja
