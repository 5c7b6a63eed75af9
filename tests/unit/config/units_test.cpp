// The written forms of quantities, both ways.

#include "config/units.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/env.hpp"
#include "config/reader.hpp"

namespace ganglion::config {
namespace {

using testing::HasSubstr;

TEST(Units, DurationsNeedAUnit) {
  EXPECT_EQ(parse_duration("10s")->count(), 10'000'000);
  EXPECT_EQ(parse_duration("250ms")->count(), 250'000);
  EXPECT_EQ(parse_duration("200us")->count(), 200);
  EXPECT_EQ(parse_duration("1m30s")->count(), 90'000'000);
  EXPECT_EQ(parse_duration("2h")->count(), 7'200'000'000);
  EXPECT_EQ(parse_duration("0")->count(), 0);
  EXPECT_EQ(parse_duration("0s")->count(), 0);
  for (const char* bad : {"", "10", "s", "10 s", "-1s", "1.5s", "10S", "30s1m", "1s1s", "10sec",
                          "99999999999999999999s", "9999999999999999h", "5m5"}) {
    EXPECT_FALSE(parse_duration(bad)) << bad;
  }
}

TEST(Units, DaysAndInstants) {
  EXPECT_EQ(parse_duration("90d").value(), std::chrono::hours{2160});
  EXPECT_EQ(parse_duration("1d12h").value(), std::chrono::hours{36});
  EXPECT_EQ(format_duration(std::chrono::hours{48}), "48h");
  EXPECT_EQ(format_instant(parse_instant("2026-12-01T23:59:58Z").value()), "2026-12-01T23:59:58Z");
  EXPECT_EQ(format_instant(parse_instant("2026-12-01").value()), "2026-12-01T00:00:00Z");
  for (const char* bad : {"", "2026-12-01T00:00:00", "2026-12-01T24:00:00Z", "2026-02-30", "1969-12-31", "01.12.2026"})
    EXPECT_FALSE(parse_instant(bad)) << bad;
}

TEST(Units, DurationsAreWrittenInTheLargestWholeUnit) {
  for (const char* text : {"0", "250ms", "10s", "90s", "5m", "2h", "200us"}) {
    EXPECT_EQ(format_duration(*parse_duration(text)), text);
  }
  EXPECT_EQ(format_duration(std::chrono::seconds{60}), "1m");
}

TEST(Units, Sizes) {
  EXPECT_EQ(*parse_size("512"), 512U);
  EXPECT_EQ(*parse_size("10MiB"), 10U * 1024 * 1024);
  EXPECT_EQ(*parse_size("10MB"), 10'000'000U);
  EXPECT_EQ(*parse_size("1GiB"), 1U << 30);
  EXPECT_EQ(format_size(10U * 1024 * 1024), "10MiB");
  EXPECT_EQ(format_size(1000), "1000");
  EXPECT_EQ(format_size(0), "0");
  for (const char* bad : {"", "MiB", "10 MiB", "10mib", "-1", "1.5GiB", "99999999999GiB"})
    EXPECT_FALSE(parse_size(bad)) << bad;
}

TEST(Units, Rates) {
  const auto check = [](const char* text, std::uint64_t amount, std::uint32_t period) {
    const auto rate = parse_rate(text);
    ASSERT_TRUE(rate) << text;
    EXPECT_EQ(rate->amount, amount) << text;
    EXPECT_EQ(rate->period_s, period) << text;
  };
  check("60/min", 60, 60);
  check("5/s", 5, 1);
  check("100k/hour", 100'000, 3600);
  check("2M/day", 2'000'000, 86'400);
  EXPECT_EQ(parse_rate("unlimited")->amount, 0U);
  EXPECT_THAT(parse_rate("0/min").error(), HasSubstr("refuse everything"));
  for (const char* bad :
       {"", "60", "60/", "/min", "60/fortnight", "60 / min", "6.5/s", "-1/s", "60k", "99999999999999999M/s"}) {
    EXPECT_FALSE(parse_rate(bad)) << bad;
  }
  for (const char* text : {"60/min", "5/s", "7/hour", "9/day", "unlimited"})
    EXPECT_EQ(format_rate(*parse_rate(text)), text);
}

TEST(Units, ListenTakesLiteralsOnly) {
  EXPECT_EQ(parse_listen("127.0.0.1:8080")->port, 8080);
  EXPECT_EQ(parse_listen("[::1]:0")->host, "::1");
  EXPECT_EQ(parse_listen("localhost:80")->host, "127.0.0.1");
  for (const char* bad : {"", ":8080", "8080", "example.com:80", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "::1:80",
                          "[127.0.0.1]:80", "256.0.0.1:80", "127.0.0.1:80x"}) {
    EXPECT_FALSE(parse_listen(bad)) << bad;
  }
  EXPECT_EQ(format_listen({"::1", 80}), "[::1]:80");
}

TEST(Units, Loopback) {
  for (const char* yes : {"127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"}) EXPECT_TRUE(is_loopback(yes)) << yes;
  for (const char* no : {"0.0.0.0", "::", "10.0.0.1", "128.0.0.1", "example.com", "::ffff:10.0.0.1"})
    EXPECT_FALSE(is_loopback(no)) << no;
}

TEST(Units, Decimals) {
  EXPECT_EQ(*parse_decimal("0.6"), "0.6");
  EXPECT_EQ(*parse_decimal("606061"), "606061");
  for (const char* bad : {"", ".5", "5.", "-1", "1e3", "0.1234567890", "1,5", "1234567890123"})
    EXPECT_FALSE(parse_decimal(bad)) << bad;
}

TEST(Env, ReplacesVariablesOnce) {
  const EnvLookup env = [](std::string_view name) -> std::optional<std::string> {
    if (name == "PORT") return "9000";
    if (name == "NESTED") return "${PORT}";
    if (name == "EMPTY") return "";
    return std::nullopt;
  };
  EXPECT_EQ(expand_env("http://127.0.0.1:${PORT}/v1", env)->text, "http://127.0.0.1:9000/v1");
  EXPECT_EQ(expand_env("${NESTED}", env)->text, "${PORT}");
  EXPECT_EQ(expand_env("${MISSING:-a:-b}", env)->text, "a:-b");
  EXPECT_EQ(expand_env("${EMPTY:-fallback}", env)->text, "fallback");
  EXPECT_EQ(expand_env("x${EMPTY}y", env)->text, "xy");
  EXPECT_EQ(expand_env("$${PORT} costs $5", env)->text, "${PORT} costs $5");
  EXPECT_FALSE(expand_env("$${PORT}", env)->used_env);
  EXPECT_THAT(expand_env("${MISSING}", env).error(), HasSubstr("MISSING is not set"));
  EXPECT_THAT(expand_env("${PORT", env).error(), HasSubstr("without its \"}\""));
  EXPECT_FALSE(expand_env("${}", env));
  // A secret pasted into the braces is not repeated.
  EXPECT_THAT(expand_env("${sk-12345}", env).error(), testing::Not(HasSubstr("12345")));
}

TEST(Suggestions, NearestByEdits) {
  const std::vector<std::string> keys = {"listen", "workers", "timeout", "max_body"};
  EXPECT_EQ(did_you_mean("lsiten", keys), " (did you mean `listen`?)");
  EXPECT_EQ(did_you_mean("worker", keys), " (did you mean `workers`?)");
  EXPECT_EQ(did_you_mean("time", keys), " (did you mean `timeout`?)");
  EXPECT_EQ(did_you_mean("zebra", keys), "");
  EXPECT_EQ(did_you_mean("", keys), "");
}

}  // namespace
}  // namespace ganglion::config
