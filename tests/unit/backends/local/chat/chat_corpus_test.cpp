// The chat template fuzzer's property over its kept corpus, and over a fixed sequence of mutations of it.

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "tests/fuzz/chat_property.hpp"
#include "tests/support/corpus.hpp"

namespace ganglion {
namespace {

TEST(ChatCorpus, KeptCasesHold) {
  const auto cases = test::corpus("chat_template");
  EXPECT_GT(cases.size(), 3U);
  for (const auto& [file, text] : cases) fuzz::check_chat_template(text);
}

// Swaps, cuts and splices of pieces of templates: most do not parse, many do, none may crash or hang.
TEST(ChatCorpus, MutatedTemplatesHold) {
  const auto cases = test::corpus("chat_template");
  std::mt19937 random(20240726);
  const auto below = [&](std::size_t n) { return n == 0 ? 0 : random() % n; };
  const std::vector<std::string> words = {
      "{{",       "}}",    "{%",    "%}",      "-%}",   "(",        ")",      "[",    "]",      "|",
      ".",        "~",     "**",    "'",       " not ", " is ",     " in ",   " if ", " else ", "namespace()",
      "range(9)", "|list", "|sort", "|tojson", "loop",  "messages", "[::-1]", "-1",   "1e308"};
  int compiled = 0;
  for (int i = 0; i < 4000; ++i) {
    std::string text = cases[below(cases.size())].bytes;
    for (std::size_t edits = 1 + below(4); edits > 0; --edits) {
      const std::size_t at = below(text.size());
      switch (below(3)) {
        case 0:
          text.erase(at, below(20));
          break;
        case 1:
          text.insert(at, words[below(words.size())]);
          break;
        default: {
          const std::string& other = cases[below(cases.size())].bytes;
          text.insert(at, other.substr(below(other.size()), below(60)));
        }
      }
    }
    fuzz::check_chat_template(text);
    compiled += local::ChatTemplate::compile(text) ? 1 : 0;
  }
  EXPECT_GT(compiled, 200) << "the mutations are too wild to reach the evaluator";
}

}  // namespace
}  // namespace ganglion
