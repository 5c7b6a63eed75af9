#pragma once
// The pre-tokenizer of tokenizer.json: how normalized text is cut into the words that the model looks at one by one.

#include <deque>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "backends/local/tokenizer/pattern.hpp"
#include "backends/local/tokenizer/spec.hpp"
#include "backends/local/tokenizer/unicode.hpp"

namespace ganglion::local::tok {

struct Piece {
  std::string_view text;
  bool at_start;  // begins where the whole input began
};

// Words, and the storage of those that are no longer parts of the input. Reused from call to call.
struct Pieces {
  std::vector<Piece> list;
  // The words are raw bytes that the model must read through the byte alphabet: spares spelling them out.
  bool byte_level = false;

  void clear();
  std::string_view keep(std::string text) { return arena_.emplace_back(std::move(text)); }

  std::vector<Piece> next;  // scratch of the stages
  std::vector<Span> spans;

 private:
  std::deque<std::string> arena_;
};

enum class SplitBehavior : std::uint8_t { removed, isolated, merged_with_previous, merged_with_next, contiguous };

struct SplitStage {
  Pattern pattern;
  SplitBehavior behavior;
  bool invert;
};
// A code point of `classes` (or equal to `delimiter`, when that is not 0) is a match by itself.
struct ClassStage {
  ClassMask classes;
  char32_t delimiter;
  SplitBehavior behavior;
};
struct ByteLevelStage {
  bool add_prefix_space;
  bool use_regex;
  bool last;  // nothing comes after it: leave the bytes as they are and set Pieces::byte_level
};
enum class PrependScheme : std::uint8_t { always, first, never };
struct MetaspaceStage {
  std::string replacement;
  PrependScheme scheme;
  bool split;
};
struct WhitespaceStage {};  // \w+|[^\w\s]+

PrependScheme read_prepend_scheme(const Spec& spec);

class PreTokenizer {
 public:
  PreTokenizer() = default;                 // one word
  explicit PreTokenizer(const Spec& spec);  // throws LoadError

  // Cuts pieces.list further, in place. Empty words are dropped.
  void apply(Pieces& pieces) const;

 private:
  using Stage = std::variant<SplitStage, ClassStage, ByteLevelStage, MetaspaceStage, WhitespaceStage>;
  void add(const Spec& spec, int depth);
  std::vector<Stage> stages_;
};

}  // namespace ganglion::local::tok
