// The catalog follows the conventions of Prometheus, and docs/metrics.md is what it says.

#include "metrics/catalog.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>

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

// What tests/deploy checks the dashboard and the rules against.
TEST(Docs, CatalogOfTheDeployChecksIsCurrent) {
  expect_committed("deploy/metrics_catalog.json", catalog_json());
}

}  // namespace
}  // namespace ganglion::metrics
