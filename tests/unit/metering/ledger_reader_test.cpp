// What comes out of the ledger: exports, sums, invoices.

#include "metering/ledger_reader.hpp"

#include <gmock/gmock.h>

#include <algorithm>
#include <fstream>
#include <random>

#include "metering/decimal.hpp"
#include "metering/segment_walk.hpp"
#include "metering/usage.hpp"
#include "tests/unit/metering/ledger_support.hpp"

namespace ganglion::metering {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

class LedgerReaderTest : public ::testing::Test {
 protected:
  void SetUp() override { ledger_ = Ledger::open(options_in(dir_, 1024 * 1024), clock_, hooks_).value(); }

  void bill(const Subject& who, const Charge& charge, const Units& units = {.requests = 1}) {
    Terminal end = finished(charge);
    end.units = units;
    ledger_->terminal_async(ledger_->intent(who, "x").value(), end);
  }
  UsageReport use(UsageQuery query = {}) {
    EXPECT_TRUE(ledger_->flush());
    return usage(dir_.ledger(), query).value();
  }

  TempDir dir_{true};
  core::ManualClock clock_;
  RecordingHooks hooks_;
  std::unique_ptr<Ledger> ledger_;
};

TEST_F(LedgerReaderTest, LaunchInvoiceOf130ResponsesIsExactly1000Neurons) {
  const auto prices = PriceBook::make({.schedule = "launch-2023"}).value();
  const Units response{.requests = 1, .llm_responses = 1};
  for (int i = 0; i < 130; ++i)
    bill(subject("r" + std::to_string(i)), prices->price("m", api::Tier::regular, response), response);
  const UsageReport report = use();
  EXPECT_EQ(report.total.neurons, "1000");
  EXPECT_EQ(report.total.usd, "0.01");
  EXPECT_EQ(report.total.counts.units.llm_responses, 130U);
  ASSERT_EQ(report.invoices.size(), 1U);
  EXPECT_EQ(report.invoices[0].usd, "0.01");
  // Rounding each request would have given 999.99999996 or 1000.00000001.
  api::NanoNeurons rounded = 0;
  for (const LedgerRecord& record : records_of(dir_.ledger())) rounded += record.nano_neurons;
  EXPECT_NE(rounded, 1000 * api::kNanoPerNeuron);
}

TEST_F(LedgerReaderTest, SumsEqualARecomputationFromUnitTotals) {
  const auto prices = PriceBook::make({}).value();
  std::mt19937_64 random{1};
  NeuronParts nano_milli = 0;  // nano-neurons per 1,000 tokens, summed by hand
  for (int i = 0; i < 2000; ++i) {
    const Units units{.input_tokens = random() % 200'000, .output_tokens = random() % 20'000, .requests = 1};
    const std::string id = "r" + std::to_string(i);
    Subject who = subject(id, i % 3 == 0 ? "a" : "b");
    who.model = "@cf/qwen/qwq-32b";
    bill(who, prices->price(who.model, api::Tier::regular, units), units);
    nano_milli +=
        NeuronParts{60'000} * 1'000'000 * units.input_tokens + NeuronParts{90'909} * 1'000'000 * units.output_tokens;
  }
  const UsageReport report = use({.by = {UsageKey::tenant}});
  EXPECT_TRUE(report.total.counts.exact == nano_milli / 1000 * kPartsPerNanoNeuron);
  ASSERT_EQ(report.rows.size(), 2U);
  EXPECT_TRUE(report.rows[0].counts.exact + report.rows[1].counts.exact == report.total.counts.exact);
  EXPECT_EQ(report.rows[0].group, std::vector<std::string>{"a"});
  EXPECT_EQ(report.rows[0].counts.records, 667U);
}

TEST_F(LedgerReaderTest, GroupsByEveryKeyAndFiltersByTime) {
  const Charge one{.nano_neurons = api::kNanoPerNeuron,
                   .exact = kPartsPerNeuron,
                   .usd_pico_per_neuron = 11'000'000,
                   .schedule = "s"};
  bill(subject("r1", "a"), one);
  clock_.advance(24h);
  Subject other = subject("r2", "b");
  other.tier = api::Tier::fast;
  other.key_id = "key-2";
  other.model = "big";
  other.gateway = "g2";
  bill(other, one);
  const auto by = parse_usage_columns("key,model,tier,tenant,gateway,day").value();
  const UsageReport report = use({.by = by});
  ASSERT_EQ(report.rows.size(), 2U);
  EXPECT_THAT(report.rows[0].group,
              ::testing::ElementsAre("key-1", "demo-chat", "regular", "a", "default", "2026-01-01"));
  EXPECT_THAT(report.rows[1].group, ::testing::ElementsAre("key-2", "big", "fast", "b", "g2", "2026-01-02"));
  EXPECT_EQ(use({.range = {.from = parse_time("2026-01-02").value()}}).total.counts.records, 1U);
  EXPECT_EQ(use({.range = {.to = parse_time("2026-01-02T00:00:00Z").value()}}).total.counts.records, 1U);
  EXPECT_EQ(use({.range = {.from = parse_time("2026-01-01").value(), .to = parse_time("2026-01-03").value()}})
                .total.counts.records,
            2U);
  EXPECT_FALSE(parse_usage_columns("model,colour"));
  // No sum of nothing where the ends were exchanged.
  for (const char* to : {"2026-01-01", "2026-01-02"}) {
    const auto none =
        usage(dir_.ledger(), {.range = {.from = parse_time("2026-01-02").value(), .to = parse_time(to).value()}});
    ASSERT_FALSE(none) << to;
    EXPECT_EQ(none.error().kind, core::ErrorKind::invalid_value);
  }
}

TEST_F(LedgerReaderTest, FreeNeuronsAreADayAndGoToTheRegularTierFirst) {
  const auto charge = [](std::uint64_t neurons, api::Tier tier) {
    return Charge{.exact = NeuronParts{kPartsPerNeuron} * neurons,
                  .usd_pico_per_neuron = tier == api::Tier::fast ? 125'000'000U : 11'000'000U,
                  .schedule = "s"};
  };
  const auto spend = [&](std::string_view id, std::uint64_t neurons, api::Tier tier) {
    Subject who = subject(id);
    who.tier = tier;
    bill(who, charge(neurons, tier));
  };
  spend("a", 500, api::Tier::fast);
  spend("b", 9'800, api::Tier::regular);
  clock_.advance(24h);
  spend("c", 12'000, api::Tier::regular);
  const UsageReport report = use({.daily_free_neurons = 10'000});
  ASSERT_EQ(report.invoices.size(), 1U);
  const InvoiceLine& line = report.invoices[0];
  EXPECT_EQ(line.neurons, "22300");
  EXPECT_EQ(line.free_neurons, "20000");  // 9,800 regular + 200 fast, then 10,000
  EXPECT_EQ(line.billable_neurons, "2300");
  EXPECT_EQ(line.usd, "0.0595");  // 300 fast at 0.125 and 2,000 regular at 0.011 per 1,000
}

TEST_F(LedgerReaderTest, DollarsOfAWholeMonthAreRoundedOnce) {
  // A third of a pico-USD a request: rounded each time it would be nothing.
  const Charge tiny{
      .exact = NeuronParts{kPartsPerNeuron} / 3'000'000'000, .usd_pico_per_neuron = 1'000'000'000, .schedule = "s"};
  for (int i = 0; i < 300; ++i) bill(subject("r" + std::to_string(i)), tiny);
  EXPECT_EQ(use().total.usd, "0.0000000001");
}

TEST_F(LedgerReaderTest, ExportHasTheseFieldsInThisOrder) {
  Terminal end = finished({.nano_neurons = 1'500'000'000,
                           .exact = NeuronParts{kPartsPerNanoNeuron} * 1'500'000'000,
                           .usd_pico_per_neuron = 11'000'000,
                           .schedule = "s",
                           .source = PriceSource::operator_price});
  end.estimated = true;
  const Attempt attempts[] = {{"a", 502, "upstream_closed"}, {"b", 200, ""}};
  end.attempts = attempts;
  auto whose = subject("r1");
  const api::Tags tags{{"team", "a\"b", api::TagType::text}, {"user", "42", api::TagType::number}};
  whose.tags = tags;
  ledger_->terminal_async(ledger_->intent(whose, "x").value(), end);
  ASSERT_TRUE(ledger_->flush());
  std::ostringstream out;
  EXPECT_EQ(export_records(dir_.ledger(), {}, out).value(), 1U);
  EXPECT_EQ(
      out.str(),
      R"({"id":"r1","sequence":3,"time":"2026-01-01T00:00:00.000000Z","tenant":"acme","key":"key-1",)"
      R"("gateway":"default","model":"demo-chat","endpoint":"chat_completions","tier":"regular",)"
      R"("tags":{"team":"a\"b","user":42},"outcome":"completed","reason":"stop","http_status":200,"latency_us":12000,)"
      R"("input_tokens":11,"cached_input_tokens":0,"output_tokens":5,"requests":1,"gpu_us":0,"llm_responses":1,)"
      R"("image_classifications":0,"embeddings":0,"estimated":true,"neurons":"1.5",)"
      R"("neuron_parts":"17803500000000000000","usd_per_1000_neurons":"0.011","schedule":"s",)"
      R"("price_source":"operator","attempts":[{"attempt":1,"backend":"a","http_status":502,)"
      R"("reason":"upstream_closed"},{"attempt":2,"backend":"b","http_status":200,"reason":""}]})"
      "\n");
}

TEST_F(LedgerReaderTest, ExportIsOneJsonObjectALineAndTheSameTwice) {
  Terminal end = finished({.nano_neurons = 1'500'000'000,
                           .exact = NeuronParts{kPartsPerNanoNeuron} * 1'500'000'000,
                           .usd_pico_per_neuron = 11'000'000,
                           .schedule = "cloudflare-2026/1",
                           .source = PriceSource::operator_price});
  end.estimated = true;
  const Attempt attempts[] = {{"a\"b", 502, "upstream_closed"}, {"c", 200, ""}};
  end.attempts = attempts;
  ledger_->terminal_async(ledger_->intent(subject("r\n1"), "x").value(), end);
  ledger_->record_async(subject("hit"), {.outcome = Outcome::cache_hit});
  ASSERT_TRUE(ledger_->flush());
  std::ostringstream first;
  std::ostringstream second;
  EXPECT_EQ(export_records(dir_.ledger(), {}, first).value(), 2U);
  EXPECT_EQ(export_records(dir_.ledger(), {}, second).value(), 2U);
  EXPECT_EQ(first.str(), second.str());
  const std::string text = first.str();
  EXPECT_EQ(std::ranges::count(text, '\n'), 2);
  EXPECT_THAT(
      text,
      HasSubstr(R"({"id":"r\n1","sequence":3,"time":"2026-01-01T00:00:00.000000Z","tenant":"acme","key":"key-1")"));
  EXPECT_THAT(text, HasSubstr(R"("output_tokens":5)"));
  EXPECT_THAT(text, HasSubstr(R"("estimated":true,"neurons":"1.5")"));
  EXPECT_THAT(text,
              HasSubstr(R"("usd_per_1000_neurons":"0.011","schedule":"cloudflare-2026/1","price_source":"operator")"));
  EXPECT_THAT(
      text, HasSubstr(R"([{"attempt":1,"backend":"a\"b","http_status":502,"reason":"upstream_closed"},{"attempt":2)"));
  EXPECT_THAT(text, HasSubstr(R"("outcome":"cache_hit")"));
}

TEST_F(LedgerReaderTest, ReadsBesideARunningWriter) {
  ledger_ = nullptr;
  ledger_ = Ledger::open(options_in(dir_), clock_, hooks_).value();  // 64 KiB segments: readers see many being begun
  std::atomic<bool> done{false};
  std::jthread writer([&] {
    churn(*ledger_, 3000);
    done = true;
  });
  std::uint64_t last = 0;
  while (!done) {
    const auto report = verify(dir_.ledger());
    ASSERT_TRUE(report && report->ok) << (report ? report->problem : report.error().message);
    EXPECT_GE(report->terminals, last);
    last = report->terminals;
    EXPECT_TRUE(usage(dir_.ledger(), {}));
  }
  writer.join();
  ASSERT_TRUE(ledger_->flush());
  EXPECT_EQ(verify(dir_.ledger())->terminals, 3000U);
}

// Pages are read one behind another: of the live tail an early one may be as it was before the record that a later one
// shows to be durable.
TEST_F(LedgerReaderTest, APageThatWasReadTooEarlyIsReadAgain) {
  for (int i = 0; i < 20; ++i) {
    bill(subject("r" + std::to_string(i)), {});
    ASSERT_TRUE(ledger_->flush());
  }
  ledger_ = nullptr;
  const std::string path = list_segments(dir_.ledger()).value().front().path;  // the next may be there already
  const std::string whole = read_segment(path).value();
  std::vector<std::uint64_t> ends;
  const auto sound = walk_segments(dir_.ledger(), nullptr, [&](const Frame& frame, const LedgerRecord&) {
    ends.push_back((ends.empty() ? 0 : ends.back()) + frame.bytes);
  });
  ASSERT_TRUE(sound && sound->report.ok);
  const auto put = [&](const std::string& bytes) { std::ofstream{path, std::ios::binary} << bytes; };
  std::string early = whole;
  std::fill(early.begin() + static_cast<std::ptrdiff_t>(ends[9]), early.begin() + static_cast<std::ptrdiff_t>(ends[10]),
            '\0');
  put(early);
  EXPECT_FALSE(verify(dir_.ledger())->ok) << "it is not written later";
  std::uint64_t visited = 0;
  const auto walked = walk_segments(dir_.ledger(), nullptr, [&](const Frame&, const LedgerRecord&) {
    if (++visited == 5) put(whole);
  });
  ASSERT_TRUE(walked);
  EXPECT_TRUE(walked->report.ok) << walked->report.problem;
  EXPECT_EQ(visited, ends.size());
  EXPECT_EQ(walked->report.records, sound->report.records);
  EXPECT_EQ(walked->state.chain, sound->state.chain);
}

TEST_F(LedgerReaderTest, TablesAndJsonShowTheSameSums) {
  const Charge one{.exact = kPartsPerNeuron, .usd_pico_per_neuron = 11'000'000, .schedule = "s"};
  bill(subject("r1"), one, {.input_tokens = 7, .output_tokens = 3, .requests = 1});
  bill(subject("r2"), one, {.input_tokens = 1, .output_tokens = 2, .requests = 1});
  const UsageReport report = use({.by = {UsageKey::model}});
  EXPECT_EQ(format_table(report),
            "model      requests  hits  input  cached  output  estimated  neurons       usd\n"
            "demo-chat         2     0      8       0       5          0        2  0.000022\n"
            "total             2     0      8       0       5          0        2  0.000022\n"
            "\n"
            "tenant  neurons  free  billable   usd due\n"
            "acme          2     0         2  0.000022\n");
  EXPECT_THAT(format_json(report), HasSubstr(R"({"rows":[{"model":"demo-chat","requests":2)"));
  EXPECT_THAT(format_json(report), HasSubstr(R"("invoices":[{"tenant":"acme","neurons":"2","free_neurons":"0")"));
}

TEST(LedgerReader, MissingDirectoryIsAnError) {
  EXPECT_FALSE(verify("/nonexistent/ledger"));
  EXPECT_FALSE(usage("/nonexistent/ledger", {}));
}

TEST(LedgerReader, TimesAreUtcAndChecked) {
  EXPECT_EQ(parse_time("1970-01-02").value(), 24h);
  EXPECT_EQ(parse_time("2026-01-01T01:02:03Z").value(), 1'767'225'600s + 3723s);
  for (const char* text : {"", "2026", "2026-13-01", "2026-02-30", "2026-01-01T24:00:00Z", "2026-01-01T00:00:00",
                           "2026-01-01 00:00:00Z", "01-01-2026"})
    EXPECT_FALSE(parse_time(text)) << text;
}

}  // namespace
}  // namespace ganglion::metering
