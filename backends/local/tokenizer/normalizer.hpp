#pragma once
// The normalizer of tokenizer.json: what is done to text before it is split.

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "backends/local/tokenizer/pattern.hpp"
#include "backends/local/tokenizer/spec.hpp"
#include "backends/local/tokenizer/unicode.hpp"

namespace ganglion::local::tok {

// Text on its way through, and whether it still begins where the input began (nothing in front of it was cut off):
// a Metaspace with prepend_scheme "first" asks.
struct Normalized {
  std::string text;
  bool at_start = true;
};

struct BertNormalizer {
  bool clean_text, handle_chinese_chars, strip_accents, lowercase;
};
struct StripNormalizer {
  bool left, right;
};
struct PrependNormalizer {
  std::string prefix;
};
struct ReplaceNormalizer {
  Pattern pattern;
  std::string content;
};
enum class SimpleNormalizer : std::uint8_t { lowercase, strip_accents, byte_level };

class Normalizer {
 public:
  Normalizer() = default;                 // does nothing
  explicit Normalizer(const Spec& spec);  // throws LoadError

  bool empty() const { return steps_.empty(); }
  void apply(Normalized& text) const;
  std::string operator()(std::string_view text) const;

 private:
  using Step =
      std::variant<BertNormalizer, StripNormalizer, PrependNormalizer, ReplaceNormalizer, NormalForm, SimpleNormalizer>;
  void add(const Spec& spec, int depth);
  std::vector<Step> steps_;
};

}  // namespace ganglion::local::tok
