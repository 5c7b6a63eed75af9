#pragma once
// How models write calls of functions into their text: what to look for, and as what grammar to ask for it. A model's
// style is read off its chat template, which shows it calls in its own words.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "backends/local/grammar/compile.hpp"
#include "backends/local/tokenizer/tokenizer.hpp"

namespace ganglion::backends {

enum class ToolStyle : std::uint8_t {
  none,          // not known: calls stay in the text
  hermes,        // <tool_call>\n{"name": "f", "arguments": {...}}\n</tool_call>, as often as wanted (Qwen, Hermes)
  json,          // the whole text is {"name": "f", "parameters": {...}}, perhaps behind <|python_tag|> (Llama 3)
  mistral_list,  // [TOOL_CALLS][{"name": "f", "arguments": {...}}, ...]
  mistral_args,  // [TOOL_CALLS]f[ARGS]{...}, as often as wanted
};

ToolStyle tool_style(std::string_view chat_template);

struct ToolMarks {
  local::grammar::CallSyntax syntax;
  std::string trigger;                  // what begins a call within other text; "": only the text's beginning does
  std::vector<std::int32_t> shown_ids;  // special tokens among the marks, which the text has to show
};
ToolMarks tool_marks(ToolStyle style, const local::Tokenizer& tokenizer);

}  // namespace ganglion::backends
