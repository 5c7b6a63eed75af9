// Reading schemas. Every keyword is understood, an annotation, or refused by name.

#include "backends/local/grammar/schema_parts.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

namespace ganglion::local::grammar {

using core::ErrorKind;
using core::Result;

namespace {

// What says something about a value without restricting it.
constexpr std::string_view kAnnotations[] = {"title",      "description",      "default",
                                             "examples",   "example",          "deprecated",
                                             "readOnly",   "writeOnly",        "$comment",
                                             "$schema",    "contentMediaType", "contentEncoding",
                                             "$defs",      "definitions",      "additionalProperties",
                                             "properties", "required",         "items",
                                             "prefixItems"};  // the last are read together

std::string escaped(const std::string& key) {
  std::string out;
  for (const char c : key) out += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
  return out;
}

std::string unescaped(std::string_view part) {
  std::string out;
  for (std::size_t i = 0; i < part.size(); ++i) {
    if (part[i] == '~' && i + 1 < part.size()) {
      out.push_back(part[++i] == '1' ? '/' : '~');
    } else if (part[i] == '%' && i + 2 < part.size()) {
      const auto hex = [](char c) { return c <= '9' ? c - '0' : (c | 32) - 'a' + 10; };
      out.push_back(static_cast<char>(hex(part[i + 1]) * 16 + hex(part[i + 2])));
      i += 2;
    } else {
      out.push_back(part[i]);
    }
  }
  return out;
}

unsigned type_named(const std::string& name) {
  static const std::map<std::string, unsigned> kTypes = {
      {"null", kNull},     {"boolean", kBoolean}, {"integer", kInteger}, {"number", kNumber},
      {"string", kString}, {"array", kArray},     {"object", kObject}};
  const auto at = kTypes.find(name);
  return at == kTypes.end() ? 0 : at->second;
}

void append(Schemas& to, const Schemas& more) {
  for (const Json* s : more) {
    if (std::find(to.begin(), to.end(), s) == to.end()) to.push_back(s);
  }
}

}  // namespace

std::unexpected<core::Error> SchemaReader::wrong(const std::string& what) const {
  return core::fail(ErrorKind::invalid_value, "the schema's " + at_ + " " + what);
}
std::unexpected<core::Error> SchemaReader::unsupported(const std::string& what) const {
  return core::fail(ErrorKind::unsupported, "the schema's " + at_ + " " + what);
}

Result<const Json*> SchemaReader::child(const Json&, const Json& value, const std::string& path) {
  at_ = path;
  if (!value.is_object() && !value.is_boolean()) return wrong("must be a schema: an object or a boolean");
  places_.try_emplace(&value, path);
  return &value;
}

Result<void> SchemaReader::absorb(Conditions& to, const Json& schema, int depth) {
  const std::string here = place(schema);
  at_ = here;
  if (depth > kSchemaDepthMax) return wrong("refers to itself, or is nested, more than 64 levels deep");
  if (auto ok = builder_.spend(500); !ok) return ok;
  if (schema.is_boolean()) {
    if (!schema.get<bool>()) to.types = 0;
    return {};
  }
  if (!schema.is_object()) return wrong("must be a schema: an object or a boolean");
  if (auto ok = read_array(to, schema); !ok) return ok;
  if (auto ok = read_object(to, schema); !ok) return ok;
  for (const auto& [key, value] : schema.items()) {
    at_ = here + "/" + escaped(key);
    if (key.starts_with("x-") || std::ranges::find(kAnnotations, key) != std::end(kAnnotations)) continue;
    if (key == "$id" && &schema == &root_) continue;
    auto known = read_general(to, schema, key, value, depth);
    if (known && !*known) known = read_string(to, key, value);
    if (known && !*known) known = read_number(to, key, value);
    if (known && !*known) known = read_sized(to, key, value);
    if (!known) return std::unexpected(known.error());
    if (!*known) return unsupported("is a keyword that is not supported");
  }
  return {};
}

Result<bool> SchemaReader::read_general(Conditions& to, const Json&, const std::string& key, const Json& value,
                                        int depth) {
  const std::string path = at_;
  Result<void> ok;
  if (key == "type") {
    ok = read_type(to, value);
  } else if (key == "enum") {
    if (!value.is_array() || value.empty()) return wrong("must be an array of at least one value");
    ok = read_values(to, value);
  } else if (key == "const") {
    ok = read_values(to, Json::array({value}));
  } else if (key == "$ref") {
    if (!value.is_string()) return wrong("must be a string");
    auto target = resolve(value.get<std::string>(), path);
    if (!target) return std::unexpected(target.error());
    ok = absorb(to, **target, depth + 1);
  } else if (key == "allOf" || key == "anyOf" || key == "oneOf") {
    if (!value.is_array() || value.empty()) return wrong("must be an array of at least one schema");
    Conditions::Group group{.exclusive = key == "oneOf", .where = path};
    for (std::size_t i = 0; i < value.size() && ok; ++i) {
      auto part = child(value, value[i], path + "/" + std::to_string(i));
      if (!part) return std::unexpected(part.error());
      if (key == "allOf") {
        ok = absorb(to, **part, depth + 1);
      } else {
        group.alternatives.push_back(*part);
      }
    }
    if (key != "allOf") to.groups.push_back(std::move(group));
  } else {
    return false;
  }
  if (!ok) return std::unexpected(ok.error());
  return true;
}

Result<void> SchemaReader::read_type(Conditions& to, const Json& value) {
  unsigned types = 0;
  const Json list = value.is_array() ? value : Json::array({value});
  if (list.empty()) return wrong("must name at least one type");
  for (const Json& name : list) {
    const unsigned type = name.is_string() ? type_named(name.get<std::string>()) : 0;
    if (type == 0) return wrong("must name types: null, boolean, integer, number, string, array, object");
    types |= type;
  }
  to.types &= types;
  to.typed = true;
  return {};
}

Result<void> SchemaReader::read_values(Conditions& to, const Json& values) {
  std::vector<Json> all;
  for (const Json& v : values) {
    if (!to.values || std::find(to.values->begin(), to.values->end(), v) != to.values->end()) all.push_back(v);
  }
  to.values = std::move(all);
  to.typed = true;  // by the values themselves
  return {};
}

Result<const Json*> SchemaReader::resolve(const std::string& reference, const std::string& at) {
  at_ = at;
  if (!reference.starts_with('#'))
    return unsupported("leads out of the schema; only \"#\" and \"#/...\" are supported");
  const Json* now = &root_;
  std::string_view rest = std::string_view(reference).substr(1);
  if (!rest.empty() && rest.front() != '/')
    return unsupported("names an anchor; only \"#\" and \"#/...\" are supported");
  while (!rest.empty()) {
    rest.remove_prefix(1);
    const std::size_t end = std::min(rest.find('/'), rest.size());
    const std::string part = unescaped(rest.substr(0, end));
    rest.remove_prefix(end);
    if (now->is_object() && now->contains(part)) {
      now = &(*now)[part];
    } else if (std::size_t index = 0; now->is_array() && !part.empty() && part.size() < 6 &&
                                      part.find_first_not_of("0123456789") == std::string::npos &&
                                      (index = std::stoul(part)) < now->size()) {
      now = &(*now)[index];
    } else {
      return wrong("leads to nothing: \"" + reference + "\"");
    }
  }
  places_.try_emplace(now, reference);
  return now;
}

Result<bool> SchemaReader::read_string(Conditions& to, const std::string& key, const Json& value) {
  if (key != "pattern" && key != "format") return false;
  if (!value.is_string()) return wrong("must be a string");
  std::string text = value.get<std::string>();
  if (key == "format") {
    const char* pattern = format_pattern(text);
    if (pattern == nullptr) return unsupported("\"" + text + "\" is a format that is not supported");
    text = pattern;
  }
  to.mentioned |= kString;
  if (std::find(to.patterns.begin(), to.patterns.end(), text) == to.patterns.end()) to.patterns.push_back(text);
  return true;
}

Result<bool> SchemaReader::read_number(Conditions& to, const std::string& key, const Json& value) {
  Result<void> ok;
  if (key == "minimum" || key == "exclusiveMinimum") {
    ok = read_bound(to, value, true, key != "minimum");
  } else if (key == "maximum" || key == "exclusiveMaximum") {
    ok = read_bound(to, value, false, key != "maximum");
  } else if (key == "multipleOf") {
    ok = read_multiple(to, value);
  } else {
    return false;
  }
  if (!ok) return std::unexpected(ok.error());
  to.mentioned |= kNumber;
  return true;
}

Result<void> SchemaReader::read_bound(Conditions& to, const Json& value, bool low, bool open) {
  if (!value.is_number()) return wrong("must be a number");
  const auto bound = Decimal::parse(value.dump());
  if (!bound) return unsupported("has more than 40 digits");
  NumberSpec& n = to.number;
  auto& now = low ? n.minimum : n.maximum;
  bool& now_open = low ? n.minimum_open : n.maximum_open;
  const int c = now ? compare(*bound, *now) * (low ? 1 : -1) : 1;
  if (c > 0) now = bound, now_open = open;
  if (c == 0) now_open = now_open || open;
  return {};
}

Result<void> SchemaReader::read_multiple(Conditions& to, const Json& value) {
  if (!value.is_number() || value.get<double>() <= 0) return wrong("must be a number greater than zero");
  if (value.is_number_integer()) {
    if (to.number.multiple_of != 0) return unsupported("together with another multipleOf is not supported");
    if (value.get<std::uint64_t>() > 1'000) return unsupported("over 1000 is not supported");
    to.number.multiple_of = value.get<std::uint32_t>();
    return {};
  }
  const auto step = Decimal::parse(value.dump());
  if (!step || step->whole != "0" || step->fraction.find_first_not_of('0') != step->fraction.size() - 1 ||
      step->fraction.back() != '1') {
    return unsupported("must be an integer, or 0.1, 0.01 and so on, to be supported");
  }
  to.number.fraction_max = std::min(to.number.fraction_max, static_cast<int>(step->fraction.size()));
  return {};
}

Result<bool> SchemaReader::read_sized(Conditions& to, const std::string& key, const Json& value) {
  struct Keyword {
    const char* name;
    std::uint32_t Conditions::* bound;
    bool low;
    Type type;
  };
  static constexpr Keyword kKeywords[] = {{"minLength", &Conditions::length_min, true, kString},
                                          {"maxLength", &Conditions::length_max, false, kString},
                                          {"minItems", &Conditions::items_min, true, kArray},
                                          {"maxItems", &Conditions::items_max, false, kArray}};
  // Where they say nothing, they may stay.
  if (key == "uniqueItems" && value == false) return true;
  if (key == "minProperties" && value == 0) return true;
  for (const Keyword& k : kKeywords) {
    if (key != k.name) continue;
    if (!value.is_number_integer() || value.get<std::int64_t>() < 0 || value.get<std::int64_t>() > 1'000'000'000) {
      return wrong("must be an integer of 0 to 1000000000");
    }
    std::uint32_t& bound = to.*k.bound;
    const auto given = value.get<std::uint32_t>();
    bound = k.low ? std::max(bound, given) : std::min(bound, given);
    to.mentioned |= k.type;
    return true;
  }
  return false;
}

Result<void> SchemaReader::read_array(Conditions& to, const Json& schema) {
  const std::string here = place(schema);
  const auto prefix = schema.find("prefixItems"), items = schema.find("items");
  if (prefix == schema.end() && items == schema.end()) return {};
  to.mentioned |= kArray;
  std::vector<Schemas> mine;
  if (prefix != schema.end()) {
    at_ = here + "/prefixItems";
    if (!prefix->is_array()) return wrong("must be an array of schemas");
    for (std::size_t i = 0; i < prefix->size(); ++i) {
      auto part = child(schema, (*prefix)[i], here + "/prefixItems/" + std::to_string(i));
      if (!part) return std::unexpected(part.error());
      mine.push_back({*part});
    }
  }
  Schemas rest;
  if (items != schema.end()) {
    at_ = here + "/items";
    if (items->is_array()) return unsupported("must be one schema; for a list use prefixItems");
    auto part = child(schema, *items, here + "/items");
    if (!part) return std::unexpected(part.error());
    rest.push_back(*part);
  }
  std::vector<Schemas> merged(std::max(mine.size(), to.prefix.size()));
  for (std::size_t i = 0; i < merged.size(); ++i) {
    merged[i] = i < to.prefix.size() ? to.prefix[i] : to.items;
    append(merged[i], i < mine.size() ? mine[i] : rest);
  }
  to.prefix = std::move(merged);
  append(to.items, rest);
  return {};
}

Result<void> SchemaReader::read_object(Conditions& to, const Json& schema) {
  const std::string here = place(schema);
  const auto properties = schema.find("properties"), required = schema.find("required"),
             additional = schema.find("additionalProperties");
  if (properties == schema.end() && required == schema.end() && additional == schema.end()) return {};
  to.mentioned |= kObject;
  Schemas rest;
  if (additional != schema.end()) {
    auto part = child(schema, *additional, here + "/additionalProperties");
    if (!part) return std::unexpected(part.error());
    rest.push_back(*part);
    to.additional_said = true;
  }
  at_ = here + "/properties";
  const Json none = Json::object();
  const Json& mine = properties != schema.end() ? *properties : none;
  if (!mine.is_object()) return wrong("must be an object of schemas");
  for (auto& [name, parts] : to.properties) {
    if (!mine.contains(name)) append(parts, rest);
  }
  for (const auto& [name, value] : mine.items()) {
    auto part = child(schema, value, here + "/properties/" + escaped(name));
    if (!part) return std::unexpected(part.error());
    const auto known = std::ranges::find(to.properties, name, &std::pair<std::string, Schemas>::first);
    if (known != to.properties.end()) {
      append(known->second, {*part});
    } else {
      Schemas parts = to.additional;
      append(parts, {*part});
      to.properties.emplace_back(name, std::move(parts));
    }
  }
  append(to.additional, rest);
  if (required == schema.end()) return {};
  at_ = here + "/required";
  if (!required->is_array()) return wrong("must be an array of strings");
  for (const Json& name : *required) {
    if (!name.is_string()) return wrong("must be an array of strings");
    to.required.insert(name.get<std::string>());
  }
  return {};
}

}  // namespace ganglion::local::grammar
