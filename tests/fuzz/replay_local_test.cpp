// The properties of local_property.hpp over their kept corpora, in every build, and over a fixed sequence of mutations
// of them.

#include <gtest/gtest.h>

#include "tests/fuzz/local_property.hpp"
#include "tests/support/corpus.hpp"

namespace ganglion::fuzz {
namespace {

void replay(const std::string& name, void (*check)(std::string_view), std::size_t edited) {
  const auto cases = test::corpus(name);
  EXPECT_GE(cases.size(), 4U) << name;
  test::Edits edits(cases);
  for (const auto& [file, bytes] : cases) {
    SCOPED_TRACE(file);
    check(bytes);
    check(std::string_view{bytes}.substr(0, bytes.size() / 2));  // and cut
    for (std::size_t i = test::Edits::rounds(edited); i > 0; --i) check(edits.of(bytes));
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
