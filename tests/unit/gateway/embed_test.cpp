// Reading an embeddings answer: what backends send, and what is no embedding.

#include "gateway/embed.hpp"

#include <gtest/gtest.h>

namespace ganglion::gateway {
namespace {

TEST(ReadEmbedding, TakesTheFirstVectorAndTheUsage) {
  const auto read = read_embedding(
      R"({"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5,-1e-2,3]},{"embedding":[9]}],)"
      R"("model":"e","usage":{"prompt_tokens":7,"total_tokens":7}})");
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->vector, (std::vector<float>{0.5F, -0.01F, 3.0F}));
  EXPECT_EQ(read->tokens, 7U);
}

TEST(ReadEmbedding, WhatIsNoEmbeddingIsRefused) {
  for (const char* body :
       {"", "[]", "{}", R"({"data":[]})", R"({"data":[{"embedding":"AAAA"}]})", R"({"data":[{"embedding":[1,"x"]}]})",
        R"({"data":[{"embedding":[]}]})", R"({"error":{"message":"no"}})", R"({"data":[{"embedding":[1,2)",
        R"({"data":[{"embedding":[1]}]} x)", R"({"data":[{"embedding":[1e300]}]})",
        R"({"data":[{"embedding":[1e999]}]})"}) {
    const auto read = read_embedding(body);
    ASSERT_FALSE(read) << body;
    EXPECT_EQ(read.error().kind, core::ErrorKind::upstream_protocol);
  }
}

TEST(ReadEmbedding, AnEndlessVectorIsRefused) {
  std::string body = R"({"data":[{"embedding":[1)";
  for (int i = 0; i < 9'000; ++i) body += ",1";
  EXPECT_FALSE(read_embedding(body + "]}]}"));
}

}  // namespace
}  // namespace ganglion::gateway
