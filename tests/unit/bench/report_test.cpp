// Histograms keep quantiles; runs become text, JSON, tables and pictures.

#include "bench/report.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

namespace ganglion::bench {
namespace {

TEST(Histogram, QuantilesAreWithinItsPrecision) {
  std::mt19937_64 random(7);
  std::lognormal_distribution<double> times(11, 2);  // around 60 us, a tail to seconds
  std::vector<std::int64_t> all(20'000);
  Histogram histogram;
  for (auto& each : all) histogram.add(each = static_cast<std::int64_t>(times(random)) + 1);
  std::ranges::sort(all);
  for (const double q : {0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0}) {
    const double exact =
        static_cast<double>(all[static_cast<std::size_t>(q * static_cast<double>(all.size() - 1))]) / 1e3;
    EXPECT_NEAR(histogram.quantile_us(q), exact, exact * 0.016 + 0.001) << q;
  }
  EXPECT_EQ(histogram.total(), all.size());
  EXPECT_DOUBLE_EQ(histogram.max_us(), static_cast<double>(all.back()) / 1e3);
}

LoadOptions options() {
  LoadOptions made;
  made.authority = "127.0.0.1:1";
  return made;
}

LoadResult result_at(std::int64_t us) {
  LoadResult result{.answered = 100, .seconds = 2};
  for (int i = 0; i < 100; ++i) result.latency.add(us * 1'000);
  return result;
}

TEST(Report, JsonCarriesWhatWasMeasured) {
  const auto json =
      nlohmann::json::parse(to_json(options(), result_at(500), {.name = "a \"run\"", .cpu_us_per_request = 12.5}));
  EXPECT_EQ(json["name"], "a \"run\"");
  EXPECT_EQ(json["answered"], 100);
  EXPECT_DOUBLE_EQ(json["per_second"], 50);
  EXPECT_DOUBLE_EQ(json["cpu_us_per_request"], 12.5);
  EXPECT_NEAR(json["latency_us"]["p99"].get<double>(), 500, 8);
  EXPECT_TRUE(nlohmann::json::parse(to_json(options(), result_at(500), {.name = "b"}))["cpu_us_per_request"].is_null());
}

TEST(Report, TextShowsTheSpreadOfLatencies) {
  LoadResult result = result_at(100);
  for (int i = 0; i < 100; ++i) result.latency.add(10'000'000);
  const std::string text = to_text(options(), result, {.name = "x"});
  EXPECT_NE(text.find("50/s"), std::string::npos) << text;
  EXPECT_NE(text.find("<= 128 us  ####"), std::string::npos) << text;
  EXPECT_NE(text.find("<= 11.59 ms  ####"), std::string::npos) << text;
  EXPECT_NE(text.find("10.00 ms"), std::string::npos) << text;
}

TEST(Report, TheBaselineIsTakenOff) {
  const std::vector<std::string> runs = {to_json(options(), result_at(100), {.name = "direct"}),
                                         to_json(options(), result_at(350), {.name = "a|b <gateway>"})};
  const auto report = make_report(runs, "direct", "plot.svg");
  ASSERT_TRUE(report) << report.error();
  EXPECT_NE(report->markdown.find("a\\|b <gateway>"), std::string::npos) << report->markdown;
  EXPECT_NE(report->markdown.find("+25"), std::string::npos) << report->markdown;
  EXPECT_NE(report->markdown.find("(plot.svg)"), std::string::npos);
  EXPECT_EQ(report->markdown.find("chunk"), std::string::npos);
  EXPECT_NE(report->svg.find("a|b &lt;gateway>"), std::string::npos);
  // A slower run is drawn higher at every quantile.
  const auto first_y = [&](std::size_t from) {
    const std::size_t points = report->svg.find("points=\"", from) + 8;
    return std::stod(report->svg.substr(report->svg.find(',', points) + 1));
  };
  const std::size_t first = report->svg.find("<polyline");
  EXPECT_GT(first_y(first), first_y(report->svg.find("<polyline", first + 1)));
}

TEST(Report, WhatIsNoRunIsNamed) {
  const std::string run = to_json(options(), result_at(100), {.name = "direct"});
  const auto broken = make_report({run, "{}"}, "", "");
  ASSERT_FALSE(broken);
  EXPECT_NE(broken.error().find("result 2"), std::string::npos);
  const auto unknown = make_report({run}, "nginx", "");
  ASSERT_FALSE(unknown);
  EXPECT_NE(unknown.error().find("'direct'"), std::string::npos);
  EXPECT_FALSE(make_report({}, "", ""));
}

}  // namespace
}  // namespace ganglion::bench
