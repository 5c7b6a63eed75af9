#pragma once
// Finds the calls of functions in a model's text as it comes, by the model's style (tool_style.hpp). What turns out to
// be no call of a function that the request has is text as any other. One answer each; not thread-safe.

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "backends/local/tool_style.hpp"

namespace ganglion::backends {

// One call's arguments, found byte by byte in the object that names the function and them.
class CallObject {
 public:
  enum class State { reading, done, wrong };
  // Takes bytes up to the function's name or the object's end, whichever comes first; returns how many.
  std::size_t read(std::string_view text);
  State state() const { return state_; }
  const std::string& name() const { return name_; }
  bool named() const { return named_; }
  // The arguments that have come since the last call of this. They may come before the name.
  std::string take_arguments();

 private:
  void take(char c);
  void member_begins(char c);
  void value_ends();

  State state_ = State::reading;
  enum class At { start, key, colon, value, behind } at_ = At::start;
  enum class Value { other, name, arguments, text_arguments } value_ = Value::other;
  int depth_ = 0;  // inside the value at hand
  bool string_ = false, escaped_ = false, named_ = false;
  std::string key_, name_, raw_, arguments_;
};

class ToolCallReader {
 public:
  struct Piece {
    enum class Kind { text, call, arguments };
    Kind kind = Kind::text;
    std::string text;  // text, the function's name, or more of the arguments
  };
  // `functions`: the names that are calls.
  ToolCallReader(ToolStyle style, std::vector<std::string> functions)
      : style_(style), functions_(std::move(functions)) {}

  // Appends what has become certain. Calls are numbered as they come; arguments belong to the last one.
  void read(std::string_view text, std::vector<Piece>& out);
  void finish(std::vector<Piece>& out);  // the text has ended
  int calls() const { return calls_; }

 private:
  enum class At { beginning, text, before_call, object, name, raw_arguments, behind_call };
  std::string_view mark() const;  // what begins a call within text; "": nothing does
  bool step(std::vector<Piece>& out, bool last);
  bool step_beginning(std::vector<Piece>& out, bool last);
  bool step_text(std::vector<Piece>& out, bool last);
  bool step_before(std::vector<Piece>& out, bool last);
  bool step_object(std::vector<Piece>& out);
  bool step_name(std::vector<Piece>& out, bool last);
  bool step_arguments(std::vector<Piece>& out);
  bool step_behind(std::vector<Piece>& out, bool last);
  void show(std::string text, std::vector<Piece>& out);
  void give_up(std::vector<Piece>& out);  // what was taken for a call is text
  bool begin_call(const std::string& name, std::vector<Piece>& out);
  bool skip_space();

  ToolStyle style_;
  std::vector<std::string> functions_;
  At at_ = At::beginning;
  std::string pending_;  // not looked at yet
  std::string taken_;    // of a call that has no name yet: text again if it gets none
  CallObject object_;
  bool in_list_ = false;
  bool called_ = false, argued_ = false;  // the call at hand has been told; some of its arguments too
  int depth_ = 0;                         // of raw arguments
  bool string_ = false, escaped_ = false;
  int calls_ = 0;
};

// The id of a call: what every style's template takes back. Mistral's wants nine letters and digits.
std::string call_id(ToolStyle style, std::string_view request_id, std::size_t choice, int index);

}  // namespace ganglion::backends
