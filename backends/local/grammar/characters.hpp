#pragma once
// Characters of JSON strings: sets of code points, and how each is spelled inside the quotes. One spelling each:
// itself as UTF-8, or, for what JSON requires, the short escape where there is one and \u00xx in lower case else.

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backends/local/grammar/builder.hpp"

namespace ganglion::local::grammar {

class CodePoints {
 public:
  static constexpr std::uint32_t kMax = 0x10FFFF;
  using Range = std::pair<std::uint32_t, std::uint32_t>;  // both included

  CodePoints() = default;
  CodePoints(std::initializer_list<Range> ranges);
  static CodePoints all();  // but surrogates, which no text holds
  void add(std::uint32_t low, std::uint32_t high);
  void add(const CodePoints& other);
  CodePoints complement() const;
  const std::vector<Range>& ranges() const { return ranges_; }  // sorted, apart
  bool empty() const { return ranges_.empty(); }

 private:
  void normalise();
  std::vector<Range> ranges_;
};

// Edges for one character of `set`, spelled as above, from one node to another.
void add_character(RuleGraph& graph, std::uint32_t from, std::uint32_t to, const CodePoints& set);
// Any spelling that JSON has of any character; the first byte carries `op`.
void add_any_spelling(RuleGraph& graph, std::uint32_t from, std::uint32_t to, CountOp op);
// Raw UTF-8, controls, quotes and backslashes included: for text that is not JSON. `but`: ASCII bytes left out.
void add_raw_character(RuleGraph& graph, std::uint32_t from, std::uint32_t to, std::string_view but);

// `text`, valid UTF-8, as it is spelled between quotes.
std::string spelled(std::string_view text);

// Where a spelled character begins and ends, byte by byte.
class CharacterPhase {
 public:
  static constexpr std::uint8_t kBoundary = 0;
  static std::uint8_t next(std::uint8_t phase, std::uint8_t byte);
};

}  // namespace ganglion::local::grammar
