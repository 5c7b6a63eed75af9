// Invoices: the exact rational total, however the records are spread over segments, rollups and the tail, rounded once.

#include "metering/invoice.hpp"

#include <gmock/gmock.h>

#include <random>

#include "metering/decimal.hpp"
#include "metering/ledger_keeper.hpp"
#include "metering/price_book.hpp"
#include "metering/usage.hpp"
#include "tests/unit/metering/ledger_support.hpp"

namespace ganglion::metering {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

const auto kLater = core::WallTime{std::chrono::sys_days{std::chrono::year{2027} / 1 / 1}};

class InvoiceTest : public ::testing::Test {
 protected:
  void start() {
    ledger_ = Ledger::open(options_in(dir_), clock_, hooks_).value();
    keeper_ = LedgerKeeper::open(options_in(dir_), *ledger_, clock_).value();
  }
  void stop() {
    keeper_.reset();
    ledger_.reset();
  }
  void bill(const Charge& charge, api::Tier tier = api::Tier::regular, std::string_view tenant = "acme") {
    const std::string id = "r" + std::to_string(count_++);
    Subject who = subject(id, tenant);
    who.tier = tier;
    auto intent = ledger_->intent(who, "x");
    for (int tries = 0; !intent && tries < 5000; ++tries) {
      std::this_thread::sleep_for(1ms);
      intent = ledger_->intent(who, "x");
    }
    ASSERT_TRUE(intent);
    ledger_->terminal_async(*intent, finished(charge));
    ASSERT_TRUE(ledger_->flush());
  }
  Invoice invoice(std::string_view month = "2026-01", const FreeAllocation& free = {}) {
    return make_invoice(dir_.ledger(), "acme", parse_month(month).value(), free, kLater).value();
  }

  TempDir dir_{true};
  core::ManualClock clock_;
  RecordingHooks hooks_;
  std::unique_ptr<Ledger> ledger_;
  std::unique_ptr<LedgerKeeper> keeper_;
  int count_ = 0;
};

TEST_F(InvoiceTest, EqualsTheExactRationalTotalForAnySplitOfTheRecords) {
  // A day of its own per round; each round the records are cut differently into segments, rollups, restarts and tail.
  for (int round = 0; round < 12; ++round) {
    std::filesystem::remove_all(dir_.ledger());
    std::mt19937_64 random{static_cast<std::uint64_t>(round)};
    start();
    NeuronParts parts[2] = {0, 0};
    const std::uint64_t rates[2] = {11'000'000, 125'000'000};
    for (int i = 0; i < 300; ++i) {
      const auto tier = random() % 2 == 0 ? api::Tier::regular : api::Tier::fast;
      const NeuronParts exact = NeuronParts{random()} * (1 + random() % 1'000'000);
      parts[static_cast<std::size_t>(tier)] += exact;
      bill({.exact = exact, .usd_pico_per_neuron = rates[static_cast<std::size_t>(tier)], .schedule = "s/1"}, tier);
      bill({.exact = exact, .usd_pico_per_neuron = 1, .schedule = "s/1"}, tier, "bolt");  // another's
      if (random() % 40 == 0) ASSERT_TRUE(keeper_->run_once());
      if (random() % 80 == 0) {
        stop();
        start();
      }
      clock_.advance(std::chrono::minutes{random() % 8});
    }
    if (random() % 2 == 0) ASSERT_TRUE(keeper_->run_once());
    const Invoice made = invoice();
    ASSERT_EQ(made.bill.items.size(), 2U);
    // numerator / denominator: pico-USD = sum(parts x rate) / kPartsPerNeuron, here over 2^256 by hand.
    ExactUsd total;
    for (std::size_t tier = 0; tier < 2; ++tier) {
      EXPECT_TRUE(made.bill.items[tier].counts.exact == parts[tier]);
      ExactUsd usd;
      usd.add(parts[tier], rates[tier]);
      EXPECT_TRUE(made.bill.items[tier].usd == usd);
      total.add(usd);
    }
    EXPECT_TRUE(made.bill.usd == total) << round;
    stop();
  }
}

TEST_F(InvoiceTest, RoundsOnceAndItemsDoNotLoseCents) {
  start();
  // Three items of a third of a cent each are one cent; rounded one by one they would be none.
  const NeuronParts third = NeuronParts{kPartsPerNeuron} * 10'000'000 / 3;
  for (const char* schedule : {"a", "b", "c"})
    bill({.exact = third + 1, .usd_pico_per_neuron = 1000, .schedule = schedule});
  const Invoice made = invoice();
  EXPECT_EQ(made.bill.items.size(), 3U);
  EXPECT_EQ(made.bill.usd.cents(), "0.01");
}

TEST_F(InvoiceTest, FreeAllocationOfADayGoesToRegularFirst) {
  start();
  const auto neurons = [](std::uint64_t n, std::uint64_t rate) {
    return Charge{.exact = NeuronParts{kPartsPerNeuron} * n, .usd_pico_per_neuron = rate, .schedule = "s"};
  };
  bill(neurons(60, 1'000'000), api::Tier::fast);
  bill(neurons(70, 11'000'000));
  clock_.advance(24h);
  bill(neurons(30, 11'000'000));
  const Invoice made = invoice("2026-01", 100);
  ASSERT_EQ(made.bill.items.size(), 2U);
  EXPECT_EQ(neurons_text(made.bill.items[0].free), "100");  // 70 of the first day, 30 of the second
  EXPECT_EQ(neurons_text(made.bill.items[1].free), "30");   // what the first day had left
  EXPECT_EQ(made.bill.usd.text(), "0.00003");
  // A change of the allocation counts from the next day on, and leaves the past as it was.
  FreeAllocation changed{100};
  changed.change(parse_time("2026-01-01T12:00:00Z").value(), 0);
  EXPECT_EQ(neurons_text(invoice("2026-01", changed).bill.free), "100");
}

TEST_F(InvoiceTest, MonthsAreUtcAndDoNotOverlap) {
  start();
  const Charge one{.exact = kPartsPerNeuron, .usd_pico_per_neuron = 1'000'000'000'000, .schedule = "s"};
  clock_.advance(31 * 24h - 1us);
  bill(one);
  clock_.advance(1us);
  bill(one);
  bill(one);
  EXPECT_EQ(invoice("2026-01").bill.usd.cents(), "1.00");
  EXPECT_EQ(invoice("2026-02").bill.usd.cents(), "2.00");
  EXPECT_EQ(invoice("2026-03").bill.usd.cents(), "0.00");
  for (const char* bad : {"2026", "2026-13", "2026-1", "2026-01-01", "", "26-01"})
    EXPECT_FALSE(parse_month(bad)) << bad;
}

TEST_F(InvoiceTest, PricesOfHistoryStayWhateverTheScheduleSaysNow) {
  start();
  const Units response{.requests = 1, .llm_responses = 1};
  const auto launch = PriceBook::make({.schedule = "launch-2023"}).value();
  for (int i = 0; i < 130; ++i) bill(launch->price("m", api::Tier::regular, response));
  const auto dearer = PriceBook::make({.schedule = "launch-2023", .usd_per_1000_neurons_regular = "0.02"}).value();
  for (int i = 0; i < 130; ++i) bill(dearer->price("m", api::Tier::regular, response));
  const Invoice made = invoice();
  ASSERT_EQ(made.bill.items.size(), 2U);
  EXPECT_EQ(made.bill.items[0].usd.text(), "0.01");
  EXPECT_EQ(made.bill.items[1].usd.text(), "0.02");
  EXPECT_EQ(neurons_text(made.bill.counts.exact), "2000");
}

TEST_F(InvoiceTest, TextCsvAndJsonSayTheSame) {
  start();
  bill({.exact = NeuronParts{kPartsPerNeuron} * 1500, .usd_pico_per_neuron = 11'000'000, .schedule = "s,\"1\""});
  const Invoice made = invoice("2026-01", 500);
  EXPECT_EQ(format_csv(made),
            "tenant,month,schedule,tier,usd_per_1000_neurons,requests,input_tokens,output_tokens,neurons,free_neurons,"
            "billable_neurons,usd\r\n"
            "acme,2026-01,\"s,\"\"1\"\"\",regular,0.011,1,11,5,1500,500,1000,0.011\r\n");
  EXPECT_THAT(format_text(made), HasSubstr("Invoice  acme  2026-01 (UTC)\nLedger   " + ledger_->id()));
  EXPECT_THAT(format_text(made), HasSubstr("Due: USD 0.01\n"));
  EXPECT_THAT(format_json(made), HasSubstr(R"("final":true)"));
  EXPECT_THAT(format_json(made), HasSubstr(R"("billable_neurons":"1000")"));
  EXPECT_THAT(format_json(made), HasSubstr(R"("due_usd":"0.01")"));
  const auto early = make_invoice(dir_.ledger(), "acme", parse_month("2026-01").value(), {}, clock_.wall()).value();
  EXPECT_FALSE(early.final);
  EXPECT_THAT(format_text(early), HasSubstr("PROVISIONAL"));
}

TEST(ExactUsd, RoundsHalfUp) {
  const auto cents = [](std::uint64_t pico) {
    ExactUsd usd;
    usd.add(kPartsPerNeuron, pico);
    return usd.cents();
  };
  EXPECT_EQ(cents(4'999'999'999), "0.00");
  EXPECT_EQ(cents(5'000'000'000), "0.01");
  EXPECT_EQ(cents(994'999'999'999), "0.99");
  EXPECT_EQ(cents(995'000'000'000), "1.00");
  EXPECT_EQ(cents(12'050'000'000'000), "12.05");
}

}  // namespace
}  // namespace ganglion::metering
