// Handles, merging, sources and the bounded label.

#include "metrics/registry.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "metrics/bounded_label.hpp"
#include "metrics/metrics.hpp"

namespace ganglion::metrics {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Registry, SameSeriesIsTheSameCells) {
  Registry registry;
  Counter a = registry.shared().counter(Family::upstream_connects_total, {"openai"});
  Counter b = registry.shared().counter(Family::upstream_connects_total, {"openai"});
  a.add(2);
  b.add(3);
  EXPECT_EQ(a.value(), 5U);
}

TEST(Registry, AddsShardsAndSourcesUp) {
  Registry registry;
  registry.shared().counter(Family::upstream_connects_total, {"openai"}).add(1);
  registry.make_shard().counter(Family::upstream_connects_total, {"openai"}).add(10);
  registry.make_shard().gauge(Family::upstream_connections, {"openai", "idle"}).add(-4);
  const Registry::Token token = registry.add_source([](Scrape& scrape) {
    scrape.set(Family::upstream_connects_total, {"openai"}, 100);
    scrape.set(Family::upstream_connections, {"openai", "idle"}, 6);
  });
  const std::string text = registry.expose();
  EXPECT_THAT(text, HasSubstr("ganglion_upstream_connects_total{backend=\"openai\"} 111\n"));
  EXPECT_THAT(text, HasSubstr("ganglion_upstream_connections{backend=\"openai\",state=\"idle\"} 2\n"));
}

TEST(Registry, SourceGoesWithItsToken) {
  Registry registry;
  Registry::Token token = registry.add_source([](Scrape& s) { s.set(Family::cache_entries, 5); });
  EXPECT_THAT(registry.expose(), HasSubstr("ganglion_cache_entries 5\n"));
  token = registry.add_source([](Scrape& s) { s.set(Family::cache_bytes, 7); });
  const std::string text = registry.expose();
  EXPECT_THAT(text, Not(HasSubstr("ganglion_cache_entries")));
  EXPECT_THAT(text, HasSubstr("ganglion_cache_bytes 7\n"));
  token = {};
  EXPECT_EQ(registry.expose(), "");
}

TEST(Registry, HistogramBoundsAreInclusive) {
  Registry registry;
  Histogram h = registry.shared().histogram(Family::ledger_commit_seconds);
  h.observe(std::chrono::microseconds{100});
  h.observe(std::chrono::nanoseconds{100'001});
  h.observe(std::chrono::seconds{2});
  h.observe(std::chrono::seconds{-3});  // a clock that went back counts as 0
  EXPECT_EQ(h.count(), 4U);
  const std::string text = registry.expose();
  EXPECT_THAT(text, HasSubstr("ganglion_ledger_commit_seconds_bucket{le=\"0.0001\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("ganglion_ledger_commit_seconds_bucket{le=\"0.00025\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("ganglion_ledger_commit_seconds_bucket{le=\"1\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("ganglion_ledger_commit_seconds_bucket{le=\"+Inf\"} 4\n"));
  EXPECT_THAT(text, HasSubstr("ganglion_ledger_commit_seconds_count 4\n"));
}

TEST(Registry, UnitlessHistogramKeepsItsValues) {
  Registry registry;
  registry.shared().histogram(Family::ledger_batch_records).observe_count(3);
  const std::string text = registry.expose();
  EXPECT_THAT(text, HasSubstr("ganglion_ledger_batch_records_sum 3\n"));
  EXPECT_THAT(text, HasSubstr("ganglion_ledger_batch_records_bucket{le=\"2\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("ganglion_ledger_batch_records_bucket{le=\"4\"} 1\n"));
}

TEST(Registry, HandleWithoutRegistryCountsNothing) {
  Counter counter;
  Gauge gauge;
  Histogram histogram;
  counter.add(5);
  gauge.set(5);
  histogram.observe(std::chrono::seconds{1});
  EXPECT_EQ(counter.value() + static_cast<std::uint64_t>(gauge.value()) + histogram.count(), 0U);
}

TEST(Registry, TimerObservesOnce) {
  Registry registry;
  const Histogram h = registry.shared().histogram(Family::ledger_commit_seconds);
  {
    Timer timer(h);
    timer.stop();
  }
  EXPECT_EQ(h.count(), 1U);
  {
    Timer timer(h);
    timer.discard();
  }
  EXPECT_EQ(h.count(), 1U);
}

TEST(Registry, LabelValuesAreEscaped) {
  Registry registry;
  registry.shared().counter(Family::upstream_connects_total, {"a\"b\\c\nd"}).add();
  EXPECT_THAT(registry.expose(), HasSubstr("{backend=\"a\\\"b\\\\c\\nd\"} 1\n"));
}

TEST(Registry, SeriesPastTheCapAreOther) {
  Registry registry;
  Shard& shard = registry.make_shard();
  for (std::size_t i = 0; i < Shard::kSeriesMax + 3; ++i) {
    shard.counter(Family::upstream_errors_total, {"b" + std::to_string(i), "upstream_connect"}).add();
  }
  const std::string text = registry.expose();
  EXPECT_THAT(text, HasSubstr("{backend=\"other\",kind=\"upstream_connect\"} 3\n"));
}

TEST(RegistryDeathTest, WrongNumberOfLabelsIsABug) {
  Registry registry;
  EXPECT_DEATH((void)registry.shared().counter(Family::upstream_connects_total), "labels.count");
  EXPECT_DEATH((void)registry.shared().gauge(Family::upstream_connects_total, {"x"}), "type");
}

TEST(BoundedLabel, ReadersAgreeOnIds) {
  BoundedLabel label(2);
  BoundedLabelReader a(label);
  BoundedLabelReader b(label);
  EXPECT_EQ(a.id("x"), 2U);
  EXPECT_EQ(b.id("y"), 3U);
  EXPECT_EQ(b.id("x"), 2U);
  EXPECT_EQ(a.id("z"), BoundedLabel::kOther);
  EXPECT_EQ(b.id("z"), BoundedLabel::kOther);
  EXPECT_EQ(a.id("y"), 3U);
  EXPECT_EQ(a.id(""), BoundedLabel::kUnknown);
  EXPECT_EQ(label.overflows(), 2U);
  EXPECT_EQ(a.text(3), "y");
}

TEST(BoundedLabel, ReservedNamesKeepTheirMeaning) {
  BoundedLabel label(1);
  BoundedLabelReader reader(label);
  EXPECT_EQ(reader.id("other"), BoundedLabel::kOther);
  EXPECT_EQ(reader.id("unknown"), BoundedLabel::kUnknown);
  EXPECT_EQ(reader.id("x"), 2U);
}

TEST(Metrics, TellsBuildConfigurationPricesAndProcess) {
  core::ManualClock clock;
  Metrics metrics({}, {.version = "1.2.3", .commit = "abc"}, clock);
  metrics.config_loaded("h1");
  clock.advance(std::chrono::seconds{60});
  metrics.config_loaded("h2", 7);
  EXPECT_THAT(metrics.expose(), Not(HasSubstr("ganglion_process_info{"))) << "it does not serve yet";
  metrics.process_serves(3);
  metrics.config_reload_failed();
  metrics.set_draining(true);
  metrics.set_neuron_price("regular", 0.5);
  metrics.set_neuron_price("regular", 0.25);
  const std::string text = metrics.expose();
  EXPECT_THAT(text, HasSubstr("ganglion_build_info{version=\"1.2.3\",commit=\"abc\",compiler=\""));
  EXPECT_THAT(text, HasSubstr("ganglion_config_reloads_total{result=\"ok\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("ganglion_config_reloads_total{result=\"failed\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("ganglion_config_info{hash=\"h2\"} 1\n"));
  EXPECT_THAT(text, Not(HasSubstr("h1")));
  EXPECT_THAT(text, HasSubstr("ganglion_config_version 7\n"));
  EXPECT_THAT(text,
              HasSubstr("ganglion_process_info{pid=\"" + std::to_string(::getpid()) + "\",generation=\"3\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("ganglion_process_serving_timestamp_seconds 1767225660\n"));
  EXPECT_THAT(text, HasSubstr("ganglion_config_last_success_timestamp_seconds 1767225660\n"));
  EXPECT_THAT(text, HasSubstr("ganglion_draining 1\n"));
  EXPECT_THAT(text, HasSubstr("ganglion_neuron_price_usd{tier=\"regular\"} 0.25\n"));
  EXPECT_THAT(text, testing::ContainsRegex("\nprocess_resident_memory_bytes [1-9]"));
  EXPECT_THAT(text, testing::ContainsRegex("\nprocess_open_fds [1-9]"));
  EXPECT_THAT(text, testing::ContainsRegex("\nprocess_threads [1-9]"));
  EXPECT_THAT(text, HasSubstr("\nprocess_cpu_seconds_total "));
}

}  // namespace
}  // namespace ganglion::metrics
