// Budgets in the configuration: what loads, and what is said of what does not.

#include "tests/unit/config/support.hpp"

namespace ganglion::config {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string budget(const std::string& text) {
  return report(kBase + "budgets: [" + text + "]\n");
}

TEST(Budgets, EveryFieldLoads) {
  const Config c = good(kBase +
                            "key_pepper: \"${P}\"\nkeys: [{id: k, secret: \"${K}\"}]\n"
                            "tenants: [{name: acme, free_only: true}]\n"
                            "budgets:\n"
                            "  - {name: a, tenant: acme, key: k, gateway: default, model: demo-chat, tag: team=red, "
                            "usd: 12.5, window: week, on_exceed: finish, alerts: [90]}\n"
                            "  - {name: b, per: tag, tag: team, neurons: 1000, window: 36h, alerts: []}\n"
                            "budget_reserve: {max_output: 500, stream_step: 100, media_tokens: 1}\n"
                            "budget_alerts: {webhook: https://hooks.example.com/x, secret: \"${K}\"}\n",
                        {{"P", "0123456789abcdef0123"}, {"K", "sk-1"}});
  ASSERT_EQ(c.gateway.budgets.size(), 2U);
  const auto& a = c.gateway.budgets[0];
  EXPECT_EQ(a.limit_usd, "12.5");
  EXPECT_EQ(a.window, "week");
  EXPECT_EQ(a.on_exceed, metering::OnExceed::finish);
  EXPECT_THAT(a.alerts, ElementsAre(90));
  EXPECT_EQ(a.tag, "team=red");
  EXPECT_EQ(c.gateway.budgets[1].per, "tag");
  EXPECT_THAT(c.gateway.budgets[1].alerts, IsEmpty());
  EXPECT_EQ(c.gateway.reserve.stream_step, 100U);
  EXPECT_TRUE(c.gateway.tenants[0].free_only);
}

TEST(Budgets, WhatIsWrongIsNamed) {
  EXPECT_THAT(budget("{name: b, usd: -5}"), HasSubstr("expected a decimal number"));
  EXPECT_THAT(budget("{name: b, usd: 0}"), HasSubstr("an amount of 0 would refuse every request"));
  EXPECT_THAT(budget("{name: b, usd: 9000001}"), HasSubstr("the most is 9000000"));
  EXPECT_THAT(budget("{name: b, neurons: 123456789012}"), HasSubstr("the most is 9000000000"));
  EXPECT_THAT(budget("{name: b, neurons: 1234567890123}"), HasSubstr("expected a decimal number"));
  EXPECT_THAT(budget("{name: b}"), HasSubstr("give the amount"));
  EXPECT_THAT(budget("{name: b, usd: 1, neurons: 1}"), HasSubstr("not both"));
  EXPECT_THAT(budget("{name: b, usd: 1, window: year}"), HasSubstr("expected hour, day, week or month"));
  EXPECT_THAT(budget("{name: b, usd: 1, window: 30s}"), HasSubstr("1m to 366d"));
  EXPECT_THAT(budget("{name: b, usd: 1, per: user}"), HasSubstr("expected one of key, tenant"));
  EXPECT_THAT(budget("{name: b, usd: 1, per: tag}"), HasSubstr("needs the tag's name"));
  EXPECT_THAT(budget("{name: b, usd: 1, tag: \"=x\"}"), HasSubstr("expected a tag's name"));
  EXPECT_THAT(budget("{name: b, usd: 1, alerts: [0]}"), HasSubstr("expected a whole number from 1 to 1000"));
  EXPECT_THAT(budget("{name: b, usd: 1, on_exceed: explode}"), HasSubstr("expected one of cut, finish"));
  EXPECT_THAT(budget("{name: b, usd: 1}, {name: b, usd: 2}"), HasSubstr("defined twice"));
  EXPECT_THAT(budget("{name: b, usd: 1, tenant: nobody}"), HasSubstr("there is no tenant `nobody`"));
  EXPECT_THAT(budget("{name: b, usd: 1, key: nobody}"), HasSubstr("there is no key `nobody`"));
  EXPECT_THAT(budget("{name: b, usd: 1, model: gpt}"), HasSubstr("there is no model `gpt`"));
  EXPECT_THAT(report(kBase + "tenants: [{name: t, free_only: true}]\npricing: {daily_free_neurons: none}\n"),
              HasSubstr("nothing is free"));
  const std::string dated = kBase + "tenants: [{name: t, free_only: true}]\npricing: {daily_free_neurons: ";
  EXPECT_THAT(report(dated + "none, changes: [{from: 2026-12-01, daily_free_neurons: none}]}\n"),
              HasSubstr("nothing is free"));
  good(dated + "none, changes: [{from: 2026-12-01, daily_free_neurons: 5}]}\n");
  EXPECT_THAT(report(kBase + "budget_alerts: {webhook: https://x.example/}\n"), HasSubstr("which signs the calls"));
}

TEST(Budgets, AFutureWithoutFreeNeuronsIsWarnedOf) {
  const Config c = good(kBase +
                        "tenants: [{name: t, free_only: true}]\n"
                        "pricing: {changes: [{from: 2026-12-01, daily_free_neurons: none}]}\n");
  ASSERT_EQ(c.warnings.size(), 1U);
  EXPECT_THAT(format(c.warnings[0]), HasSubstr("refused whatever costs anything"));
}

// After a crash the ledger says what a key was billed for.
TEST(Ledger, RetentionOutlivesIdempotencyKeys) {
  EXPECT_THAT(report(kBase + "ledger: {retention: 24h}\n"), HasSubstr("must be longer than idempotency.ttl (24h)"));
  EXPECT_THAT(report(kBase + "ledger: {retention: 48h}\nidempotency: {ttl: 72h}\n"), HasSubstr("ledger.retention"));
  good(kBase + "ledger: {retention: 25h}\n");
  good(kBase + "ledger: {retention: 0}\nidempotency: {ttl: 720h}\n");
}

}  // namespace
}  // namespace ganglion::config
