// The files: whole lines, each record once, whatever a crash or a power loss has left.

#include "sinks/file_sink.hpp"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "sinks/position_file.hpp"
#include "sinks/record_json.hpp"
#include "tests/support/temp_dir.hpp"
#include "tests/unit/sinks/records.hpp"

namespace ganglion::sinks {
namespace {

using ::testing::HasSubstr;

class FileSinkTest : public ::testing::Test {
 protected:
  FileSinkTest() { options_.directory = root_ / "usage"; }
  std::unique_ptr<FileSink> make() const { return std::make_unique<FileSink>(options_, kLedger); }
  // A process that takes records first..last after whatever it finds, and dies.
  std::uint64_t deliver(std::uint64_t last) const {
    const auto sink = make();
    const auto position = sink->open();
    EXPECT_TRUE(position) << position.error().message;
    if (!position) return 0;
    if (*position < last) EXPECT_TRUE(sink->deliver(records(*position + 1, last), last));
    return *position;
  }
  std::vector<std::string> files() const {
    std::vector<std::string> out;
    for (const auto& entry : std::filesystem::directory_iterator(options_.directory)) {
      if (entry.path().extension() == ".jsonl") out.push_back(entry.path().string());
    }
    std::ranges::sort(out);
    return out;
  }
  static std::string read(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    std::ostringstream out;
    out << in.rdbuf();
    return out.str();
  }
  static void write(const std::string& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
  }
  std::string all() const {
    std::string out;
    for (const std::string& file : files()) out += read(file);
    return out;
  }
  static std::string lines(std::uint64_t first, std::uint64_t last) {
    std::string out;
    for (const auto& one : records(first, last)) {
      append_record_json(out, kLedger, one);
      out += "\n";
    }
    return out;
  }

  test::TempDir root_;
  SinkOptions options_;
};

TEST_F(FileSinkTest, GoesOnBehindItsLastLine) {
  EXPECT_EQ(deliver(10), 0U);
  EXPECT_EQ(deliver(25), 10U);
  EXPECT_EQ(deliver(25), 25U);
  EXPECT_EQ(all(), lines(1, 25));
}

TEST_F(FileSinkTest, RotatesBySizeAtALineEnd) {
  options_.rotate_bytes = 2000;
  deliver(40);
  EXPECT_GT(files().size(), 5U);
  for (const std::string& file : files()) EXPECT_LE(std::filesystem::file_size(file), 2000U);
  EXPECT_EQ(deliver(60), 40U);
  EXPECT_EQ(all(), lines(1, 60));
}

TEST_F(FileSinkTest, RotatesByTheDayOfTheRecordAndNeverBack) {
  const auto sink = make();
  ASSERT_TRUE(sink->open());
  std::vector<metering::LedgerRecord> batch{
      record(1, std::chrono::hours{490'872}), record(2, std::chrono::hours{490'900}),
      record(3, std::chrono::hours{490'860}), record(4, std::chrono::hours{490'901})};
  ASSERT_TRUE(sink->deliver(batch, 4));
  ASSERT_EQ(files().size(), 2U);
  EXPECT_THAT(files()[0], HasSubstr("usage-00000000000000000001-2025-12-31.jsonl"));
  EXPECT_THAT(files()[1], HasSubstr("usage-00000000000000000002-2026-01-01.jsonl"));
  EXPECT_EQ(std::ranges::count(read(files()[1]), '\n'), 3);
}

// Every length that a write may have been cut at.
TEST_F(FileSinkTest, ATornTailIsCutAtEveryByte) {
  deliver(3);
  const std::string whole = read(files().at(0));
  const std::string two = lines(1, 2);
  for (std::size_t size = 0; size <= whole.size(); ++size) {
    write(files().empty() ? options_.directory + "/usage-00000000000000000001-2025-12-31.jsonl" : files()[0],
          whole.substr(0, size));
    const std::uint64_t complete = static_cast<std::uint64_t>(std::ranges::count(whole.substr(0, size), '\n'));
    ASSERT_EQ(deliver(5), complete) << size;
    ASSERT_EQ(all(), lines(1, 5)) << size;
    write(files()[0], whole);
  }
}

TEST_F(FileSinkTest, WhatAPowerLossLeftInPiecesIsCut) {
  deliver(6);
  const std::string whole = read(files().at(0));
  std::mt19937_64 random{7};
  for (int i = 0; i < 300; ++i) {
    // From some line on, pages are missing: zeros in the middle, perhaps with good lines behind them.
    std::string torn = whole;
    const std::size_t from = whole.find('\n', lines(1, random() % 5).size()) + 1 - (random() % 2);
    const std::size_t size = std::min<std::size_t>(1 + random() % 600, torn.size() - from);
    torn.replace(from, size, std::string(size, '\0'));
    write(files()[0], torn);
    const std::uint64_t position = deliver(9);
    ASSERT_LT(position, 6U);
    ASSERT_EQ(all(), lines(1, 9)) << "from " << from << " size " << size;
    write(files()[0], whole);
  }
}

TEST_F(FileSinkTest, AnEmptyNewestFileIsAsIfItWereNotThere) {
  deliver(4);
  write(options_.directory + "/usage-00000000000000000005-2025-12-31.jsonl", "");
  EXPECT_EQ(deliver(8), 4U);
  EXPECT_EQ(all(), lines(1, 8));
}

TEST_F(FileSinkTest, AnotherLedgersFilesAreLeftAlone) {
  deliver(4);
  const std::string before = all();
  FileSink other(options_, "11111111-7c1f-4a4b-9d7e-3d4f6a5b6c7d");
  const auto opened = other.open();
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().message, HasSubstr("another ledger"));
  EXPECT_EQ(all(), before);
}

TEST_F(FileSinkTest, TwoProcessesCannotWriteToOneDirectory) {
  const auto first = make();
  ASSERT_TRUE(first->open());
  const auto second = make();
  const auto opened = second->open();
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().message, HasSubstr("another process"));
  first->release();
  EXPECT_TRUE(second->open());
}

TEST_F(FileSinkTest, ADirectoryThatCannotBeMadeIsAnError) {
  write(root_ / "usage", "a file is in the way");
  const auto opened = make()->open();
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().message, HasSubstr("cannot create"));
}

TEST_F(FileSinkTest, PositionsAreKeptPerSinkAndLedger) {
  PositionFile position(root_ / "sinks", "events", kLedger);
  EXPECT_EQ(position.read().value(), 0U);
  ASSERT_TRUE(position.write(41));
  ASSERT_TRUE(position.write(42));
  EXPECT_EQ(PositionFile(root_ / "sinks", "events", kLedger).read().value(), 42U);
  EXPECT_EQ(PositionFile(root_ / "sinks", "other", kLedger).read().value(), 0U);
  const auto foreign = PositionFile(root_ / "sinks", "events", "11111111-7c1f-4a4b-9d7e-3d4f6a5b6c7d").read();
  ASSERT_FALSE(foreign);
  EXPECT_THAT(foreign.error().message, HasSubstr("belongs to the ledger"));
  for (const std::string bad : {"", "x", "0b0e7a52-7c1f-4a4b-9d7e-3d4f6a5b6c7d 4", "a b c\n"}) {
    write(root_ / "sinks/events.position", bad);
    EXPECT_FALSE(position.read()) << bad;
  }
}

TEST_F(FileSinkTest, PositionsAreForTheGatewaysUserAlone) {
  using std::filesystem::perms;
  const mode_t before = ::umask(022);
  EXPECT_TRUE(PositionFile(root_ / "ledger/sinks", "events", kLedger).write(1));
  ::umask(before);
  EXPECT_EQ(std::filesystem::status(root_ / "ledger/sinks").permissions(), perms::owner_all);
}

TEST_F(FileSinkTest, JsonHoldsNoNulAndNoLineFeed) {
  auto odd = record(1);
  odd.model = std::string("a\0b\n\xff", 5);
  std::string out;
  append_record_json(out, kLedger, odd);
  EXPECT_EQ(out.find('\0'), std::string::npos);
  EXPECT_EQ(out.find('\n'), std::string::npos);
  EXPECT_EQ(out.find("\\u0000"), std::string::npos);
  EXPECT_THAT(out, HasSubstr(R"("model":"a?b\n)"));
  EXPECT_THAT(out, HasSubstr(R"("neurons":"1.5")"));
}

// PostgreSQL's jsonb refuses 1e200000, and with it the batch: such records would be in the way of all that follow.
TEST_F(FileSinkTest, ALabelsNumberThatNoDoubleHoldsIsText) {
  auto odd = record(1);
  odd.tags = {{"a", "1e200000", api::TagType::number}, {"b", "-1.7e308", api::TagType::number}};
  std::string out;
  append_record_json(out, kLedger, odd);
  EXPECT_THAT(out, HasSubstr(R"("tags":{"a":"1e200000","b":-1.7e308})"));
}

TEST_F(FileSinkTest, JsonHasTheseFieldsInThisOrder) {
  auto full = record(7);
  full.tags = {{"team", "a\"b", api::TagType::text}, {"user", "42", api::TagType::number}};
  full.estimated = true;
  full.usd_pico_per_neuron = 11'000'000;
  full.attempts.push_back({.backend = "second", .http_status = 502, .reason = "upstream_closed"});
  std::string out;
  append_record_json(out, kLedger, full);
  EXPECT_EQ(
      out,
      R"({"ledger":"0b0e7a52-7c1f-4a4b-9d7e-3d4f6a5b6c7d","sequence":7,"id":"r7","time":"2025-12-31T00:00:00.000000Z",)"
      R"("tenant":"acme","key":"key-1","gateway":"default","model":"demo-chat","endpoint":"chat_completions",)"
      R"("tier":"regular","tags":{"team":"a\"b","user":42},"outcome":"completed","reason":"stop","http_status":200,)"
      R"("latency_us":0,"input_tokens":11,"cached_input_tokens":0,"output_tokens":5,"requests":1,"gpu_us":0,)"
      R"("llm_responses":0,"image_classifications":0,"embeddings":0,"estimated":true,"neurons":"1.5",)"
      R"("neuron_parts":"17803500000000000000","usd_per_1000_neurons":"0.011","schedule":"s","price_source":"free",)"
      R"("attempts":[{"backend":"up","http_status":200,"reason":""},)"
      R"({"backend":"second","http_status":502,"reason":"upstream_closed"}]})");
}

}  // namespace
}  // namespace ganglion::sinks
