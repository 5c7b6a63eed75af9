#pragma once
// The {"String": ..} or {"Regex": ..} of a component, and the list of matches and gaps that it makes of a text.

#include <cstddef>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "backends/local/tokenizer/regex.hpp"
#include "backends/local/tokenizer/spec.hpp"
#include "backends/local/tokenizer/split_scanner.hpp"

namespace ganglion::local::tok {

struct Span {
  std::size_t begin;
  std::size_t end;
  bool match;
};

class Pattern {
 public:
  explicit Pattern(const Spec& spec);  // throws LoadError
  explicit Pattern(std::string literal) : kind_(std::move(literal)) {}
  explicit Pattern(SplitPattern known) : kind_(known) {}

  // Appends matches and the gaps between them, in order and covering `text`; nothing for an empty text.
  void scan(std::string_view text, std::vector<Span>& spans) const;

  // nullptr unless the pattern is a plain string.
  const std::string* literal() const { return std::get_if<std::string>(&kind_); }

 private:
  std::variant<std::string, SplitPattern, Regex> kind_;
};

// Replaces every `literal` (not empty) in place.
void replace_literal(std::string_view literal, std::string_view content, std::string& text);
// Replaces every match in place.
void replace_all(const Pattern& pattern, std::string_view content, std::string& text);

}  // namespace ganglion::local::tok
