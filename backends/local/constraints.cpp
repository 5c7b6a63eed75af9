// See constraints.hpp.

#include "backends/local/constraints.hpp"

#include <algorithm>

namespace ganglion::backends {

namespace {

using core::ErrorKind;
using local::grammar::Source;

void add_format(const api::ResponseFormat& format, Source& source) {
  using Kind = api::ResponseFormat::Kind;
  if (format.kind == Kind::json_object) source.json = Source::Json::object;
  if (format.kind != Kind::json_schema) return;
  source.json = Source::Json::schema;
  source.schema = format.schema_json;
  source.strict = format.strict;
}

core::Result<void> add_calls(const LocalModel::Parts& parts, const api::ChatRequest& request, Source& source,
                             Constraints& out) {
  out.style = tool_style(parts.chat->for_tools(true).source());
  const bool forced = request.tool_choice != api::ToolChoice::automatic;
  if (forced && out.style == ToolStyle::none) {
    return core::fail(ErrorKind::unsupported,
                      "how model '" + parts.options.name + "' writes calls is not known; use \"auto\" or \"none\"",
                      "tool_choice");
  }
  ToolMarks marks = tool_marks(out.style, parts.tokenizer());
  out.shown_ids = std::move(marks.shown_ids);
  for (const api::FunctionTool& tool : request.tools) {
    out.functions.push_back(tool.name);
    source.functions.push_back({tool.name, tool.parameters_json, tool.strict});
  }
  source.syntax = std::move(marks.syntax);
  source.trigger = std::move(marks.trigger);
  source.parallel = request.parallel_tool_calls && request.tool_choice != api::ToolChoice::named;
  if (forced) {
    source.calls = Source::Calls::must;
    source.json = Source::Json::none;  // the format is for an answer without calls
  } else if (source.json != Source::Json::none && out.style != ToolStyle::none) {
    source.calls = Source::Calls::may;
  } else if (source.json == Source::Json::none && !source.trigger.empty() &&
             std::ranges::any_of(request.tools, &api::FunctionTool::strict)) {
    source.calls = Source::Calls::after;
    for (auto& function : source.functions) {  // of the others no more is wanted than that it is an object
      if (!function.strict) function.parameters.clear();
    }
  }
  return {};
}

}  // namespace

core::Result<Constraints> constraints_of(const LocalModel::Parts& parts, const api::ChatRequest& request) {
  Constraints out;
  Source source;
  add_format(request.format, source);
  if (!request.tools.empty() && request.tool_choice != api::ToolChoice::none) {
    if (auto ok = add_calls(parts, request, source, out); !ok) return std::unexpected(ok.error());
  }
  if (source.json == Source::Json::none && source.calls == Source::Calls::none) return out;
  auto grammar = parts.engine->grammar(source);
  if (!grammar) {
    auto error = grammar.error();
    error.param = source.json == Source::Json::schema && !error.message.starts_with("function ")
                      ? "response_format.json_schema.schema"
                      : "tools";
    return std::unexpected(std::move(error));
  }
  out.grammar = std::move(*grammar);
  return out;
}

}  // namespace ganglion::backends
