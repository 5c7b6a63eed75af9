// Value to one line of YAML.

#include "config/value.hpp"

#include <algorithm>

#include "core/log.hpp"

namespace ganglion::config {
namespace {

// Plain only where no YAML reader can take it for anything else.
bool is_plain(std::string_view text) {
  const auto good = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' ||
           c == '/' || c == '-' || c == ':';
  };
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  if (text.empty() || text.back() == ':' || text.starts_with('-') || !std::ranges::all_of(text, good)) return false;
  if (text == "true" || text == "false" || text == "null" || text == "yes" || text == "no") return false;
  return std::ranges::any_of(text, letter) || text.find(':') != std::string_view::npos;
}

struct Writer {
  std::string operator()(std::monostate) const { return "null"; }
  std::string operator()(bool b) const { return b ? "true" : "false"; }
  std::string operator()(std::int64_t i) const { return std::to_string(i); }
  std::string operator()(const std::string& text) const {
    if (is_plain(text)) return text;
    std::string out;
    core::append_json_string(out, text);
    return out;
  }
  std::string operator()(const ValueList& list) const {
    std::string out = "[";
    for (const Value& item : list) out.append(out.size() > 1 ? ", " : "").append(to_flow_yaml(item));
    return out + "]";
  }
  std::string operator()(const ValueObject& object) const {
    std::string out = "{";
    for (const auto& [key, item] : object) {
      out.append(out.size() > 1 ? ", " : "").append(key).append(": ").append(to_flow_yaml(item));
    }
    return out + "}";
  }
};

}  // namespace

bool operator==(const Value& a, const Value& b) {
  return a.data == b.data;
}

const Value* Value::find(std::string_view key) const {
  const ValueObject* const members = object();
  if (members == nullptr) return nullptr;
  const auto found = std::ranges::find(*members, key, &ValueMember::key);
  return found == members->end() ? nullptr : &found->value;
}

std::string to_flow_yaml(const Value& value) {
  return std::visit(Writer{}, value.data);
}

}  // namespace ganglion::config
