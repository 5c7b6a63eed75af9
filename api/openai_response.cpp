// See api/openai_response.hpp.

#include "api/openai_response.hpp"

#include "api/json_text.hpp"
#include "api/openai_stream.hpp"

namespace ganglion::api {
namespace {

// How many elements a list has. False on a syntax error.
bool count_elements(JsonCursor& cursor, std::size_t& count) {
  if (cursor.peek() != JsonType::array) return cursor.skip();
  for (bool more = cursor.begin_array(); more; more = cursor.next_element()) {
    ++count;
    if (!cursor.skip()) return false;
  }
  return cursor.ok();
}

}  // namespace

core::Result<AnswerFacts> scan_answer(std::string_view body) {
  AnswerFacts facts;
  JsonCursor cursor{body};
  JsonString key;
  for (bool more = cursor.begin_object(key); more; more = cursor.next_member(key)) {
    bool good = true;
    if (equals(key, "usage") && cursor.peek() == JsonType::object) {
      const std::size_t first = cursor.offset();
      Usage usage;
      good = read_usage(cursor, usage);
      facts.usage = usage;
      facts.usage_object = {.offset = first, .length = cursor.offset() - first};
    } else if (equals(key, "choices") || equals(key, "data")) {
      good = count_elements(cursor, facts.choices);
    } else if (equals(key, "error")) {
      facts.error = cursor.peek() != JsonType::null;
      good = cursor.skip();
    } else {
      good = cursor.skip();
    }
    if (!good) break;
  }
  if (cursor.ok()) cursor.at_end();
  if (!cursor.ok()) {
    return core::fail(core::ErrorKind::upstream_protocol,
                      "the upstream's answer is not a JSON object: " + json_error(body, cursor).message);
  }
  return facts;
}

void splice_neurons(std::string_view text, Span usage_object, std::string_view decimal, std::string& out) {
  const std::size_t brace = usage_object.end() - 1;
  const std::string_view inside = text.substr(usage_object.offset + 1, usage_object.length - 2);
  const bool bare = inside.find_first_not_of(" \t\r\n") == std::string_view::npos;
  out.clear();
  out.reserve(text.size() + decimal.size() + 16);
  out.append(text.substr(0, brace));
  out += bare ? "\"neurons\":" : ",\"neurons\":";
  out += decimal;
  out.append(text.substr(brace));
}

std::string_view inject_neurons(std::string_view body, const AnswerFacts& facts, std::string_view decimal,
                                std::string& out) {
  if (facts.usage_object.empty()) return body;
  splice_neurons(body, facts.usage_object, decimal, out);
  return out;
}

}  // namespace ganglion::api
