// The catalog follows the conventions of Prometheus, and docs/metrics.md is what it says.

#include "metrics/catalog.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>

#include "metrics/registry.hpp"

namespace ganglion::metrics {
namespace {

bool is_name(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) { return (c >= 'a' && c <= 'z') || c == '_'; });
}

TEST(Catalog, NamesFollowPrometheusConventions) {
  std::set<std::string_view> seen;
  for (const FamilySpec& s : catalog()) {
    SCOPED_TRACE(s.name);
    EXPECT_TRUE(seen.insert(s.name).second);
    EXPECT_TRUE(is_name(s.name));
    EXPECT_TRUE(s.name.starts_with("ganglion_") || s.name.starts_with("process_"));
    EXPECT_EQ(s.type == Type::counter, s.name.ends_with("_total"));
    EXPECT_FALSE(s.help.empty());
    if (s.unit == "seconds" || s.unit == "bytes") EXPECT_NE(s.name.find(s.unit), std::string_view::npos);
    for (const std::string_view label : s.labels.view()) {
      EXPECT_TRUE(is_name(label));
      EXPECT_NE(label, "le");
      EXPECT_NE(label, "job");
      EXPECT_NE(label, "instance");
    }
  }
  EXPECT_EQ(seen.size(), kFamilyCount);
}

TEST(Catalog, BucketsAscend) {
  for (const FamilySpec& s : catalog()) {
    SCOPED_TRACE(s.name);
    EXPECT_EQ(s.type == Type::histogram, !s.buckets.empty());
    EXPECT_TRUE(std::ranges::is_sorted(s.buckets, std::ranges::less_equal{}));
    if (!s.buckets.empty()) EXPECT_GT(s.buckets.front(), 0);
  }
}

TEST(Catalog, JsonHoldsEveryFamily) {
  const auto families = nlohmann::json::parse(catalog_json());
  ASSERT_EQ(families.size(), kFamilyCount);
  EXPECT_EQ(families[0]["name"], "ganglion_requests_total");
  EXPECT_EQ(families[0]["type"], "counter");
  EXPECT_THAT(families[0]["labels"], testing::ElementsAre("endpoint", "model", "tenant", "tier", "code", "cache"));
}

void expect_committed(const std::string& path, const std::string& generated) {
  const std::filesystem::path full = std::filesystem::path(GANGLION_SOURCE_DIR) / path;
  if (std::getenv("GANGLION_UPDATE_DOCS") != nullptr) std::ofstream(full) << generated;
  std::ifstream in(full);
  const std::string committed{std::istreambuf_iterator<char>(in), {}};
  EXPECT_EQ(committed, generated) << path << " is stale; run this test with GANGLION_UPDATE_DOCS=1";
}

TEST(Docs, MetricsReferenceIsCurrent) {
  expect_committed("docs/metrics.md", catalog_markdown());
}

// Prometheus' own linter over an exposition that holds every family.
TEST(Catalog, PromtoolAcceptsTheExposition) {
  if (std::system("command -v promtool >/dev/null 2>&1") != 0) GTEST_SKIP() << "promtool is not installed";
  Registry registry;
  Shard& shard = registry.shared();
  const auto touch = [&](const FamilySpec& s, std::initializer_list<std::string_view> labels) {
    if (s.type == Type::counter) shard.counter(s.family, labels).add();
    if (s.type == Type::gauge) shard.gauge(s.family, labels).set(1);
    if (s.type == Type::histogram) shard.histogram(s.family, labels).observe(std::chrono::milliseconds{1});
  };
  for (const FamilySpec& s : catalog()) {
    switch (s.labels.count) {
      case 0:
        touch(s, {});
        break;
      case 1:
        touch(s, {"a"});
        break;
      case 2:
        touch(s, {"a", "b"});
        break;
      case 3:
        touch(s, {"a", "b", "c"});
        break;
      case 4:
        touch(s, {"a", "b", "c", "d"});
        break;
      case 6:
        touch(s, {"a", "b", "c", "d", "e", "f"});
        break;
      default:
        FAIL() << s.name;
    }
  }
  const std::string text = registry.expose();
  for (const FamilySpec& s : catalog())
    EXPECT_NE(text.find("# TYPE " + std::string(s.name) + " "), std::string::npos) << s.name;
  std::FILE* const promtool = ::popen("promtool check metrics", "w");
  ASSERT_NE(promtool, nullptr);
  EXPECT_EQ(std::fwrite(text.data(), 1, text.size(), promtool), text.size());
  EXPECT_EQ(::pclose(promtool), 0);
}

// What tests/deploy checks the dashboard and the rules against.
TEST(Docs, CatalogOfTheDeployChecksIsCurrent) {
  expect_committed("deploy/metrics_catalog.json", catalog_json());
}

}  // namespace
}  // namespace ganglion::metrics
