// The redis section: what it sets, and what is wrong with it in words.

#include "tests/unit/config/support.hpp"

namespace ganglion::config {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(RedisConfig, EverythingThatItMaySay) {
  const Config config = good(kBase + R"(redis:
  addresses: [127.0.0.1:7000, "[::1]:7001"]
  cluster: on
  username: gateway
  password: ${P}
  tls: {enabled: true}
  key_prefix: "a:"
  command_timeout: 10ms
limits: {shared: false, gateways: 3}
)",
                             {{"P", "sesame"}});
  EXPECT_THAT(config.redis.addresses, ElementsAre("127.0.0.1:7000", "[::1]:7001"));
  EXPECT_EQ(config.redis.cluster, net::RedisCluster::on);
  EXPECT_EQ(config.redis.username, "gateway");
  EXPECT_EQ(config.redis.password.reveal(), "sesame");
  EXPECT_TRUE(config.redis.tls);
  EXPECT_EQ(config.redis.key_prefix, "a:");
  EXPECT_EQ(config.redis.command_timeout, std::chrono::milliseconds{10});
  EXPECT_FALSE(config.limiter.shared);
  EXPECT_EQ(config.limiter.gateways, 3U);
}

TEST(RedisConfig, NothingIsNoRedis) {
  EXPECT_FALSE(good(kBase).redis.enabled());
  EXPECT_FALSE(good(kBase + "redis:\n").redis.enabled());
}

TEST(RedisConfig, WhatIsWrongIsNamed) {
  EXPECT_THAT(report(kBase + "redis: {addresses: []}\n"), HasSubstr("leave the key out to use no Redis"));
  for (const char* bad : {"redis://h:1", "h", "h:0", "h:65536", "u@h:1", ":6379"}) {
    EXPECT_THAT(report(kBase + "redis: {addresses: [\"" + bad + "\"]}\n"), HasSubstr("is no host:port")) << bad;
  }
  EXPECT_THAT(report(kBase + "redis: {addresses: [h:1], cluster: maybe}\n"), HasSubstr("one of auto, on, off"));
  EXPECT_THAT(report(kBase + "redis: {addresses: [h:1], cluster: on, database: 1}\n"), HasSubstr("only database 0"));
  EXPECT_THAT(report(kBase + "redis: {addresses: [h:1], username: u}\n"), HasSubstr("a user needs a `password:"));
  EXPECT_THAT(report(kBase + "redis: {addresses: [h:1], tls: {enabled: true, cert: c.pem}}\n"),
              HasSubstr("redis.tls: `key` is missing"));
}

TEST(RedisConfig, PasswordInTheClearIsWarnedOfBeyondLoopbackOnly) {
  const Env env{{"P", "sesame"}};
  EXPECT_THAT(report(kBase + "redis: {addresses: [redis.internal:6379], password: \"${P}\"}\n", env),
              HasSubstr("unencrypted"));
  EXPECT_THAT(report(kBase + "redis: {addresses: [127.0.0.1:6379, localhost:1], password: \"${P}\"}\n", env),
              IsEmpty());
}

}  // namespace
}  // namespace ganglion::config
