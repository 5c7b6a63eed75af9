// Matching of Pattern.

#include "backends/local/tokenizer/pattern.hpp"

#include <nlohmann/json.hpp>

#include "backends/local/tokenizer/utf8.hpp"

namespace ganglion::local::tok {
namespace {

void scan_literal(std::string_view literal, std::string_view text, std::vector<Span>& spans) {
  std::size_t from = 0;
  while (true) {
    const std::size_t at = text.find(literal, from);
    if (at == std::string_view::npos) break;
    if (at > from) spans.push_back({from, at, false});
    spans.push_back({at, at + literal.size(), true});
    from = at + literal.size();
  }
  if (from < text.size()) spans.push_back({from, text.size(), false});
}

// An empty match right after the match before it does not count, as in the reference's iterator.
void scan_regex(const Regex& regex, std::string_view text, std::vector<Span>& spans) {
  Regex::Scan scan(regex, text);
  std::size_t done = 0;  // end of the last span
  std::size_t from = 0;
  bool matched = false;
  while (from <= text.size()) {
    const auto found = scan.next(from);
    if (!found) break;
    const auto [begin, end] = *found;
    if (begin == end && matched && end == done) {
      from = end >= text.size() ? text.size() + 1 : end + sequence_size(text[end]);
      continue;
    }
    if (begin > done) spans.push_back({done, begin, false});
    spans.push_back({begin, end, true});
    done = from = end;
    matched = true;
  }
  if (done < text.size()) spans.push_back({done, text.size(), false});
}

}  // namespace

Pattern::Pattern(const Spec& spec) {
  if (!spec.json().is_object() || spec.json().size() != 1) spec.bad("is not {\"String\": ..} or {\"Regex\": ..}");
  if (spec.has("String")) {
    std::string literal = spec.string("String");
    if (literal.empty()) spec.unsupported("an empty string as pattern");
    kind_ = std::move(literal);
    return;
  }
  const Spec regex = spec.at("Regex");
  if (const auto known = known_split_pattern(regex.text())) {
    kind_ = *known;
  } else {
    kind_.emplace<Regex>(regex);
  }
}

void Pattern::scan(std::string_view text, std::vector<Span>& spans) const {
  if (text.empty()) return;
  if (const auto* literal = std::get_if<std::string>(&kind_)) {
    scan_literal(*literal, text, spans);
  } else if (const auto* known = std::get_if<SplitPattern>(&kind_)) {
    const CharClasses& classes = CharClasses::get();
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = next_split(*known, classes, text, at);
      spans.push_back({at, end, true});
      at = end;
    }
  } else {
    scan_regex(std::get<Regex>(kind_), text, spans);
  }
}

void replace_literal(std::string_view literal, std::string_view content, std::string& text) {
  std::size_t at = text.find(literal);
  if (at == std::string::npos) return;  // the usual case, and free
  std::string out;
  out.reserve(text.size() + text.size() / 4);
  std::size_t from = 0;
  for (; at != std::string::npos; at = text.find(literal, from)) {
    out.append(text, from, at - from);
    out += content;
    from = at + literal.size();
  }
  out.append(text, from);
  text = std::move(out);
}

void replace_all(const Pattern& pattern, std::string_view content, std::string& text) {
  if (const std::string* literal = pattern.literal()) return replace_literal(*literal, content, text);
  std::vector<Span> spans;
  pattern.scan(text, spans);
  std::string out;
  out.reserve(text.size());
  for (const Span& span : spans) {
    out += span.match ? content : std::string_view(text).substr(span.begin, span.end - span.begin);
  }
  text = std::move(out);
}

}  // namespace ganglion::local::tok
