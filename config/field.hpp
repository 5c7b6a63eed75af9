#pragma once
// The machinery of the table of fields: a Codec reads and writes one kind of value, a Field binds a codec to a key and
// to a member of a settings struct, a Table is the fields of one struct. Parsing, defaults, the default file, the JSON
// Schema, the reference and the reload check all walk the same tables.

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "config/reader.hpp"
#include "config/units.hpp"
#include "config/value.hpp"
#include "core/secret.hpp"

namespace ganglion::config {

struct FieldInfo;

// A kind of value, as documentation and the schema need to know it.
struct TypeInfo {
  enum class Kind : std::uint8_t {
    boolean,
    integer,
    size,
    duration,
    text,
    secret,
    choice,
    decimal,
    rate,
    listen,
    strings,
    integers,
    object,
    objects
  };
  Kind kind = Kind::text;
  std::string name;                 // "duration"
  std::string constraint;           // "1s to 1h", "" for none
  std::optional<std::int64_t> min;  // integer
  std::optional<std::int64_t> max;
  std::vector<std::string> choices;  // choice; for an integer: words that stand for a number ("auto")
  std::string pattern;               // text: regular expression of the schema, "" for none
  std::vector<FieldInfo> children;   // object, objects
  Value item_default;                // objects: a default-made item, for the defaults of its children
  bool plain_item = false;           // objects: an item may also be a plain string
};

enum class Reloads : std::uint8_t { yes, restart };

struct FieldInfo {
  std::string key;
  TypeInfo type;
  std::string doc;
  Reloads reloads = Reloads::yes;
  bool required = false;
  std::string example;  // YAML text for the default file's commented example; "" for none
};

// With `reveal`, secrets are written as they are (to compare and to hash); else as "[redacted]".
enum class Secrets : std::uint8_t { redact, reveal };

template <class M>
struct Codec {
  TypeInfo info;
  std::function<std::optional<M>(Reader&, const Node&)> read;  // reports what is wrong itself
  std::function<Value(const M&, Secrets)> write;
};

template <class T>
struct Field {
  FieldInfo info;
  std::function<void(Reader&, const Node&, T&)> read;
  std::function<Value(const T&, Secrets)> write;
  std::function<void(const T& from, T& to)> keep;  // copies what is restart-only; empty: nothing is
};

template <class T>
struct Table {
  std::vector<Field<T>> fields;
};

template <class T>
std::vector<FieldInfo> infos(const Table<T>& table) {
  std::vector<FieldInfo> out;
  for (const Field<T>& field : table.fields) out.push_back(field.info);
  return out;
}

template <class T>
Value write_object(const Table<T>& table, const T& object, Secrets secrets) {
  ValueObject out;
  for (const Field<T>& field : table.fields) out.push_back({field.info.key, field.write(object, secrets)});
  return Value{std::move(out)};
}

// Reports unknown and repeated keys at `node`; calls `read(key index, entry)` for each good one.
void read_entries(Reader& reader, const Node& node, const std::vector<const FieldInfo*>& fields,
                  const std::function<void(std::size_t field, const Node& value)>& read);

template <class T>
void read_object(Reader& reader, const Node& node, const Table<T>& table, T& object) {
  std::vector<const FieldInfo*> fields;
  for (const Field<T>& field : table.fields) fields.push_back(&field.info);
  read_entries(reader, node, fields,
               [&](std::size_t i, const Node& value) { table.fields[i].read(reader, value, object); });
}

// Puts what is restart-only in `from` into `to`.
template <class T>
void keep_fields(const Table<T>& table, const T& from, T& to) {
  for (const Field<T>& field : table.fields) {
    if (field.keep) field.keep(from, to);
  }
}

// Codecs of scalars, on one canonical type each; entry() converts to the member's type.
Codec<bool> boolean();
Codec<std::int64_t> integer(std::int64_t min, std::int64_t max);
// `word` may stand for `value` ("auto" for 0).
Codec<std::int64_t> integer_or(std::string word, std::int64_t value, std::int64_t min, std::int64_t max);
Codec<std::int64_t> percent(std::int64_t min, std::int64_t max);  // "20%"
Codec<double> fraction(double min, double max);                   // "0.95"
Codec<std::uint64_t> size(std::uint64_t min, std::uint64_t max);
// Both bounds in microseconds; the value must be a multiple of `step`.
Codec<std::chrono::microseconds> duration(std::chrono::microseconds min, std::chrono::microseconds max,
                                          std::chrono::microseconds step = std::chrono::milliseconds{1});
Codec<std::chrono::microseconds> instant();           // a UTC time or day
Codec<std::string> path(std::size_t length_min = 1);  // with 0, the empty path is a value
Codec<std::string> identifier();                      // letters, digits, . _ -
Codec<std::string> model_name();                      // also / @ :
Codec<std::string> hex64();                           // 64 hex digits, made lower case
Codec<std::string> url();                             // http(s)://host[:port][/prefix]
Codec<std::string> choice(std::vector<std::string> choices);
Codec<std::string> device();  // auto, cpu or cuda:<number>
Codec<std::string> decimal();
Codec<core::Secret> secret();
Codec<ratelimit::RateSpec> rate();
Codec<Listen> listen();
Codec<std::vector<std::string>> model_patterns();
Codec<std::vector<std::uint32_t>> percentages();  // 1 to 1000, at most 16

bool is_identifier(std::string_view name);
bool is_model_name(std::string_view name);

template <class To, class From>
To convert(From&& from) {
  if constexpr (requires { typename std::remove_cvref_t<To>::period; }) {
    return std::chrono::duration_cast<std::remove_cvref_t<To>>(from);
  } else if constexpr (std::is_same_v<std::remove_cvref_t<From>, std::remove_cvref_t<To>>) {
    return std::forward<From>(from);
  } else {
    return static_cast<To>(std::forward<From>(from));
  }
}

struct Extra {
  Reloads reloads = Reloads::yes;
  bool required = false;
  std::string_view example = {};
};

// `access` is a pointer to a member, or a generic callable from object& to member&.
template <class T, class Access, class M>
Field<T> entry(std::string key, Access access, Codec<M> codec, std::string doc, Extra extra = {}) {
  using Member = std::remove_cvref_t<std::invoke_result_t<Access, T&>>;
  Field<T> field;
  field.info = {std::move(key), codec.info, std::move(doc), extra.reloads, extra.required, std::string(extra.example)};
  field.read = [access, read = codec.read](Reader& reader, const Node& node, T& object) {
    if (auto value = read(reader, node)) std::invoke(access, object) = convert<Member>(*std::move(value));
  };
  field.write = [access, write = codec.write](const T& object, Secrets secrets) {
    return write(convert<M>(std::invoke(access, object)), secrets);
  };
  if (extra.reloads == Reloads::restart) {
    field.keep = [access](const T& from, T& to) { std::invoke(access, to) = std::invoke(access, from); };
  }
  return field;
}

template <class T, class Access, class U>
Field<T> section(std::string key, Access access, Table<U> table, std::string doc) {
  Field<T> field;
  field.info = {
      .key = std::move(key), .type = {.kind = TypeInfo::Kind::object, .name = "section"}, .doc = std::move(doc)};
  field.info.type.children = infos(table);
  field.read = [access, table](Reader& reader, const Node& node, T& object) {
    if (node.kind == Node::Kind::null) return;  // everything in it is commented out
    read_object(reader, node, table, std::invoke(access, object));
  };
  field.write = [access, table](const T& object, Secrets secrets) {
    return write_object(table, std::invoke(access, object), secrets);
  };
  field.keep = [access, table](const T& from, T& to) {
    keep_fields(table, std::invoke(access, from), std::invoke(access, to));
  };
  return field;
}

// A list of objects. `plain`, where given, makes an item from a plain string. What is restart-only in it is so as a
// whole list: items of two files need not match.
template <class T, class Access, class U>
Field<T> objects(std::string key, Access access, Table<U> table, std::string doc, Extra extra = {},
                 std::type_identity_t<std::function<void(Reader&, const Node&, U&)>> plain = {}) {
  Field<T> field;
  field.info = {.key = std::move(key),
                .type = {.kind = TypeInfo::Kind::objects, .name = "list", .plain_item = static_cast<bool>(plain)},
                .doc = std::move(doc),
                .reloads = extra.reloads,
                .required = extra.required,
                .example = std::string(extra.example)};
  field.info.type.children = infos(table);
  field.info.type.item_default = write_object(table, U{}, Secrets::redact);
  field.read = [access, table, plain](Reader& reader, const Node& node, T& object) {
    if (node.kind == Node::Kind::null) return;
    if (node.kind != Node::Kind::list) {
      reader.error(node, "expected a list (items that begin with \"- \"), got " + std::string(kind_name(node)));
      return;
    }
    auto& items = std::invoke(access, object);
    items.clear();
    for (std::size_t i = 0; i < node.size(); ++i) {
      const Reader::Scope scope(reader, i);
      U item{};
      if (plain && node.items[i].kind == Node::Kind::scalar) {
        plain(reader, node.items[i], item);
      } else {
        read_object(reader, node.items[i], table, item);
      }
      items.push_back(std::move(item));
    }
  };
  field.write = [access, table](const T& object, Secrets secrets) {
    ValueList out;
    for (const U& item : std::invoke(access, object)) out.push_back(write_object(table, item, secrets));
    return Value{std::move(out)};
  };
  if (extra.reloads == Reloads::restart) {
    field.keep = [access](const T& from, T& to) { std::invoke(access, to) = std::invoke(access, from); };
  }
  return field;
}

}  // namespace ganglion::config
