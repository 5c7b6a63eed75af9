#pragma once
// What the gateway must know of an OpenAI-dialect request body, found in one scan of the original bytes: the body is
// checked as JSON to its end and never copied, so it can be forwarded as it came. Full native parse for our own engine:
// api/chat_request.hpp. Sans-I/O, no state but the scratch buffers and the outline.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "api/json_cursor.hpp"
#include "api/types.hpp"
#include "core/error.hpp"

namespace ganglion::api {

enum class EncodingFormat : std::uint8_t { unspecified, float_array, base64 };

// Views point into the body, or into the ParserScratch where the JSON had escapes: both must outlive the view.
struct RequestView {
  Endpoint endpoint = Endpoint::chat_completions;
  std::string_view model;
  bool stream = false;
  bool include_usage = false;  // the client asked for the usage chunk
  bool tools = false;          // a non-empty tools (or old functions) array
  EncodingFormat encoding_format = EncodingFormat::unspecified;
  std::uint32_t n = 1;                      // answers asked for, 1..128
  std::uint32_t best_of = 1;                // completions only: candidates generated, 1..128
  std::optional<std::uint64_t> max_tokens;  // max_completion_tokens where given, else max_tokens
  std::optional<double> temperature;
  std::optional<std::int64_t> seed;
  std::string_view service_tier;  // as written; "" if absent or null
  std::string_view user;          // end-user id as written; "" if absent

  // For the estimate of prompt tokens before anything ran. Bytes as they stand in the JSON.
  std::size_t prompt_text_bytes = 0;  // text of messages, prompt or input; image and audio data not counted
  std::size_t tools_bytes = 0;        // JSON of tools/functions
  std::size_t prompt_token_ids = 0;   // token ids given instead of text
  std::size_t prompt_items = 0;       // messages, prompts, or embedding inputs
  std::size_t media_parts = 0;        // image, audio and file parts

  // Places in the body, for rewrite_body.
  Span model_value;                  // with its quotes
  Span stream_options_value;         // object or null; empty if absent
  Span include_usage_value;          // inside stream_options; empty if absent
  bool stream_options_bare = false;  // stream_options is {} or null
  Span service_tier_member;          // key, value and one comma; empty if absent
  std::size_t object_end = 0;        // offset of the top-level '}'
};

// Reused from request to request; one a worker or session.
struct ParserScratch {
  std::string model;
  std::string service_tier;
  std::string user;
};

// Checks and reads a body. Unknown fields pass; field names match in exact case and after undoing escapes, as the
// upstream will match them. `null` counts as absent for optional fields. Fields that name servers or keys (api_base,
// base_url, api_key) are unknown fields like any other: nothing here reads them.
// Errors: invalid_json (line, column, byte; also bad UTF-8, depth > 64), invalid_value (param), missing_field (param).
// A field that we read and that is given twice is invalid_value: two parsers would disagree on which one counts.
// `outline`, if given, is the body's where the body is accepted (at most JsonOutline::kTextBytesMax of it).
core::Result<RequestView> parse_request(Endpoint endpoint, std::string_view body, ParserScratch& scratch,
                                        JsonOutline* outline = nullptr);

}  // namespace ganglion::api
