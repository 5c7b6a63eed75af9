// Routes: exact paths, right methods, model ids raw or percent-encoded.

#include "gateway/router.hpp"

#include <gtest/gtest.h>

namespace ganglion::gateway {
namespace {

using core::ErrorKind;

TEST(Router, MatchesTheServedPaths) {
  EXPECT_EQ(match("POST", "/v1/chat/completions")->endpoint, api::Endpoint::chat_completions);
  EXPECT_EQ(match("POST", "/v1/completions")->endpoint, api::Endpoint::completions);
  EXPECT_EQ(match("POST", "/v1/embeddings")->endpoint, api::Endpoint::embeddings);
  EXPECT_EQ(match("GET", "/v1/models")->endpoint, api::Endpoint::models);
  EXPECT_EQ(match("GET", "/v1/models")->model, "");
}

TEST(Router, ModelIdsRawAndEncoded) {
  EXPECT_EQ(match("GET", "/v1/models/gpt-4o")->model, "gpt-4o");
  EXPECT_EQ(match("GET", "/v1/models/@cf/meta/llama")->model, "@cf/meta/llama");
  EXPECT_EQ(match("GET", "/v1/models/%40cf%2Fmeta%2Fllama")->model, "@cf/meta/llama");
  for (const char* path :
       {"/v1/models/%", "/v1/models/%4", "/v1/models/%zz", "/v1/models/a%00b", "/v1/models/a%0d%0ab"}) {
    ASSERT_FALSE(match("GET", path)) << path;
    EXPECT_EQ(match("GET", path).error().kind, ErrorKind::model_not_found) << path;
  }
  EXPECT_FALSE(match("GET", "/v1/models/" + std::string(500, 'a')));
}

TEST(Router, WrongMethodNamesTheRightOne) {
  const auto wrong = match("GET", "/v1/chat/completions");
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().kind, ErrorKind::method_not_allowed);
  EXPECT_NE(wrong.error().message.find("POST"), std::string::npos);
  EXPECT_EQ(match("DELETE", "/v1/models/x").error().kind, ErrorKind::method_not_allowed);
}

TEST(Router, TellsWhoseAPathIsWhateverTheMethod) {
  EXPECT_EQ(endpoint_of("/v1/chat/completions"), api::Endpoint::chat_completions);
  EXPECT_EQ(endpoint_of("/v1/embeddings"), api::Endpoint::embeddings);
  EXPECT_EQ(endpoint_of("/v1/models"), api::Endpoint::models);
  EXPECT_EQ(endpoint_of("/v1/models/%zz"), api::Endpoint::models);
  for (const char* path : {"/", "/v1/models/", "/v1/modelsx", "/v1/chat/completions/", "/metrics"}) {
    EXPECT_EQ(api::name(endpoint_of(path)), "unknown") << path;
  }
  EXPECT_EQ(api::name(Route{}.endpoint), "unknown");
}

TEST(Router, NearMissesAreNotFound) {
  for (const char* path : {"/", "/v1", "/v1/", "/v1/chat", "/v1/chat/completions/", "/V1/chat/completions",
                           "/v1/modelsx", "/v1/models/", "/admin/config", "/metrics", "/v1/chat/completions%20"}) {
    const auto route = match("POST", path);
    ASSERT_FALSE(route) << path;
  }
}

}  // namespace
}  // namespace ganglion::gateway
