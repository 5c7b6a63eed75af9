// See cache/semantic_question.hpp.

#include "cache/semantic_question.hpp"

#include <algorithm>
#include <array>

#include "api/json_cursor.hpp"
#include "api/json_text.hpp"

namespace ganglion::cache {
namespace {

using api::JsonCursor;
using api::JsonString;
using api::JsonType;

// With any of these the answer is more than text, or has a form that a similar question's answer need not have.
constexpr std::array<std::string_view, 12> kNever{
    "tools",        "tool_choice", "functions",  "function_call",      "response_format", "logprobs",
    "top_logprobs", "audio",       "modalities", "web_search_options", "prediction",      "parallel_tool_calls"};

bool is_nothing(std::string_view value) {
  return value == "null" || value == "false" || value == "0" || value == "[]";
}

struct Message {
  bool user = false;
  std::optional<api::Span> text;  // of its one plain text, with quotes
};

api::Span string_span(JsonCursor& cursor) {
  cursor.peek();
  const std::size_t begin = cursor.offset();
  JsonString ignored;
  cursor.string(ignored);
  return {.offset = begin, .length = cursor.offset() - begin};
}

// [{"type":"text","text":"..."}] and nothing more.
std::optional<api::Span> only_text_part(JsonCursor& cursor) {
  std::optional<api::Span> text;
  bool typed = false, plain = true;
  std::size_t parts = 0;
  for (bool more = cursor.begin_array(); more; more = cursor.next_element()) {
    ++parts;
    JsonString key;
    for (bool member = cursor.begin_object(key); member; member = cursor.next_member(key)) {
      if (equals(key, "text") && cursor.peek() == JsonType::string && !text) {
        text = string_span(cursor);
        continue;
      }
      JsonString type;
      const bool is_type = equals(key, "type") && cursor.peek() == JsonType::string;
      if (is_type && cursor.string(type)) {
        typed = equals(type, "text");
        plain = plain && typed;
      } else {
        plain = false;
        cursor.skip();
      }
    }
  }
  if (!cursor.ok() || parts != 1 || !typed || !plain) return std::nullopt;
  return text;
}

Message read_message(JsonCursor& cursor) {
  Message out;
  JsonString key;
  for (bool more = cursor.begin_object(key); more; more = cursor.next_member(key)) {
    const JsonType type = cursor.peek();
    if (equals(key, "role") && type == JsonType::string) {
      JsonString role;
      cursor.string(role);
      out.user = equals(role, "user");
    } else if (equals(key, "content") && type == JsonType::string) {
      out.text = string_span(cursor);
    } else if (equals(key, "content") && type == JsonType::array) {
      out.text = only_text_part(cursor);
    } else {
      cursor.skip();
    }
  }
  return out;
}

}  // namespace

std::optional<api::Span> semantic_question(const api::RequestView& view, std::string_view body,
                                           const SemanticPolicy& policy, const SemanticOptions& options) {
  if (!policy.on() || view.endpoint != api::Endpoint::chat_completions) return std::nullopt;
  if (view.tools || view.n > 1 || view.media_parts > 0) return std::nullopt;
  if (view.temperature.value_or(1.0) > policy.temperature_max) return std::nullopt;
  JsonCursor cursor(body);
  Message last;
  JsonString key;
  for (bool more = cursor.begin_object(key); more; more = cursor.next_member(key)) {
    if (equals(key, "messages")) {
      for (bool message = cursor.begin_array(); message; message = cursor.next_element()) last = read_message(cursor);
      continue;
    }
    cursor.peek();
    const std::size_t begin = cursor.offset();
    cursor.skip();
    const bool never = std::ranges::any_of(kNever, [&](std::string_view name) { return equals(key, name); });
    if (never && !is_nothing(body.substr(begin, cursor.offset() - begin))) return std::nullopt;
  }
  if (!cursor.ok() || !last.user || !last.text) return std::nullopt;
  const std::size_t bytes = last.text->length - 2;
  if (bytes == 0 || bytes > options.text_bytes_max) return std::nullopt;
  return last.text;
}

std::string semantic_guard(std::string_view body, api::Span question) {
  std::string out;
  out.reserve(body.size() - question.length + 2);
  out += body.substr(0, question.offset);
  out += "\"\"";
  out += body.substr(question.end());
  return out;
}

std::uint64_t numbers_of(std::string_view text) {
  std::uint64_t hash = 0xCBF29CE484222325ULL;
  bool in_number = false;
  for (const char c : text) {
    const bool digit = c >= '0' && c <= '9';
    if (digit || in_number) hash = (hash ^ static_cast<unsigned char>(digit ? c : ' ')) * 0x100000001B3ULL;
    in_number = digit;
  }
  // "7" at the very end is the "7" before a full stop.
  if (in_number) hash = (hash ^ ' ') * 0x100000001B3ULL;
  return hash;
}

}  // namespace ganglion::cache
