// See api/openai_request.hpp. One pass: each known field has one reader, everything else is skipped (and so checked).
// Messages and prompts: openai_request_prompt.cpp.

#include <cstring>

#include "api/openai_request_reader.hpp"

namespace ganglion::api::request {

using core::ErrorKind;

bool RequestReader::wrong(std::string param, std::string message) {
  if (cursor_.ok() && !error_)
    error_ = core::make_error(ErrorKind::invalid_value, std::move(message), std::move(param));
  return false;
}

bool RequestReader::wrong(std::string param, std::string_view expected, JsonType got) {
  // A byte that begins no value is a syntax error, not a wrong type.
  if (got == JsonType::none) return cursor_.skip();
  std::string message = "'" + param + "' must be ";
  message += expected;
  message += ", not ";
  message += api::name(got);
  return wrong(std::move(param), std::move(message));
}

bool RequestReader::twice(std::string_view param) {
  return wrong(std::string{param}, "'" + std::string{param} + "' is given twice");
}

std::string RequestReader::at(Field field, std::size_t index) const {
  return std::string{name(field)} + "[" + std::to_string(index) + "]";
}

Field RequestReader::find(const JsonString& key) const {
  if (key.escaped) {
    if (key.raw.size() > kFieldBytesMax * 6) return Field::unknown;
    std::string plain;
    append_unescaped(plain, key.raw);
    return find({.raw = plain});
  }
  const std::size_t size = key.raw.size();
  if (size > kFieldBytesMax) return Field::unknown;
  for (std::size_t i = kFieldsShorter[size]; i < kFieldsShorter[size + 1]; ++i) {
    if (std::memcmp(kFieldNames[i].data(), key.raw.data(), size) == 0) return static_cast<Field>(i);
  }
  return Field::unknown;
}

core::Result<RequestView> RequestReader::read() {
  if (const JsonType type = cursor_.peek(); type != JsonType::object && type != JsonType::none) {
    if (!cursor_.skip()) return std::unexpected(json_error(body_, cursor_));
    return core::fail(ErrorKind::invalid_value,
                      "the request body must be a JSON object, not " + std::string{api::name(type)});
  }
  JsonString key;
  std::size_t comma_at = 0;
  for (bool more = cursor_.begin_object(key); more; more = cursor_.next_member(key)) {
    const auto key_at = static_cast<std::size_t>(key.raw.data() - body_.data()) - 1;
    const Field field = find(key);
    if (!(field == Field::unknown ? cursor_.skip() : member(field, key_at, comma_at))) break;
    cursor_.peek();
    comma_at = cursor_.offset();
  }
  if (error_) return std::unexpected(*std::move(error_));
  if (cursor_.ok()) {
    view_.object_end = cursor_.offset() - 1;
    cursor_.at_end();
  }
  if (!cursor_.ok()) return std::unexpected(json_error(body_, cursor_));
  if (!valid_utf8(body_)) return std::unexpected(json_error(body_, utf8_valid_prefix(body_), "valid UTF-8"));
  return finish();
}

core::Result<RequestView> RequestReader::finish() {
  const auto seen = [&](Field field) { return (seen_ >> static_cast<unsigned>(field) & 1U) != 0; };
  for (const Field field : {Field::model, prompt_field(view_.endpoint)}) {
    if (!seen(field)) {
      const std::string param{name(field)};
      return core::fail(ErrorKind::missing_field, "you must provide '" + param + "'", param);
    }
  }
  if (!view_.max_tokens) view_.max_tokens = old_max_tokens_;
  return view_;
}

bool RequestReader::member(Field field, std::size_t key_at, std::size_t comma_at) {
  const std::uint32_t bit = 1U << static_cast<unsigned>(field);
  if ((seen_ & bit) != 0) return twice(name(field));
  seen_ |= bit;
  const JsonType type = cursor_.peek();
  const bool required = field == Field::model || field == prompt_field(view_.endpoint);
  if (type == JsonType::null && !required && field != Field::stream_options) {
    if (!cursor_.null()) return false;
  } else if (!read_value(field)) {
    return false;
  }
  if (field == Field::service_tier) {
    // With the comma before it; the first member takes the one after it, if there is one.
    std::size_t first = comma_at;
    std::size_t end = cursor_.offset();
    if (comma_at == 0) {
      first = key_at;
      cursor_.peek();
      if (cursor_.offset() < body_.size() && body_[cursor_.offset()] == ',') end = cursor_.offset() + 1;
    }
    view_.service_tier_member = {.offset = first, .length = end - first};
  }
  return true;
}

bool RequestReader::read_value(Field field) {
  std::uint64_t number = 0;
  switch (field) {
    case Field::model:
      return read_model();
    case Field::messages:
      return view_.endpoint == Endpoint::chat_completions ? read_messages() : cursor_.skip();
    case Field::prompt:
    case Field::input:
      return prompt_field(view_.endpoint) == field ? read_prompt(field) : cursor_.skip();
    case Field::stream:
      return read_bool("stream", view_.stream);
    case Field::stream_options:
      return read_stream_options();
    case Field::n:
      if (!read_integer(field, 1, kChoicesMax, number)) return false;
      view_.n = static_cast<std::uint32_t>(number);
      return true;
    case Field::best_of:
      if (!read_integer(field, 1, kChoicesMax, number)) return false;
      view_.best_of = static_cast<std::uint32_t>(number);
      return true;
    case Field::max_tokens:
    case Field::max_completion_tokens:
      if (!read_integer(field, 0, std::uint64_t{1} << 53, number)) return false;
      (field == Field::max_tokens ? old_max_tokens_ : view_.max_tokens) = number;
      return true;
    case Field::temperature:
      return read_temperature();
    case Field::seed:
      return read_seed();
    case Field::service_tier:
      return read_text(field, view_.service_tier, scratch_.service_tier);
    case Field::user:
      return read_text(field, view_.user, scratch_.user);
    case Field::encoding_format:
      return read_encoding_format();
    case Field::tools:
    case Field::functions:
      return read_tools(field);
    case Field::unknown:
      break;
  }
  return cursor_.skip();
}

bool RequestReader::read_model() {
  const std::size_t first = cursor_.offset();
  if (!read_text(Field::model, view_.model, scratch_.model)) return false;
  view_.model_value = {.offset = first, .length = cursor_.offset() - first};
  if (view_.model.empty()) return wrong("model", "'model' must not be empty");
  return true;
}

bool RequestReader::read_tools(Field field) {
  const JsonType type = cursor_.peek();
  if (type != JsonType::array) return wrong(std::string{name(field)}, "an array", type);
  const std::size_t first = cursor_.offset();
  for (bool more = cursor_.begin_array(); more; more = cursor_.next_element()) {
    view_.tools = true;
    if (!cursor_.skip()) return false;
  }
  view_.tools_bytes += cursor_.offset() - first;
  return cursor_.ok();
}

bool RequestReader::read_stream_options() {
  const JsonType type = cursor_.peek();
  const std::size_t first = cursor_.offset();
  view_.stream_options_bare = true;
  if (type == JsonType::null) {
    if (!cursor_.null()) return false;
  } else {
    if (type != JsonType::object) return wrong("stream_options", "an object", type);
    bool seen = false;
    JsonString key;
    for (bool more = cursor_.begin_object(key); more; more = cursor_.next_member(key)) {
      view_.stream_options_bare = false;
      if (!equals(key, "include_usage")) {
        if (!cursor_.skip()) return false;
        continue;
      }
      if (seen) return twice("stream_options.include_usage");
      seen = true;
      const JsonType value = cursor_.peek();
      const std::size_t value_at = cursor_.offset();
      if (value == JsonType::null ? !cursor_.null() : !read_bool("stream_options.include_usage", view_.include_usage)) {
        return false;
      }
      view_.include_usage_value = {.offset = value_at, .length = cursor_.offset() - value_at};
    }
    if (!cursor_.ok()) return false;
  }
  view_.stream_options_value = {.offset = first, .length = cursor_.offset() - first};
  return true;
}

bool RequestReader::read_text(Field field, std::string_view& out, std::string& buffer) {
  if (const JsonType type = cursor_.peek(); type != JsonType::string) {
    return wrong(std::string{name(field)}, "a string", type);
  }
  JsonString text;
  if (!cursor_.string(text)) return false;
  out = text_of(text, buffer);
  return true;
}

bool RequestReader::read_bool(std::string_view param, bool& out) {
  if (const JsonType type = cursor_.peek(); type != JsonType::boolean) {
    return wrong(std::string{param}, "a boolean", type);
  }
  return cursor_.boolean(out);
}

bool RequestReader::read_integer(Field field, std::uint64_t min, std::uint64_t max, std::uint64_t& out) {
  if (const JsonType type = cursor_.peek(); type != JsonType::number) {
    return wrong(std::string{name(field)}, "an integer", type);
  }
  std::string_view text;
  if (!cursor_.number(text)) return false;
  const auto value = to_uint64(text);
  if (value && *value >= min && *value <= max) {
    out = *value;
    return true;
  }
  const std::string param{name(field)};
  std::string message = "'" + param + "' must be an integer of at least " + std::to_string(min);
  if (max == kChoicesMax) message += " and at most " + std::to_string(max);
  return wrong(param, message);
}

bool RequestReader::read_seed() {
  if (const JsonType type = cursor_.peek(); type != JsonType::number) return wrong("seed", "an integer", type);
  std::string_view text;
  if (!cursor_.number(text)) return false;
  if (const auto value = to_int64(text)) {
    view_.seed = *value;
  } else if (const auto big = to_uint64(text)) {
    view_.seed = static_cast<std::int64_t>(*big);
  } else {
    return wrong("seed", "'seed' must be an integer of 64 bits");
  }
  return true;
}

bool RequestReader::read_temperature() {
  if (const JsonType type = cursor_.peek(); type != JsonType::number) return wrong("temperature", "a number", type);
  std::string_view text;
  if (!cursor_.number(text)) return false;
  view_.temperature = to_double(text);
  if (!view_.temperature) return wrong("temperature", "'temperature' is out of range");
  return true;
}

bool RequestReader::read_encoding_format() {
  std::string_view text;
  std::string buffer;
  if (!read_text(Field::encoding_format, text, buffer)) return false;
  if (text == "float") {
    view_.encoding_format = EncodingFormat::float_array;
  } else if (text == "base64") {
    view_.encoding_format = EncodingFormat::base64;
  } else if (view_.endpoint == Endpoint::embeddings) {
    return wrong("encoding_format", "'encoding_format' must be 'float' or 'base64'");
  }
  return true;
}

}  // namespace ganglion::api::request

namespace ganglion::api {

core::Result<RequestView> parse_request(Endpoint endpoint, std::string_view body, ParserScratch& scratch,
                                        JsonOutline* outline) {
  return request::RequestReader{endpoint, body, scratch, outline}.read();
}

}  // namespace ganglion::api
