// Following a ledger: every terminal record once and in order, from any place, while it is written, and an error
// instead of a silent gap.

#include "metering/tail_reader.hpp"

#include <gmock/gmock.h>

#include "tests/unit/metering/ledger_support.hpp"

namespace ganglion::metering {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class TailReaderTest : public ::testing::Test {
 protected:
  std::unique_ptr<Ledger> open() { return Ledger::open(options_in(dir_), clock_, hooks_, &storage_).value(); }
  static void write(Ledger& ledger, const std::string& id) {
    const auto intent = ledger.intent(subject(id), "local");
    ASSERT_TRUE(intent) << intent.error().message;
    ledger.terminal_async(*intent, finished());
    ASSERT_TRUE(ledger.flush());
  }
  std::vector<std::string> ids(TailReader& reader, std::uint64_t limit = TailReader::kNoLimit,
                               std::size_t most = 1'000'000) {
    std::vector<std::string> out;
    const auto read = reader.poll(limit, most, [&](const LedgerRecord& record) { out.push_back(record.request_id); });
    EXPECT_TRUE(read) << read.error().message;
    if (read) EXPECT_EQ(*read, out.size());
    return out;
  }

  TempDir dir_{true};
  core::ManualClock clock_;
  RecordingHooks hooks_;
  FaultyStorage storage_;
};

TEST_F(TailReaderTest, SeesEachRecordOnceAsItIsWritten) {
  const auto ledger = open();
  TailReader reader{dir_.ledger(), 0};
  EXPECT_TRUE(ids(reader).empty());
  write(*ledger, "a");
  write(*ledger, "b");
  EXPECT_THAT(ids(reader), ElementsAre("a", "b"));
  EXPECT_TRUE(ids(reader).empty());
  write(*ledger, "c");
  EXPECT_THAT(ids(reader), ElementsAre("c"));
  EXPECT_EQ(reader.position(), ledger->stats().next_sequence - 1);
}

TEST_F(TailReaderTest, GoesOnBehindAnyRecordAcrossSegments) {
  {
    const auto ledger = open();
    churn(*ledger, 900);
  }
  ASSERT_TRUE(std::filesystem::exists(segment_path(dir_.ledger(), 3)));
  const auto all = records_of(dir_.ledger());
  ASSERT_EQ(all.size(), 900U);
  for (std::size_t i = 0; i < all.size(); i += 61) {
    TailReader reader{dir_.ledger(), all[i].sequence};
    const auto rest = ids(reader);
    ASSERT_EQ(rest.size(), all.size() - i - 1) << i;
    if (!rest.empty()) EXPECT_EQ(rest.front(), all[i + 1].request_id);
  }
  // Cut into small bites, and restarted behind each, it is the same.
  std::vector<std::string> seen;
  std::uint64_t position = 0;
  for (int bites = 0; bites < 2000; ++bites) {
    TailReader reader{dir_.ledger(), position};
    const auto some = ids(reader, TailReader::kNoLimit, 7);
    if (some.empty()) break;
    seen.insert(seen.end(), some.begin(), some.end());
    position = reader.position();
  }
  ASSERT_EQ(seen.size(), all.size());
  for (std::size_t i = 0; i < all.size(); ++i) ASSERT_EQ(seen[i], all[i].request_id);
}

TEST_F(TailReaderTest, FollowsWhileAThreadWrites) {
  const auto ledger = open();
  std::atomic<bool> done{false};
  std::jthread writer([&] {
    churn(*ledger, 3000);
    done = true;
  });
  TailReader durable{dir_.ledger(), 0};
  TailReader all{dir_.ledger(), 0};
  std::vector<std::string> of_durable;
  std::vector<std::string> of_all;
  for (bool last = false; !last;) {
    last = done && ledger->flush();
    const std::uint64_t limit = ledger->stats().durable_sequence;
    for (auto& id : ids(durable, limit)) of_durable.push_back(std::move(id));
    EXPECT_LE(durable.position(), limit);
    for (auto& id : ids(all)) of_all.push_back(std::move(id));
  }
  ASSERT_EQ(of_durable.size(), 3000U);
  ASSERT_EQ(of_all.size(), 3000U);
  for (std::size_t i = 0; i < 3000; ++i) {
    ASSERT_EQ(of_durable[i], "r" + std::to_string(i));
    ASSERT_EQ(of_all[i], of_durable[i]);
  }
}

TEST_F(TailReaderTest, AHeaderThatIsBeingWrittenIsNotYetThereUnlessItWasDurable) {
  {
    const auto ledger = open();
    churn(*ledger, 900);
  }
  std::uint64_t newest = 1;
  while (std::filesystem::exists(segment_path(dir_.ledger(), newest + 1))) ++newest;
  while (is_unused(segment_path(dir_.ledger(), newest)).value()) --newest;
  const auto all = records_of(dir_.ledger());
  const std::string whole = read_file(segment_path(dir_.ledger(), newest));
  std::string torn = whole.substr(0, 20);
  torn.resize(whole.size(), '\0');
  write_file(segment_path(dir_.ledger(), newest), torn);
  TailReader durable{dir_.ledger(), 0};
  EXPECT_FALSE(durable.poll(all.back().sequence, 10, [](const LedgerRecord&) {}));
  TailReader reader{dir_.ledger(), 0};
  auto seen = ids(reader);
  EXPECT_LT(seen.size(), all.size());
  write_file(segment_path(dir_.ledger(), newest), whole);
  for (auto& id : ids(reader)) seen.push_back(std::move(id));
  ASSERT_EQ(seen.size(), all.size()) << "and goes on where it was";
  EXPECT_EQ(seen.back(), all.back().request_id);
}

TEST_F(TailReaderTest, RecordsThatAPowerLossMayTakeAreKeptBackByTheLimit) {
  const auto ledger = open();
  write(*ledger, "durable");
  storage_.hold();
  ledger->terminal_async(ledger->intent(subject("not yet"), "local").value(), finished());
  TailReader reader{dir_.ledger(), 0};
  EXPECT_THAT(ids(reader, ledger->stats().durable_sequence), ElementsAre("durable"));
  EXPECT_TRUE(ids(reader, ledger->stats().durable_sequence).empty());
  storage_.release();
  ASSERT_TRUE(ledger->flush());
  EXPECT_THAT(ids(reader, ledger->stats().durable_sequence), ElementsAre("not yet"));
}

TEST_F(TailReaderTest, RecordsThatAreGoneAreAnErrorAndNotAGap) {
  {
    const auto ledger = open();
    churn(*ledger, 900);
  }
  const std::uint64_t early = records_of(dir_.ledger())[3].sequence;
  std::filesystem::remove(segment_path(dir_.ledger(), 1));
  TailReader reader{dir_.ledger(), early};
  const auto read = reader.poll(TailReader::kNoLimit, 10, [](const LedgerRecord&) {});
  ASSERT_FALSE(read);
  EXPECT_THAT(read.error().message, HasSubstr("are no longer in the ledger"));
  TailReader fresh{dir_.ledger(), 0};
  EXPECT_FALSE(ids(fresh).empty()) << "a new consumer begins with the oldest that is there";
}

TEST_F(TailReaderTest, APositionPastTheEndMeansAnotherLedger) {
  std::uint64_t end = 0;
  {
    const auto ledger = open();
    write(*ledger, "a");
    ledger->close();
    end = records_of(dir_.ledger()).back().sequence + 1;  // the close record
  }
  TailReader at_end{dir_.ledger(), end};
  EXPECT_TRUE(ids(at_end).empty());
  TailReader past{dir_.ledger(), end + 1};
  const auto read = past.poll(TailReader::kNoLimit, 10, [](const LedgerRecord&) {});
  ASSERT_FALSE(read);
  EXPECT_THAT(read.error().message, HasSubstr("another ledger"));
  EXPECT_FALSE(past.poll(end, 10, [](const LedgerRecord&) {}));
}

TEST_F(TailReaderTest, ADamagedRecordStopsItWhereItIs) {
  {
    const auto ledger = open();
    churn(*ledger, 900);
  }
  const auto all = records_of(dir_.ledger());
  std::string bytes = read_file(segment_path(dir_.ledger(), 2));
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 4);
  write_file(segment_path(dir_.ledger(), 2), bytes);
  TailReader reader{dir_.ledger(), 0};
  std::vector<std::string> seen;
  const auto read =
      reader.poll(TailReader::kNoLimit, 10'000, [&](const LedgerRecord& record) { seen.push_back(record.request_id); });
  ASSERT_FALSE(read);
  EXPECT_THAT(read.error().message, HasSubstr("ledger segment 2 at offset"));
  EXPECT_GT(seen.size(), 100U);
  EXPECT_LT(seen.size(), 900U);
  EXPECT_EQ(seen.back(), all[seen.size() - 1].request_id);
  EXPECT_FALSE(reader.poll(TailReader::kNoLimit, 10, [](const LedgerRecord&) { FAIL(); })) << "and stays there";
}

}  // namespace
}  // namespace ganglion::metering
