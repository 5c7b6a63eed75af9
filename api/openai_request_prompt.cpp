// The part of parse_request that reads what the model shall read: messages, prompt, input.

#include "api/openai_request_reader.hpp"

namespace ganglion::api::request {

using core::ErrorKind;

bool RequestReader::read_messages() {
  if (const JsonType type = cursor_.peek(); type != JsonType::array) return wrong("messages", "an array", type);
  std::size_t count = 0;
  for (bool more = cursor_.begin_array(); more; more = cursor_.next_element()) {
    if (!read_message(count++)) return false;
  }
  if (!cursor_.ok()) return false;
  if (count == 0) return wrong("messages", "'messages' must hold at least one message");
  view_.prompt_items = count;
  return true;
}

bool RequestReader::read_message(std::size_t index) {
  const auto param = [&](std::string_view field) { return at(Field::messages, index) + "." + std::string{field}; };
  if (const JsonType type = cursor_.peek(); type != JsonType::object) {
    return wrong(at(Field::messages, index), "an object", type);
  }
  bool role = false;
  bool content = false;
  JsonString key;
  JsonString text;
  for (bool more = cursor_.begin_object(key); more; more = cursor_.next_member(key)) {
    const bool is_role = equals(key, "role");
    if (is_role) {
      if (role) return twice(param("role"));
      role = true;
      if (const JsonType type = cursor_.peek(); type != JsonType::string) return wrong(param("role"), "a string", type);
      if (!cursor_.string(text)) return false;
      if (text.raw.empty()) return wrong(param("role"), "'" + param("role") + "' must not be empty");
    } else if (equals(key, "content")) {
      if (content) return twice(param("content"));
      content = true;
      if (!read_content(index)) return false;
    } else {
      // Tool calls, names and whatever else there is are read by the model as well.
      cursor_.peek();
      const std::size_t first = cursor_.offset();
      if (!cursor_.skip()) return false;
      view_.prompt_text_bytes += cursor_.offset() - first;
    }
  }
  if (cursor_.ok() && !role) {
    error_ = core::make_error(ErrorKind::missing_field, "you must provide '" + param("role") + "'", param("role"));
    return false;
  }
  return cursor_.ok();
}

bool RequestReader::read_content(std::size_t index) {
  JsonString text;
  switch (const JsonType type = cursor_.peek()) {
    case JsonType::null:
      return cursor_.null();
    case JsonType::string:
      if (!cursor_.string(text)) return false;
      view_.prompt_text_bytes += text.raw.size();
      return true;
    case JsonType::array: {
      std::size_t part = 0;
      for (bool more = cursor_.begin_array(); more; more = cursor_.next_element()) {
        if (!read_part(index, part++)) return false;
      }
      return cursor_.ok();
    }
    default:
      return wrong(at(Field::messages, index) + ".content", "a string or an array of parts", type);
  }
}

bool RequestReader::read_part(std::size_t index, std::size_t part) {
  const auto param = [&](std::string_view tail) {
    return at(Field::messages, index) + ".content[" + std::to_string(part) + "]" + std::string{tail};
  };
  if (const JsonType type = cursor_.peek(); type != JsonType::object) return wrong(param(""), "an object", type);
  JsonString key;
  JsonString text;
  for (bool more = cursor_.begin_object(key); more; more = cursor_.next_member(key)) {
    const JsonType type = cursor_.peek();
    if (equals(key, "text") || equals(key, "refusal")) {
      if (type != JsonType::string) return wrong(param("." + std::string{key.raw}), "a string", type);
      if (!cursor_.string(text)) return false;
      view_.prompt_text_bytes += text.raw.size();
    } else {
      if (type == JsonType::object) ++view_.media_parts;  // image_url, input_audio, file
      if (!cursor_.skip()) return false;
    }
  }
  return cursor_.ok();
}

bool RequestReader::read_prompt(Field field) {
  JsonString text;
  const JsonType type = cursor_.peek();
  if (type == JsonType::string) {
    view_.prompt_items = 1;
    if (!cursor_.string(text)) return false;
    view_.prompt_text_bytes = text.raw.size();
    return true;
  }
  constexpr std::string_view kForms = "a string, an array of strings, or arrays of token ids";
  if (type != JsonType::array) return wrong(std::string{name(field)}, kForms, type);
  std::size_t count = 0;
  JsonType first = JsonType::none;
  for (bool more = cursor_.begin_array(); more; more = cursor_.next_element()) {
    const JsonType element = cursor_.peek();
    if (count == 0) first = element;
    if (element != first) return wrong(at(field, count), "of the same type as the first element", element);
    if (!read_prompt_element(field, count++)) return false;
  }
  if (!cursor_.ok()) return false;
  const std::string param{name(field)};
  if (count == 0) return wrong(param, "'" + param + "' must not be empty");
  view_.prompt_items = first == JsonType::number ? 1 : count;
  return true;
}

bool RequestReader::read_prompt_element(Field field, std::size_t index) {
  JsonString text;
  std::string_view number;
  switch (const JsonType type = cursor_.peek()) {
    case JsonType::string:
      if (!cursor_.string(text)) return false;
      view_.prompt_text_bytes += text.raw.size();
      return true;
    case JsonType::number:
      if (!cursor_.number(number)) return false;
      ++view_.prompt_token_ids;
      if (!to_uint64(number)) return wrong(at(field, index), "'" + at(field, index) + "' must be a token id");
      return true;
    case JsonType::array:
      return read_token_ids(field);
    default:
      return wrong(at(field, index), "a string, a token id, or an array of token ids", type);
  }
}

bool RequestReader::read_token_ids(Field field) {
  std::string_view number;
  for (bool more = cursor_.begin_array(); more; more = cursor_.next_element()) {
    const std::string param{name(field)};
    if (const JsonType type = cursor_.peek(); type != JsonType::number)
      return wrong(param, "arrays of token ids", type);
    if (!cursor_.number(number)) return false;
    if (!to_uint64(number)) return wrong(param, "'" + param + "' holds a number that is no token id");
    ++view_.prompt_token_ids;
  }
  return cursor_.ok();
}

}  // namespace ganglion::api::request
