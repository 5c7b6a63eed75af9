#pragma once
// The full native parse of the three OpenAI requests that the local engine answers: every field typed and
// range-checked, with OpenAI's field names in `param`. What is understood and not served is ErrorKind::unsupported,
// never silently dropped. Unknown fields pass. Sans-I/O; parse_request of api/openai_request.hpp has run before.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "api/openai_request.hpp"
#include "core/error.hpp"

namespace ganglion::api {

struct Message {
  std::string role;                    // system, developer, user, assistant, tool, function
  std::optional<std::string> content;  // text; parts are joined with nothing between; nullopt: null or absent
  std::string name;                    // "" if absent
  std::string tool_call_id;            // "" if absent
  std::string tool_calls_json;         // the tool_calls array as JSON, "" if absent
};

struct SamplingFields {
  float temperature = 1.0F;                                // 0..2
  float top_p = 1.0F;                                      // (0, 1]
  std::int32_t top_k = 0;                                  // 0: off (-1 is taken as 0)
  float min_p = 0.0F;                                      // [0, 1)
  float frequency_penalty = 0.0F;                          // -2..2
  float presence_penalty = 0.0F;                           // -2..2
  float repetition_penalty = 1.0F;                         // (0, 10]
  std::optional<std::uint64_t> seed;                       // negative seeds map to their two's complement
  std::vector<std::pair<std::int32_t, float>> logit_bias;  // token id, -100..100
  std::vector<std::string> stop;                           // at most 16, none empty, each at most 1,024 bytes
  std::vector<std::int32_t> stop_token_ids;                // at most 64
  std::optional<std::int32_t> max_tokens;                  // max_completion_tokens wins
  std::int32_t n = 1;                                      // 1..kLocalChoicesMax
  bool ignore_eos = false;
  bool stream = false;
  bool include_usage = false;
  bool logprobs = false;
  std::int32_t top_logprobs = 0;  // 0..20
  std::string lora;               // id of an adapter
};

inline constexpr std::int32_t kLocalChoicesMax = 8;

// What the answer's text must be.
struct ResponseFormat {
  enum class Kind : std::uint8_t { text, json_object, json_schema };
  Kind kind = Kind::text;
  std::string schema_json;  // json_schema; "true" if none was given
  bool strict = false;
};

struct FunctionTool {
  std::string name;             // 1..64 of a-z, A-Z, 0-9, _ and -
  std::string parameters_json;  // a JSON schema, "" if none
  bool strict = false;
};

enum class ToolChoice : std::uint8_t {
  none,       // no call
  automatic,  // the model's choice
  required,   // at least one call
  named,      // a call of the one tool that `tools` then holds
};

struct ChatRequest {
  std::string model;
  std::vector<Message> messages;  // at least one
  std::string tools_json;         // the tools array as JSON for the chat template, "" if none or tool_choice is "none"
  std::vector<FunctionTool> tools;  // those that may be called
  ToolChoice tool_choice = ToolChoice::none;
  bool parallel_tool_calls = true;  // more than one in an answer
  ResponseFormat format;
  SamplingFields sampling;
  bool add_generation_prompt = true;  // vLLM's extension
};

using TokenIds = std::vector<std::int32_t>;
using PromptItem = std::variant<std::string, TokenIds>;

struct CompletionRequest {
  std::string model;
  std::vector<PromptItem> prompts;  // at least one
  SamplingFields sampling;          // `logprobs: k` sets logprobs and top_logprobs = k (0..5)
  bool echo = false;
};

struct EmbeddingRequest {
  std::string model;
  std::vector<PromptItem> inputs;  // 1..2,048, none empty
  EncodingFormat encoding_format = EncodingFormat::float_array;
  std::optional<std::int32_t> dimensions;  // >= 1
};

core::Result<ChatRequest> parse_chat_request(std::string_view body);
core::Result<CompletionRequest> parse_completion_request(std::string_view body);
core::Result<EmbeddingRequest> parse_embedding_request(std::string_view body);

}  // namespace ganglion::api
