// See tool_calls.hpp.

#include "backends/local/tool_calls.hpp"

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <utility>

namespace ganglion::backends {

namespace {

constexpr std::string_view kSpace = " \t\r\n";
constexpr std::size_t kNameBytesMax = 256;  // of what may become a function's name

bool space(char c) {
  return kSpace.find(c) != std::string_view::npos;
}

// How much of the end of `text` may be the beginning of `mark`.
std::size_t begun(std::string_view text, std::string_view mark) {
  for (std::size_t n = std::min(text.size(), mark.size() - 1); n > 0; --n) {
    if (text.substr(text.size() - n) == mark.substr(0, n)) return n;
  }
  return 0;
}

std::string unquoted(const std::string& string) {
  const auto value = nlohmann::json::parse(string, nullptr, false);
  return value.is_string() ? value.get<std::string>() : std::string();
}

}  // namespace

// ---- CallObject ----

std::size_t CallObject::read(std::string_view text) {
  std::size_t n = 0;
  const bool named = named_;
  while (n < text.size() && state_ == State::reading && named_ == named) take(text[n++]);
  return n;
}

std::string CallObject::take_arguments() {
  return std::exchange(arguments_, {});
}

void CallObject::take(char c) {
  if (string_) {  // of a key or of a value
    raw_.push_back(c);
    if (at_ == At::value && value_ == Value::arguments) arguments_.push_back(c);
    if (escaped_) {
      escaped_ = false;
    } else if (c == '\\') {
      escaped_ = true;
    } else if (c == '"') {
      string_ = false;
      if (at_ == At::key) key_ = unquoted(raw_), at_ = At::colon;
      if (at_ == At::value && depth_ == 0) value_ends();
    }
    return;
  }
  if (at_ == At::value && depth_ > 0) {
    raw_.push_back(c);
    if (value_ == Value::arguments) arguments_.push_back(c);
    if (c == '"') string_ = true;
    if (c == '{' || c == '[') ++depth_;
    if ((c == '}' || c == ']') && --depth_ == 0) value_ends();
    return;
  }
  if (space(c) && !(at_ == At::value && !raw_.empty())) return;
  member_begins(c);
}

// Outside strings and nested values.
void CallObject::member_begins(char c) {
  switch (at_) {
    case At::start:
      if (c != '{') state_ = State::wrong;
      at_ = At::key, raw_.clear();
      return;
    case At::key:
      if (c == '}' || c != '"') {
        state_ = State::wrong;  // an empty object calls nothing
      } else {
        string_ = true, raw_ = "\"";
      }
      return;
    case At::colon:
      if (c != ':') state_ = State::wrong;
      at_ = At::value, raw_.clear();
      value_ = key_ == "name"                                ? Value::name
               : key_ == "arguments" || key_ == "parameters" ? Value::arguments
                                                             : Value::other;
      return;
    case At::value:
      if (raw_.empty()) {
        if (value_ == Value::arguments && c == '"') value_ = Value::text_arguments;
        if (value_ == Value::arguments && c == '{') arguments_.push_back(c);
        if (value_ == Value::name && c != '"') state_ = State::wrong;
        if (value_ == Value::arguments && c != '{' && c != 'n') state_ = State::wrong;
        raw_.push_back(c);
        if (c == '"') string_ = true;
        if (c == '{' || c == '[') depth_ = 1;
        return;
      }
      // A number or a word, up to what ends it.
      if (c != ',' && c != '}' && !space(c)) {
        raw_.push_back(c);
        return;
      }
      value_ends();
      if (space(c) || state_ == State::wrong) return;
      [[fallthrough]];
    case At::behind:
      if (c == ',') {
        at_ = At::key, raw_.clear();
      } else {
        state_ = c == '}' && named_ ? State::done : State::wrong;
      }
      return;
  }
}

void CallObject::value_ends() {
  if (value_ == Value::name) name_ = unquoted(raw_), named_ = true;
  if (value_ == Value::text_arguments) arguments_ += unquoted(raw_);  // some models write the arguments as a string
  if (value_ == Value::arguments && raw_.front() == 'n' && raw_ != "null") state_ = State::wrong;
  at_ = At::behind;
}

// ---- ToolCallReader ----

std::string_view ToolCallReader::mark() const {
  switch (style_) {
    case ToolStyle::hermes:
      return "<tool_call>";
    case ToolStyle::json:
      return "<|python_tag|>";
    case ToolStyle::mistral_list:
    case ToolStyle::mistral_args:
      return "[TOOL_CALLS]";
    case ToolStyle::none:
      break;
  }
  return {};
}

void ToolCallReader::read(std::string_view text, std::vector<Piece>& out) {
  pending_ += text;
  while (step(out, false)) {
  }
}

void ToolCallReader::finish(std::vector<Piece>& out) {
  while (step(out, true)) {
  }
  if (!called_) give_up(out);
  if (calls_ > 0 && pending_.find_first_not_of(kSpace) == std::string::npos) pending_.clear();  // layout behind calls
  show(std::exchange(pending_, {}), out);
}

void ToolCallReader::show(std::string text, std::vector<Piece>& out) {
  if (text.empty()) return;
  if (!out.empty() && out.back().kind == Piece::Kind::text) {
    out.back().text += text;
  } else {
    out.push_back({Piece::Kind::text, std::move(text)});
  }
}

void ToolCallReader::give_up(std::vector<Piece>& out) {
  show(std::exchange(taken_, {}), out);
  at_ = At::text;
}

bool ToolCallReader::begin_call(const std::string& name, std::vector<Piece>& out) {
  if (std::find(functions_.begin(), functions_.end(), name) == functions_.end()) return false;
  ++calls_;
  called_ = true;
  argued_ = false;
  taken_.clear();
  out.push_back({Piece::Kind::call, name});
  return true;
}

// Space that belongs to no text. True: something else follows.
bool ToolCallReader::skip_space() {
  const std::size_t n = std::min(pending_.find_first_not_of(kSpace), pending_.size());
  if (!called_) taken_ += pending_.substr(0, n);
  pending_.erase(0, n);
  return !pending_.empty();
}

// One thing that is certain; false: nothing is until more comes.
bool ToolCallReader::step(std::vector<Piece>& out, bool last) {
  switch (at_) {
    case At::beginning:
      return step_beginning(out, last);
    case At::text:
      return step_text(out, last);
    case At::before_call:
      return step_before(out, last);
    case At::object:
      return step_object(out);
    case At::name:
      return step_name(out, last);
    case At::raw_arguments:
      return step_arguments(out);
    case At::behind_call:
      return step_behind(out, last);
  }
  return false;
}

bool ToolCallReader::step_beginning(std::vector<Piece>&, bool) {
  if (style_ != ToolStyle::json) return at_ = At::text, true;
  const std::size_t n = pending_.find_first_not_of(kSpace);
  if (n == std::string::npos) return false;
  if (pending_[n] != '{') return at_ = At::text, true;
  taken_ = pending_.substr(0, n);
  pending_.erase(0, n);
  called_ = false;
  object_ = {};
  return at_ = At::object, true;
}

bool ToolCallReader::step_text(std::vector<Piece>& out, bool last) {
  if (pending_.empty()) return false;
  const std::string_view m = mark();
  const std::size_t found = m.empty() ? std::string::npos : pending_.find(m);
  if (found != std::string::npos) {
    // Space between the text and a call is layout.
    std::string before = pending_.substr(0, found);
    const std::size_t end = before.find_last_not_of(kSpace);
    taken_ = before.substr(end == std::string::npos ? 0 : end + 1) + std::string(m);
    show(before.substr(0, end == std::string::npos ? 0 : end + 1), out);
    pending_.erase(0, found + m.size());
    called_ = false;
    return at_ = At::before_call, true;
  }
  // Space may stand before a mark.
  std::size_t hold = last || m.empty() ? 0 : begun(pending_, m);
  if (!last && !m.empty()) {
    while (hold < pending_.size() && space(pending_[pending_.size() - hold - 1])) ++hold;
  }
  if (last && calls_ > 0 && pending_.find_first_not_of(kSpace) == std::string::npos) return false;
  const std::size_t sure = pending_.size() - hold;
  show(pending_.substr(0, sure), out);
  pending_.erase(0, sure);
  return false;
}

bool ToolCallReader::step_before(std::vector<Piece>& out, bool) {
  if (!skip_space()) return false;
  const char c = pending_.front();
  if (c == '[' && style_ == ToolStyle::mistral_list && !in_list_) {
    in_list_ = true;
    taken_.push_back(c);
    pending_.erase(0, 1);
    return true;
  }
  if (c == '{' && style_ != ToolStyle::mistral_args) {
    object_ = {};
    called_ = false;
    return at_ = At::object, true;
  }
  if (style_ == ToolStyle::mistral_args || style_ == ToolStyle::mistral_list) return at_ = At::name, true;
  give_up(out);
  return true;
}

bool ToolCallReader::step_object(std::vector<Piece>& out) {
  if (pending_.empty()) return false;
  const std::size_t n = object_.read(pending_);
  if (!called_) taken_ += pending_.substr(0, n);
  pending_.erase(0, n);
  const bool wrong = object_.state() == CallObject::State::wrong;
  if (!called_ && object_.named() && !wrong && !begin_call(object_.name(), out)) {
    in_list_ = false;
    give_up(out);
    return true;
  }
  if (called_) {
    std::string more = object_.take_arguments();
    // None, null or an empty string: clients parse what they get.
    if (more.empty() && !argued_ && object_.state() == CallObject::State::done) more = "{}";
    if (!more.empty()) {
      argued_ = true;
      out.push_back({Piece::Kind::arguments, std::move(more)});
    }
  }
  if (wrong && !called_) {
    give_up(out);
    return true;
  }
  if (wrong || object_.state() == CallObject::State::done) return at_ = At::behind_call, true;
  return !pending_.empty();
}

// A bare name, up to [ARGS] or the arguments themselves.
bool ToolCallReader::step_name(std::vector<Piece>& out, bool last) {
  const std::size_t end = pending_.find('{');
  if (end == std::string::npos || end > kNameBytesMax) {
    if (!last && pending_.size() <= kNameBytesMax) return false;
    give_up(out);
    return true;
  }
  std::string name = pending_.substr(0, end);
  for (const std::string_view part : {"[ARGS]", "[CALL_ID]"}) name = name.substr(0, name.find(part));
  while (!name.empty() && space(name.back())) name.pop_back();
  if (!begin_call(name, out)) {
    give_up(out);
    return true;
  }
  pending_.erase(0, end);
  depth_ = 0, string_ = escaped_ = false;
  return at_ = At::raw_arguments, true;
}

bool ToolCallReader::step_arguments(std::vector<Piece>& out) {
  if (pending_.empty()) return false;
  std::size_t n = 0;
  bool done = false;
  while (n < pending_.size() && !done) {
    const char c = pending_[n++];
    if (string_) {
      if (escaped_) {
        escaped_ = false;
      } else if (c == '\\') {
        escaped_ = true;
      } else if (c == '"') {
        string_ = false;
      }
      continue;
    }
    if (c == '"') string_ = true;
    if (c == '{' || c == '[') ++depth_;
    if (c == '}' || c == ']') done = --depth_ == 0;
  }
  out.push_back({Piece::Kind::arguments, pending_.substr(0, n)});
  pending_.erase(0, n);
  if (done) at_ = At::behind_call;
  return done;
}

// What closes a call, and what may follow it.
bool ToolCallReader::step_behind(std::vector<Piece>&, bool last) {
  if (!skip_space()) return false;
  const auto drop = [&](std::string_view text) {
    if (!pending_.starts_with(text)) return false;
    pending_.erase(0, text.size());
    return true;
  };
  if (style_ == ToolStyle::hermes) {
    if (!last && std::string_view("</tool_call>").starts_with(pending_) && pending_.size() < 12) return false;
    drop("</tool_call>");
    return at_ = At::text, true;
  }
  if (style_ == ToolStyle::mistral_list && in_list_) {
    if (drop(",")) return at_ = At::before_call, true;
    in_list_ = false;
    drop("]");
    return at_ = At::text, true;
  }
  if (style_ == ToolStyle::json && (drop(";") || drop(","))) return at_ = At::beginning, true;
  return at_ = At::text, true;
}

// ---- ids ----

std::string call_id(ToolStyle style, std::string_view request_id, std::size_t choice, int index) {
  const bool mistral = style == ToolStyle::mistral_list || style == ToolStyle::mistral_args;
  std::string tail = std::to_string(choice) + "_" + std::to_string(index);
  if (!mistral) return "call_" + std::string(request_id) + "_" + tail;
  std::uint64_t h = 1469598103934665603ULL;  // FNV-1a
  for (const char c : std::string(request_id) + tail) h = (h ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
  std::string out;
  for (int i = 0; i < 9; ++i, h /= 62) {
    out.push_back("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[h % 62]);
  }
  return out;
}

}  // namespace ganglion::backends
