// Prices: exactness, the order of price sources, and the operator's mistakes.

#include "metering/price_book.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "metering/decimal.hpp"

namespace ganglion::metering {
namespace {

using api::Tier;

std::shared_ptr<const PriceBook> book(const PricingOptions& options = {}) {
  auto made = PriceBook::make(options);
  EXPECT_TRUE(made) << made.error().message;
  return *made;
}

TEST(Decimal, ParsesExactlyAndPrintsBack) {
  EXPECT_EQ(parse_decimal("0.011", 9).value(), 11'000'000U);
  EXPECT_EQ(parse_decimal("606061", 9).value(), 606'061'000'000'000U);
  EXPECT_EQ(parse_decimal("1.500000000000000", 1).value(), 15U);
  EXPECT_EQ(format_decimal(11'000'000, 9), "0.011");
  EXPECT_EQ(format_decimal(1'000'000'000, 9), "1");
  EXPECT_EQ(format_decimal(0, 9), "0");
  EXPECT_EQ(format_decimal(1, 12), "0.000000000001");
  EXPECT_EQ(format_decimal(120, 0), "120");
}

TEST(Decimal, RefusesWhatItCannotKeep) {
  for (const char* text :
       {"", ".", "1.", ".5", "-1", "+1", "1e3", "1,5", "0.0000000001", "9223372037", "abc", " 1", "1.2.3"})
    EXPECT_FALSE(parse_decimal(text, 9)) << text;
}

TEST(PriceBook, OneHundredThirtyLaunchResponsesAreExactlyOneThousandNeurons) {
  const auto launch = book({.schedule = "launch-2023"});
  const auto sum = [&](const Units& unit, int count) {
    NeuronParts parts = 0;
    for (int i = 0; i < count; ++i) parts += launch->price("any", Tier::regular, unit).exact;
    return parts;
  };
  constexpr NeuronParts kThousand = NeuronParts{kPartsPerNeuron} * 1000;
  EXPECT_TRUE(sum({.input_tokens = 77, .requests = 1, .llm_responses = 1}, 130) == kThousand);
  EXPECT_TRUE(sum({.image_classifications = 1}, 830) == kThousand);
  EXPECT_TRUE(sum({.embeddings = 1}, 1250) == kThousand);
  EXPECT_EQ(launch->price("any", Tier::regular, {.llm_responses = 1}).nano_neurons, 7'692'307'692);  // 7.6923076923...
  EXPECT_EQ(launch->price("any", Tier::regular, {.llm_responses = 1}).source, PriceSource::schedule);
  EXPECT_EQ(launch->schedule(), "launch-2023/1");
  EXPECT_EQ(launch->usd_pico_per_neuron(Tier::regular), 10'000'000U);
  EXPECT_EQ(launch->usd_pico_per_neuron(Tier::fast), 125'000'000U);
}

TEST(PriceBook, Cloudflare2026TableIsPerMillionTokens) {
  const auto prices = book();
  const auto nano = [&](std::string_view model, const Units& units) {
    return prices->price(model, Tier::regular, units).nano_neurons;
  };
  constexpr std::uint64_t kMillion = 1'000'000;
  EXPECT_EQ(nano("@cf/meta/llama-2-7b-chat-fp16", {.output_tokens = kMillion}), 606'061LL * api::kNanoPerNeuron);
  EXPECT_EQ(nano("@cf/meta/llama-3.2-1b-instruct", {.input_tokens = 1}), 2'457'000);
  EXPECT_EQ(nano("@cf/zai-org/glm-5.2", {.input_tokens = kMillion, .cached_input_tokens = kMillion}),
            23'636LL * api::kNanoPerNeuron);
  EXPECT_EQ(nano("@cf/zai-org/glm-5.2", {.input_tokens = kMillion, .cached_input_tokens = kMillion / 2}),
            (127'273LL + 23'636LL) * api::kNanoPerNeuron / 2);
  // No cached price: cached input costs what input costs.
  EXPECT_EQ(nano("@cf/openai/gpt-oss-20b", {.input_tokens = kMillion, .cached_input_tokens = kMillion}),
            18'182LL * api::kNanoPerNeuron);
  EXPECT_EQ(nano("@cf/baai/bge-small-en-v1.5", {.input_tokens = 1000, .embeddings = 3}), 1'841'000'000);
  EXPECT_EQ(nano("@cf/microsoft/resnet-50", {.image_classifications = 1}), 228'055'000);
  EXPECT_EQ(prices->schedule(), "cloudflare-2026/1");
}

TEST(PriceBook, PublishedDollarsFollowFromNeurons) {
  // USD per 1M output tokens as published, to their three decimals.
  const auto prices = book();
  const std::pair<const char*, std::uint64_t> published[] = {{"@cf/meta/llama-3.3-70b-instruct-fp8-fast", 2253},
                                                             {"@cf/openai/gpt-oss-120b", 750},
                                                             {"@cf/meta/llama-2-7b-chat-fp16", 6667},
                                                             {"@cf/qwen/qwq-32b", 1000}};
  for (const auto& [model, usd_milli] : published) {
    const Charge charge = prices->price(model, Tier::regular, {.output_tokens = 1'000'000});
    const auto usd_pico = charge.exact * charge.usd_pico_per_neuron / kPartsPerNeuron;
    EXPECT_EQ(static_cast<std::uint64_t>((usd_pico + 500'000'000) / 1'000'000'000), usd_milli) << model;
  }
}

TEST(PriceBook, FastTierCountsTheSameNeuronsAtAHigherRate) {
  const auto prices = book();
  const Units units{.input_tokens = 123, .output_tokens = 45, .requests = 1};
  const Charge regular = prices->price("@cf/qwen/qwq-32b", Tier::regular, units);
  const Charge fast = prices->price("@cf/qwen/qwq-32b", Tier::fast, units);
  EXPECT_TRUE(regular.exact == fast.exact);
  EXPECT_EQ(regular.usd_pico_per_neuron, 11'000'000U);
  EXPECT_EQ(fast.usd_pico_per_neuron, 125'000'000U);
}

TEST(PriceBook, UnknownModelsFallBackToTheSmallestRowAndSaySo) {
  const auto prices = book();
  const Charge charge =
      prices->price("demo-chat", Tier::regular, {.input_tokens = 1'000'000, .output_tokens = 1'000'000});
  EXPECT_EQ(charge.nano_neurons, (2457LL + 18252LL) * api::kNanoPerNeuron);
  EXPECT_EQ(charge.source, PriceSource::fallback);
  EXPECT_EQ(prices->price("@cf/qwen/qwq-32b", Tier::regular, {}).source, PriceSource::schedule);
}

TEST(PriceBook, OperatorsPriceReplacesTheWholeRow) {
  const auto prices = book({.models = {{.model = "@cf/qwen/qwq-32b",
                                        .per_1m_output_tokens = "0.5",
                                        .per_request = "2",
                                        .per_gpu_second = "3.25"}}});
  const Charge charge =
      prices->price("@cf/qwen/qwq-32b", Tier::regular,
                    {.input_tokens = 999, .output_tokens = 2'000'000, .requests = 1, .gpu_us = 2'000'000});
  EXPECT_EQ(charge.nano_neurons, 9'500'000'000);
  EXPECT_EQ(charge.source, PriceSource::operator_price);
}

TEST(PriceBook, OperatorsStarBeatsTheScheduleButNotTheOperatorsOwnRow) {
  const auto prices = book({.models = {{.model = "*", .per_request = "1"}, {.model = "mine", .per_request = "7"}}});
  EXPECT_EQ(prices->price("@cf/qwen/qwq-32b", Tier::regular, {.requests = 1}).nano_neurons, api::kNanoPerNeuron);
  EXPECT_EQ(prices->price("mine", Tier::regular, {.requests = 1}).nano_neurons, 7 * api::kNanoPerNeuron);
}

TEST(PriceBook, DollarPricesComeBackAsTheSameDollars) {
  const auto prices = book({.models = {{.model = "gpt",
                                        .unit = "usd",
                                        .per_1m_input_tokens = "0.15",
                                        .per_1m_output_tokens = "0.6",
                                        .per_request = "0.000001"}}});
  const Charge input = prices->price("gpt", Tier::regular, {.input_tokens = 1'000'000});
  EXPECT_EQ(static_cast<std::uint64_t>(input.exact * input.usd_pico_per_neuron % kPartsPerNeuron), 0U);
  EXPECT_EQ(static_cast<std::uint64_t>(input.exact * input.usd_pico_per_neuron / kPartsPerNeuron), 150'000'000'000U);
  EXPECT_EQ(input.nano_neurons, 13'636'363'636'364);
  const Charge request = prices->price("gpt", Tier::regular, {.requests = 1});
  EXPECT_EQ(static_cast<std::uint64_t>(request.exact * request.usd_pico_per_neuron / kPartsPerNeuron), 1'000'000U);
}

TEST(PriceBook, SumsOfRequestsEqualThePriceOfTheSum) {
  const auto prices = book();
  std::uint64_t state = 99;
  const auto next = [&] { return (state = state * 6364136223846793005ULL + 1442695040888963407ULL) >> 40; };
  Units total;
  NeuronParts sum = 0;
  for (int i = 0; i < 5000; ++i) {
    const Units units{.input_tokens = next() % 100'000, .output_tokens = next() % 9000, .requests = 1};
    total += units;
    sum += prices->price("@cf/meta/llama-3.1-8b-instruct", Tier::regular, units).exact;
  }
  // By hand: integer neurons per 1M tokens times exact totals.
  const auto nano_scaled =
      NeuronParts{25608} * 1000 * total.input_tokens + NeuronParts{75147} * 1000 * total.output_tokens;
  EXPECT_TRUE(sum == nano_scaled * kPartsPerNanoNeuron);
}

TEST(PriceBook, AbsurdUnitsSaturateInsteadOfWrapping) {
  const auto prices =
      book({.models = {{.model = "m", .per_1m_input_tokens = "999999999", .per_request = "999999999"}}});
  constexpr auto kMax = std::numeric_limits<std::uint64_t>::max();
  const Charge charge =
      prices->price("m", Tier::regular, {.input_tokens = kMax, .output_tokens = kMax, .requests = kMax});
  EXPECT_EQ(charge.nano_neurons, std::numeric_limits<api::NanoNeurons>::max());
}

TEST(PriceBook, CachedHitsAreFree) {
  const Charge charge = book()->free(Tier::fast);
  EXPECT_EQ(charge.nano_neurons, 0);
  EXPECT_EQ(charge.source, PriceSource::free);
  EXPECT_EQ(charge.schedule, "cloudflare-2026/1");
}

core::WallTime at(std::int64_t s) {
  return core::WallTime{std::chrono::seconds{s}};
}

TEST(PriceTimeline, AChangeIsInForceFromItsInstantOn) {
  const PricingOptions options{
      .schedule = "launch-2023",
      .daily_free_neurons = 5,
      .changes = {{.from = std::chrono::seconds{1'000}, .usd_per_1000_neurons_regular = "0.02"},
                  {.from = std::chrono::seconds{2'000},
                   .schedule = "cloudflare-2026",
                   .daily_free_neurons = 7,
                   .models = {{.model = "m", .per_request = "3"}}}}};
  const auto prices = PriceTimeline::make(options).value();
  const auto regular = [&](std::int64_t s) { return prices->at(at(s)).usd_pico_per_neuron(Tier::regular); };
  EXPECT_EQ(regular(0), 10'000'000U);
  EXPECT_EQ(prices->at(at(1'000) - std::chrono::nanoseconds{1}).usd_pico_per_neuron(Tier::regular), 10'000'000U);
  EXPECT_EQ(regular(1'000), 20'000'000U);
  EXPECT_EQ(prices->at(at(1'999)).schedule(), "launch-2023/1");
  EXPECT_EQ(prices->at(at(2'000)).schedule(), "cloudflare-2026/1");
  EXPECT_EQ(regular(2'000), 20'000'000U) << "what a change does not name stays";
  EXPECT_EQ(prices->at(at(2'000)).usd_pico_per_neuron(Tier::fast), 125'000'000U);
  EXPECT_EQ(prices->at(at(2'000)).daily_free_neurons(), 7U);
  EXPECT_EQ(prices->at(at(2'000)).price("m", Tier::regular, {.requests = 1}).nano_neurons, 3 * api::kNanoPerNeuron);
  const FreeAllocation free = free_allocation(options);
  EXPECT_EQ(free.on_day(0), 5U);
  EXPECT_EQ(free.on_day(1), 7U) << "the first day that begins after the change";
}

TEST(PriceTimeline, ChangesOutOfOrderOrWrongAreNamed) {
  const auto param = [](const std::vector<PriceChange>& changes) {
    const auto made = PriceTimeline::make({.changes = changes});
    return made ? std::string{"accepted"} : made.error().param;
  };
  EXPECT_EQ(param({{.from = std::chrono::seconds{2}}, {.from = std::chrono::seconds{2}}}), "pricing.changes[1].from");
  EXPECT_EQ(param({{.from = std::chrono::seconds{2}, .schedule = "lunch-2023"}}), "pricing.schedule");
}

TEST(PriceBook, MistakesNameTheOption) {
  const auto param = [](const PricingOptions& options) {
    const auto made = PriceBook::make(options);
    return made ? std::string{"accepted"} : made.error().param;
  };
  EXPECT_EQ(param({.schedule = "launch-2024"}), "pricing.schedule");
  EXPECT_EQ(param({.usd_per_1000_neurons_fast = "0,125"}), "pricing.usd_per_1000_neurons_fast");
  EXPECT_EQ(param({.models = {{.model = "a", .unit = "eur"}}}), "pricing.models[a].unit");
  EXPECT_EQ(param({.models = {{.model = "a", .per_1m_input_tokens = "cheap"}}}),
            "pricing.models[a].per_1m_input_tokens");
  EXPECT_EQ(param({.models = {{.model = "a"}, {.model = "a"}}}), "pricing.models[a]");
}

TEST(Units, AProvidersCountsAreBounded) {
  const Units units = units_of(api::Endpoint::chat_completions,
                               {.input_tokens = ~0ULL, .cached_input_tokens = ~0ULL, .output_tokens = ~0ULL});
  EXPECT_EQ(units.input_tokens, kUnitsPerRequestMax);
  EXPECT_EQ(units.cached_input_tokens, kUnitsPerRequestMax);
  EXPECT_EQ(units.output_tokens, kUnitsPerRequestMax);
}

}  // namespace
}  // namespace ganglion::metering
