#pragma once
// One schema, or several that must all hold, as one set of conditions (Conditions); private to the schema compiler.

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "backends/local/grammar/numbers.hpp"
#include "backends/local/grammar/schema.hpp"

namespace ganglion::local::grammar {

using Json = nlohmann::ordered_json;
using Schemas = std::vector<const Json*>;  // all must hold; empty: anything does

enum Type : unsigned {
  kNull = 1,
  kBoolean = 2,
  kInteger = 4,
  kFraction = 8,  // numbers that are not integers
  kNumber = kInteger | kFraction,
  kString = 16,
  kArray = 32,
  kObject = 64,
  kAnyType = 127
};

struct Conditions {
  unsigned types = kAnyType;
  bool typed = false;                       // somebody said which
  unsigned mentioned = 0;                   // types that keywords were about
  std::optional<std::vector<Json>> values;  // enum and const

  std::uint32_t length_min = 0, length_max = kNoLimit;
  std::vector<std::string> patterns;  // of `format` too
  NumberSpec number;

  std::vector<Schemas> prefix;
  Schemas items;
  std::uint32_t items_min = 0, items_max = kNoLimit;

  std::vector<std::pair<std::string, Schemas>> properties;
  std::set<std::string> required;
  Schemas additional;
  bool additional_said = false;

  struct Group {  // one of these must hold
    Schemas alternatives;
    bool exclusive = false;  // and only one
    std::string where;
  };
  std::vector<Group> groups;
};

// Reads schemas into conditions. Keeps where each part of the schema lies, for messages.
class SchemaReader {
 public:
  SchemaReader(const Json& root, AutomatonBuilder& builder) : root_(root), builder_(builder) { places_[&root] = "#"; }

  core::Result<void> absorb(Conditions& to, const Json& schema) { return absorb(to, schema, 0); }
  const std::string& place(const Json& schema) { return places_[&schema]; }

 private:
  core::Result<void> absorb(Conditions& to, const Json& schema, int depth);
  core::Result<bool> read_general(Conditions& to, const Json& schema, const std::string& key, const Json& value,
                                  int depth);
  core::Result<bool> read_string(Conditions& to, const std::string& key, const Json& value);
  core::Result<bool> read_number(Conditions& to, const std::string& key, const Json& value);
  core::Result<bool> read_sized(Conditions& to, const std::string& key, const Json& value);
  core::Result<void> read_array(Conditions& to, const Json& schema);
  core::Result<void> read_object(Conditions& to, const Json& schema);
  core::Result<void> read_type(Conditions& to, const Json& value);
  core::Result<void> read_values(Conditions& to, const Json& values);
  core::Result<void> read_bound(Conditions& to, const Json& value, bool low, bool open);
  core::Result<void> read_multiple(Conditions& to, const Json& value);
  core::Result<const Json*> resolve(const std::string& reference, const std::string& at);
  core::Result<const Json*> child(const Json& of, const Json& value, const std::string& path);

  std::unexpected<core::Error> wrong(const std::string& what) const;
  std::unexpected<core::Error> unsupported(const std::string& what) const;

  const Json& root_;
  AutomatonBuilder& builder_;
  std::map<const Json*, std::string> places_;
  std::string at_;  // the keyword at hand
};

// The pattern that stands for a format; nullptr: not known.
const char* format_pattern(const std::string& format);

// Whether no value can satisfy both, as far as that is easily seen.
bool apart(SchemaReader& reader, const Schemas& a, const Schemas& b, int depth = 0);

}  // namespace ganglion::local::grammar
