// The properties of local_property.hpp over their kept corpora, in every build, and over a fixed sequence of mutations
// of them.

#include <gtest/gtest.h>

#include "tests/fuzz/local_property.hpp"
#include "tests/fuzz/replay.hpp"

namespace ganglion::fuzz {
namespace {

TEST(FuzzReplayLocal, JsonSchemas) {
  replay("json_schema", check_json_schema, 4, 150);
}
TEST(FuzzReplayLocal, ToolCalls) {
  replay("tool_calls", check_tool_calls, 4, 1500);
}
TEST(FuzzReplayLocal, Safetensors) {
  replay("safetensors", check_safetensors, 4, 2000);
}
TEST(FuzzReplayLocal, TokenizerFiles) {
  replay("tokenizer_json", check_tokenizer_json, 4, 400);
}
TEST(FuzzReplayLocal, LedgerSegments) {
  replay("ledger", check_ledger, 4, 600);
}

}  // namespace
}  // namespace ganglion::fuzz
