#pragma once
// A configuration value written out: what fields dump, in the shape of the YAML file. Made into JSON or YAML elsewhere.

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace ganglion::config {

struct Value;
struct ValueMember;
using ValueList = std::vector<Value>;
using ValueObject = std::vector<ValueMember>;

struct Value {
  std::variant<std::monostate, bool, std::int64_t, std::string, ValueList, ValueObject> data;

  bool is_null() const { return std::holds_alternative<std::monostate>(data); }
  const ValueList* list() const { return std::get_if<ValueList>(&data); }
  const ValueObject* object() const { return std::get_if<ValueObject>(&data); }
  // A member of an object; nullptr: none.
  const Value* find(std::string_view key) const;
  friend bool operator==(const Value& a, const Value& b);
};

struct ValueMember {
  std::string key;
  Value value;
  friend bool operator==(const ValueMember&, const ValueMember&) = default;
};

// One line of YAML (flow style), which is JSON but for plain scalars: `10s`, `[a, b]`, `{rate: 5/s, burst: 9}`.
std::string to_flow_yaml(const Value& value);

}  // namespace ganglion::config
