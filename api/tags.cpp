// See api/tags.hpp.

#include "api/tags.hpp"

#include <algorithm>
#include <utility>

#include "api/json_cursor.hpp"
#include "api/json_text.hpp"

namespace ganglion::api {
namespace {

std::unexpected<core::Error> refuse(const std::string& what) {
  return core::fail(core::ErrorKind::invalid_value,
                    std::string{kTagsHeader} + " " + what +
                        R"(; send one JSON object of at most 5 entries such as {"team":"search","user":42})",
                    std::string{kTagsHeader});
}

bool has_control(std::string_view text) {
  return std::ranges::any_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; });
}

bool read_value(JsonCursor& in, Tag& tag) {
  JsonString text;
  std::string_view number;
  bool flag = false;
  switch (in.peek()) {
    case JsonType::string:
      if (!in.string(text)) return false;
      append_unescaped(tag.value, text.raw);
      return true;
    case JsonType::number:
      if (!in.number(number)) return false;
      tag.value = number;
      tag.type = TagType::number;
      return true;
    case JsonType::boolean:
      if (!in.boolean(flag)) return false;
      tag.value = flag ? "true" : "false";
      tag.type = TagType::boolean;
      return true;
    default:
      return false;
  }
}

core::Result<Tag> read_tag(JsonCursor& in, const JsonString& key) {
  Tag tag;
  append_unescaped(tag.name, key.raw);
  if (tag.name.empty() || tag.name.size() > kTagNameBytesMax || has_control(tag.name))
    return refuse("has a name that is empty, longer than " + std::to_string(kTagNameBytesMax) +
                  " bytes, or holds control characters");
  if (tag.name.starts_with("cf.")) return refuse("has a name that begins with cf., which is reserved");
  const JsonType type = in.peek();
  if (!read_value(in, tag)) {
    if (type == JsonType::object || type == JsonType::array || type == JsonType::null)
      return refuse("has a value that is " + std::string{name(type)} +
                    " (only strings, numbers and booleans are taken)");
    return refuse("is not valid JSON");
  }
  // JSON, but no number to most who read it: PostgreSQL's jsonb refuses it, and with it all records of one batch.
  if (tag.type == TagType::number && !to_double(tag.value))
    return refuse("has a number that is too large or too small for a double");
  if (tag.value.size() > kTagValueBytesMax || has_control(tag.value))
    return refuse("has a value that is longer than " + std::to_string(kTagValueBytesMax) +
                  " bytes or holds control characters");
  return tag;
}

}  // namespace

const std::string* find_tag(const Tags& tags, std::string_view name) {
  const auto found = std::ranges::find(tags, name, &Tag::name);
  return found == tags.end() ? nullptr : &found->value;
}

core::Result<Tags> parse_tags(std::string_view header) {
  Tags tags;
  if (header.empty()) return tags;
  if (!valid_utf8(header)) return refuse("is not UTF-8");
  JsonCursor in{header};
  if (in.peek() != JsonType::object) return refuse("is not a JSON object");
  JsonString key;
  for (bool more = in.begin_object(key); more; more = in.next_member(key)) {
    if (tags.size() == kTagsMax) return refuse("has more than " + std::to_string(kTagsMax) + " entries");
    auto tag = read_tag(in, key);
    if (!tag) return std::unexpected(std::move(tag.error()));
    if (find_tag(tags, tag->name) != nullptr) return refuse("has the name \"" + tag->name + "\" twice");
    tags.push_back(std::move(*tag));
  }
  if (!in.ok() || !in.at_end()) return refuse("is not valid JSON");
  std::ranges::sort(tags, {}, &Tag::name);
  return tags;
}

void append_tags_json(std::string& out, const Tags& tags) {
  out.push_back('{');
  for (const Tag& tag : tags) {
    if (out.back() != '{') out.push_back(',');
    append_json_string(out, tag.name);
    out.push_back(':');
    if (tag.type == TagType::text)
      append_json_string(out, tag.value);
    else
      out += tag.value;
  }
  out.push_back('}');
}

}  // namespace ganglion::api
