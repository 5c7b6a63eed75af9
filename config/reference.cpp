// The table of fields as text for people: the complete default file, and docs/config.md.

#include <algorithm>
#include <vector>

#include "config/describe.hpp"
#include "config/loader.hpp"
#include "config/tables.hpp"
#include "core/assert.hpp"

namespace ganglion::config {
namespace {

using Kind = TypeInfo::Kind;

constexpr std::size_t kCommentColumns = 100;

// Comment lines of `text`, wrapped.
void append_comment(std::string& out, const std::string& indent, std::string_view text) {
  while (!text.empty()) {
    std::size_t cut = text.size();
    if (indent.size() + 2 + text.size() > kCommentColumns) {
      cut = text.rfind(' ', kCommentColumns - indent.size() - 2);
      if (cut == std::string_view::npos) cut = text.size();
    }
    out.append(indent).append("# ").append(text.substr(0, cut)).append("\n");
    text.remove_prefix(std::min(cut + 1, text.size()));
  }
}

bool is_unset(const Value& value) {
  const auto* const text = std::get_if<std::string>(&value.data);
  const ValueList* const list = value.list();
  return value.is_null() || (text != nullptr && text->empty()) || (list != nullptr && list->empty());
}

std::string explain(const FieldInfo& field) {
  if (field.type.kind == Kind::object || field.type.constraint.empty()) return field.doc;
  return field.doc + " (" + field.type.constraint + ")";
}

void append_example(std::string& out, const std::string& indent, const FieldInfo& field) {
  out.append(indent).append("# ").append(field.key).append(":");
  if (field.type.kind != Kind::objects) {
    out.append(field.example.empty() ? "" : " ").append(field.example).append("\n");
    return;
  }
  out += "\n";
  for (std::string_view rest = field.example; !rest.empty();) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    out.append(indent).append("#   ").append(rest.substr(0, end)).append("\n");
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
}

void append_fields(std::string& out, const std::string& indent, const std::vector<FieldInfo>& fields,
                   const Value& values);

void append_field(std::string& out, const std::string& indent, const FieldInfo& field, const Value& value) {
  append_comment(out, indent, explain(field));
  if (field.type.kind == Kind::object) {
    out.append(indent).append(field.key).append(":\n");
    append_fields(out, indent + "  ", field.type.children, value);
  } else if (is_unset(value)) {
    append_example(out, indent, field);
  } else if (field.type.kind == Kind::objects) {
    out.append(indent).append(field.key).append(":\n");
    for (const Value& item : *value.list()) {
      std::string text;
      append_fields(text, indent + "    ", field.type.children, item);
      // The first key carries the dash; the comment above it becomes the item's.
      const std::size_t key = text.find(indent + "    " + field.type.children.front().key + ":");
      GW_ASSERT(key != std::string::npos);
      text.replace(key + indent.size() + 2, 1, "-");
      out += text;
    }
  } else {
    out.append(indent).append(field.key).append(": ").append(to_flow_yaml(value)).append("\n");
  }
}

void append_fields(std::string& out, const std::string& indent, const std::vector<FieldInfo>& fields,
                   const Value& values) {
  for (const FieldInfo& field : fields) {
    const Value* const value = values.find(field.key);
    append_field(out, indent, field, value == nullptr ? Value{} : *value);
    if (indent.empty()) out += "\n";
  }
}

std::string default_text(const FieldInfo& field, const Value& value) {
  if (field.required) return "required";
  if (is_unset(value)) return "-";
  return "`" + to_flow_yaml(value) + "`";
}

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '|') out += '\\';
    out += c;
  }
  return out;
}

// Rows of a section, inner sections and lists flattened into dotted keys.
void append_rows(std::string& out, const std::string& prefix, const std::vector<FieldInfo>& fields,
                 const Value& defaults) {
  for (const FieldInfo& field : fields) {
    const Value* const found = defaults.find(field.key);
    const Value value = found == nullptr ? Value{} : *found;
    const std::string path = prefix + field.key;
    if (field.type.kind == Kind::object) {
      append_rows(out, path + ".", field.type.children, value);
      continue;
    }
    std::string type = field.type.name;
    if (!field.type.constraint.empty()) type += ": " + field.type.constraint;
    out += "| `" + path + "` | " + escaped(type) + " | " + escaped(default_text(field, value)) + " | " +
           (field.reloads == Reloads::yes ? "yes" : "restart") + " | " + escaped(field.doc) + " |\n";
    if (field.type.kind == Kind::objects) {
      append_rows(out, path + "[].", field.type.children, field.type.item_default);
    }
  }
}

constexpr std::string_view kTableHead = "| key | type | default | reload | meaning |\n|---|---|---|---|---|\n";

constexpr std::string_view kIntro = R"(# Configuration

<!-- Generated from config/tables*.cpp; edit the tables, then run the config tests with GANGLION_UPDATE_DOCS=1. -->

One YAML file. `ganglion serve FILE` runs it, `ganglion check FILE` tells everything that is wrong with it
as `file:line:column: message`, `ganglion config --print-default` prints a complete commented file and
`ganglion config --print-schema` a JSON Schema for editors. Without a file the built-in `config/ganglion.yaml` is
used.

- **Environment**: `${NAME}` in a value is replaced by the environment variable, which must be set;
  `${NAME:-text}` falls back to `text`; `$${` is a literal `${`. Secrets belong there: one that stands in the file
  is taken with a warning. Secrets are never printed.
- **Durations** carry a unit: `250ms`, `10s`, `1m30s`. **Sizes**: `65536`, `64KiB`, `10MiB`. **Rates**: `60/min`,
  `5/s`, `100k/hour`, `unlimited`, or `{rate: 60/min, burst: 100}` where the bucket holds more than one period.
- **Reload**: SIGHUP or a change of the file. A valid file is in force for new requests at once, running ones finish
  on the old one; an invalid file changes nothing, is logged and counted in `ganglion_config_reloads_total`. Keys
  marked *restart* keep their old value until then.
- **Files**: TLS files and model folders are relative to the configuration file; the ledger's folder and the access
  log to the working directory.

)";

}  // namespace

std::string default_yaml() {
  LoadOptions options;
  options.check_files = false;
  const LoadResult config = embedded_default(options);
  GW_ASSERT(config.has_value());  // compiled in and tested
  const Table<Config> table = root_table();
  std::string out =
      "# Every setting of ganglion with its default. Lines that begin with \"# key:\" show settings without one.\n\n";
  append_fields(out, "", infos(table), write_object(table, *config, Secrets::redact));
  return out;
}

std::string reference_markdown() {
  const Table<Config> table = root_table();
  const Value defaults = write_object(table, Config{}, Secrets::redact);
  std::string out{kIntro};
  for (const FieldInfo& field : infos(table)) {
    const bool list = field.type.kind == Kind::objects;
    out += "## " + field.key + (list ? "[]" : "") + "\n\n" + field.doc + "\n\n" + std::string(kTableHead);
    const Value* const value = defaults.find(field.key);
    if (list) {
      append_rows(out, "", field.type.children, field.type.item_default);
    } else if (field.type.kind == Kind::object) {
      append_rows(out, "", field.type.children, *value);
    } else {
      append_rows(out, "", {field}, defaults);
    }
    out += "\n";
  }
  out.pop_back();
  return out;
}

}  // namespace ganglion::config
