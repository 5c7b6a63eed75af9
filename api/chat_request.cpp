// See api/chat_request.hpp. A DOM is right here: the local engine's own work dwarfs it, and every field is read.

#include "api/chat_request.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "api/json_text.hpp"

namespace ganglion::api {
namespace {

using core::ErrorKind;
using Json = nlohmann::ordered_json;  // tools reach the chat template in the order that the client gave

constexpr std::size_t kStopStringsMax = 16;
constexpr std::size_t kStopStringBytesMax = 1024;
constexpr std::size_t kStopIdsMax = 64;
constexpr std::size_t kLogitBiasMax = 1024;
constexpr std::size_t kToolsMax = 128;
constexpr std::size_t kNameBytesMax = 64;
constexpr std::size_t kInputsMax = 2048;
constexpr int kTopLogprobsMax = 20;
constexpr int kCompletionLogprobsMax = 5;
constexpr std::int64_t kTokenIdMax = std::numeric_limits<std::int32_t>::max();

// Reads fields of one object; the first error stays. A field that is absent or null leaves the default.
class Fields {
 public:
  explicit Fields(const Json& object) : object_(object) {}

  const Json* find(const char* key) const {
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }

  void number(const char* key, float min, float max, float& out, bool open_min = false, bool open_max = false) {
    const Json* value = find(key);
    if (value == nullptr) return;
    if (!value->is_number()) return wrong(key, "must be a number");
    const double got = value->get<double>();
    const bool low = open_min ? got <= min : got < min;
    const bool high = open_max ? got >= max : got > max;
    if (!std::isfinite(got) || low || high) return wrong(key, "is out of range");
    out = static_cast<float>(got);
  }

  std::optional<std::int64_t> integer(const char* key, std::int64_t min, std::int64_t max) {
    const Json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_number_integer()) {
      wrong(key, "must be an integer");
      return std::nullopt;
    }
    if ((value->is_number_unsigned() && value->get<std::uint64_t>() > static_cast<std::uint64_t>(max)) ||
        value->get<std::int64_t>() < min || value->get<std::int64_t>() > max) {
      wrong(key, "must be an integer of " + std::to_string(min) + " to " + std::to_string(max));
      return std::nullopt;
    }
    return value->get<std::int64_t>();
  }

  void boolean(const char* key, bool& out) {
    const Json* value = find(key);
    if (value == nullptr) return;
    if (!value->is_boolean()) return wrong(key, "must be a boolean");
    out = value->get<bool>();
  }

  void text(const char* key, std::string& out) {
    const Json* value = find(key);
    if (value == nullptr) return;
    if (!value->is_string()) return wrong(key, "must be a string");
    out = value->get<std::string>();
  }

  void wrong(const std::string& param, const std::string& what) {
    report(ErrorKind::invalid_value, "'" + param + "' " + what, param);
  }
  void unsupported(const std::string& param, const std::string& what) {
    report(ErrorKind::unsupported, "'" + param + "' " + what, param);
  }
  void report(ErrorKind kind, std::string message, std::string param) {
    if (!error_) error_ = core::make_error(kind, std::move(message), std::move(param));
  }
  bool good() const { return !error_; }
  core::Error error() const { return *error_; }

 private:
  const Json& object_;
  std::optional<core::Error> error_;
};

core::Result<Json> parse_object(std::string_view body) {
  if (auto checked = check_json(body); !checked) return std::unexpected(checked.error());  // also bounds the depth
  Json json = Json::parse(body, nullptr, false);
  if (json.is_discarded()) return core::fail(ErrorKind::invalid_json, "the request body is not JSON that can be read");
  if (!json.is_object()) return core::fail(ErrorKind::invalid_value, "the request body must be a JSON object");
  return json;
}

void read_stop(Fields& fields, std::vector<std::string>& stop) {
  const Json* value = fields.find("stop");
  if (value == nullptr) return;
  const auto add = [&](const Json& text) {
    if (!text.is_string()) return fields.wrong("stop", "must be a string or an array of strings");
    auto string = text.get<std::string>();
    if (string.empty()) return fields.wrong("stop", "must not hold an empty string");
    if (string.size() > kStopStringBytesMax) return fields.wrong("stop", "holds a string of more than 1024 bytes");
    stop.push_back(std::move(string));
  };
  if (!value->is_array()) return add(*value);
  if (value->size() > kStopStringsMax) return fields.wrong("stop", "must hold at most 16 strings");
  for (const Json& text : *value) add(text);
}

bool token_id(const Json& value, std::int32_t& out) {
  if (!value.is_number_integer()) return false;
  if (value.is_number_unsigned() ? value.get<std::uint64_t>() > static_cast<std::uint64_t>(kTokenIdMax)
                                 : value.get<std::int64_t>() < 0) {
    return false;
  }
  out = value.get<std::int32_t>();
  return true;
}

void read_token_lists(Fields& fields, SamplingFields& out) {
  if (const Json* ids = fields.find("stop_token_ids")) {
    if (!ids->is_array() || ids->size() > kStopIdsMax) {
      return fields.wrong("stop_token_ids", "must be an array of at most 64 token ids");
    }
    for (const Json& id : *ids) {
      std::int32_t value = 0;
      if (!token_id(id, value)) return fields.wrong("stop_token_ids", "must hold token ids");
      out.stop_token_ids.push_back(value);
    }
  }
  const Json* bias = fields.find("logit_bias");
  if (bias == nullptr) return;
  if (!bias->is_object() || bias->size() > kLogitBiasMax) {
    return fields.wrong("logit_bias", "must be an object of at most 1024 token ids");
  }
  for (const auto& [key, value] : bias->items()) {
    const auto id = to_uint64(key);
    if (!id || *id > static_cast<std::uint64_t>(kTokenIdMax)) {
      return fields.wrong("logit_bias", "must have token ids as keys");
    }
    if (!value.is_number() || std::abs(value.get<double>()) > 100) {
      return fields.wrong("logit_bias", "must have numbers of -100 to 100 as values");
    }
    out.logit_bias.emplace_back(static_cast<std::int32_t>(*id), value.get<float>());
  }
}

void read_sampling(Fields& fields, SamplingFields& out) {
  fields.number("temperature", 0, 2, out.temperature);
  fields.number("top_p", 0, 1, out.top_p, true);
  fields.number("min_p", 0, 1, out.min_p, false, true);
  fields.number("frequency_penalty", -2, 2, out.frequency_penalty);
  fields.number("presence_penalty", -2, 2, out.presence_penalty);
  fields.number("repetition_penalty", 0, 10, out.repetition_penalty, true);
  if (const auto k = fields.integer("top_k", -1, kTokenIdMax)) out.top_k = *k < 0 ? 0 : static_cast<std::int32_t>(*k);
  if (const Json* seed = fields.find("seed")) {
    if (!seed->is_number_integer()) {
      fields.wrong("seed", "must be an integer of 64 bits");
    } else {
      out.seed = seed->is_number_unsigned() ? seed->get<std::uint64_t>()
                                            : static_cast<std::uint64_t>(seed->get<std::int64_t>());
    }
  }
  const auto old_max = fields.integer("max_tokens", 1, kTokenIdMax);
  const auto new_max = fields.integer("max_completion_tokens", 1, kTokenIdMax);
  if (const auto max = new_max ? new_max : old_max) out.max_tokens = static_cast<std::int32_t>(*max);
  if (const auto n = fields.integer("n", 1, kLocalChoicesMax)) out.n = static_cast<std::int32_t>(*n);
  fields.boolean("ignore_eos", out.ignore_eos);
  fields.text("lora", out.lora);
  fields.boolean("stream", out.stream);
  if (const Json* options = fields.find("stream_options")) {
    if (!options->is_object()) {
      fields.wrong("stream_options", "must be an object");
    } else if (const auto usage = options->find("include_usage"); usage != options->end() && !usage->is_null()) {
      if (usage->is_boolean()) {
        out.include_usage = usage->get<bool>();
      } else {
        fields.wrong("stream_options.include_usage", "must be a boolean");
      }
    }
  }
  read_stop(fields, out.stop);
  read_token_lists(fields, out);
}

void read_chat_logprobs(Fields& fields, SamplingFields& out) {
  fields.boolean("logprobs", out.logprobs);
  if (const auto top = fields.integer("top_logprobs", 0, kTopLogprobsMax)) {
    out.top_logprobs = static_cast<std::int32_t>(*top);
    if (*top > 0 && !out.logprobs) fields.wrong("top_logprobs", "needs 'logprobs' to be true");
  }
}

// A name as OpenAI allows them for schemas and functions.
bool good_name(const Json* name) {
  if (name == nullptr || !name->is_string()) return false;
  const auto& text = name->get_ref<const std::string&>();
  const auto good = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  };
  return !text.empty() && text.size() <= kNameBytesMax && std::all_of(text.begin(), text.end(), good);
}

constexpr std::string_view kNameRule = "must have 1 to 64 of the characters a-z, A-Z, 0-9, '_' and '-'";

void read_format(Fields& fields, ResponseFormat& out) {
  const Json* format = fields.find("response_format");
  if (format == nullptr) return;
  const auto type = format->is_object() ? format->find("type") : format->end();
  if (!format->is_object() || type == format->end() || !type->is_string()) {
    return fields.wrong("response_format", "must be an object with a 'type'");
  }
  if (*type == "text") return;
  if (*type == "json_object") {
    out.kind = ResponseFormat::Kind::json_object;
    return;
  }
  if (*type != "json_schema") {
    return fields.wrong("response_format.type", "must be text, json_object or json_schema");
  }
  const auto given = format->find("json_schema");
  if (given == format->end() || !given->is_object()) {
    return fields.report(ErrorKind::missing_field, "you must provide 'response_format.json_schema'",
                         "response_format.json_schema");
  }
  Fields inner{*given};
  if (!good_name(inner.find("name"))) return fields.wrong("response_format.json_schema.name", std::string(kNameRule));
  out.kind = ResponseFormat::Kind::json_schema;
  inner.boolean("strict", out.strict);
  if (!inner.good()) return fields.wrong("response_format.json_schema.strict", "must be a boolean");
  const auto schema = given->find("schema");
  out.schema_json = schema == given->end() ? "true" : schema->dump();
}

// The tools that may be called, and whether one must be.
void read_tools(Fields& fields, ChatRequest& out) {
  const Json* tools = fields.find("tools");
  const Json* choice = fields.find("tool_choice");
  fields.boolean("parallel_tool_calls", out.parallel_tool_calls);
  if (tools != nullptr && !tools->is_array()) return fields.wrong("tools", "must be an array");
  if (choice != nullptr && *choice == "none") return;
  if (tools == nullptr || tools->empty()) {
    if (choice != nullptr && *choice != "auto") {
      fields.wrong("tool_choice", "that asks for a call needs 'tools'");
    }
    return;
  }
  if (tools->size() > kToolsMax) return fields.wrong("tools", "must hold at most 128 tools");
  for (std::size_t i = 0; i < tools->size(); ++i) {
    const Json& tool = (*tools)[i];
    const std::string at = "tools[" + std::to_string(i) + "]";
    const auto function = tool.is_object() ? tool.find("function") : tool.end();
    if (!tool.is_object() || tool.value("type", Json()) != "function") {
      return fields.report(ErrorKind::unsupported, "'" + at + ".type' must be 'function'", at + ".type");
    }
    if (function == tool.end() || !function->is_object()) return fields.wrong(at + ".function", "must be an object");
    Fields inner{*function};
    if (!good_name(inner.find("name"))) return fields.wrong(at + ".function.name", std::string(kNameRule));
    FunctionTool& one = out.tools.emplace_back();
    one.name = function->at("name").get<std::string>();
    inner.boolean("strict", one.strict);
    if (!inner.good()) return fields.wrong(at + ".function.strict", "must be a boolean");
    if (const Json* parameters = inner.find("parameters")) one.parameters_json = parameters->dump();
  }
  out.tools_json = tools->dump();
  if (choice == nullptr || *choice == "auto") {
    out.tool_choice = ToolChoice::automatic;
  } else if (*choice == "required") {
    out.tool_choice = ToolChoice::required;
  } else if (choice->is_object() && choice->value("type", Json()) == "function" && choice->contains("function") &&
             choice->at("function").is_object() && choice->at("function").value("name", Json()).is_string()) {
    const auto name = choice->at("function").at("name").get<std::string>();
    std::erase_if(out.tools, [&](const FunctionTool& tool) { return tool.name != name; });
    if (out.tools.empty()) return fields.wrong("tool_choice", "names '" + name + "', which is not among 'tools'");
    out.tool_choice = ToolChoice::named;
  } else {
    fields.wrong("tool_choice",
                 "must be \"none\", \"auto\", \"required\" or {\"type\":\"function\",\"function\":{\"name\":...}}");
  }
}

// What we understand and do not do is refused by name rather than ignored.
void refuse_unserved(Fields& fields) {
  if (fields.find("audio") != nullptr) fields.unsupported("audio", "is not supported by this model");
  if (const Json* modalities = fields.find("modalities")) {
    if (*modalities != Json::array({"text"})) fields.unsupported("modalities", "other than text are not supported");
  }
  if (fields.find("functions") != nullptr) fields.unsupported("functions", "is out of date: use 'tools'");
}

// A content of parts becomes the text of its text parts.
void read_content(Fields& fields, const Json& content, const std::string& param, Message& message) {
  if (content.is_null()) return;
  if (content.is_string()) {
    message.content = content.get<std::string>();
    return;
  }
  if (!content.is_array()) return fields.wrong(param, "must be a string or an array of parts");
  std::string text;
  for (std::size_t i = 0; i < content.size(); ++i) {
    const Json& part = content[i];
    const std::string at = param + "[" + std::to_string(i) + "]";
    const auto type = part.is_object() ? part.find("type") : part.end();
    if (!part.is_object() || type == part.end() || !type->is_string()) {
      return fields.wrong(at, "must be an object with a 'type'");
    }
    if (*type != "text" && *type != "refusal") {
      return fields.report(ErrorKind::unsupported,
                           "this model takes text parts only, not '" + type->get<std::string>() + "'", at + ".type");
    }
    const auto value = part.find(type->get<std::string>());
    if (value == part.end() || !value->is_string())
      return fields.wrong(at + "." + type->get<std::string>(), "must be a string");
    text += value->get_ref<const std::string&>();
  }
  message.content = std::move(text);
}

void read_message(Fields& fields, const Json& json, const std::string& param, Message& message) {
  if (!json.is_object()) return fields.wrong(param, "must be an object");
  Fields inner{json};
  inner.text("role", message.role);
  inner.text("name", message.name);
  inner.text("tool_call_id", message.tool_call_id);
  if (!inner.good()) {
    const core::Error error = inner.error();
    return fields.wrong(param + "." + error.param, "must be a string");
  }
  if (message.role.empty()) {
    return fields.report(ErrorKind::missing_field, "you must provide '" + param + ".role'", param + ".role");
  }
  static constexpr std::string_view kRoles[] = {"system", "developer", "user", "assistant", "tool", "function"};
  if (std::find(std::begin(kRoles), std::end(kRoles), message.role) == std::end(kRoles)) {
    return fields.wrong(param + ".role", "must be one of system, developer, user, assistant, tool");
  }
  if (const auto content = json.find("content"); content != json.end()) {
    read_content(fields, *content, param + ".content", message);
  }
  if (const Json* calls = inner.find("tool_calls")) {
    if (!calls->is_array()) return fields.wrong(param + ".tool_calls", "must be an array");
    if (!calls->empty()) message.tool_calls_json = calls->dump();
  }
  if (!message.content && message.tool_calls_json.empty() && message.role != "assistant") {
    fields.report(ErrorKind::missing_field, "you must provide '" + param + ".content'", param + ".content");
  }
}

void read_model(Fields& fields, std::string& model) {
  fields.text("model", model);
  if (fields.good() && model.empty()) fields.report(ErrorKind::missing_field, "you must provide 'model'", "model");
}

// A prompt or an input: one string, strings, one list of token ids, or lists of token ids.
void read_items(Fields& fields, const char* key, std::vector<PromptItem>& out) {
  const Json* value = fields.find(key);
  if (value == nullptr) {
    return fields.report(ErrorKind::missing_field, "you must provide '" + std::string{key} + "'", key);
  }
  const auto ids = [&](const Json& list) {
    TokenIds tokens;
    tokens.reserve(list.size());
    for (const Json& id : list) {
      std::int32_t token = 0;
      if (!token_id(id, token)) return fields.wrong(key, "must hold token ids that fit 31 bits");
      tokens.push_back(token);
    }
    if (tokens.empty()) return fields.wrong(key, "must not hold an empty list");
    out.emplace_back(std::move(tokens));
  };
  if (value->is_string()) {
    out.emplace_back(value->get<std::string>());
    return;
  }
  if (!value->is_array()) return fields.wrong(key, "must be a string, an array of strings, or arrays of token ids");
  if (value->empty()) return fields.wrong(key, "must not be empty");
  if (value->front().is_number()) return ids(*value);
  if (value->size() > kInputsMax) return fields.wrong(key, "must hold at most 2048 items");
  for (const Json& item : *value) {
    if (item.type() != value->front().type()) return fields.wrong(key, "must hold items of one type");
    if (item.is_string()) {
      out.emplace_back(item.get<std::string>());
    } else if (item.is_array()) {
      ids(item);
    } else {
      return fields.wrong(key, "must be a string, an array of strings, or arrays of token ids");
    }
  }
}

}  // namespace

core::Result<ChatRequest> parse_chat_request(std::string_view body) {
  const auto json = parse_object(body);
  if (!json) return std::unexpected(json.error());
  Fields fields{*json};
  ChatRequest request;
  read_model(fields, request.model);
  const Json* messages = fields.find("messages");
  if (messages == nullptr) {
    fields.report(ErrorKind::missing_field, "you must provide 'messages'", "messages");
  } else if (!messages->is_array() || messages->empty()) {
    fields.wrong("messages", "must be an array of at least one message");
  } else {
    request.messages.resize(messages->size());
    for (std::size_t i = 0; i < messages->size() && fields.good(); ++i) {
      read_message(fields, (*messages)[i], "messages[" + std::to_string(i) + "]", request.messages[i]);
    }
  }
  read_sampling(fields, request.sampling);
  read_chat_logprobs(fields, request.sampling);
  refuse_unserved(fields);
  fields.boolean("add_generation_prompt", request.add_generation_prompt);
  read_format(fields, request.format);
  read_tools(fields, request);
  if (!fields.good()) return std::unexpected(fields.error());
  return request;
}

core::Result<CompletionRequest> parse_completion_request(std::string_view body) {
  const auto json = parse_object(body);
  if (!json) return std::unexpected(json.error());
  Fields fields{*json};
  CompletionRequest request;
  read_model(fields, request.model);
  read_items(fields, "prompt", request.prompts);
  read_sampling(fields, request.sampling);
  fields.boolean("echo", request.echo);
  if (const auto logprobs = fields.integer("logprobs", 0, kCompletionLogprobsMax)) {
    request.sampling.logprobs = true;
    request.sampling.top_logprobs = static_cast<std::int32_t>(*logprobs);
  }
  if (const Json* suffix = fields.find("suffix"); suffix != nullptr && *suffix != "") {
    fields.unsupported("suffix", "is not supported by this model");
  }
  if (const auto best_of = fields.integer("best_of", 1, 128); best_of && *best_of != request.sampling.n) {
    fields.unsupported("best_of", "other than 'n' is not supported by this model");
  }
  refuse_unserved(fields);
  ResponseFormat format;
  read_format(fields, format);
  if (format.kind != ResponseFormat::Kind::text) {
    fields.unsupported("response_format", "other than {\"type\":\"text\"} is for /v1/chat/completions");
  }
  if (!fields.good()) return std::unexpected(fields.error());
  return request;
}

core::Result<EmbeddingRequest> parse_embedding_request(std::string_view body) {
  const auto json = parse_object(body);
  if (!json) return std::unexpected(json.error());
  Fields fields{*json};
  EmbeddingRequest request;
  read_model(fields, request.model);
  read_items(fields, "input", request.inputs);
  for (const PromptItem& item : request.inputs) {
    if (const auto* text = std::get_if<std::string>(&item); text != nullptr && text->empty()) {
      fields.wrong("input", "must not hold an empty string");
    }
  }
  std::string format;
  fields.text("encoding_format", format);
  if (format == "base64") {
    request.encoding_format = EncodingFormat::base64;
  } else if (!format.empty() && format != "float") {
    fields.wrong("encoding_format", "must be 'float' or 'base64'");
  }
  if (const auto size = fields.integer("dimensions", 1, 65536)) request.dimensions = static_cast<std::int32_t>(*size);
  if (!fields.good()) return std::unexpected(fields.error());
  return request;
}

}  // namespace ganglion::api
