// The bytes over time: what older versions wrote is read, what newer ones wrote is left alone.

#include <gmock/gmock.h>

#include "core/digest.hpp"
#include "metering/recovery.hpp"
#include "tests/unit/metering/ledger_support.hpp"

namespace ganglion::metering {
namespace {

using ::testing::HasSubstr;

class LedgerFormatTest : public ::testing::Test {
 protected:
  void become_version_1() {
    std::filesystem::create_directories(dir_.ledger());
    std::filesystem::copy(GANGLION_SOURCE_DIR "/tests/data/ledger_v1/000000000002.segment",
                          segment_path(dir_.ledger(), 2));
  }
  core::Result<std::unique_ptr<Ledger>> open() { return Ledger::open(options_in(dir_), clock_, hooks_); }

  TempDir dir_{true};
  core::ManualClock clock_;
  RecordingHooks hooks_;
};

TEST_F(LedgerFormatTest, TagsComeBackAsTheyWere) {
  const api::Tags tags{{"beta", "true", api::TagType::boolean}, {"team", "search", api::TagType::text}};
  {
    const auto ledger = open().value();
    Subject who = subject("tagged");
    who.tags = tags;
    const auto id = ledger->intent(who, "local").value();
    const auto left = ledger->intent(who, "local").value();
    ASSERT_TRUE(left);
    ASSERT_TRUE(await(ledger->terminal(id, finished())));
    ledger->record_async(subject("plain"), finished());
    ASSERT_TRUE(ledger->flush());
  }
  const auto ledger = open().value();
  const auto records = records_of(dir_.ledger());
  ASSERT_EQ(records.size(), 3U);
  EXPECT_EQ(records[0].tags, tags);
  EXPECT_TRUE(records[1].tags.empty());
  EXPECT_EQ(records[2].outcome, Outcome::aborted);
  EXPECT_EQ(records[2].tags, tags) << "an intent found open keeps its tags";
  std::ostringstream out;
  ASSERT_TRUE(export_records(dir_.ledger(), {}, out));
  EXPECT_THAT(out.str(), HasSubstr(R"("tags":{"beta":true,"team":"search"})"));
  EXPECT_THAT(out.str(), HasSubstr(R"("tags":{})"));
}

TEST_F(LedgerFormatTest, Version1IsReadAndContinued) {
  become_version_1();
  auto records = records_of(dir_.ledger());
  ASSERT_FALSE(records.empty());
  EXPECT_EQ(records.back().request_id, "kept2");
  EXPECT_EQ(records.back().tier, api::Tier::fast);
  EXPECT_TRUE(records.back().tags.empty());
  EXPECT_EQ(records.back().schedule, "cloudflare-2026/1");
  EXPECT_GT(records.back().nano_neurons, 0);
  const std::size_t before = records.size();
  std::string id;
  {
    const auto opened = open();
    ASSERT_TRUE(opened) << opened.error().message;
    const auto& ledger = *opened;
    EXPECT_EQ(ledger->recovery().intents_aborted, 1U);
    id = ledger->id();
    EXPECT_EQ(id.size(), 36U);
    Subject who = subject("new");
    const api::Tags tags{{"team", "x", api::TagType::text}};
    who.tags = tags;
    ASSERT_TRUE(await(ledger->terminal(ledger->intent(who, "local").value(), finished())));
  }
  records = records_of(dir_.ledger());
  ASSERT_EQ(records.size(), before + 2);
  EXPECT_EQ(records[before].request_id, "open");
  EXPECT_EQ(records[before].outcome, Outcome::aborted);
  EXPECT_EQ(records[before].attempts.size(), 2U);
  EXPECT_EQ(records[before + 1].tags.size(), 1U);
  EXPECT_TRUE(verify(dir_.ledger())->ok) << verify(dir_.ledger())->problem;
  EXPECT_EQ(open().value()->id(), id);
}

TEST_F(LedgerFormatTest, LedgersHaveDifferentIdsAndTheirSegmentsDoNotMix) {
  TempDir other{true};
  std::string first;
  std::string second;
  {
    const auto a = open().value();
    const auto b = Ledger::open(options_in(other), clock_, hooks_).value();
    first = a->id();
    second = b->id();
    EXPECT_NE(first, second);
    for (int tries = 0; tries < 100 && a->stats().segments < 2; ++tries) churn(*a, 400);
    for (int tries = 0; tries < 100 && b->stats().segments < 2; ++tries) {
      churn(*b, 400);
    }
  }
  EXPECT_EQ(open().value()->id(), first);
  // A lost id file is written anew from the segments; one that says otherwise stops the start.
  std::filesystem::remove(dir_.ledger() + "/ledger.id");
  EXPECT_EQ(open().value()->id(), first);
  write_file(dir_.ledger() + "/ledger.id", second + "\n");
  const auto mixed = open();
  ASSERT_FALSE(mixed);
  EXPECT_THAT(mixed.error().message, HasSubstr("are of the ledger " + first));
  write_file(dir_.ledger() + "/ledger.id", first + "\n");
  // Nor would a swapped-in segment pass: chain, sequence and id are all another's.
  std::filesystem::copy_file(segment_path(other.ledger(), 2), segment_path(dir_.ledger(), 2),
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_FALSE(verify(dir_.ledger())->ok);
}

// A whole frame of version `version`, as a future program would write it.
std::string future_frame(std::uint8_t version, ChainState state) {
  std::string out;
  ChainHasher hasher;
  const std::size_t start = begin_frame(out);
  out += "something new";
  finish_frame(out, start, RecordType::terminal, state.next_sequence - 1, state, hasher);
  out[37] = static_cast<char>(version);
  const std::uint32_t crc =
      core::crc32c(std::string_view{out}.substr(8), core::crc32c(std::string_view{out}.substr(0, 4)));
  for (std::size_t i = 0; i < 4; ++i) out[4 + i] = static_cast<char>(crc >> (8 * i));
  return out;
}

TEST_F(LedgerFormatTest, NewerRecordsAreNamedAndLeftAsTheyAre) {
  {
    const auto ledger = open().value();
  }
  const std::string path = segment_path(dir_.ledger(), 1);
  std::string bytes = read_file(path);
  const std::string frame = future_frame(kFormatVersion + 1, {.next_sequence = 3});
  PosixStorage storage;
  const std::uint64_t end = recover(dir_.ledger(), storage)->offset;
  std::ranges::copy(frame, bytes.begin() + static_cast<std::ptrdiff_t>(end));
  write_file(path, bytes);
  const auto opened = open();
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().kind, core::ErrorKind::ledger_unavailable);
  EXPECT_THAT(opened.error().message, HasSubstr("newer version"));
  EXPECT_EQ(read_file(path), bytes) << "nothing is cut";
  EXPECT_THAT(verify(dir_.ledger())->problem, HasSubstr("newer version"));
}

}  // namespace
}  // namespace ganglion::metering
