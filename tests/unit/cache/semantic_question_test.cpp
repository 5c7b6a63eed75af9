// Which requests the semantic cache may answer, and what must be the same around the question.

#include "cache/semantic_question.hpp"

#include <gtest/gtest.h>

#include "cache/key.hpp"

namespace ganglion::cache {
namespace {

const SemanticPolicy kPolicy{.embedding_model = "bert", .temperature_max = 0.3};

// The question's text as written, or "-" where the request is not for the semantic cache.
std::string question(const std::string& body, const SemanticPolicy& policy = kPolicy) {
  api::ParserScratch scratch;
  const auto view = api::parse_request(api::Endpoint::chat_completions, body, scratch);
  if (!view) return "bad request: " + view.error().message;
  const auto span = semantic_question(*view, body, policy, {});
  return span ? std::string{span->of(body)} : "-";
}

std::string chat(const std::string& extra, const std::string& messages) {
  return R"({"model":"m","temperature":0,)" + extra + R"("messages":)" + messages + "}";
}
const std::string kPlain =
    R"([{"role":"system","content":"be brief"},{"role":"user","content":"why is the sky blue?"}])";

TEST(SemanticQuestion, IsTheTextOfTheLastMessageIfTheUserSpokeLast) {
  EXPECT_EQ(question(chat("", kPlain)), R"("why is the sky blue?")");
  EXPECT_EQ(question(chat("", R"([{"role":"user","content":"a"},{"role":"assistant","content":"b"},)"
                              R"({"content":"c\"\n","role":"user"}])")),
            R"("c\"\n")");
  EXPECT_EQ(question(chat("", R"([{"role":"user","content":"a"},{"role":"assistant","content":"b"}])")), "-");
  EXPECT_EQ(question(chat("", R"([{"role":"user","content":"a"},{"role":"tool","content":"b","tool_call_id":"1"}])")),
            "-");
}

TEST(SemanticQuestion, OnePlainTextPartIsTextMoreIsNot) {
  EXPECT_EQ(question(chat("", R"([{"role":"user","content":[{"type":"text","text":"hi"}]}])")), R"("hi")");
  EXPECT_EQ(
      question(chat("", R"([{"role":"user","content":[{"type":"text","text":"hi"},{"type":"text","text":"ho"}]}])")),
      "-");
  EXPECT_EQ(question(chat("", R"([{"role":"user","content":[{"type":"text","text":"hi","cache_control":{}}]}])")), "-");
  EXPECT_EQ(question(chat("", R"([{"role":"user","content":[{"type":"text","text":"hi"},)"
                              R"({"type":"image_url","image_url":{"url":"http://x/y"}}]}])")),
            "-");
  EXPECT_EQ(question(chat("", R"([{"role":"user","content":""}])")), "-");
  EXPECT_EQ(question(chat("", R"([{"role":"user","content":")" + std::string(5'000, 'x') + R"("}])")), "-");
}

TEST(SemanticQuestion, NeverWhereTheAnswerIsMoreThanText) {
  for (const char* extra : {R"("tools":[{"type":"function","function":{"name":"f"}}],)", R"("tool_choice":"auto",)",
                            R"("response_format":{"type":"json_object"},)", R"("n":2,)", R"("logprobs":true,)",
                            R"("top_logprobs":3,)", R"("functions":[{"name":"f"}],)", R"("audio":{"voice":"x"},)",
                            R"("modalities":["text","audio"],)", R"("t\u006fol_choice":"none",)"}) {
    EXPECT_EQ(question(chat(extra, kPlain)), "-") << extra;
  }
  for (const char* extra :
       {R"("tools":[],)", R"("logprobs":false,)", R"("response_format":null,)", R"("n":1,)", R"("seed":7,)"}) {
    EXPECT_NE(question(chat(extra, kPlain)), "-") << extra;
  }
}

TEST(SemanticQuestion, NeverAboveTheBoundOfTemperature) {
  const auto with = [](const std::string& temperature) {
    return question(R"({"model":"m",)" + temperature + R"("messages":)" + kPlain + "}");
  };
  EXPECT_NE(with(R"("temperature":0.3,)"), "-");
  EXPECT_EQ(with(R"("temperature":0.31,)"), "-");
  EXPECT_EQ(with(""), "-") << "unset is the provider's default, 1";
}

TEST(SemanticQuestion, OffIsOff) {
  EXPECT_EQ(question(chat("", kPlain), SemanticPolicy{}), "-");
}

TEST(SemanticQuestion, OtherEndpointsAreNotForIt) {
  api::ParserScratch scratch;
  const std::string body = R"({"model":"m","temperature":0,"prompt":"hi"})";
  const auto view = api::parse_request(api::Endpoint::completions, body, scratch);
  ASSERT_TRUE(view);
  EXPECT_FALSE(semantic_question(*view, body, kPolicy, {}));
}

TEST(SemanticGuard, EverythingButTheQuestionCounts) {
  KeyMaker keys({.hash = 1, .check = 2});
  const auto guard = [&](const std::string& body, const char* tenant = "t", const char* model = "m") {
    api::ParserScratch scratch;
    const auto view = api::parse_request(api::Endpoint::chat_completions, body, scratch);
    const auto span = semantic_question(view.value(), body, kPolicy, {});
    return keys.from_body({.tenant = tenant, .gateway = "g", .model = model}, semantic_guard(body, span.value()))
        .value();
  };
  const auto base = guard(chat("", kPlain));
  const std::string other_question =
      R"([{"role":"system","content":"be brief"},{"role":"user","content":"what makes the sky blue?"}])";
  EXPECT_EQ(guard(chat("", other_question)), base);
  EXPECT_EQ(guard(chat(" ", other_question)), base) << "white space is not a difference";
  EXPECT_NE(guard(chat("", R"([{"role":"system","content":"be long"},{"role":"user","content":"why?"}])")), base);
  EXPECT_NE(guard(chat("", R"([{"role":"user","content":"why?"}])")), base);
  EXPECT_NE(guard(chat(R"("max_tokens":5,)", kPlain)), base);
  EXPECT_NE(guard(chat(R"("unknown_field":5,)", kPlain)), base);
  EXPECT_NE(guard(chat(R"("user":"alice",)", kPlain)), base);
  EXPECT_NE(guard(chat("", kPlain), "other"), base);
  EXPECT_NE(guard(chat("", kPlain), "t", "m2"), base);
}

TEST(SemanticNumbers, TellTextsWithOtherNumbersApart) {
  EXPECT_EQ(numbers_of("what is 17 times 3?"), numbers_of("17, times 3 - what is it"));
  EXPECT_NE(numbers_of("what is 17 times 3?"), numbers_of("what is 17 times 4?"));
  EXPECT_NE(numbers_of("what is 1 7"), numbers_of("what is 17"));
  EXPECT_NE(numbers_of("3 then 4"), numbers_of("4 then 3"));
  EXPECT_NE(numbers_of("in 2023"), numbers_of("ever"));
  EXPECT_EQ(numbers_of("none here"), numbers_of("nor here"));
  EXPECT_EQ(numbers_of("ends in 7"), numbers_of("7 begins"));
}

}  // namespace
}  // namespace ganglion::cache
