// The disk tier: found again after a restart and after a crash, bounded, never serving what is damaged or purged.

#include "cache/disk_tier.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>

#include "tests/support/temp_dir.hpp"

namespace ganglion::cache {
namespace {

namespace fs = std::filesystem;
using std::chrono::seconds;

StoreKey key_of(std::uint64_t n) {
  StoreKey key;
  key.bytes = core::sha256(std::to_string(n));
  return key;
}

std::string value_of(std::uint64_t n, std::size_t size = 1000) {
  std::string out = "value " + std::to_string(n) + " ";
  while (out.size() < size) out += static_cast<char>('a' + (n + out.size()) % 26);
  return out;
}

class DiskTierTest : public ::testing::Test {
 protected:
  DiskTierTest() { open(); }

  void open(std::size_t bytes_max = 1 << 24) {
    tier_.reset();
    auto opened = DiskTier::open({.directory = directory_ / "cache", .bytes_max = bytes_max}, clock_);
    ASSERT_TRUE(opened.has_value()) << opened.error().message;
    tier_ = std::move(*opened);
  }
  void scan() {
    while (tier_->scan_some()) {
    }
  }
  void restart(std::size_t bytes_max = 1 << 24) {
    open(bytes_max);
    scan();
  }
  bool write(std::uint64_t n, std::size_t size = 1000, seconds ttl = seconds{3600}) {
    return tier_->write(key_of(n), value_of(n, size), clock_.wall() + ttl);
  }
  std::string read(std::uint64_t n) {
    const auto record = tier_->read(key_of(n));
    return record ? record->bytes : "";
  }
  std::vector<fs::path> segments() const {
    std::vector<fs::path> out;
    for (const auto& file : fs::directory_iterator(directory_ / "cache")) {
      if (file.path().extension() == ".seg") out.push_back(file.path());
    }
    std::sort(out.begin(), out.end());
    return out;
  }
  bool purged(std::uint64_t n, const Entry& entry) {
    const auto record = tier_->read(key_of(n));
    return record && tier_->purged(record->position, entry);
  }

  core::ManualClock clock_;
  test::TempDir directory_{true};  // a thousand purges are as many syncs
  std::unique_ptr<DiskTier> tier_;
};

TEST_F(DiskTierTest, WhatWasWrittenIsReadAgainAlsoAfterARestart) {
  for (std::uint64_t n = 0; n < 500; ++n) ASSERT_TRUE(write(n, 1 + n * 7));
  for (std::uint64_t n = 0; n < 500; ++n) ASSERT_EQ(read(n), value_of(n, 1 + n * 7));
  EXPECT_EQ(read(500), "");
  open();
  EXPECT_FALSE(tier_->holds(key_of(3))) << "nothing is read before it is asked for";
  EXPECT_FALSE(tier_->stats().scanned);
  ASSERT_TRUE(write(1000)) << "written to at once";
  scan();
  EXPECT_TRUE(tier_->stats().scanned);
  for (std::uint64_t n = 0; n < 500; ++n) ASSERT_EQ(read(n), value_of(n, 1 + n * 7));
  EXPECT_EQ(read(1000), value_of(1000));
  EXPECT_EQ(tier_->stats().entries_now, 501U);
}

TEST_F(DiskTierTest, TheLastValueOfAKeyCountsAcrossRestarts) {
  tier_->write(key_of(1), "first", clock_.wall() + seconds{60});
  tier_->write(key_of(1), "second", clock_.wall() + seconds{60});
  EXPECT_EQ(read(1), "second");
  restart();
  EXPECT_EQ(read(1), "second");
  tier_->write(key_of(1), "third", clock_.wall() + seconds{60});
  restart();
  EXPECT_EQ(read(1), "third");
  open();
  tier_->write(key_of(1), "fourth", clock_.wall() + seconds{60});
  scan();
  EXPECT_EQ(read(1), "fourth") << "what the scan finds is older than what is written meanwhile";
}

TEST_F(DiskTierTest, ExpiredAnswersAreNotFound) {
  write(1, 1000, seconds{60});
  write(2, 1000, seconds{120});
  clock_.advance(seconds{60});
  EXPECT_EQ(read(1), "");
  EXPECT_EQ(read(2), value_of(2));
  restart();
  EXPECT_FALSE(tier_->holds(key_of(1)));
  EXPECT_EQ(read(2), value_of(2));
}

TEST_F(DiskTierTest, ItsBytesStayBoundedAndTheOldestGoFirst) {
  constexpr std::size_t kMax = 1 << 20;  // 4 segments of 256 KiB
  open(kMax);
  std::size_t most = 0;
  for (std::uint64_t n = 0; n < 3000; ++n) {
    ASSERT_TRUE(write(n));
    std::size_t bytes = 0;
    if (n % 100 == 0) {
      for (const fs::path& file : segments()) bytes += fs::file_size(file);
      most = std::max(most, bytes);
      ASSERT_EQ(bytes, tier_->stats().bytes_now);
    }
  }
  EXPECT_LE(most, kMax);
  EXPECT_GT(most, kMax / 2);
  EXPECT_EQ(read(0), "");
  for (std::uint64_t n = 2500; n < 3000; ++n) ASSERT_EQ(read(n), value_of(n));
  EXPECT_GT(tier_->stats().evicted, 1500U);
  restart(kMax / 2);
  EXPECT_LE(tier_->stats().bytes_now, kMax / 2) << "a smaller bound holds from the start";
  EXPECT_EQ(read(2999), value_of(2999));
}

TEST_F(DiskTierTest, WhatIsReadOutlivesItsSegment) {
  open(1 << 20);
  for (std::uint64_t n = 0; n < 3000; ++n) {
    ASSERT_TRUE(write(n));
    ASSERT_EQ(read(7), n >= 7 ? value_of(7) : "") << n;
  }
  EXPECT_EQ(read(8), "");
  EXPECT_GE(tier_->stats().carried, 2U);
}

TEST_F(DiskTierTest, ATornTailIsLeftOutAndTheRestIsFound) {
  for (std::uint64_t n = 0; n < 20; ++n) write(n);
  tier_.reset();
  const fs::path file = segments().back();
  const auto size = fs::file_size(file);
  // As a crash may leave it: cut anywhere in the last record, or its pages never written.
  for (const std::size_t cut : {std::size_t{1}, std::size_t{500}, std::size_t{1000}, std::size_t{1040}}) {
    fs::resize_file(file, size - cut);
    restart();
    EXPECT_EQ(read(19), "") << cut;
    for (std::uint64_t n = 0; n < 19; ++n) ASSERT_EQ(read(n), value_of(n)) << cut;
    tier_.reset();
  }
  fs::resize_file(file, size + 4096);
  restart();
  EXPECT_EQ(read(18), value_of(18));
}

TEST_F(DiskTierTest, ADamagedHeadIsAMissNeverAnotherValue) {
  std::mt19937_64 random(20'261'125);
  for (std::uint64_t n = 0; n < 50; ++n) write(n, 200);
  tier_.reset();
  const fs::path file = segments().back();
  std::string bytes;
  {
    std::ifstream in(file, std::ios::binary);
    bytes.assign(std::istreambuf_iterator<char>(in), {});
  }
  for (int round = 0; round < 60; ++round) {
    std::string damaged = bytes;
    const std::size_t record = random() % 50;
    damaged[record * 248 + random() % 48] ^= static_cast<char>(1 << (random() % 8));
    std::ofstream(file, std::ios::binary | std::ios::trunc) << damaged;
    restart();
    EXPECT_EQ(read(record), "");
    for (std::uint64_t n = 0; n < 50; ++n) {
      const std::string found = read(n);
      ASSERT_TRUE(found.empty() || found == value_of(n, 200));
      if (n < record) ASSERT_FALSE(found.empty());
    }
  }
}

TEST_F(DiskTierTest, AFileThatShrinksUnderItIsAMiss) {
  for (std::uint64_t n = 0; n < 10; ++n) write(n);
  fs::resize_file(segments().back(), 3000);
  EXPECT_EQ(read(1), value_of(1));
  EXPECT_EQ(read(9), "");
  EXPECT_FALSE(tier_->holds(key_of(9)));
  EXPECT_EQ(tier_->stats().read_errors, 1U);
}

TEST_F(DiskTierTest, TooLargeIsRefused) {
  EXPECT_FALSE(write(1, 300 * 1024)) << "larger than a segment";
  EXPECT_TRUE(write(2, 200 * 1024));
  EXPECT_EQ(tier_->stats().refused, 1U);
}

TEST_F(DiskTierTest, OneProcessHasTheDirectory) {
  const auto second = DiskTier::open({.directory = directory_ / "cache"}, clock_);
  ASSERT_FALSE(second.has_value());
  EXPECT_NE(second.error().message.find("another process"), std::string::npos);
  const auto nowhere = DiskTier::open({.directory = "/proc/nowhere/cache"}, clock_);
  ASSERT_FALSE(nowhere.has_value());
  EXPECT_NE(nowhere.error().message.find("/proc/nowhere"), std::string::npos);
}

TEST_F(DiskTierTest, ItsFilesAreTheOwnersAlone) {
  write(1);
  EXPECT_EQ(fs::status(directory_ / "cache").permissions(), fs::perms::owner_all);
  const auto expected = fs::perms::owner_read | fs::perms::owner_write;
  for (const auto& file : fs::directory_iterator(directory_ / "cache"))
    EXPECT_EQ(file.status().permissions(), expected);
}

TEST_F(DiskTierTest, PurgesHoldForWhatLayThereAlsoAfterARestart) {
  Entry acme;
  acme.tenant = "acme";
  Entry other;
  other.tenant = "other";
  write(1);
  ASSERT_TRUE(tier_->purge({.tenant = "acme"}).has_value());
  write(2);
  const auto expect = [&] {
    EXPECT_TRUE(purged(1, acme));
    EXPECT_FALSE(purged(1, other));
    EXPECT_FALSE(purged(2, acme)) << "written after it";
  };
  expect();
  restart();
  expect();
  write(3);
  EXPECT_FALSE(purged(3, acme));
  ASSERT_TRUE(tier_->purge({}).has_value());
  EXPECT_EQ(read(3), "");
  restart();
  EXPECT_TRUE(purged(3, other));
  write(4);
  EXPECT_FALSE(purged(4, other));
}

TEST_F(DiskTierTest, APurgeDuringTheScanMeansWhatIsStillToBeFound) {
  Entry acme;
  acme.tenant = "acme";
  write(1);
  open();
  ASSERT_TRUE(tier_->purge({.tenant = "acme"}).has_value());
  scan();
  EXPECT_TRUE(purged(1, acme));
}

TEST_F(DiskTierTest, ManyPurgesFoldIntoEverythingBefore) {
  Entry other;
  other.tenant = "other";
  write(1);
  for (int i = 0; i < 1030; ++i) ASSERT_TRUE(tier_->purge({.tenant = "acme"}).has_value());
  EXPECT_TRUE(purged(1, other));
  write(2);
  EXPECT_FALSE(purged(2, other));
  restart();
  EXPECT_TRUE(purged(1, other));
  EXPECT_FALSE(purged(2, other));
}

TEST_F(DiskTierTest, APurgesTornLineWasNeverAcknowledgedAndADamagedOneEmptiesTheTier) {
  write(1);
  ASSERT_TRUE(tier_->purge({.tenant = "acme"}).has_value());
  ASSERT_TRUE(tier_->purge({.tenant = "b"}).has_value());
  tier_.reset();
  const std::string file = directory_ / "cache/purges";
  std::ofstream(file, std::ios::app) << "123 45 {\"ten";
  restart();
  EXPECT_EQ(read(1), value_of(1));
  Entry acme;
  acme.tenant = "acme";
  EXPECT_TRUE(purged(1, acme));
  tier_.reset();
  std::string text;
  {
    std::ifstream in(file);
    text.assign(std::istreambuf_iterator<char>(in), {});
  }
  text[text.find("acme")] = 'x';
  std::ofstream(file, std::ios::trunc) << text;
  restart();
  EXPECT_EQ(read(1), "") << "whose purge that was cannot be told any more";
  EXPECT_TRUE(segments().empty());
  EXPECT_TRUE(write(2));
}

TEST_F(DiskTierTest, TheGenerationOfPurgesOutlivesARestartUnlessItsFileIsDamaged) {
  EXPECT_EQ(tier_->generation(), 0U);
  tier_->caught_up(1'732'000'000'123);
  tier_->caught_up(5);
  EXPECT_EQ(tier_->generation(), 1'732'000'000'123U) << "it never goes back";
  restart();
  EXPECT_EQ(tier_->generation(), 1'732'000'000'123U);
  tier_.reset();
  const std::string file = directory_ / "cache/generation";
  std::string text;
  {
    std::ifstream in(file);
    text.assign(std::istreambuf_iterator<char>(in), {});
  }
  for (const std::string& damaged : {text.substr(0, text.size() - 3), "1" + text, std::string{}, text + text}) {
    std::ofstream(file, std::ios::trunc) << damaged;
    restart();
    EXPECT_EQ(tier_->generation(), 0U) << damaged;
    tier_.reset();
  }
  open();
}

TEST_F(DiskTierTest, APurgeThatCouldNotBeWrittenIsMadeAgainAfterARestart) {
  Entry acme;
  acme.tenant = "acme";
  write(1);
  ASSERT_TRUE(tier_->purge({.tenant = "b"}).has_value());
  tier_->caught_up(10);
  const auto before = std::signal(SIGXFSZ, SIG_IGN);
  rlimit was{};
  ::getrlimit(RLIMIT_FSIZE, &was);
  const rlimit low{.rlim_cur = 10, .rlim_max = was.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &low);
  EXPECT_FALSE(tier_->purge({.tenant = "acme"}).has_value());
  EXPECT_TRUE(purged(1, acme)) << "it holds for this process";
  tier_->caught_up(20);
  ::setrlimit(RLIMIT_FSIZE, &was);
  std::signal(SIGXFSZ, before);
  EXPECT_EQ(tier_->generation(), 10U);
  restart();
  EXPECT_FALSE(purged(1, acme));
  EXPECT_EQ(tier_->generation(), 10U) << "so that it is told of it again";
}

TEST_F(DiskTierTest, AWriteThatFailsPausesWritingAndHarmsNothing) {
  for (std::uint64_t n = 0; n < 10; ++n) write(n);
  const auto before = std::signal(SIGXFSZ, SIG_IGN);
  rlimit was{};
  ::getrlimit(RLIMIT_FSIZE, &was);
  const rlimit low{.rlim_cur = 12'000, .rlim_max = was.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &low);
  EXPECT_TRUE(write(10));
  EXPECT_FALSE(write(11)) << "half of it fits";
  EXPECT_FALSE(write(12));
  EXPECT_FALSE(tier_->stats().writing);
  EXPECT_EQ(tier_->stats().write_errors, 1U);
  EXPECT_EQ(tier_->stats().refused, 1U);
  ::setrlimit(RLIMIT_FSIZE, &was);
  std::signal(SIGXFSZ, before);
  EXPECT_FALSE(write(13)) << "still pausing";
  clock_.advance(seconds{1});
  EXPECT_TRUE(write(14));
  EXPECT_TRUE(tier_->stats().writing);
  for (const std::uint64_t n : {0U, 9U, 10U, 14U}) EXPECT_EQ(read(n), value_of(n));
  restart();
  for (const std::uint64_t n : {0U, 9U, 10U, 14U}) EXPECT_EQ(read(n), value_of(n));
  for (const std::uint64_t n : {11U, 12U, 13U}) EXPECT_EQ(read(n), "");
}

// Random writes, reads, purges and restarts against a map.
TEST_F(DiskTierTest, AgreesWithAMapUnderRandomOperations) {
  std::mt19937_64 random(42);
  open(1 << 20);
  std::unordered_map<std::uint64_t, std::string> model;
  for (int step = 0; step < 6000; ++step) {
    const std::uint64_t n = random() % 400;
    switch (random() % 100) {
      case 0:
        restart(1 << 20);
        break;
      case 1:
        ASSERT_TRUE(tier_->purge({}).has_value());
        model.clear();
        break;
      default:
        if (random() % 2 == 0) {
          const std::string value = value_of(random(), random() % 5000);
          ASSERT_TRUE(tier_->write(key_of(n), value, clock_.wall() + seconds{3600}));
          model[n] = value;
        } else if (const auto record = tier_->read(key_of(n)); record && !tier_->purged(record->position, Entry{})) {
          ASSERT_TRUE(model.contains(n)) << "a purged value came back";
          ASSERT_EQ(record->bytes, model[n]);
        }
    }
    ASSERT_LE(tier_->stats().bytes_now, 1U << 20);
  }
}

}  // namespace
}  // namespace ganglion::cache
