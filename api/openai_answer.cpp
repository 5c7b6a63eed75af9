// See api/openai_answer.hpp.

#include "api/openai_answer.hpp"

#include <bit>
#include <cstring>

#include "api/json_text.hpp"
#include "api/sse.hpp"

namespace ganglion::api {
namespace {

void append_bytes_array(std::string& out, std::string_view bytes) {
  out.push_back('[');
  for (const char c : bytes) {
    if (out.back() != '[') out.push_back(',');
    append_number(out, std::uint64_t{static_cast<unsigned char>(c)});
  }
  out.push_back(']');
}

void append_entry(std::string& out, const LogprobEntry& entry) {
  out += R"("token":)";
  append_json_string(out, entry.token);
  out += R"(,"logprob":)";
  append_number(out, entry.logprob);
  out += R"(,"bytes":)";
  append_bytes_array(out, entry.token);
}

// {"content":[...],"refusal":null}, or null where there are none.
void append_chat_logprobs(std::string& out, std::span<const TokenLogprobEntry> entries) {
  if (entries.empty()) {
    out += "null";
    return;
  }
  out += R"({"content":[)";
  for (const TokenLogprobEntry& entry : entries) {
    if (out.back() != '[') out.push_back(',');
    out.push_back('{');
    append_entry(out, entry.chosen);
    out += R"(,"top_logprobs":[)";
    for (const LogprobEntry& top : entry.top) {
      if (out.back() != '[') out.push_back(',');
      out.push_back('{');
      append_entry(out, top);
      out.push_back('}');
    }
    out += "]}";
  }
  out += R"(],"refusal":null})";
}

std::size_t characters(std::string_view text) {
  std::size_t count = 0;
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80 ? 1 : 0;
  return count;
}

// {"tokens":[],"token_logprobs":[],"top_logprobs":[],"text_offset":[]}, or null.
void append_completion_logprobs(std::string& out, std::span<const TokenLogprobEntry> entries, std::size_t text_offset) {
  if (entries.empty()) {
    out += "null";
    return;
  }
  const auto list = [&](std::string_view name, auto&& append_one) {
    out += name;
    for (const TokenLogprobEntry& entry : entries) {
      if (out.back() != '[') out.push_back(',');
      append_one(entry);
    }
    out.push_back(']');
  };
  list(R"({"tokens":[)", [&](const TokenLogprobEntry& entry) { append_json_string(out, entry.chosen.token); });
  list(R"(,"token_logprobs":[)", [&](const TokenLogprobEntry& entry) { append_number(out, entry.chosen.logprob); });
  list(R"(,"top_logprobs":[)", [&](const TokenLogprobEntry& entry) {
    out.push_back('{');
    for (const LogprobEntry& top : entry.top) {
      if (out.back() != '{') out.push_back(',');
      append_json_string(out, top.token);
      out.push_back(':');
      append_number(out, top.logprob);
    }
    out.push_back('}');
  });
  list(R"(,"text_offset":[)", [&](const TokenLogprobEntry& entry) {
    append_number(out, std::uint64_t{text_offset});
    text_offset += characters(entry.chosen.token);
  });
  out.push_back('}');
}

// "id":...,"type":"function","function":{...}} with the call's own closing brace
void append_call(std::string& out, std::string_view id, std::string_view name, std::string_view arguments) {
  out += R"("id":)";
  append_json_string(out, id);
  out += R"(,"type":"function","function":{"name":)";
  append_json_string(out, name);
  out += R"(,"arguments":)";
  append_json_string(out, arguments);
  out += "}}";
}

// ,"tool_calls":[...], where there are any
void append_calls(std::string& out, std::span<const AnswerToolCall> calls) {
  if (calls.empty()) return;
  out += R"(,"tool_calls":[)";
  for (const AnswerToolCall& call : calls) {
    if (out.back() != '[') out.push_back(',');
    out.push_back('{');
    append_call(out, call.id, call.name, call.arguments);
  }
  out.push_back(']');
}

// {"id":...,"object":...,"created":...,"model":...,"choices":[
std::string head(const AnswerIdentity& identity, std::string_view object) {
  std::string out = R"({"id":)";
  append_json_string(out, identity.id);
  out += R"(,"object":")";
  out += object;
  out += R"(","created":)";
  append_number(out, identity.created_s);
  out += R"(,"model":)";
  append_json_string(out, identity.model);
  out += R"(,"choices":[)";
  return out;
}

}  // namespace

StreamWriter::StreamWriter(Endpoint endpoint, const AnswerIdentity& identity, bool include_usage)
    : chat_(endpoint == Endpoint::chat_completions) {
  prefix_ = "data: " + head(identity, chat_ ? "chat.completion.chunk" : "text_completion");
  usage_prefix_ = prefix_ + R"(],"usage":)";
  prefix_ += R"({"index":)";
  tail_ = include_usage ? "}],\"usage\":null}\n\n" : "}]}\n\n";
}

void StreamWriter::role(int choice, std::string& out) const {
  if (!chat_) return;
  out += prefix_;
  append_number(out, std::int64_t{choice});
  out += R"(,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null)";
  out += tail_;
}

void StreamWriter::text(int choice, std::string_view text, std::string& out,
                        std::span<const TokenLogprobEntry> logprobs, std::size_t text_offset) const {
  out += prefix_;
  append_number(out, std::int64_t{choice});
  if (chat_) {
    out += R"(,"delta":{"content":)";
    append_json_string(out, text);
    out += R"(},"logprobs":)";
    append_chat_logprobs(out, logprobs);
  } else {
    out += R"(,"text":)";
    append_json_string(out, text);
    out += R"(,"logprobs":)";
    append_completion_logprobs(out, logprobs, text_offset);
  }
  out += R"(,"finish_reason":null)";
  out += tail_;
}

void StreamWriter::tool_call(int choice, int index, std::string_view id, std::string_view name,
                             std::string& out) const {
  out += prefix_;
  append_number(out, std::int64_t{choice});
  out += R"(,"delta":{"tool_calls":[{"index":)";
  append_number(out, std::int64_t{index});
  out.push_back(',');
  append_call(out, id, name, {});
  out += R"(]},"logprobs":null,"finish_reason":null)";
  out += tail_;
}

void StreamWriter::tool_arguments(int choice, int index, std::string_view arguments, std::string& out) const {
  out += prefix_;
  append_number(out, std::int64_t{choice});
  out += R"(,"delta":{"tool_calls":[{"index":)";
  append_number(out, std::int64_t{index});
  out += R"(,"function":{"arguments":)";
  append_json_string(out, arguments);
  out += R"(}}]},"logprobs":null,"finish_reason":null)";
  out += tail_;
}

void StreamWriter::finish(int choice, std::string_view finish_reason, std::string& out) const {
  out += prefix_;
  append_number(out, std::int64_t{choice});
  out += chat_ ? R"(,"delta":{},"logprobs":null,"finish_reason":)" : R"(,"text":"","logprobs":null,"finish_reason":)";
  append_json_string(out, finish_reason);
  out += tail_;
}

void StreamWriter::usage(const Usage& usage, std::string& out) const {
  out += usage_prefix_;
  append_usage(out, usage);
  out += "}\n\n";
}

void StreamWriter::done(std::string& out) {
  out += kSseDone;
}

void append_usage(std::string& out, const Usage& usage, bool completion) {
  out += R"({"prompt_tokens":)";
  append_number(out, usage.input_tokens);
  if (completion) {
    out += R"(,"completion_tokens":)";
    append_number(out, usage.output_tokens);
  }
  out += R"(,"total_tokens":)";
  append_number(out, usage.input_tokens + usage.output_tokens);
  if (usage.cached_input_tokens != 0) {
    out += R"(,"prompt_tokens_details":{"cached_tokens":)";
    append_number(out, usage.cached_input_tokens);
    out.push_back('}');
  }
  out.push_back('}');
}

std::string chat_body(const AnswerIdentity& identity, std::span<const AnswerChoice> choices, const Usage& usage) {
  std::string out = head(identity, "chat.completion");
  std::uint64_t index = 0;
  for (const AnswerChoice& choice : choices) {
    if (index != 0) out.push_back(',');
    out += R"({"index":)";
    append_number(out, index++);
    out += R"(,"message":{"role":"assistant","content":)";
    if (choice.text.empty() && !choice.tool_calls.empty()) {
      out += "null";
    } else {
      append_json_string(out, choice.text);
    }
    out += R"(,"refusal":null)";
    append_calls(out, choice.tool_calls);
    out += R"(},"logprobs":)";
    append_chat_logprobs(out, choice.logprobs);
    out += R"(,"finish_reason":)";
    append_json_string(out, choice.finish_reason);
    out.push_back('}');
  }
  out += R"(],"usage":)";
  append_usage(out, usage);
  out.push_back('}');
  return out;
}

std::string completion_body(const AnswerIdentity& identity, std::span<const AnswerChoice> choices, const Usage& usage) {
  std::string out = head(identity, "text_completion");
  std::uint64_t index = 0;
  for (const AnswerChoice& choice : choices) {
    if (index != 0) out.push_back(',');
    out += R"({"index":)";
    append_number(out, index++);
    out += R"(,"text":)";
    append_json_string(out, choice.text);
    out += R"(,"logprobs":)";
    append_completion_logprobs(out, choice.logprobs, 0);
    out += R"(,"finish_reason":)";
    append_json_string(out, choice.finish_reason);
    out.push_back('}');
  }
  out += R"(],"usage":)";
  append_usage(out, usage);
  out.push_back('}');
  return out;
}

std::string embedding_body(std::string_view model, std::span<const std::vector<float>> vectors, EncodingFormat format,
                           std::uint64_t prompt_tokens) {
  std::string out = R"({"object":"list","data":[)";
  if (!vectors.empty()) out.reserve(128 + vectors.size() * (64 + vectors[0].size() * 12));
  std::string raw;
  std::uint64_t index = 0;
  for (const std::vector<float>& vector : vectors) {
    if (index != 0) out.push_back(',');
    out += R"({"object":"embedding","index":)";
    append_number(out, index++);
    out += R"(,"embedding":)";
    if (format == EncodingFormat::base64) {
      raw.resize(vector.size() * sizeof(float));
      for (std::size_t i = 0; i < vector.size(); ++i) {
        const auto bits = std::bit_cast<std::uint32_t>(vector[i]);
        for (std::size_t b = 0; b < 4; ++b) raw[i * 4 + b] = static_cast<char>(bits >> (8 * b));
      }
      out.push_back('"');
      out += base64(raw);
      out.push_back('"');
    } else {
      out.push_back('[');
      for (const float value : vector) {
        if (out.back() != '[') out.push_back(',');
        append_number(out, value);
      }
      out.push_back(']');
    }
    out.push_back('}');
  }
  out += R"(],"model":)";
  append_json_string(out, model);
  out += R"(,"usage":)";
  append_usage(out, {.input_tokens = prompt_tokens}, false);
  out.push_back('}');
  return out;
}

std::string base64(std::string_view bytes) {
  static constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out((bytes.size() + 2) / 3 * 4, '=');
  std::size_t at = 0;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::size_t left = bytes.size() - i;
    const auto byte = [&](std::size_t k) -> std::uint32_t {
      return k < left ? static_cast<unsigned char>(bytes[i + k]) : 0U;
    };
    const std::uint32_t group = byte(0) << 16 | byte(1) << 8 | byte(2);
    out[at++] = kAlphabet[group >> 18];
    out[at++] = kAlphabet[group >> 12 & 63];
    if (left > 1) out[at] = kAlphabet[group >> 6 & 63];
    ++at;
    if (left > 2) out[at] = kAlphabet[group & 63];
    ++at;
  }
  return out;
}

}  // namespace ganglion::api
