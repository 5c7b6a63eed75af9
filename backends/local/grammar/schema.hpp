#pragma once
// JSON Schema (2020-12) to rules. What is not supported is refused with the keyword's JSON pointer, never ignored:
//
//   type, enum, const, properties, required, additionalProperties, items, prefixItems, minItems, maxItems, minLength,
//   maxLength, pattern, format, minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf (integers, and powers
//   of ten below one), anyOf, oneOf (alternatives that no value can satisfy two of), allOf, $ref within the schema,
//   $defs
//
// Members are written in the order of `properties`, further ones behind them. A schema that names no type but keywords
// of some means those types.

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "backends/local/grammar/builder.hpp"
#include "backends/local/grammar/json_rules.hpp"

namespace ganglion::local::grammar {

inline constexpr std::size_t kSchemaBytesMax = 256U * 1024;
inline constexpr int kSchemaDepthMax = 64;

struct SchemaOptions {
  // Whether an object may have members that the schema does not name, where it does not say.
  bool open_objects = true;
};

// The rule of a schema. Errors: unsupported and invalid_value, with the JSON pointer in the message.
core::Result<RuleId> schema_rule(AutomatonBuilder& builder, JsonRules& json, const nlohmann::ordered_json& schema,
                                 const SchemaOptions& options);

}  // namespace ganglion::local::grammar
