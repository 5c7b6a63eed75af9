// Ids and texts of several hundred strings against transformers' fast tokenizers, for each tokenizer of
// tests/data/local.

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "backends/local/tokenizer/stream_decoder.hpp"
#include "backends/local/tokenizer/tokenizer.hpp"

namespace ganglion::local {
namespace {

using Json = nlohmann::json;

// The two files of answers; the second holds the later families' tokenizers.
const std::vector<Json>& goldens() {
  static const std::vector<Json> all = [] {
    std::vector<Json> out;
    for (const char* file : {"tokenizer_cases.json", "tokenizer_cases_families.json"}) {
      std::ifstream in(std::string("tests/data/local/") + file);
      out.push_back(Json::parse(in));
    }
    return out;
  }();
  return all;
}

// Calls check(tokenizer, folder, text, answers) for every string of every tokenizer.
template <class Check>
void for_each_case(Check check) {
  std::size_t compared = 0;
  for (const Json& golden : goldens()) {
    const Json& strings = golden["strings"];
    for (const auto& [folder, rows] : golden["tokenizers"].items()) {
      auto tokenizer = Tokenizer::load("tests/data/local/" + folder);
      ASSERT_TRUE(tokenizer) << tokenizer.error().message;
      ASSERT_EQ(rows.size(), strings.size());
      for (std::size_t i = 0; i < rows.size(); ++i) check(*tokenizer, folder, strings[i].get<std::string>(), rows[i]);
      compared += rows.size();
    }
  }
  ASSERT_GE(compared, 4000u);
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

// vocab.json and merges.txt mean what the tokenizer.json of the same model does.
TEST(TokenizerGolden, TheOlderPairOfFilesGivesTheSameIds) {
  const auto newer = Tokenizer::load("tests/data/local/opt_tiny"),
             older = Tokenizer::load("tests/data/local/opt_post_tiny");
  ASSERT_TRUE(newer) << newer.error().message;
  ASSERT_TRUE(older) << older.error().message;
  EXPECT_EQ(older->bos_id(), 2);
  EXPECT_EQ(older->pad_id(), 1);
  int compared = 0;
  for (const Json& item : goldens().front()["strings"]) {
    const auto text = item.get<std::string>();
    if (text.find('<') != std::string::npos) continue;  // not all markers are named in the older files
    ++compared;
    const auto ids = older->encode(text, true);
    EXPECT_EQ(ids, newer->encode(text, true)) << text;
    EXPECT_EQ(older->decode(ids, true), newer->decode(ids, true)) << text;
  }
  EXPECT_GT(compared, 400);
}

}  // namespace
}  // namespace ganglion::local
