// What docs/limits.md says that Redis must allow: enough for limits, budgets, keys and cache, and no more than that.

#include <gtest/gtest.h>

#include <fstream>
#include <set>

#include "tests/integration/answers.hpp"
#include "tests/integration/harness.hpp"
#include "tests/support/redis_server.hpp"

namespace ganglion::test {
namespace {

using namespace std::chrono_literals;

// The user as the page defines it.
std::string documented_user() {
  std::ifstream page(GANGLION_SOURCE_DIR "/docs/limits.md");
  for (std::string line; std::getline(page, line);) {
    if (line.starts_with("user gateway on >PASSWORD ")) return line;
  }
  return {};
}

std::set<std::string> commands_of(const std::string& user) {
  std::set<std::string> out;
  std::istringstream words(user);
  for (std::string word; words >> word;) {
    if (word.starts_with('+')) out.insert(word.substr(1));
  }
  return out;
}

// Each "cmdstat_get:calls=7,..." of INFO.
std::set<std::string> executed(const RedisServer& redis, const std::string& password) {
  std::set<std::string> out;
  std::istringstream lines(redis.say({"INFO", "commandstats"}, password));
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("cmdstat_")) out.insert(line.substr(8, line.find(':') - 8));
  }
  return out;
}

template <class F>
bool soon(F condition) {
  for (int i = 0; i < 6000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(10ms);
  }
  return false;
}

TEST(RedisAcl, TheDocumentedUserMayDoAllThatIsNeededAndNothingMore) {
  std::string user = documented_user();
  ASSERT_FALSE(user.empty());
  EXPECT_NE(user.find(" -@all "), std::string::npos) << "what follows is all that it may";
  EXPECT_EQ(user.find("+@"), std::string::npos) << "commands by name: categories grow";
  user.replace(user.find("PASSWORD"), 8, "sk-app");
  const RedisServer redis("user default on >admin ~* &* +@all\n" + user);
  Answering upstream(http_ok(kAnswer));
  const std::string yaml = provider(upstream->port()) +
                           "pricing: {models: [{model: m, output_per_1m: 1000000}]}\n"
                           "budgets: [{name: b, neurons: 100000}]\n"
                           "budget_sharing: {gateways: 2, interval: 20ms}\n"
                           "tenants: [{name: default, limits: {requests: 100000/min}}]\n"
                           "gateways: [{name: default, cache: {ttl: 60s}}]\n"
                           "cache: {secret: of-an-installation-0123, redis: {timeout: 10s, lease: 100ms}}\n"
                           "redis: {addresses: [\"" +
                           redis.address() +
                           "\"], username: gateway, password: \"${APP_KEY}\", command_timeout: 10s, hung_after: 10s}\n";
  {
    RunningGateway a(yaml);
    RunningGateway b(yaml);
    EXPECT_TRUE(soon([&] { return a.metric("ganglion_limiter_gateways") == 2; }))
        << "limits: the gateways count each other";
    EXPECT_EQ(status_of(a.chat()), 200);
    EXPECT_TRUE(soon([&] { return header_of(b.chat(), "cf-aig-cache-status") == "HIT"; })) << "cache: shared";
    EXPECT_EQ(upstream->requests().size(), 1U);
    RawSocket admin = a.connect_admin();
    admin.send(RunningGateway::request("/admin/cache/purge", R"({"all":true})"));
    EXPECT_NE(body_of(admin.read_message()).find("\"told\""), std::string::npos);
    EXPECT_TRUE(soon([&] { return b.metric("ganglion_cache_purges_total", {"source=\"cluster\""}) == 1; }));
    EXPECT_EQ(status_of(b.chat("\"seed\":1,")), 200);
    EXPECT_TRUE(soon([&] {
      return body_of(a.get("/admin/budgets", true)).find("\"spent_elsewhere\": \"0\"") == std::string::npos;
    })) << "budgets: shared";
    const std::string keyed = "Idempotency-Key: 1\r\n";
    EXPECT_EQ(status_of(a.chat("\"seed\":2,", keyed)), 200);
    EXPECT_EQ(header_of(b.chat("\"seed\":2,", keyed), "idempotent-replayed"), "true") << "idempotency keys: shared";
    for (const RunningGateway* gateway : {&a, &b}) {
      EXPECT_EQ(gateway->metric("ganglion_redis_errors_total", {"kind=\"denied\""}), 0);
      EXPECT_EQ(gateway->metric("ganglion_limiter_leased_buckets", {"mode=\"local_share\""}), 0);
    }
  }
  EXPECT_EQ(redis.say({"ACL", "LOG"}, "admin"), "*0\r\n") << "nothing was refused";
  const std::set<std::string> used = executed(redis, "admin");
  for (const std::string& command : commands_of(user)) {
    // Another database, a cluster whose slots move, a subscription that ends, and a call that takes long.
    const std::set<std::string> elsewhere{"select", "asking", "unsubscribe", "pexpire"};
    EXPECT_TRUE(used.contains(command) || elsewhere.contains(command)) << "allowed for nothing: " << command;
  }
}

}  // namespace
}  // namespace ganglion::test
