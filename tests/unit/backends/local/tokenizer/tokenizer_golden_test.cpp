// Ids and texts of several hundred strings against transformers' fast tokenizers, for each tokenizer of
// tests/data/local.

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "backends/local/tokenizer/stream_decoder.hpp"
#include "backends/local/tokenizer/tokenizer.hpp"

namespace ganglion::local {
namespace {

using Json = nlohmann::json;

const Json& golden() {
  static const Json json = [] {
    std::ifstream in("tests/data/local/tokenizer_cases.json");
    return Json::parse(in);
  }();
  return json;
}

// Calls check(tokenizer, folder, text, answers) for every string of every tokenizer.
template <class Check>
void for_each_case(Check check) {
  const Json& strings = golden()["strings"];
  ASSERT_GE(strings.size(), 500u);
  ASSERT_GE(golden()["tokenizers"].size(), 5u);
  for (const auto& [folder, rows] : golden()["tokenizers"].items()) {
    auto tokenizer = Tokenizer::load("tests/data/local/" + folder);
    ASSERT_TRUE(tokenizer) << tokenizer.error().message;
    ASSERT_EQ(rows.size(), strings.size());
    for (std::size_t i = 0; i < rows.size(); ++i) check(*tokenizer, folder, strings[i].get<std::string>(), rows[i]);
  }
}

std::string where(const std::string& folder, const std::string& text) {
  return folder + ": " + Json(text).dump(-1, ' ', true).substr(0, 300);
}

TEST(TokenizerGolden, IdsAgree) {
  for_each_case([](const Tokenizer& tokenizer, const std::string& folder, const std::string& text, const Json& row) {
    EXPECT_EQ(Json(tokenizer.encode(text, false)), row[0]) << where(folder, text);
    EXPECT_EQ(Json(tokenizer.encode(text, true)), row[1]) << where(folder, text);
    EXPECT_EQ(tokenizer.count(text), row[0].size()) << where(folder, text);
  });
}

TEST(TokenizerGolden, DecodedTextsAgree) {
  for_each_case([](const Tokenizer& tokenizer, const std::string& folder, const std::string& text, const Json& row) {
    const auto ids = row[1].get<std::vector<std::int32_t>>();
    EXPECT_EQ(tokenizer.decode(ids, true), row[2].get<std::string>()) << where(folder, text);
    EXPECT_EQ(tokenizer.decode(ids, false), row[3].get<std::string>()) << where(folder, text);
  });
}

TEST(TokenizerGolden, StreamingGivesTheSameText) {
  for_each_case([](const Tokenizer& tokenizer, const std::string& folder, const std::string& text, const Json& row) {
    StreamDecoder stream(tokenizer, true);
    std::string streamed;
    for (const Json& id : row[1]) streamed += stream.push(id.get<std::int32_t>());
    streamed += stream.flush();
    EXPECT_EQ(streamed, row[2].get<std::string>()) << where(folder, text);
  });
}

}  // namespace
}  // namespace ganglion::local
