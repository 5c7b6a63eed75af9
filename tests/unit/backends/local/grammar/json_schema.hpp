#pragma once
// JSON Schema for tests, apart from the product's: a plain validator over parsed values, and makers of random schemas
// and of values that satisfy them. Patterns are checked by PCRE2, reached through the tokenizer's wrapper's library.

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <string>
#include <vector>

namespace ganglion::local::grammar::test {

using Json = nlohmann::ordered_json;

inline bool matches(const std::string& pattern, const std::string& text) {
  int error = 0;
  PCRE2_SIZE at = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                   PCRE2_UTF | PCRE2_DOLLAR_ENDONLY | PCRE2_ALT_BSUX, &error, &at, nullptr);
  if (code == nullptr) throw std::runtime_error("PCRE2 refuses " + pattern);
  pcre2_match_data* data = pcre2_match_data_create_from_pattern(code, nullptr);
  const int found = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0, 0, data, nullptr);
  pcre2_match_data_free(data);
  pcre2_code_free(code);
  return found >= 0;
}

inline std::size_t characters(const std::string& text) {
  std::size_t n = 0;
  for (const char c : text) n += (static_cast<unsigned char>(c) & 0xC0) != 0x80 ? 1 : 0;
  return n;
}

// 1.0 is an integer, too; grammars reach it only where a constant is spelled so.
inline bool plain_integers = false;

inline bool is_type(const Json& v, const std::string& type) {
  if (type == "null") return v.is_null();
  if (type == "boolean") return v.is_boolean();
  if (type == "integer") {
    return v.is_number_integer() ||
           (!plain_integers && v.is_number() && std::floor(v.get<double>()) == v.get<double>());
  }
  if (type == "number") return v.is_number();
  if (type == "string") return v.is_string();
  if (type == "array") return v.is_array();
  return type == "object" && v.is_object();
}

inline const Json& resolve(const Json& root, const std::string& reference) {
  return reference == "#" ? root : root.at(Json::json_pointer(reference.substr(1)));
}

// `open`: whether objects that do not say may have further members.
inline bool valid(const Json& root, const Json& s, const Json& v, bool open = true) {
  if (s.is_boolean()) return s.get<bool>();
  const auto has = [&](const char* key) { return s.contains(key); };
  const auto all = [&](const Json& list, auto test) { return std::all_of(list.begin(), list.end(), test); };
  const auto fits = [&](const Json& other) { return valid(root, other, v, open); };
  if (has("$ref") && !fits(resolve(root, s["$ref"]))) return false;
  if (has("allOf") && !all(s["allOf"], fits)) return false;
  if (has("anyOf") && std::none_of(s["anyOf"].begin(), s["anyOf"].end(), fits)) return false;
  if (has("oneOf") && std::count_if(s["oneOf"].begin(), s["oneOf"].end(), fits) != 1) return false;
  if (has("enum") && std::find(s["enum"].begin(), s["enum"].end(), v) == s["enum"].end()) return false;
  if (has("const") && s["const"] != v) return false;
  if (has("type")) {
    const Json types = s["type"].is_array() ? s["type"] : Json::array({s["type"]});
    if (std::none_of(types.begin(), types.end(), [&](const Json& t) { return is_type(v, t); })) return false;
  }
  if (v.is_string()) {
    const auto text = v.get<std::string>();
    if (characters(text) < s.value("minLength", 0U) || characters(text) > s.value("maxLength", 1U << 30)) return false;
    if (has("pattern") && !matches(s["pattern"], text)) return false;
  }
  if (v.is_number()) {
    const long double x = v.get<long double>();
    if (has("minimum") && x < s["minimum"].get<long double>()) return false;
    if (has("maximum") && x > s["maximum"].get<long double>()) return false;
    if (has("exclusiveMinimum") && x <= s["exclusiveMinimum"].get<long double>()) return false;
    if (has("exclusiveMaximum") && x >= s["exclusiveMaximum"].get<long double>()) return false;
    if (has("multipleOf") && s["multipleOf"].is_number_integer() &&
        (v.is_number_integer() ? v.get<std::int64_t>() % s["multipleOf"].get<std::int64_t>() != 0
                               : std::fmod(v.get<double>(), s["multipleOf"].get<double>()) != 0)) {
      return false;
    }
  }
  if (v.is_array()) {
    if (v.size() < s.value("minItems", 0U) || v.size() > s.value("maxItems", 1U << 30)) return false;
    const Json prefix = s.value("prefixItems", Json::array());
    for (std::size_t i = 0; i < v.size(); ++i) {
      if (i < prefix.size() ? !valid(root, prefix[i], v[i], open)
                            : has("items") && !valid(root, s["items"], v[i], open)) {
        return false;
      }
    }
  }
  if (v.is_object()) {
    for (const Json& name : s.value("required", Json::array())) {
      if (!v.contains(name.get<std::string>())) return false;
    }
    const Json properties = s.value("properties", Json::object());
    for (const auto& [name, value] : v.items()) {
      if (properties.contains(name)) {
        if (!valid(root, properties[name], value, open)) return false;
      } else if (has("additionalProperties")) {
        if (!valid(root, s["additionalProperties"], value, open)) return false;
      } else if (!open && (has("properties") || s.value("type", Json()) == "object")) {
        return false;
      }
    }
  }
  return true;
}

class RandomSchemas {
 public:
  explicit RandomSchemas(std::uint64_t seed) : random_(seed) {}

  // With `$defs` that it refers to, one of which refers to itself.
  Json schema() {
    Json root = node(0);
    if (!root.is_object()) root = {{"anyOf", {root, {{"type", "null"}}}}};
    root["$defs"] = {
        {"leaf", scalar()},
        {"tree",
         {{"type", "object"},
          {"properties", {{"v", scalar()}, {"l", {{"$ref", "#/$defs/tree"}}}, {"r", {{"$ref", "#/$defs/tree"}}}}},
          {"required", {"v"}},
          {"additionalProperties", false}}},
        {"list",
         {{"anyOf",
           {{{"type", "null"}}, {{"type", "array"}, {"items", {{"$ref", "#/$defs/list"}}}, {"maxItems", 3}}}}}}};
    return root;
  }

  // A value that may satisfy the schema; the caller checks.
  Json value(const Json& root, const Json& s, int depth = 0) {
    if (s.is_boolean() || depth > 12) return any(2);
    if (s.contains("$ref")) return value(root, resolve(root, s["$ref"]), depth + 1);
    if (s.contains("enum")) return s["enum"][pick(s["enum"].size())];
    if (s.contains("const")) return s["const"];
    Json base;
    if (s.contains("type")) base = typed(root, s, depth);
    for (const char* key : {"allOf", "anyOf", "oneOf"}) {
      if (!s.contains(key)) continue;
      const Json& list = s[key];
      const std::size_t only = pick(list.size());
      for (std::size_t i = 0; i < list.size(); ++i) {
        if (std::string(key) != "allOf" && i != only) continue;
        const Json part = value(root, list[i], depth + 1);
        if (base.is_object() && part.is_object()) {
          for (const auto& [name, v] : part.items()) base[name] = v;
        } else if (base.is_null()) {
          base = part;
        }
      }
    }
    return base;
  }

  std::size_t pick(std::size_t below) { return static_cast<std::size_t>(random_() % below); }
  std::mt19937_64& random() { return random_; }

  std::string text(std::size_t length) {
    static const std::vector<std::string> kPieces = {"a",    "b",    "Z", "0", " ",  "\"", "\\", "/", "\n",
                                                     "\x01", "\x7f", "é", "ß", "日", "😀", "{",  "]", ","};
    std::string out;
    for (std::size_t i = 0; i < length; ++i) out += kPieces[pick(kPieces.size())];
    return out;
  }

 private:
  bool coin(int of = 2) { return pick(static_cast<std::size_t>(of)) == 0; }
  std::int64_t number(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(pick(static_cast<std::size_t>(high - low + 1)));
  }
  std::string name() {
    static const std::vector<std::string> kNames = {"a",   "ab",   "abc", "b",  "name", "na",
                                                    "x y", "q\"q", "é",   "id", "0",    ""};
    return kNames[pick(kNames.size())];
  }

  Json any(int depth) {
    switch (pick(depth > 0 ? 7 : 5)) {
      case 0:
        return nullptr;
      case 1:
        return coin();
      case 2:
        return number(-1000, 1000);
      case 3:
        return static_cast<double>(number(-1000, 1000)) / 8;
      case 4:
        return text(pick(6));
      case 5: {
        Json out = Json::array();
        for (std::size_t i = pick(4); i > 0; --i) out.push_back(any(depth - 1));
        return out;
      }
      default: {
        Json out = Json::object();
        for (std::size_t i = pick(4); i > 0; --i) out[name()] = any(depth - 1);
        return out;
      }
    }
  }

  Json scalar() {
    switch (pick(9)) {
      case 0:
        return {{"type", "null"}};
      case 1:
        return {{"type", "boolean"}};
      case 2: {
        Json s = {{"type", "integer"}};
        if (coin()) s[coin() ? "minimum" : "exclusiveMinimum"] = number(-150, 50);
        if (coin()) s[coin() ? "maximum" : "exclusiveMaximum"] = number(52, 2000);
        if (coin(4)) s["multipleOf"] = number(1, 12);
        return s;
      }
      case 3: {
        Json s = {{"type", "number"}};
        if (coin()) s[coin() ? "minimum" : "exclusiveMinimum"] = static_cast<double>(number(-400, 3)) / 8;
        if (coin()) s[coin() ? "maximum" : "exclusiveMaximum"] = static_cast<double>(number(4, 4000)) / 8;
        return s;
      }
      case 4: {
        Json s = {{"type", "string"}};
        if (coin()) s["minLength"] = pick(5);
        if (coin()) s["maxLength"] = 4 + pick(30);
        return s;
      }
      case 5: {
        static const std::vector<std::string> kPatterns = {"^[a-z]{2,5}$", "^(ab|cd)+$",       "^[A-Z][0-9]*$",
                                                           "^x?y*z$",      "^[^\\\\\"]{1,3}$", "^\\d{3}-\\d{2}$"};
        return {{"type", "string"}, {"pattern", kPatterns[pick(kPatterns.size())]}};
      }
      case 6: {
        Json values = Json::array();
        for (std::size_t i = 1 + pick(4); i > 0; --i) values.push_back(any(1));
        return {{"enum", values}};
      }
      case 7:
        return {{"const", any(1)}};
      default:
        return {{"type", {"string", "null", "integer"}}};
    }
  }

  Json node(int depth) {
    if (depth >= 3) return scalar();
    switch (pick(12)) {
      case 0:
      case 1:
      case 2:
      case 3:
        return object(depth);
      case 4:
      case 5:
        return array(depth);
      case 6:
        return {{"anyOf", {node(depth + 1), node(depth + 1)}}};
      case 7:
        return {{"oneOf", {{{"type", "integer"}}, {{"type", "string"}, {"maxLength", 9}}, array(depth + 1)}}};
      case 8:
        return {{"allOf", {object(depth + 1), object(depth + 1)}}};
      case 9:
        return {{"$ref", coin() ? "#/$defs/tree" : coin() ? "#/$defs/leaf" : "#/$defs/list"}};
      case 10:
        return coin(3) ? Json(true) : Json({{"type", "object"}});
      default:
        return scalar();
    }
  }

  Json object(int depth) {
    Json s = {{"type", "object"}, {"properties", Json::object()}};
    Json required = Json::array();
    for (std::size_t i = pick(5); i > 0; --i) {
      const std::string n = name();
      if (!s["properties"].contains(n) && coin()) required.push_back(n);
      s["properties"][n] = node(depth + 1);
    }
    if (!required.empty()) s["required"] = required;
    switch (pick(4)) {
      case 0:
        s["additionalProperties"] = false;
        break;
      case 1:
        s["additionalProperties"] = scalar();
        break;
      case 2:
        s["additionalProperties"] = true;
        break;
      default:
        break;
    }
    return s;
  }

  Json array(int depth) {
    Json s = {{"type", "array"}};
    if (!coin(4)) s["items"] = node(depth + 1);
    if (coin(3)) {
      s["prefixItems"] = Json::array();
      for (std::size_t i = 1 + pick(3); i > 0; --i) s["prefixItems"].push_back(node(depth + 1));
    }
    if (coin()) s["minItems"] = pick(4);
    if (coin()) s["maxItems"] = 3 + pick(3);
    return s;
  }

  Json typed(const Json& root, const Json& s, int depth) {
    const std::string type = s["type"].is_array() ? s["type"][pick(s["type"].size())] : s["type"];
    if (type == "null") return nullptr;
    if (type == "boolean") return coin();
    if (type == "integer") {
      const std::int64_t step = s.value("multipleOf", 1);
      return number(-200 / step, 2100 / step) * step;
    }
    if (type == "number") return coin() ? Json(number(-60, 60)) : Json(static_cast<double>(number(-480, 4200)) / 8);
    if (type == "string") {
      const std::string pattern = s.value("pattern", "");
      if (!pattern.empty()) {
        static const std::vector<std::string> kTries = {"abc",  "zz", "abcdab", "cd",   "A",   "Q17",    "z",
                                                        "xyyz", "yz", "é",      "日本", "a b", "123-45", "ab"};
        return kTries[pick(kTries.size())];
      }
      const std::size_t low = s.value("minLength", 0U), high = std::min<std::size_t>(s.value("maxLength", 12U), 12);
      return text(low + pick(std::max<std::size_t>(high, low) - low + 1));
    }
    if (type == "array") {
      Json out = Json::array();
      const Json prefix = s.value("prefixItems", Json::array());
      const std::size_t low = s.value("minItems", 0U), high = s.value("maxItems", 5U);
      const std::size_t count = low + pick(std::max(low, high) - low + 1);
      for (std::size_t i = 0; i < count; ++i) {
        out.push_back(i < prefix.size() ? value(root, prefix[i], depth + 1)
                                        : value(root, s.value("items", Json(true)), depth + 1));
      }
      return out;
    }
    Json out = Json::object();
    const Json required = s.value("required", Json::array());
    if (s.contains("properties")) {
      for (const auto& [n, part] : s["properties"].items()) {
        const bool must = std::find(required.begin(), required.end(), n) != required.end();
        if (must || (depth < 6 && coin())) out[n] = value(root, part, depth + 1);
      }
    }
    const Json additional = s.value("additionalProperties", Json(true));
    if (additional != false && coin(3)) out["more" + std::to_string(pick(3))] = value(root, additional, depth + 1);
    return out;
  }

  std::mt19937_64 random_;
};

}  // namespace ganglion::local::grammar::test
