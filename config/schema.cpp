// The table of fields as a JSON Schema (draft 2020-12), for completion and checks in editors. Any scalar may also be
// a string with ${NAME} in it; what only the loader can see (references, files, the environment) is left to it.

#include <nlohmann/json.hpp>

#include "config/describe.hpp"
#include "config/tables.hpp"

namespace ganglion::config {
namespace {

using Json = nlohmann::ordered_json;
using Kind = TypeInfo::Kind;

constexpr std::string_view kDurationPattern = "^(0|([0-9]+(d|h|m|s|ms|us))+)$";
constexpr std::string_view kSizePattern = "^[0-9]+(B|KB|kB|MB|GB|KiB|MiB|GiB)?$";
constexpr std::string_view kRatePattern = "^(unlimited|[1-9][0-9]*[kM]?/(s|sec|second|m|min|minute|h|hour|day))$";
constexpr std::string_view kDecimalPattern = "^[0-9]{1,12}(\\.[0-9]{1,9})?$";

Json object_schema(const std::vector<FieldInfo>& fields);

Json pattern(std::string_view text) {
  return {{"type", "string"}, {"pattern", text}};
}

// A plain form or a string with a variable in it.
Json or_env(Json plain) {
  return {{"anyOf", Json::array({std::move(plain), pattern("\\$\\{")})}};
}

Json any_of(Json a, Json b) {
  return {{"anyOf", Json::array({std::move(a), std::move(b), pattern("\\$\\{")})}};
}

Json number(const TypeInfo& type) {
  Json n = {{"type", "integer"}, {"minimum", *type.min}, {"maximum", *type.max}};
  return type.choices.empty() ? or_env(std::move(n)) : any_of(std::move(n), {{"enum", type.choices}});
}

Json rate_schema() {
  Json map = {{"type", "object"},
              {"properties",
               {{"rate", or_env(pattern(kRatePattern))}, {"burst", or_env({{"type", "integer"}, {"minimum", 1}})}}},
              {"required", {"rate"}},
              {"additionalProperties", false}};
  return any_of(pattern(kRatePattern), std::move(map));
}

Json list_schema(const TypeInfo& type) {
  Json item = object_schema(type.children);
  if (type.plain_item) item = {{"anyOf", Json::array({{{"type", "string"}}, std::move(item)})}};
  return {{"type", {"array", "null"}}, {"items", std::move(item)}};
}

Json type_schema(const TypeInfo& type) {
  switch (type.kind) {
    case Kind::boolean:
      return or_env({{"type", "boolean"}});
    case Kind::integer:
      return number(type);
    case Kind::size:
      return any_of(pattern(kSizePattern), {{"type", "integer"}, {"minimum", 0}});
    case Kind::duration:
      return any_of(pattern(kDurationPattern), {{"const", 0}});
    case Kind::decimal:
      return any_of(pattern(kDecimalPattern), {{"type", "number"}, {"minimum", 0}});
    case Kind::rate:
      return rate_schema();
    case Kind::choice:
      return or_env({{"enum", type.choices}});
    case Kind::text:
      if (type.pattern.empty()) return {{"type", {"string", "number", "boolean"}}};
      return any_of(pattern(type.pattern), {{"type", "number"}});
    case Kind::listen:
    case Kind::secret:
      return {{"type", "string"}};
    case Kind::strings:
      return {{"type", "array"}, {"items", {{"type", "string"}}}, {"minItems", 1}};
    case Kind::integers:
      return {{"type", "array"}, {"items", {{"type", "integer"}, {"minimum", *type.min}, {"maximum", *type.max}}}};
    case Kind::object: {
      Json section = object_schema(type.children);
      section["type"] = {"object", "null"};
      return section;
    }
    case Kind::objects:
      return list_schema(type);
  }
  return {};
}

Json object_schema(const std::vector<FieldInfo>& fields) {
  Json out = {{"type", "object"}, {"properties", Json::object()}};
  Json required = Json::array();
  for (const FieldInfo& field : fields) {
    Json property = type_schema(field.type);
    property["description"] = field.type.constraint.empty() ? field.doc : field.doc + " " + field.type.constraint;
    out["properties"][field.key] = std::move(property);
    if (field.required) required.push_back(field.key);
  }
  if (!required.empty()) out["required"] = std::move(required);
  out["additionalProperties"] = false;
  return out;
}

}  // namespace

std::string json_schema() {
  Json out = {{"$schema", "https://json-schema.org/draft/2020-12/schema"}, {"title", "ganglion configuration"}};
  out.update(object_schema(infos(root_table())));
  return out.dump(2) + "\n";
}

}  // namespace ganglion::config
