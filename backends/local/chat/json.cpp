// JSON to values by nlohmann's SAX interface (no intermediate tree), and values to JSON as Python's json.dumps prints.

#include "backends/local/chat/json.hpp"

#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "backends/local/chat/stable_order.hpp"
#include "backends/local/chat/text.hpp"
#include "core/limits.hpp"

namespace ganglion::local::jinja {

namespace {

class Builder final : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool null() override { return put(Value::none()); }
  bool boolean(bool v) override { return put(Value::boolean(v)); }
  bool number_integer(number_integer_t v) override { return put(Value::integer(v)); }
  bool number_unsigned(number_unsigned_t v) override {
    return put(v <= static_cast<number_unsigned_t>(INT64_MAX) ? Value::integer(static_cast<std::int64_t>(v))
                                                              : Value::real(static_cast<double>(v)));
  }
  bool number_float(number_float_t v, const string_t&) override { return put(Value::real(v)); }
  bool string(string_t& v) override { return put(Value::string(std::move(v))); }
  bool binary(binary_t&) override { return false; }

  bool start_object(std::size_t) override { return open(true); }
  bool start_array(std::size_t) override { return open(false); }
  bool key(string_t& v) override {
    open_.back().key = Value::string(std::move(v));
    return true;
  }
  bool end_object() override {
    auto entries = std::move(open_.back().entries);
    open_.pop_back();
    return put(Value::dict(unique_keys(std::move(entries))));
  }
  bool end_array() override {
    auto items = std::move(open_.back().items);
    open_.pop_back();
    return put(Value::list(std::move(items)));
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    if (error_.empty()) error_ = "not valid JSON at byte " + std::to_string(position);
    return false;
  }

  Value value;
  const std::string& error() const { return error_; }

 private:
  struct Level {
    bool object;
    Value key;
    std::vector<Value> items;
    std::vector<Value::Entry> entries;
  };

  bool open(bool object) {
    if (open_.size() >= core::kJsonDepthMax) {
      error_ = "JSON nested deeper than " + std::to_string(core::kJsonDepthMax) + " levels";
      return false;
    }
    open_.push_back({.object = object, .key = {}, .items = {}, .entries = {}});
    return true;
  }

  bool put(Value v) {
    if (open_.empty()) {
      value = std::move(v);
    } else if (Level& level = open_.back(); level.object) {
      level.entries.emplace_back(std::move(level.key), std::move(v));
    } else {
      level.items.push_back(std::move(v));
    }
    return true;
  }

  // As in Python, a repeated key keeps its first place and its last value. Sorted indices keep this n log n.
  static std::vector<Value::Entry> unique_keys(std::vector<Value::Entry> entries) {
    const std::vector<std::size_t> order = stable_order(entries.size(), [&](std::size_t a, std::size_t b) {
      return entries[a].first.as_string() < entries[b].first.as_string();
    });
    std::vector<bool> drop(entries.size(), false);
    bool repeated = false;
    for (std::size_t i = 0, first = 0; i < order.size(); ++i) {
      if (i == 0 || entries[order[i]].first.as_string() != entries[order[first]].first.as_string()) {
        first = i;
        continue;
      }
      entries[order[first]].second = entries[order[i]].second;
      drop[order[i]] = repeated = true;
    }
    if (!repeated) return entries;
    std::vector<Value::Entry> kept;
    for (std::size_t i = 0; i < entries.size(); ++i) {
      if (!drop[i]) kept.push_back(std::move(entries[i]));
    }
    return kept;
  }

  std::vector<Level> open_;
  std::string error_;
};

class Writer {
 public:
  explicit Writer(const JsonStyle& style) : style_(style) {}

  bool write(const Value& v, int level) {
    switch (v.kind()) {
      case Kind::none:
        out += "null";
        return true;
      case Kind::boolean:
        out += v.as_bool() ? "true" : "false";
        return true;
      case Kind::integer:
        out += std::to_string(v.as_int());
        return true;
      case Kind::real:
        out += number(v.as_real());
        return true;
      case Kind::string:
        quote(v.as_string());
        return true;
      case Kind::list:
        return write_list(v, level);
      case Kind::dict:
        return write_dict(v.as_dict(), level);
      default:
        error = "Object of type " + std::string{type_name(v)} + " is not JSON serializable";
        return false;
    }
  }

  std::string out;
  std::string error;

 private:
  static std::string number(double d) {
    if (std::isnan(d)) return "NaN";
    if (std::isinf(d)) return d > 0 ? "Infinity" : "-Infinity";
    return real_text(d);
  }

  bool write_list(const Value& v, int level) {
    const List& list = v.as_list();
    if (list.sequence == Sequence::generator) {
      error = "Object of type generator is not JSON serializable";
      return false;
    }
    if (list.items.empty()) {
      out += "[]";
      return true;
    }
    out += '[';
    for (std::size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) out += style_.item_separator;
      line(level + 1);
      if (!write(list.items[i], level + 1)) return false;
    }
    line(level);
    out += ']';
    return true;
  }

  bool write_dict(const Dict& dict, int level) {
    if (dict.entries.empty()) {
      out += "{}";
      return true;
    }
    const std::vector<std::size_t> order = stable_order(dict.entries.size(), [&](std::size_t a, std::size_t b) {
      return style_.sort_keys && compare(dict.entries[a].first, dict.entries[b].first) == Order::less;
    });
    out += '{';
    for (std::size_t i = 0; i < order.size(); ++i) {
      if (i > 0) out += style_.item_separator;
      line(level + 1);
      const Value& key = dict.entries[order[i]].first;
      if (key.is(Kind::string)) {
        quote(key.as_string());
      } else if (key.is_number() || key.is(Kind::none)) {
        out += '"';
        if (!write(key, level)) return false;
        out += '"';
      } else {
        error = "keys must be str, int, float, bool or None, not " + std::string{type_name(key)};
        return false;
      }
      out += style_.key_separator;
      if (!write(dict.entries[order[i]].second, level + 1)) return false;
    }
    line(level);
    out += '}';
    return true;
  }

  void line(int level) {
    if (style_.indent < 0) return;
    out += '\n';
    out.append(static_cast<std::size_t>(level) * static_cast<std::size_t>(style_.indent), ' ');
  }

  void escape(char32_t c) {
    static constexpr char kHex[] = "0123456789abcdef";
    out += "\\u";
    for (int shift = 12; shift >= 0; shift -= 4) out += kHex[(c >> shift) & 15];
  }

  void quote(std::string_view s) {
    out += '"';
    for (std::size_t i = 0; i < s.size();) {
      const CodePoint c = code_point_at(s, i);
      switch (c.value) {
        case '"':
          out += "\\\"";
          break;
        case '\\':
          out += "\\\\";
          break;
        case '\n':
          out += "\\n";
          break;
        case '\r':
          out += "\\r";
          break;
        case '\t':
          out += "\\t";
          break;
        case '\b':
          out += "\\b";
          break;
        case '\f':
          out += "\\f";
          break;
        default:
          if (c.value < 0x20 || (style_.ensure_ascii && c.value > 0x7E && c.value < 0x10000)) {
            escape(c.value);
          } else if (style_.ensure_ascii && c.value >= 0x10000) {
            escape(0xD800 + ((c.value - 0x10000) >> 10));
            escape(0xDC00 + ((c.value - 0x10000) & 0x3FF));
          } else {
            out.append(s.substr(i, c.bytes));
          }
      }
      i += c.bytes;
    }
    out += '"';
  }

  const JsonStyle& style_;
};

}  // namespace

core::Result<Value> parse_json(std::string_view text) {
  Builder builder;
  const bool ok = nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
  if (!ok)
    return core::fail(core::ErrorKind::invalid_json, builder.error().empty() ? "not valid JSON" : builder.error());
  return std::move(builder.value);
}

core::Result<std::string> dump_json(const Value& v, const JsonStyle& style) {
  Writer writer(style);
  if (!writer.write(v, 0)) return core::fail(core::ErrorKind::invalid_value, writer.error);
  return std::move(writer.out);
}

}  // namespace ganglion::local::jinja
