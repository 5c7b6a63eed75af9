#pragma once
// The client's own labels of a request: the header `cf-aig-metadata`, a flat JSON object. They are carried into the
// ledger and may be budgeted and summed by; they decide nothing else.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.hpp"

namespace ganglion::api {

inline constexpr std::string_view kTagsHeader = "cf-aig-metadata";
inline constexpr std::size_t kTagsMax = 5;
inline constexpr std::size_t kTagNameBytesMax = 64;
inline constexpr std::size_t kTagValueBytesMax = 255;

enum class TagType : std::uint8_t { text, number, boolean };

struct Tag {
  std::string name;   // 1..kTagNameBytesMax bytes of UTF-8, no control characters
  std::string value;  // text; a number as it was written; "true" or "false"
  TagType type = TagType::text;
  friend bool operator==(const Tag&, const Tag&) = default;
};
using Tags = std::vector<Tag>;  // by name, each name once

// The value of that name, nullptr if there is none.
const std::string* find_tag(const Tags& tags, std::string_view name);

// Reads the header's value; "" has no tags. invalid_value, with the header's name as param, for anything but an object
// of at most kTagsMax entries whose values are strings, numbers or booleans within the maxima.
core::Result<Tags> parse_tags(std::string_view header);

// {"a":"x","n":5}: what parse_tags read, by name.
void append_tags_json(std::string& out, const Tags& tags);

}  // namespace ganglion::api
