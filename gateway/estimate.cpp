// See gateway/estimate.hpp.

#include "gateway/estimate.hpp"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "api/sse.hpp"
#include "core/log.hpp"
#include "metering/units.hpp"

namespace ganglion::gateway {
namespace {

using Json = nlohmann::json;

constexpr std::uint64_t kBytesPerToken = 4;
constexpr std::uint64_t kTokensPerMessage = 4;  // role and separators, as chat formats add them

// Every string below content-bearing fields, joined.
void append_text(const Json& value, std::string& out) {
  if (value.is_string()) {
    out += value.get_ref<const std::string&>();
  } else if (value.is_array()) {
    for (const Json& item : value) append_text(item, out);
  } else if (value.is_object()) {
    for (const char* key : {"content", "text", "refusal", "reasoning_content", "reasoning", "name", "arguments",
                            "function", "tool_calls", "message", "delta"}) {
      if (const auto it = value.find(key); it != value.end()) append_text(*it, out);
    }
  }
}

}  // namespace

std::uint64_t guess_prompt_tokens(const api::RequestView& view) {
  return (view.prompt_text_bytes + view.tools_bytes + 3) / 4 + view.prompt_token_ids +
         view.prompt_items * kTokensPerMessage;
}

std::uint64_t guess_answer_tokens(const api::RequestView& view) {
  if (view.endpoint == api::Endpoint::embeddings) return 0;
  std::uint64_t tokens = 0;
  const bool wrapped = __builtin_mul_overflow(view.max_tokens.value_or(kGuessedAnswerTokens), view.n, &tokens);
  return wrapped ? metering::kUnitsPerRequestMax : std::min(tokens, metering::kUnitsPerRequestMax);
}

std::uint64_t count_prompt_tokens(api::Endpoint endpoint, std::string_view body,
                                  const backends::TokenCounter& counter) {
  const Json json = Json::parse(body, nullptr, false);
  if (!json.is_object()) return 0;
  std::string text;
  std::uint64_t extra = 0;
  if (endpoint == api::Endpoint::chat_completions) {
    const Json& messages = json.contains("messages") ? json["messages"] : Json::array();
    append_text(messages, text);
    extra = messages.size() * kTokensPerMessage;
    if (json.contains("tools")) text += json["tools"].dump();
  } else {
    const char* key = endpoint == api::Endpoint::embeddings ? "input" : "prompt";
    if (json.contains(key)) append_text(json[key], text);
  }
  return counter.count(text) + extra;
}

std::uint64_t count_answer_tokens(std::string_view body, const backends::TokenCounter& counter) {
  const Json json = Json::parse(body, nullptr, false);
  if (!json.is_object() || !json.contains("choices")) return 0;
  std::string text;
  append_text(json["choices"], text);
  return counter.count(text);
}

std::uint64_t count_stream_tokens(std::string_view events, const backends::TokenCounter& counter) {
  api::SseParser parser;
  parser.feed(events);
  std::map<std::int64_t, std::string> text_by_choice;
  for (;;) {
    const auto event = parser.next();
    if (!event || !*event) break;
    const Json json = Json::parse((*event)->data, nullptr, false);
    if (!json.is_object() || !json.contains("choices") || !json["choices"].is_array()) continue;
    for (const Json& choice : json["choices"]) {
      if (!choice.is_object()) continue;
      // A provider may send anything here.
      const auto at = choice.find("index");
      append_text(choice, text_by_choice[at != choice.end() && at->is_number_integer() ? at->get<std::int64_t>() : 0]);
    }
  }
  std::uint64_t tokens = 0;
  for (const auto& [index, text] : text_by_choice) tokens += counter.count(text);
  return tokens;
}

namespace {

template <class Count>
std::uint64_t counted_or(std::uint64_t guess, const Count& count) noexcept {
  try {
    return count();
  } catch (const std::exception& error) {
    try {
      core::log(core::LogLevel::error, "token_count_failed", {{"problem", error.what()}, {"guess", guess}});
    } catch (...) {  // NOLINT(bugprone-empty-catch): out of memory; there is nobody left to tell
    }
    return guess;
  }
}

}  // namespace

api::Usage own_count(const CallText& call, const backends::TokenCounter& counter) noexcept {
  const api::Endpoint endpoint = call.view.endpoint;
  api::Usage usage{.estimated = true};
  usage.input_tokens =
      counted_or(guess_prompt_tokens(call.view), [&] { return count_prompt_tokens(endpoint, call.body, counter); });
  if (endpoint == api::Endpoint::embeddings) return usage;
  if (!call.answer.empty()) {
    usage.output_tokens =
        counted_or(call.answer.size() / kBytesPerToken, [&] { return count_answer_tokens(call.answer, counter); });
  } else if (call.text_events > 0) {
    usage.output_tokens = !call.tape
                              ? call.text_events
                              : counted_or(call.text_events, [&] { return count_stream_tokens(*call.tape, counter); });
  }
  // Another tokenizer than the model's may find more tokens in the text than the request allowed: those it never had.
  if (call.view.max_tokens) usage.output_tokens = std::min(usage.output_tokens, guess_answer_tokens(call.view));
  return usage;
}

}  // namespace ganglion::gateway
