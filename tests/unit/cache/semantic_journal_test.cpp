// The semantic index on disk: read again in order, bounded, and never trusted where it is damaged or another's.

#include "cache/semantic_journal.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include "tests/support/temp_dir.hpp"

namespace ganglion::cache {
namespace {

namespace fs = std::filesystem;
using std::chrono::seconds;

class SemanticJournalTest : public ::testing::Test {
 protected:
  static CacheKey key(std::uint64_t n) {
    return {.hash = {.low = n, .high = n + 1}, .check = {.low = n + 2, .high = n + 3}, .bytes = n + 4};
  }
  SemanticRecord record(std::uint64_t n, seconds ttl = seconds{3600}) const {
    SemanticRecord out{.partition = key(100 + n % 3),
                       .answer = key(n),
                       .name = secret_.name(std::to_string(n)),
                       .vector = {},
                       .text_bytes = n,
                       .numbers = n * 7,
                       .text_digest = n * 11,
                       .expires = core::WallTime{now_ + ttl}};
    for (int i = 0; i < 5; ++i) out.vector.push_back(static_cast<float>(n) + static_cast<float>(i) / 8);
    return out;
  }
  std::vector<SemanticRecord> load(SemanticJournal& journal) {
    std::vector<SemanticRecord> out;
    EXPECT_TRUE(journal.load(now_, [&](SemanticRecord each) { out.push_back(std::move(each)); }));
    return out;
  }
  std::vector<SemanticRecord> load_again(std::size_t records_max = 1000) {
    SemanticJournal journal(file_, secret_, records_max);
    return load(journal);
  }
  void fill(std::uint64_t from, std::uint64_t to, std::size_t records_max = 1000) {
    SemanticJournal journal(file_, secret_, records_max);
    load(journal);
    for (std::uint64_t n = from; n < to; ++n) journal.append(record(n), now_);
  }

  const StoreSecret secret_{"secret"};
  core::WallTime now_{seconds{1'800'000'000}};
  test::TempDir directory_;
  const std::string file_ = directory_ / "semantic";
};

TEST_F(SemanticJournalTest, WhatWasAppendedIsReadAgainInOrderAndWhole) {
  EXPECT_TRUE(load_again().empty());
  fill(0, 20);
  fill(20, 30);
  const auto found = load_again();
  ASSERT_EQ(found.size(), 30U);
  for (std::uint64_t n = 0; n < 30; ++n) {
    const SemanticRecord expected = record(n);
    EXPECT_EQ(found[n].partition, expected.partition);
    EXPECT_EQ(found[n].answer, expected.answer);
    EXPECT_EQ(found[n].name, expected.name);
    EXPECT_EQ(found[n].vector, expected.vector);
    EXPECT_EQ(found[n].text_bytes, expected.text_bytes);
    EXPECT_EQ(found[n].numbers, expected.numbers);
    EXPECT_EQ(found[n].text_digest, expected.text_digest);
    EXPECT_EQ(found[n].expires, expected.expires);
  }
  EXPECT_EQ(fs::status(file_).permissions(), fs::perms::owner_read | fs::perms::owner_write);
}

TEST_F(SemanticJournalTest, ExpiredOnesAreLeftOutAndDroppedFromTheFile) {
  {
    SemanticJournal journal(file_, secret_, 1000);
    load(journal);
    for (std::uint64_t n = 0; n < 10; ++n) journal.append(record(n, seconds{n < 5 ? 60 : 120}), now_);
  }
  const auto size = fs::file_size(file_);
  now_ += seconds{60};
  ASSERT_EQ(load_again().size(), 5U);
  EXPECT_EQ(fs::file_size(file_), size / 2);
}

TEST_F(SemanticJournalTest, TheNewestAreKeptAndTheFileStaysBounded) {
  std::uintmax_t most = 0;
  {
    SemanticJournal journal(file_, secret_, 50);
    load(journal);
    for (std::uint64_t n = 0; n < 1000; ++n) {
      journal.append(record(n), now_);
      most = std::max(most, fs::file_size(file_));
    }
  }
  const auto found = load_again(50);
  ASSERT_EQ(found.size(), 50U);
  EXPECT_EQ(found.front().text_bytes, 950U);
  EXPECT_EQ(found.back().text_bytes, 999U);
  EXPECT_LE(most, 2 * fs::file_size(file_));
}

TEST_F(SemanticJournalTest, ATornTailIsDroppedAndWhatFollowsIsReadAgain) {
  fill(0, 10);
  fs::resize_file(file_, fs::file_size(file_) - 5);
  ASSERT_EQ(load_again().size(), 9U);
  fill(10, 12);
  const auto found = load_again();
  ASSERT_EQ(found.size(), 11U);
  EXPECT_EQ(found.back().text_bytes, 11U);
}

TEST_F(SemanticJournalTest, ADamagedByteEndsWhatIsBelieved) {
  fill(0, 10);
  std::string bytes;
  {
    std::ifstream in(file_, std::ios::binary);
    bytes.assign(std::istreambuf_iterator<char>(in), {});
  }
  const std::size_t one = bytes.size() / 10;
  for (std::size_t at = 3; at < bytes.size(); at += 17) {
    std::string damaged = bytes;
    damaged[at] ^= 4;
    std::ofstream(file_, std::ios::binary | std::ios::trunc) << damaged;
    const auto found = load_again();
    ASSERT_EQ(found.size(), at / one) << at;
    for (std::uint64_t n = 0; n < found.size(); ++n) ASSERT_EQ(found[n].answer, key(n));
  }
}

TEST_F(SemanticJournalTest, AnotherSecretsFileIsNotBelieved) {
  fill(0, 10);
  SemanticJournal journal(file_, StoreSecret{"another"}, 1000);
  EXPECT_TRUE(load(journal).empty());
}

TEST_F(SemanticJournalTest, AFullDiskLosesRecordsAndNothingElse) {
  SemanticJournal journal(file_, secret_, 1000);
  load(journal);
  for (std::uint64_t n = 0; n < 3; ++n) journal.append(record(n), now_);
  const auto before = std::signal(SIGXFSZ, SIG_IGN);
  rlimit was{};
  ::getrlimit(RLIMIT_FSIZE, &was);
  const rlimit low{.rlim_cur = fs::file_size(file_) + 10, .rlim_max = was.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &low);
  journal.append(record(3), now_);
  ::setrlimit(RLIMIT_FSIZE, &was);
  std::signal(SIGXFSZ, before);
  journal.append(record(4), now_);
  const auto found = load_again();
  ASSERT_EQ(found.size(), 4U);
  EXPECT_EQ(found.back().text_bytes, 4U);
}

TEST_F(SemanticJournalTest, WithoutADirectoryItIsOff) {
  SemanticJournal journal("/proc/nowhere/semantic", secret_, 10);
  EXPECT_FALSE(journal.load(now_, {}));
  journal.append(record(1), now_);
}

}  // namespace
}  // namespace ganglion::cache
