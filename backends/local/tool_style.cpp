// See tool_style.hpp.

#include "backends/local/tool_style.hpp"

#include "backends/local/grammar/vocabulary.hpp"

namespace ganglion::backends {

namespace {

// A mark as a grammar names it: a special token by its code, anything else by its letters.
std::string mark(const local::Tokenizer& tokenizer, std::string_view text, ToolMarks& out) {
  const auto id = tokenizer.token_to_id(text);
  if (!id || !tokenizer.is_special(*id)) return std::string(text);
  out.shown_ids.push_back(*id);
  return local::grammar::Vocabulary::special(*id);
}

}  // namespace

ToolStyle tool_style(std::string_view chat_template) {
  const auto has = [&](std::string_view text) { return chat_template.find(text) != std::string_view::npos; };
  if (!has("tools")) return ToolStyle::none;
  if (has("[TOOL_CALLS]")) return has("[ARGS]") ? ToolStyle::mistral_args : ToolStyle::mistral_list;
  if (has("<tool_call>")) return ToolStyle::hermes;
  if (has("<|python_tag|>") || has("ipython")) return ToolStyle::json;
  return ToolStyle::none;
}

ToolMarks tool_marks(ToolStyle style, const local::Tokenizer& tokenizer) {
  ToolMarks out;
  local::grammar::CallSyntax& s = out.syntax;
  s.begin = R"({"name": ")";
  s.arguments = R"(", "arguments": )";
  s.end = "}";
  switch (style) {
    case ToolStyle::none:
      break;
    case ToolStyle::hermes:
      out.trigger = mark(tokenizer, "<tool_call>", out);
      s.begin.insert(0, out.trigger + "\n");
      s.end += "\n" + mark(tokenizer, "</tool_call>", out);
      s.between = "\n";
      break;
    case ToolStyle::json:
      mark(tokenizer, "<|python_tag|>", out);
      s.arguments = R"(", "parameters": )";
      s.several = false;
      break;
    case ToolStyle::mistral_list:
      out.trigger = mark(tokenizer, "[TOOL_CALLS]", out);
      s.opening = out.trigger + "[";
      s.between = ", ";
      s.closing = "]";
      break;
    case ToolStyle::mistral_args:
      out.trigger = mark(tokenizer, "[TOOL_CALLS]", out);
      s.begin = out.trigger;
      s.arguments = mark(tokenizer, "[ARGS]", out);
      s.end = "";
      mark(tokenizer, "[CALL_ID]", out);
      break;
  }
  return out;
}

}  // namespace ganglion::backends
