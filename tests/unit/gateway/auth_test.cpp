// Keys: found by the digest of the whole key, never by a part of it; revoked and unknown look the same.

#include "gateway/auth.hpp"

#include <gtest/gtest.h>

#include <random>

#include "core/digest.hpp"

namespace ganglion::gateway {
namespace {

GatewayOptions two_keys() {
  GatewayOptions options;
  options.key_pepper = core::Secret{"pepper-0123456789abcdef"};
  options.keys.push_back(
      {.id = "plain", .secret = core::Secret{"sk-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa1"}, .tenant = "t1"});
  options.keys.push_back({.id = "hashed",
                          .hash = core::hex(key_digest(options.key_pepper, "sk-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa2")),
                          .tenant = "t2"});
  return options;
}

core::Result<const Principal*> identify(const GatewayOptions& options, std::string_view header) {
  auto ring = std::make_shared<const KeyRing>(options);
  // The principal points into the ring, which the options of this test outlive for as long as it is compared.
  static std::vector<std::shared_ptr<const KeyRing>> kept;
  kept.push_back(ring);
  Authenticator authenticator(ring);
  return authenticator.identify(header);
}

TEST(Auth, FindsPlainAndHashedKeysThatShareALongPrefix) {
  EXPECT_EQ((*identify(two_keys(), "Bearer sk-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa1"))->tenant, "t1");
  EXPECT_EQ((*identify(two_keys(), "bearer   sk-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa2"))->tenant, "t2");
}

TEST(Auth, FindsEachOfManyKeysAndNoOther) {
  for (const std::size_t count : {1UL, 2UL, 3UL, 64UL, 65UL, 5000UL}) {
    GatewayOptions options;
    options.key_pepper = core::Secret{"pepper-0123456789abcdef"};
    for (std::size_t i = 0; i < count; ++i) {
      options.keys.push_back(
          {.id = std::to_string(i), .secret = core::Secret{"sk-" + std::to_string(i)}, .revoked = i % 7 == 6});
    }
    const KeyRing ring(options);
    for (std::size_t i = 0; i < count + 500; ++i) {
      const Principal* who = ring.find(key_digest(options.key_pepper, "sk-" + std::to_string(i)));
      ASSERT_EQ(who != nullptr, i < count && i % 7 != 6) << i << " of " << count;
      if (who != nullptr) ASSERT_EQ(who->key_id, std::to_string(i));
    }
    for (const std::uint8_t byte : {0x00, 0xff}) {
      core::Sha256 digest;
      digest.fill(byte);
      ASSERT_EQ(ring.find(digest), nullptr) << "the first and the last bucket, and the place of no key";
    }
  }
}

TEST(Auth, RefusesEverythingElse) {
  for (const char* header :
       {"", "Bearer", "Bearer ", "Basic sk-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa1",
        "Bearer sk-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "Bearer sk-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa3",
        "Bearer sk-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa1 ", "Bearer ' OR 1=1 --"}) {
    const auto who = identify(two_keys(), header);
    ASSERT_FALSE(who) << header;
    EXPECT_EQ(who.error().kind, core::ErrorKind::unauthorized);
    EXPECT_EQ(who.error().message.find("sk-"), std::string::npos) << "the key must not be echoed";
  }
  EXPECT_FALSE(identify(two_keys(), "Bearer " + std::string(100'000, 'x')));
}

// 10,000 of them, built from the pieces that such strings are made of.
TEST(Auth, InjectionsAreUnknownKeys) {
  const GatewayOptions options = two_keys();
  Authenticator authenticator(std::make_shared<const KeyRing>(options));
  const std::vector<std::string> pieces{"'",
                                        "\"",
                                        " OR ",
                                        "1=1",
                                        "--",
                                        "#",
                                        "/*",
                                        "*/",
                                        ";",
                                        "UNION SELECT ",
                                        "%",
                                        "_",
                                        "\\",
                                        "(",
                                        ")",
                                        "NULL",
                                        "sk-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa1",
                                        "*",
                                        "$ne",
                                        "{}",
                                        "\t",
                                        "' LIKE '%",
                                        "0x27",
                                        "${K}",
                                        "../"};
  std::mt19937 random(1);
  for (int i = 0; i < 10'000; ++i) {
    std::string token;
    for (int n = 0; n < 2 + i % 5; ++n) token += pieces[random() % pieces.size()];
    if (token == pieces[16]) continue;
    const auto who = authenticator.identify("Bearer " + token);
    ASSERT_FALSE(who) << token;
    ASSERT_EQ(who.error().kind, core::ErrorKind::unauthorized) << token;
  }
}

TEST(Auth, RevokedIsLikeUnknown) {
  GatewayOptions options = two_keys();
  options.keys[0].revoked = true;
  const auto revoked = identify(options, "Bearer sk-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa1");
  const auto unknown = identify(options, "Bearer sk-none");
  ASSERT_FALSE(revoked);
  ASSERT_FALSE(unknown);
  EXPECT_EQ(revoked.error().message, unknown.error().message);
}

TEST(Auth, WithoutKeysEveryoneIsAnonymous) {
  EXPECT_EQ((*identify({}, ""))->key_id, "anonymous");
  EXPECT_EQ((*identify({}, "Bearer anything"))->tenant, "default");
}

TEST(Auth, AnotherPepperMakesAnotherDigest) {
  GatewayOptions options = two_keys();
  options.key_pepper = core::Secret{"another-pepper-0123456789"};
  EXPECT_FALSE(identify(options, "Bearer sk-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa2"));
}

TEST(Principal, ModelPatterns) {
  Principal who;
  EXPECT_TRUE(who.may_use("anything"));
  who.models = {"gpt-4o", "demo-*"};
  EXPECT_TRUE(who.may_use("gpt-4o"));
  EXPECT_FALSE(who.may_use("gpt-4o-mini"));
  EXPECT_TRUE(who.may_use("demo-chat"));
  EXPECT_FALSE(who.may_use("Demo-chat"));
}

}  // namespace
}  // namespace ganglion::gateway
