// Our own token counts: of prompts, whole answers and recorded streams.

#include "gateway/estimate.hpp"

#include <gtest/gtest.h>

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

TEST(Estimate, BrokenJsonCountsNothing) {
  EXPECT_EQ(count_answer_tokens("{", words()), 0U);
  EXPECT_EQ(count_prompt_tokens(api::Endpoint::chat_completions, "[]", words()), 0U);
}

}  // namespace
}  // namespace ganglion::gateway
