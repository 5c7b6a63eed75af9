#pragma once
// A regular expression of tokenizer.json. The files are written for Oniguruma's Ruby syntax; here they are translated
// to PCRE2 where both mean the same, and a construct that would mean something else is refused at load, by name.

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "backends/local/tokenizer/spec.hpp"

namespace ganglion::local::tok {

// PCRE2's spelling of an Oniguruma pattern. Throws LoadError, naming the construct.
std::string translate_regex(const Spec& pattern);

class Regex {
 public:
  explicit Regex(const Spec& pattern);  // throws LoadError

  // One scan over a text; not shared between threads, while the Regex is.
  class Scan {
   public:
    Scan(const Regex& regex, std::string_view text);
    // The next match at or after `from`: [begin, end). A search that exceeds the match limits ends like no match: the
    // rest of a hostile text then stays in one piece instead of costing unbounded time.
    std::optional<std::pair<std::size_t, std::size_t>> next(std::size_t from);

   private:
    const Regex& regex_;
    std::string_view text_;
    std::shared_ptr<void> match_data_;
  };

 private:
  std::shared_ptr<void> code_;
  std::shared_ptr<void> context_;
};

}  // namespace ganglion::local::tok
