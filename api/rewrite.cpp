// See api/rewrite.hpp. At most three edits, sorted by offset; the body itself, which may be long, is not copied.

#include "api/rewrite.hpp"

#include <algorithm>
#include <array>

#include "api/json_text.hpp"

namespace ganglion::api {
namespace {

struct Edit {
  Span span;  // replaced; empty: insertion at span.offset
  std::string_view prefix;
  std::string_view json_string;  // written quoted after prefix, if quoted
  bool quoted = false;
  std::size_t written = 0;  // where its text begins
};

// Turns include_usage on with the smallest change to what the client wrote.
Edit usage_edit(const RequestView& view) {
  if (!view.include_usage_value.empty()) return {.span = view.include_usage_value, .prefix = "true"};
  if (view.stream_options_value.empty()) {
    return {.span = {.offset = view.object_end}, .prefix = R"(,"stream_options":{"include_usage":true})"};
  }
  if (view.stream_options_bare) return {.span = view.stream_options_value, .prefix = R"({"include_usage":true})"};
  return {.span = {.offset = view.stream_options_value.offset + 1}, .prefix = R"("include_usage":true,)"};
}

}  // namespace

core::TextParts rewrite_body(std::string_view body, const RequestView& view, const RewritePlan& plan,
                             std::string& out) {
  std::array<Edit, 3> edits;
  std::size_t count = 0;
  if (!plan.model.empty() && plan.model != view.model) {
    edits[count++] = {.span = view.model_value, .json_string = plan.model, .quoted = true};
  }
  if (plan.include_usage && view.stream && !view.include_usage) edits[count++] = usage_edit(view);
  if (plan.strip_service_tier && !view.service_tier_member.empty()) {
    edits[count++] = {.span = view.service_tier_member};
  }
  if (count == 0) return body;
  std::sort(edits.begin(), edits.begin() + static_cast<std::ptrdiff_t>(count),
            [](const Edit& a, const Edit& b) { return a.span.offset < b.span.offset; });
  out.clear();
  for (std::size_t i = 0; i < count; ++i) {
    edits[i].written = out.size();
    out.append(edits[i].prefix);
    if (edits[i].quoted) append_json_string(out, edits[i].json_string);
  }
  core::TextParts parts;
  std::size_t at = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t end = i + 1 < count ? edits[i + 1].written : out.size();
    parts.add(body.substr(at, edits[i].span.offset - at));
    parts.add(std::string_view{out}.substr(edits[i].written, end - edits[i].written));
    at = edits[i].span.end();
  }
  parts.add(body.substr(at));
  return parts;
}

}  // namespace ganglion::api
