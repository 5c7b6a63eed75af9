#pragma once
// Internal to api/openai_request*.cpp: the one-pass reader behind parse_request. Every read_x() returns false when the
// scan must stop, with either the cursor failed (syntax) or error_ set (a wrong value).

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "api/json_text.hpp"
#include "api/openai_request.hpp"

namespace ganglion::api::request {

// In the order of their names' lengths, so that a key is compared with the few fields of its own length.
enum class Field : std::uint8_t {
  n,
  seed,
  user,
  model,
  input,
  tools,
  prompt,
  stream,
  best_of,
  messages,
  functions,
  max_tokens,
  temperature,
  service_tier,
  stream_options,
  encoding_format,
  max_completion_tokens,
  unknown
};

inline constexpr auto kFieldNames = std::to_array<std::string_view>(
    {"n", "seed", "user", "model", "input", "tools", "prompt", "stream", "best_of", "messages", "functions",
     "max_tokens", "temperature", "service_tier", "stream_options", "encoding_format", "max_completion_tokens"});
static_assert(kFieldNames.size() == static_cast<std::size_t>(Field::unknown));
static_assert(std::ranges::is_sorted(kFieldNames, {}, &std::string_view::size));

inline constexpr std::size_t kFieldBytesMax = kFieldNames.back().size();

// kFieldsShorter[k]: how many fields have names shorter than k bytes.
inline constexpr auto kFieldsShorter = [] {
  std::array<std::uint8_t, kFieldBytesMax + 2> table{};
  for (std::size_t length = 0; length < table.size(); ++length) {
    for (const std::string_view known : kFieldNames) table[length] += known.size() < length ? 1 : 0;
  }
  return table;
}();

// The field that holds what the model shall read.
constexpr Field prompt_field(Endpoint endpoint) {
  switch (endpoint) {
    case Endpoint::completions:
      return Field::prompt;
    case Endpoint::embeddings:
      return Field::input;
    default:
      return Field::messages;
  }
}
constexpr std::string_view name(Field field) {
  return kFieldNames[static_cast<std::size_t>(field)];
}

constexpr std::uint64_t kChoicesMax = 128;

class RequestReader {
 public:
  RequestReader(Endpoint endpoint, std::string_view body, ParserScratch& scratch, JsonOutline* outline)
      : body_(body), scratch_(scratch), cursor_(body, outline) {
    view_.endpoint = endpoint;
  }

  core::Result<RequestView> read();

 private:
  bool member(Field field, std::size_t key_at, std::size_t comma_at);
  bool read_value(Field field);
  bool read_model();
  bool read_messages();
  bool read_message(std::size_t index);
  bool read_content(std::size_t index);
  bool read_part(std::size_t index, std::size_t part);
  bool read_prompt(Field field);
  bool read_prompt_element(Field field, std::size_t index);
  bool read_token_ids(Field field);
  bool read_tools(Field field);
  bool read_stream_options();
  bool read_text(Field field, std::string_view& out, std::string& buffer);
  bool read_bool(std::string_view param, bool& out);
  bool read_integer(Field field, std::uint64_t min, std::uint64_t max, std::uint64_t& out);
  bool read_seed();
  bool read_temperature();
  bool read_encoding_format();

  Field find(const JsonString& key) const;
  bool wrong(std::string param, std::string_view expected, JsonType got);
  bool wrong(std::string param, std::string message);
  bool twice(std::string_view param);
  std::string at(Field field, std::size_t index) const;
  core::Result<RequestView> finish();

  std::string_view body_;
  ParserScratch& scratch_;
  JsonCursor cursor_;
  RequestView view_;
  std::optional<std::uint64_t> old_max_tokens_;
  std::optional<core::Error> error_;
  std::uint32_t seen_ = 0;
};

}  // namespace ganglion::api::request
