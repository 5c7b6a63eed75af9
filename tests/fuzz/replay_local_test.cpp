// The properties of local_property.hpp over their kept corpora, in every build, and over a fixed sequence of mutations
// of them.

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "tests/fuzz/local_property.hpp"
#include "tests/support/corpus.hpp"

namespace ganglion::fuzz {
namespace {

void replay(const std::string& name, void (*check)(std::string_view), int mutations) {
  const auto cases = test::corpus(name);
  EXPECT_GE(cases.size(), 4U) << name;
  std::mt19937 random(20261126);
  const auto below = [&](std::size_t n) { return n == 0 ? std::size_t{0} : random() % n; };
  for (const auto& [file, bytes] : cases) {
    SCOPED_TRACE(file);
    check(bytes);
    check(std::string_view{bytes}.substr(0, bytes.size() / 2));  // and cut
    for (int i = 0; i < mutations; ++i) {
      std::string text = bytes;
      for (std::size_t edits = 1 + below(3); edits > 0; --edits) {
        const std::string& other = cases[below(cases.size())].bytes;
        const std::size_t at = below(text.size());
        if (below(2) == 0)
          text.erase(at, below(12));
        else
          text.insert(at, other, below(other.size()), below(24));
      }
      check(text);
    }
  }
}

TEST(FuzzReplayLocal, JsonSchemas) {
  replay("json_schema", check_json_schema, 150);
}
TEST(FuzzReplayLocal, ToolCalls) {
  replay("tool_calls", check_tool_calls, 1500);
}
TEST(FuzzReplayLocal, Safetensors) {
  replay("safetensors", check_safetensors, 2000);
}
TEST(FuzzReplayLocal, TokenizerFiles) {
  replay("tokenizer_json", check_tokenizer_json, 400);
}
TEST(FuzzReplayLocal, LedgerSegments) {
  replay("ledger", check_ledger, 600);
}

}  // namespace
}  // namespace ganglion::fuzz
