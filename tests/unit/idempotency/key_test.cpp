// What is taken as an Idempotency-Key, and what makes two requests one.

#include "idempotency/key.hpp"

#include <gmock/gmock.h>

#include <set>
#include <string>

namespace ganglion::idempotency {
namespace {

using ::testing::HasSubstr;

TEST(IdempotencyKey, TakesOneTo255VisibleCharacters) {
  for (const std::string& good : {std::string{"a"}, std::string(255, 'x'), std::string{"\"8e03978e-40d5-43dd\""},
                                  std::string{"!#$%&'*+-.^_`|~/:=@()[]{}"}}) {
    EXPECT_TRUE(check_key(good)) << good;
  }
}

TEST(IdempotencyKey, RefusesTheRestByName) {
  const auto problem = [](std::string_view text) {
    const auto checked = check_key(text);
    EXPECT_FALSE(checked);
    EXPECT_EQ(checked.error().kind, core::ErrorKind::invalid_value);
    EXPECT_EQ(checked.error().param, "idempotency-key");
    return checked.error().message;
  };
  EXPECT_THAT(problem(""), HasSubstr("empty"));
  EXPECT_THAT(problem(std::string(256, 'x')), HasSubstr("256 characters; at most 255"));
  for (const std::string bad : {"a b", "a\tb", "\x7f", "caf\xc3\xa9"}) EXPECT_THAT(problem(bad), HasSubstr("visible"));
}

TEST(IdempotencyKey, IsScopedByTenantAndApiKey) {
  std::set<Digest> all{key_digest("t", "k", "x"), key_digest("u", "k", "x"), key_digest("t", "l", "x"),
                       key_digest("t", "k", "y"), key_digest("tk", "", "x"), key_digest("", "tk", "x"),
                       key_digest("t", "kx", "")};
  EXPECT_EQ(all.size(), 7U);
  EXPECT_EQ(key_digest("t", "k", "x"), key_digest("t", "k", "x"));
}

TEST(IdempotencyKey, ARequestIsItsEndpointAndBody) {
  using api::Endpoint;
  std::set<Digest> all{request_digest(Endpoint::chat_completions, "{}"), request_digest(Endpoint::completions, "{}"),
                       request_digest(Endpoint::chat_completions, "{ }")};
  EXPECT_EQ(all.size(), 3U);
  EXPECT_EQ(request_digest(Endpoint::embeddings, "{}"), request_digest(Endpoint::embeddings, "{}"));
}

}  // namespace
}  // namespace ganglion::idempotency
