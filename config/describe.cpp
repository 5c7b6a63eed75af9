// A Config written out and compared, by walking the table of fields.

#include "config/describe.hpp"

#include <nlohmann/json.hpp>

#include "config/fingerprint.hpp"
#include "config/tables.hpp"
#include "core/digest.hpp"

namespace ganglion::config {
namespace {

using Json = nlohmann::ordered_json;

Json to_json(const Value& value) {
  struct Visitor {
    Json operator()(std::monostate) const { return nullptr; }
    Json operator()(bool b) const { return b; }
    Json operator()(std::int64_t i) const { return i; }
    Json operator()(const std::string& text) const { return text; }
    Json operator()(const ValueList& list) const {
      Json out = Json::array();
      for (const Value& item : list) out.push_back(to_json(item));
      return out;
    }
    Json operator()(const ValueObject& object) const {
      Json out = Json::object();
      for (const auto& [key, item] : object) out[key] = to_json(item);
      return out;
    }
  };
  return std::visit(Visitor{}, value.data);
}

void compare(const std::vector<FieldInfo>& fields, const Value& before, const Value& after, const std::string& prefix,
             std::vector<std::string>& changed) {
  for (const FieldInfo& field : fields) {
    const Value* const a = before.find(field.key);
    const Value* const b = after.find(field.key);
    if (field.type.kind == TypeInfo::Kind::object) {
      compare(field.type.children, *a, *b, prefix + field.key + ".", changed);
    } else if (field.reloads == Reloads::restart && !(*a == *b)) {
      changed.push_back(prefix + field.key);
    }
  }
}

}  // namespace

std::string fingerprint(const Config& config) {
  const core::Sha256 digest = core::sha256(to_flow_yaml(write_object(root_table(), config, Secrets::reveal)));
  return core::hex(std::span(digest).first(8));
}

std::string describe_redacted(const Config& config) {
  // Text from the file may hold invalid UTF-8; it is replaced rather than refused.
  return to_json(write_object(root_table(), config, Secrets::redact))
             .dump(2, ' ', false, nlohmann::json::error_handler_t::replace) +
         "\n";
}

std::vector<std::string> changed_not_reloadable(const Config& before, const Config& after) {
  const Table<Config> table = root_table();
  std::vector<std::string> changed;
  compare(infos(table), write_object(table, before, Secrets::reveal), write_object(table, after, Secrets::reveal), "",
          changed);
  return changed;
}

}  // namespace ganglion::config
