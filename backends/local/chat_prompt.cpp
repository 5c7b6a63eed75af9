// See chat_prompt.hpp.

#include "backends/local/chat_prompt.hpp"

#include "backends/local/weights/model_config.hpp"

namespace ganglion::backends {

namespace {

using local::jinja::Kind;
using local::jinja::Value;

Value text_value(std::string_view text) {
  return Value::string(std::string{text});
}

int context_of(const LocalModel::Parts& parts) {
  return parts.engine ? parts.engine->context_max() : parts.embedder->context_max();
}

// A text has about as many tokens as its bytes over a token's, the longest at most. Far more than the context would
// hold is refused before the worker spends time on its tokens; the rest is counted exactly. The slack is for
// tokenizers that make one unknown token of a long word.
constexpr std::size_t kSizeSlack = 4;

core::Result<void> check_size(const LocalModel::Parts& parts, std::size_t bytes, std::string_view param) {
  const auto context = static_cast<std::size_t>(context_of(parts));
  if (bytes / parts.token_bytes_max <= kSizeSlack * context) return {};
  return core::fail(core::ErrorKind::context_length,
                    "This model's maximum context length is " + std::to_string(context) +
                        " tokens. However, your input has " + std::to_string(bytes) +
                        " bytes, far more than that. Please reduce its length.",
                    std::string{param});
}

// OpenAI carries a call's arguments as a string of JSON; templates expect the object that it says.
Value arguments_as_object(const Value& call) {
  if (!call.is(Kind::dict)) return call;
  std::vector<Value::Entry> entries = call.as_dict().entries;
  for (auto& [key, value] : entries) {
    if (!key.is(Kind::string)) continue;
    if (key.as_string() == "function") value = arguments_as_object(value);
    if (key.as_string() == "arguments" && value.is(Kind::string)) {
      auto parsed = local::jinja::parse_json(value.as_string());
      if (parsed && parsed->is(Kind::dict)) value = std::move(*parsed);
    }
  }
  return Value::dict(std::move(entries));
}

core::Result<Value> tool_calls_value(std::string_view json) {
  auto calls = local::jinja::parse_json(json);
  if (!calls) return std::unexpected(calls.error());
  if (!calls->is(Kind::list)) return calls;
  std::vector<Value> out;
  for (const Value& call : calls->as_list().items) out.push_back(arguments_as_object(call));
  return Value::list(std::move(out));
}

core::Result<Value> messages_value(const api::ChatRequest& request, const local::ChatTemplate& chat_template) {
  // OpenAI's newer name of the system role, which few templates know.
  const bool knows_developer = chat_template.source().find("developer") != std::string::npos;
  std::vector<Value> messages;
  for (const api::Message& m : request.messages) {
    std::vector<Value::Entry> entries;
    const bool system = m.role == "developer" && !knows_developer;
    entries.emplace_back(text_value("role"), text_value(system ? "system" : m.role));
    // Absent content is "": it is false, adds to text, and prints as nothing, where none would print as "None".
    entries.emplace_back(text_value("content"), text_value(m.content.value_or("")));
    if (!m.name.empty()) entries.emplace_back(text_value("name"), text_value(m.name));
    if (!m.tool_call_id.empty()) entries.emplace_back(text_value("tool_call_id"), text_value(m.tool_call_id));
    if (!m.tool_calls_json.empty()) {
      auto calls = tool_calls_value(m.tool_calls_json);
      if (!calls) return std::unexpected(calls.error());
      entries.emplace_back(text_value("tool_calls"), std::move(*calls));
    }
    messages.push_back(Value::dict(std::move(entries)));
  }
  return Value::list(std::move(messages));
}

}  // namespace

core::Result<std::vector<std::int32_t>> chat_prompt(const LocalModel::Parts& parts, const api::ChatRequest& request) {
  if (!parts.chat) {
    return core::fail(core::ErrorKind::unsupported,
                      "model '" + parts.options.name + "' has no chat template; use /v1/completions", "messages");
  }
  const bool tools = !request.tools_json.empty();
  const local::ChatTemplate& chat_template = parts.chat->for_tools(tools);
  if (tools && !chat_template.mentions("tools")) {
    return core::fail(core::ErrorKind::unsupported, "model '" + parts.options.name + "' does not take tools", "tools");
  }
  std::size_t bytes = request.tools_json.size();
  for (const api::Message& m : request.messages) bytes += m.content ? m.content->size() : 0;
  if (auto ok = check_size(parts, bytes, "messages"); !ok) return std::unexpected(ok.error());
  local::RenderInput input;
  auto messages = messages_value(request, chat_template);
  if (!messages) return std::unexpected(messages.error());
  input.messages = parts.guard->mark(*messages);
  if (tools) {
    auto parsed = local::jinja::parse_json(request.tools_json);
    if (!parsed) return std::unexpected(parsed.error());
    input.tools = parts.guard->mark(*parsed);
  }
  input.add_generation_prompt = request.add_generation_prompt;
  for (const auto& [name, token] : parts.chat->special_tokens) input.extra.emplace_back(name, text_value(token));
  const auto prompt = chat_template.render(input);
  if (!prompt) return std::unexpected(prompt.error());
  if (auto ok = check_size(parts, prompt->size(), "messages"); !ok) return std::unexpected(ok.error());
  // The template writes the beginning-of-text token itself where the model wants one.
  return parts.guard->encode(parts.tokenizer(), *prompt);
}

core::Result<std::vector<std::int32_t>> plain_prompt(const LocalModel::Parts& parts, const api::PromptItem& item,
                                                     std::string_view param) {
  if (const auto* text = std::get_if<std::string>(&item)) {
    if (auto ok = check_size(parts, text->size(), param); !ok) return std::unexpected(ok.error());
    return parts.tokenizer().encode(*text, true);
  }
  const auto& ids = std::get<api::TokenIds>(item);
  const auto& config = parts.engine ? parts.engine->config() : parts.embedder->config();
  for (const std::int32_t id : ids) {
    if (id < 0 || id >= config.vocab_size) {
      return core::fail(
          core::ErrorKind::invalid_value,
          "token " + std::to_string(id) + " does not exist; tokens are 0 to " + std::to_string(config.vocab_size - 1),
          std::string{param});
    }
  }
  return ids;
}

}  // namespace ganglion::backends
