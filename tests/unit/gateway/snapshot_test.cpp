// A configuration resolved: one model name over several backends, policies by name, names for a key.

#include "gateway/snapshot.hpp"

#include <gtest/gtest.h>

namespace ganglion::gateway {
namespace {

SnapshotInput input() {
  SnapshotInput in;
  backends::RemoteOptions a{
      .name = "a", .models = {{.name = "big", .upstream = "real-big"}, {.name = "shared"}}, .weight = 3};
  backends::RemoteOptions b{.name = "b", .models = {{.name = "shared"}}};
  in.remotes = {a, b};
  in.local_models = {{.name = "demo", .directory = "x"}};
  in.gateway.gateways = {{.name = "strict", .cache = {.ttl = std::chrono::seconds{0}}}};
  in.gateway.tenants = {{.name = "acme", .limits = {.requests = {.amount = 5}}}};
  return in;
}

TEST(Snapshot, OneNameMayLeadToSeveralBackends) {
  const auto snapshot = *Snapshot::make(input(), 1);
  ASSERT_NE(snapshot->model("shared"), nullptr);
  EXPECT_EQ(snapshot->model("shared")->destinations.size(), 2U);
  EXPECT_EQ(snapshot->model("shared")->destinations[0].weight, 3U);
  EXPECT_EQ(snapshot->model("big")->destinations[0].upstream_model, "real-big");
  EXPECT_TRUE(snapshot->model("demo")->destinations[0].local);
  EXPECT_EQ(snapshot->model("real-big"), nullptr) << "upstream names are not served";
}

TEST(Snapshot, PoliciesByNameWithADefault) {
  const auto snapshot = *Snapshot::make(input(), 1);
  EXPECT_EQ(snapshot->policy("strict").cache.ttl, std::chrono::seconds{0});
  EXPECT_EQ(snapshot->policy("default").name, "default");
  EXPECT_EQ(snapshot->tenant_limits("acme")->requests.amount, 5U);
  EXPECT_EQ(snapshot->tenant_limits("other"), nullptr);
}

TEST(Snapshot, NamesOnlyWhatTheKeyMayUse) {
  const auto snapshot = *Snapshot::make(input(), 1);
  EXPECT_EQ(snapshot->names_for({}), "big, demo, shared");
  EXPECT_EQ(snapshot->names_for({.models = {"d*"}}), "demo");
  EXPECT_EQ(snapshot->names_for({.models = {"x"}}), "none");
}

TEST(Snapshot, BadPricesAreAnError) {
  SnapshotInput bad = input();
  bad.pricing.schedule = "no-such-schedule";
  EXPECT_FALSE(Snapshot::make(bad, 1));
}

}  // namespace
}  // namespace ganglion::gateway
