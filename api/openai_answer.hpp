#pragma once
// Answers of our own engine in OpenAI's shapes: stream events written straight into a reused buffer (one memcpy of a
// prepared prefix, the escaped text, a fixed tail), and whole bodies. Sans-I/O; one writer a request, not thread-safe.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "api/chat_request.hpp"
#include "api/types.hpp"

namespace ganglion::api {

struct LogprobEntry {
  std::string token;  // the token's bytes; shown as text (invalid UTF-8 as U+FFFD) and as the `bytes` array
  float logprob = 0.0F;
};
struct TokenLogprobEntry {
  LogprobEntry chosen;
  std::vector<LogprobEntry> top;  // likeliest first
};

struct AnswerIdentity {
  std::string id;              // chatcmpl-..., cmpl-...
  std::string model;           // the name that the client asked for
  std::int64_t created_s = 0;  // Unix seconds
};

// One streamed answer of n choices. Each call appends one whole SSE event to `out`.
// Order: role (chat only) for each choice, then text, then finish for each, then usage where asked, then done.
class StreamWriter {
 public:
  // `endpoint`: chat_completions or completions.
  // include_usage: ordinary events then say "usage":null, as OpenAI's do.
  StreamWriter(Endpoint endpoint, const AnswerIdentity& identity, bool include_usage);

  void role(int choice, std::string& out) const;
  // `text` must be valid UTF-8 on its own. Empty logprobs: null. For completions `text_offset` is where the text
  // begins in the answer, in characters.
  void text(int choice, std::string_view text, std::string& out, std::span<const TokenLogprobEntry> logprobs = {},
            std::size_t text_offset = 0) const;
  // Chat only. A call's first event has its id and name, those that follow its arguments, in pieces.
  void tool_call(int choice, int index, std::string_view id, std::string_view name, std::string& out) const;
  void tool_arguments(int choice, int index, std::string_view arguments, std::string& out) const;
  void finish(int choice, std::string_view finish_reason, std::string& out) const;  // "stop", "length", ...
  void usage(const Usage& usage, std::string& out) const;                           // the usage-only event
  static void done(std::string& out);                                               // data: [DONE]

 private:
  bool chat_;
  std::string prefix_;  // up to the choice's index
  std::string tail_;    // after the choice
  std::string usage_prefix_;
};

struct AnswerToolCall {
  std::string id, name, arguments;
};

struct AnswerChoice {
  std::string text;  // with tool calls: "" is null
  std::string finish_reason = "stop";
  std::vector<TokenLogprobEntry> logprobs;
  std::vector<AnswerToolCall> tool_calls;
};

std::string chat_body(const AnswerIdentity& identity, std::span<const AnswerChoice> choices, const Usage& usage);
std::string completion_body(const AnswerIdentity& identity, std::span<const AnswerChoice> choices, const Usage& usage);

// Floats in their shortest form that reads back the same, or base64 of little-endian float32.
std::string embedding_body(std::string_view model, std::span<const std::vector<float>> vectors, EncodingFormat format,
                           std::uint64_t prompt_tokens);

void append_usage(std::string& out, const Usage& usage, bool completion = true);
std::string base64(std::string_view bytes);

}  // namespace ganglion::api
