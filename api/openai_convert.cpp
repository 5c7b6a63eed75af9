// See api/openai_convert.hpp. Both directions go through a DOM of known depth: check_json has bounded it before.

#include "api/openai_convert.hpp"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "api/json_cursor.hpp"
#include "api/sse.hpp"

namespace ganglion::api {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::uint64_t kIndexMax = 1024;  // choices and tool calls; a larger index is not an honest stream

core::Error not_dialect(std::string_view what) {
  return core::make_error(core::ErrorKind::upstream_protocol,
                          "the recorded answer cannot be converted: " + std::string{what});
}

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::optional<Json> parse(std::string_view text) {
  if (!check_json(text)) return std::nullopt;
  Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) return std::nullopt;
  return json;
}

std::optional<std::uint64_t> index_of(const Json& object) {
  const auto it = object.find("index");
  if (it == object.end()) return 0;
  if (!it->is_number_unsigned() || it->get<std::uint64_t>() > kIndexMax) return std::nullopt;
  return it->get<std::uint64_t>();
}

bool merge(Json& into, const Json& delta);

// Elements that carry an index merge by it; others append.
bool merge_array(Json& into, const Json& delta) {
  for (const Json& element : delta) {
    if (!element.is_object() || !element.contains("index")) {
      into.push_back(element);
      continue;
    }
    const auto index = index_of(element);
    if (!index) return false;
    const auto same = std::find_if(into.begin(), into.end(), [&](const Json& have) {
      return have.is_object() && have.contains("index") && have["index"] == *index;
    });
    if (same == into.end()) {
      into.push_back(element);
    } else if (!merge(*same, element)) {
      return false;
    }
  }
  return true;
}

// As the official clients accumulate deltas: strings grow, except those that name something and come whole.
bool merge(Json& into, const Json& delta) {
  for (const auto& [key, value] : delta.items()) {
    const auto it = into.find(key);
    if (value.is_null()) {
      if (it == into.end()) into[key] = value;
      continue;
    }
    if (it == into.end() || it->is_null()) {
      if (value.is_array()) {
        into[key] = Json::array();
        if (!merge_array(into[key], value)) return false;
      } else {
        into[key] = value;
      }
    } else if (it->is_string() && value.is_string()) {
      const bool names = key == "role" || key == "id" || key == "type" || (key == "name" && *it == value);
      if (names) {
        *it = value;
      } else {
        it->get_ref<std::string&>() += value.get_ref<const std::string&>();
      }
    } else if (it->is_array() && value.is_array()) {
      if (!merge_array(*it, value)) return false;
    } else if (it->is_object() && value.is_object()) {
      if (!merge(*it, value)) return false;
    } else {
      *it = value;
    }
  }
  return true;
}

// What the stream of one choice came to.
struct Choice {
  Json message = Json::object();  // chat
  std::string text;               // completions
  Json logprobs = nullptr;
  Json finish_reason = nullptr;
  Json rest = Json::object();  // fields that we do not know, last value
};

class Assembler {
 public:
  explicit Assembler(bool chat) : chat_(chat) {}

  core::Result<std::string> run(std::string_view sse);

 private:
  bool add_chunk(const Json& chunk);
  bool add_choice(const Json& json);
  Json finish_choice(std::uint64_t index, Choice& choice) const;
  std::string finish();

  bool chat_;
  Json head_ = Json::object();
  Json usage_;
  std::map<std::uint64_t, Choice> choices_;
};

core::Result<std::string> Assembler::run(std::string_view sse) {
  SseParser parser;
  parser.feed(sse);
  bool done = false;
  while (true) {
    const auto event = parser.next();
    if (!event) return std::unexpected(event.error());
    if (!*event) break;
    if (!(*event)->has_data) continue;
    if (done) return std::unexpected(not_dialect("bytes after [DONE]"));
    if ((*event)->data == "[DONE]") {
      done = true;
      continue;
    }
    const auto chunk = parse((*event)->data);
    if (!chunk || chunk->contains("error")) return std::unexpected(not_dialect("an event is not a chunk"));
    if (!add_chunk(*chunk)) return std::unexpected(not_dialect("a chunk has choices of an unknown form"));
  }
  if (!done || parser.mid_event()) return std::unexpected(not_dialect("the stream is not whole"));
  if (choices_.empty()) return std::unexpected(not_dialect("the stream has no choices"));
  return finish();
}

bool Assembler::add_chunk(const Json& chunk) {
  for (const auto& [key, value] : chunk.items()) {
    if (key == "choices" || key == "object" || key == "obfuscation") continue;
    if (key == "usage") {
      if (!value.is_null()) usage_ = value;
    } else if (!head_.contains(key) || head_[key].is_null()) {
      head_[key] = value;
    }
  }
  const auto choices = chunk.find("choices");
  if (choices == chunk.end()) return true;
  if (!choices->is_array()) return false;
  return std::all_of(choices->begin(), choices->end(), [&](const Json& choice) { return add_choice(choice); });
}

bool Assembler::add_choice(const Json& json) {
  if (!json.is_object()) return false;
  const auto index = index_of(json);
  if (!index) return false;
  Choice& choice = choices_[*index];
  for (const auto& [key, value] : json.items()) {
    if (key == "index" || value.is_null()) continue;
    if (key == "delta") {
      if (!chat_ || !value.is_object() || !merge(choice.message, value)) return false;
    } else if (key == "text") {
      if (chat_ || !value.is_string()) return false;
      choice.text += value.get_ref<const std::string&>();
    } else if (key == "logprobs") {
      if (!value.is_object()) return false;
      if (choice.logprobs.is_null()) choice.logprobs = Json::object();
      if (!merge(choice.logprobs, value)) return false;
    } else if (key == "finish_reason") {
      choice.finish_reason = value;
    } else {
      choice.rest[key] = value;
    }
  }
  return true;
}

Json Assembler::finish_choice(std::uint64_t index, Choice& choice) const {
  Json out = Json::object();
  out["index"] = index;
  if (chat_) {
    Json message = Json::object();
    message["role"] = choice.message.contains("role") ? choice.message["role"] : Json("assistant");
    message["content"] = choice.message.contains("content") ? choice.message["content"] : Json(nullptr);
    const bool calls = choice.message.contains("tool_calls") || choice.message.contains("function_call");
    // The role chunk says "content":"" for every answer; one that only calls tools has no content.
    if (calls && message["content"] == "") message["content"] = nullptr;
    for (const auto& [key, value] : choice.message.items()) {
      if (!message.contains(key)) message[key] = value;
    }
    if (!message.contains("refusal")) message["refusal"] = nullptr;
    if (const auto list = message.find("tool_calls"); list != message.end() && list->is_array()) {
      std::sort(list->begin(), list->end(),
                [](const Json& a, const Json& b) { return index_of(a).value_or(0) < index_of(b).value_or(0); });
      for (Json& call : *list) {
        if (call.is_object()) call.erase("index");
      }
    }
    out["message"] = std::move(message);
  } else {
    out["text"] = choice.text;
  }
  out["logprobs"] = choice.logprobs;
  out["finish_reason"] = choice.finish_reason;
  for (const auto& [key, value] : choice.rest.items()) out[key] = value;
  return out;
}

std::string Assembler::finish() {
  Json body = Json::object();
  if (head_.contains("id")) body["id"] = head_["id"];
  body["object"] = chat_ ? "chat.completion" : "text_completion";
  for (const auto& [key, value] : head_.items()) body[key] = value;
  body["choices"] = Json::array();
  for (auto& [index, choice] : choices_) body["choices"].push_back(finish_choice(index, choice));
  if (!usage_.is_null()) body["usage"] = std::move(usage_);
  return dump(body);
}

// Writes the chunks of one body.
class Splitter {
 public:
  Splitter(bool chat, const Json& body, bool include_usage) : chat_(chat), include_usage_(include_usage) {
    for (const auto& [key, value] : body.items()) {
      if (key == "choices" || key == "usage") continue;
      frame_[key] = key == "object" && chat ? Json("chat.completion.chunk") : value;
    }
  }

  bool choice(const Json& json) {
    if (!json.is_object()) return false;
    const auto index = index_of(json);
    if (!index) return false;
    Json last = Json::object();
    last["index"] = *index;
    Json logprobs = json.value("logprobs", Json(nullptr));
    if (!logprobs.is_object()) logprobs = nullptr;
    if (chat_) {
      const auto message = json.find("message");
      if (message == json.end() || !message->is_object() || !chat_deltas(*index, *message, logprobs)) return false;
      last["delta"] = Json::object();
    } else {
      const auto text = json.find("text");
      if (text == json.end() || !text->is_string()) return false;
      emit({{"index", *index}, {"text", *text}, {"logprobs", logprobs}, {"finish_reason", nullptr}});
      last["text"] = "";
    }
    last["logprobs"] = nullptr;
    last["finish_reason"] = json.value("finish_reason", Json(nullptr));
    for (const auto& [key, value] : json.items()) {
      // "delta" and "text" mean something in a chunk that they do not mean in a body.
      if (key != "message" && key != "delta" && key != "text" && !last.contains(key)) last[key] = value;
    }
    emit(std::move(last));
    return true;
  }

  void usage(const Json& usage) {
    Json chunk = frame_;
    chunk["choices"] = Json::array();
    chunk["usage"] = usage;
    append_sse_event(out_, dump(chunk));
  }

  std::string take() {
    out_ += kSseDone;
    return std::move(out_);
  }

 private:
  void emit(Json choice) {
    Json chunk = frame_;
    chunk["choices"] = Json::array({std::move(choice)});
    if (include_usage_) chunk["usage"] = nullptr;
    append_sse_event(out_, dump(chunk));
  }

  void delta(std::uint64_t index, Json delta, const Json& logprobs) {
    emit({{"index", index}, {"delta", std::move(delta)}, {"logprobs", logprobs}, {"finish_reason", nullptr}});
  }

  // Role first, then content with its log-probabilities, then everything else in one delta.
  bool chat_deltas(std::uint64_t index, const Json& message, const Json& logprobs) {
    const Json content = message.value("content", Json(nullptr));
    Json first = {{"role", message.value("role", Json("assistant"))}};
    first["content"] = content.is_string() ? Json("") : Json(nullptr);
    if (message.contains("refusal")) first["refusal"] = nullptr;
    delta(index, std::move(first), nullptr);
    Json rest = Json::object();
    for (const auto& [key, value] : message.items()) {
      if (key != "role" && key != "content" && key != "tool_calls" && !value.is_null()) rest[key] = value;
    }
    if (!rest.empty()) delta(index, std::move(rest), nullptr);
    if ((content.is_string() && content != "") || !logprobs.is_null()) {
      delta(index, {{"content", content}}, logprobs);
    } else if (!content.is_string() && !content.is_null()) {
      return false;
    }
    const auto calls = message.find("tool_calls");
    if (calls == message.end() || calls->is_null()) return true;
    if (!calls->is_array()) return false;
    std::uint64_t call_index = 0;
    for (const Json& call : *calls) {
      if (!call.is_object()) return false;
      Json with_index = {{"index", call_index}};
      with_index.update(call);
      with_index["index"] = call_index++;
      delta(index, {{"tool_calls", Json::array({std::move(with_index)})}}, nullptr);
    }
    return true;
  }

  bool chat_;
  bool include_usage_;
  Json frame_ = Json::object();
  std::string out_;
};

}  // namespace

core::Result<std::string> assemble_from_stream(Endpoint endpoint, std::string_view sse) {
  if (endpoint != Endpoint::chat_completions && endpoint != Endpoint::completions) {
    return std::unexpected(not_dialect("this endpoint has no streams"));
  }
  return Assembler{endpoint == Endpoint::chat_completions}.run(sse);
}

core::Result<std::string> stream_from_body(Endpoint endpoint, std::string_view body, bool include_usage) {
  if (endpoint != Endpoint::chat_completions && endpoint != Endpoint::completions) {
    return std::unexpected(not_dialect("this endpoint has no streams"));
  }
  const auto json = parse(body);
  if (!json || json->contains("error")) return std::unexpected(not_dialect("the body is not an answer"));
  const auto choices = json->find("choices");
  if (choices == json->end() || !choices->is_array() || choices->empty()) {
    return std::unexpected(not_dialect("the body has no choices"));
  }
  const auto usage = json->find("usage");
  const bool with_usage = include_usage && usage != json->end() && usage->is_object();
  Splitter splitter{endpoint == Endpoint::chat_completions, *json, with_usage};
  for (const Json& choice : *choices) {
    if (!splitter.choice(choice)) return std::unexpected(not_dialect("a choice has an unknown form"));
  }
  if (with_usage) splitter.usage(*usage);
  return splitter.take();
}

}  // namespace ganglion::api
