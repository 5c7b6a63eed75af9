// Our own token counts: of prompts, whole answers and recorded streams.

#include "gateway/estimate.hpp"

#include <gtest/gtest.h>

#include "core/log.hpp"
#include "metering/units.hpp"

namespace ganglion::gateway {
namespace {

// Counts words, so that the expectations below can be read.
backends::TokenCounter words() {
  return backends::TokenCounter{[](std::string_view text) {
    std::uint64_t count = 0;
    bool inside = false;
    for (const char c : text) {
      const bool letter = c != ' ';
      count += letter && !inside ? 1 : 0;
      inside = letter;
    }
    return count;
  }};
}

TEST(Estimate, PromptCountsTextAndMessages) {
  EXPECT_EQ(
      count_prompt_tokens(
          api::Endpoint::chat_completions,
          R"({"messages":[{"role":"user","content":"one two "},{"role":"user","content":[{"type":"text","text":"three"}]}]})",
          words()),
      3U + 2 * 4);
  EXPECT_EQ(count_prompt_tokens(api::Endpoint::completions, R"({"prompt":"a b c"})", words()), 3U);
  EXPECT_EQ(count_prompt_tokens(api::Endpoint::embeddings, R"({"input":["a b "," c"]})", words()), 3U);
}

TEST(Estimate, AStreamMayNumberItsChoicesAsItLikes) {
  EXPECT_EQ(count_stream_tokens("data: {\"choices\":[{\"index\":null,\"delta\":{\"content\":\"one \"}}]}\n\n"
                                "data: {\"choices\":[{\"index\":\"x\",\"delta\":{\"content\":\"two \"}},7]}\n\n"
                                "data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"three\"}}]}\n\n",
                                words()),
            3U);
}

TEST(Estimate, AnswerCountsContentAndToolArguments) {
  EXPECT_EQ(count_answer_tokens(R"({"choices":[{"message":{"role":"assistant","content":"four words are here "}},
            {"message":{"content":null,"tool_calls":[{"function":{"name":"f ","arguments":"x y"}}]}}]})",
                                words()),
            4U + 3U);
}

TEST(Estimate, StreamJoinsDeltasOfAChoiceBeforeCounting) {
  EXPECT_EQ(count_stream_tokens("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hel\"}}]}\n\n"
                                "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"lo you\"}}]}\n\n"
                                "data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"hi\"}}]}\n\n",
                                words()),
            3U);
}

// A tokenizer that fails must not take the bill with it.
TEST(Estimate, WhereCountingFailsSizesAreTaken) {
  core::set_log_level(core::LogLevel::off);
  const backends::TokenCounter failing{[](std::string_view) -> std::uint64_t { throw std::bad_alloc(); }};
  const api::RequestView view{.prompt_text_bytes = 40, .prompt_items = 1};
  const std::string body = R"({"messages":[{"role":"user","content":"0123456789012345678901234567890123456789"}]})";
  const auto whole =
      own_count({.view = view, .body = body, .answer = R"({"choices":[{"message":{"content":"x"}}]})"}, failing);
  EXPECT_EQ(whole, (api::Usage{.input_tokens = 14, .output_tokens = 10, .estimated = true}));
  const std::string events = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"}}]}\n\n";
  const auto stream = own_count({.view = view, .body = body, .tape = events, .text_events = 7}, failing);
  EXPECT_EQ(stream, (api::Usage{.input_tokens = 14, .output_tokens = 7, .estimated = true}));
  const auto counted = own_count({.view = view, .body = body, .tape = events, .text_events = 7}, words());
  EXPECT_EQ(counted, (api::Usage{.input_tokens = 1 + 4, .output_tokens = 1, .estimated = true}));
  const auto nothing_shown = own_count({.view = view, .body = body, .tape = "", .text_events = 1}, words());
  EXPECT_EQ(nothing_shown.output_tokens, 0U) << "held back, so not billed";
  const auto long_stream = own_count({.view = view, .body = body, .tape = {}, .text_events = 9}, words());
  EXPECT_EQ(long_stream.output_tokens, 9U);
}

// A count by another tokenizer than the model's is never more than the request allowed: a budget reserved no more.
TEST(Estimate, NoMoreIsCountedThanTheRequestAllowed) {
  const api::RequestView view{.max_tokens = 2};
  const std::string answer = R"({"choices":[{"message":{"content":"one two three four"}}]})";
  EXPECT_EQ(own_count({.view = view, .body = "{}", .answer = answer}, words()).output_tokens, 2U);
  EXPECT_EQ(own_count({.view = {.n = 3, .max_tokens = 1}, .body = "{}", .answer = answer}, words()).output_tokens, 3U);
  EXPECT_EQ(own_count({.view = {}, .body = "{}", .answer = answer}, words()).output_tokens, 4U);
  EXPECT_EQ(own_count({.view = view, .body = "{}", .tape = {}, .text_events = 9}, words()).output_tokens, 2U);
}

TEST(Estimate, TheWeightOfAnAnswerDoesNotWrapAround) {
  EXPECT_EQ(guess_answer_tokens({.n = 3, .max_tokens = 10}), 30U);
  EXPECT_EQ(guess_answer_tokens({.n = 2}), 512U);
  EXPECT_EQ(guess_answer_tokens({.n = 2, .max_tokens = 1ULL << 63}), metering::kUnitsPerRequestMax);
  EXPECT_EQ(guess_answer_tokens({.n = 128, .max_tokens = ~0ULL}), metering::kUnitsPerRequestMax);
  EXPECT_EQ(guess_answer_tokens({.endpoint = api::Endpoint::embeddings, .max_tokens = 5}), 0U);
}

TEST(Estimate, BrokenJsonCountsNothing) {
  EXPECT_EQ(count_answer_tokens("{", words()), 0U);
  EXPECT_EQ(count_prompt_tokens(api::Endpoint::chat_completions, "[]", words()), 0U);
}

}  // namespace
}  // namespace ganglion::gateway
