// Headers and policy to a decision.

#include "cache/policy.hpp"

#include <gtest/gtest.h>

namespace ganglion::cache {
namespace {

using std::chrono::seconds;

core::Result<CacheDecision> run(const CacheHeaders& headers, const CachePolicy& policy = {}, bool enabled = true,
                                const api::RequestView& request = {}) {
  auto decision = decide({.enabled = enabled}, policy, headers);
  if (decision) narrow(*decision, request);
  return decision;
}

TEST(CachePolicy, FollowsTheGatewayWithoutHeaders) {
  const auto on = run({});
  ASSERT_TRUE(on);
  EXPECT_TRUE(on->lookup);
  EXPECT_TRUE(on->store);
  EXPECT_EQ(on->ttl, seconds{300});
  EXPECT_EQ(on->why, CacheWhy::policy);
  const auto off = run({}, {.ttl = seconds{0}});
  EXPECT_FALSE(off->lookup);
  EXPECT_FALSE(off->store);
  EXPECT_EQ(off->why, CacheWhy::disabled);
  EXPECT_FALSE(run({.ttl = "60"}, {}, false)->store);
}

TEST(CachePolicy, KeepOnlyAskedLooksUpAndKeepsNothingByItself) {
  const CachePolicy policy{.keep_only_asked = true};
  EXPECT_TRUE(run({}, policy)->lookup);
  EXPECT_FALSE(run({}, policy)->store);
  EXPECT_TRUE(run({.ttl = "60"}, policy)->store);
  EXPECT_TRUE(run({.key = "mine"}, policy)->store);
}

TEST(CachePolicy, TtlHeaderOptsInAndOut) {
  const auto in = run({.ttl = " 3600 "}, {.ttl = seconds{0}});
  EXPECT_TRUE(in->lookup);
  EXPECT_EQ(in->ttl, seconds{3600});
  EXPECT_EQ(in->why, CacheWhy::header_ttl);
  const auto out = run({.ttl = "0"});
  EXPECT_FALSE(out->lookup);
  EXPECT_EQ(out->why, CacheWhy::skipped);
  EXPECT_EQ(run({.old_ttl = "120"})->ttl, seconds{120});
  EXPECT_EQ(run({.ttl = "60", .old_ttl = "120"})->ttl, seconds{60});
  EXPECT_EQ(run({.ttl = "2592000"})->ttl, seconds{2592000});
}

TEST(CachePolicy, RefusesBadHeadersByName) {
  for (const std::string_view bad : {"59", "2592001", "-60", "1e3", "60s", "", "abc", "99999999999999999999"}) {
    const auto result = run({.ttl = bad});
    ASSERT_FALSE(result) << bad;
    EXPECT_EQ(result.error().kind, core::ErrorKind::invalid_value);
    EXPECT_EQ(result.error().param, "cf-aig-cache-ttl");
  }
  EXPECT_EQ(run({.old_ttl = "1"}).error().param, "cf-cache-ttl");
  EXPECT_EQ(run({.skip = "yes"}).error().param, "cf-aig-skip-cache");
  EXPECT_EQ(run({.old_skip = "1"}).error().param, "cf-skip-cache");
  EXPECT_EQ(run({.key = ""}).error().param, "cf-aig-cache-key");
  const std::string long_key(1025, 'k');
  EXPECT_EQ(run({.key = long_key}).error().param, "cf-aig-cache-key");
}

TEST(CachePolicy, TagsAndReplayComeFromHeaders) {
  EXPECT_EQ(run({.tags = " a, b:1 ,a,c/d"})->tags, (std::vector<std::string>{"a", "b:1", "c/d"}));
  EXPECT_TRUE(run({})->tags.empty());
  for (const std::string& bad : {std::string{}, std::string{"a,,b"}, std::string{"a b"}, std::string(65, 'x'),
                                 std::string{"1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17"}}) {
    const auto refused = run({.tags = bad});
    ASSERT_FALSE(refused) << bad;
    EXPECT_EQ(refused.error().param, "x-ganglion-cache-tags");
  }
  EXPECT_EQ(run({})->replay, Replay::at_once);
  EXPECT_EQ(run({}, {.replay = Replay::recorded})->replay, Replay::recorded);
  EXPECT_EQ(run({.replay = "recorded"})->replay, Replay::recorded);
  EXPECT_EQ(run({.replay = "At-Once"}, {.replay = Replay::recorded})->replay, Replay::at_once);
  EXPECT_EQ(run({.replay = "slow"}).error().param, "x-ganglion-cache-replay");
}

TEST(CachePolicy, SkipAndCacheControl) {
  EXPECT_FALSE(run({.skip = "true"})->store);
  EXPECT_FALSE(run({.old_skip = "True"})->lookup);
  EXPECT_TRUE(run({.skip = "false", .old_skip = "true"})->lookup);
  const auto no_store = run({.cache_control = "max-age=5, No-Store"});
  EXPECT_FALSE(no_store->lookup || no_store->store);
  const auto no_cache = run({.cache_control = "no-cache"});
  EXPECT_FALSE(no_cache->lookup);
  EXPECT_TRUE(no_cache->store);
  EXPECT_FALSE(run({.cache_control = "max-age=0"})->lookup);
  EXPECT_TRUE(run({.cache_control = "max-age=60, no-transform"})->lookup);
}

TEST(CachePolicy, CustomKeyOptsIn) {
  const auto own = run({.key = " k1 "}, {.ttl = seconds{0}});
  EXPECT_EQ(own->custom_key, "k1");
  EXPECT_TRUE(own->store);
  EXPECT_EQ(own->ttl, seconds{300});
  EXPECT_EQ(run({.key = "k"}, {.ttl = seconds{900}})->ttl, seconds{900});
}

TEST(CachePolicy, OnlyDeterministicMeansTemperatureZeroSeedOrEmbeddings) {
  const CachePolicy strict{.only_deterministic = true};
  EXPECT_EQ(run({}, strict)->why, CacheWhy::not_deterministic);
  EXPECT_FALSE(run({.ttl = "60"}, strict, true, {.temperature = 0.1})->store);
  EXPECT_TRUE(run({}, strict, true, {.temperature = 0.0})->store);
  EXPECT_TRUE(run({}, strict, true, {.temperature = 1.0, .seed = 0})->store);
  EXPECT_TRUE(run({}, strict, true, {.endpoint = api::Endpoint::embeddings})->store);
}

}  // namespace
}  // namespace ganglion::cache
