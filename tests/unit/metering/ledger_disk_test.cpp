// The ledger on a volume that really is full: a tmpfs of 8 MiB. Needs root to mount it; skipped otherwise.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <set>
#include <thread>

#include "metering/ledger_keeper.hpp"
#include "metering/usage.hpp"
#include "tests/unit/metering/ledger_support.hpp"

namespace ganglion::metering {
namespace {

using namespace std::chrono_literals;

class FullVolume : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = "/tmp/ganglion_volume_XXXXXX";
    path_ = ::mkdtemp(name.data());
    mounted_ = ::mount("tmpfs", path_.c_str(), "tmpfs", 0, "size=8m") == 0;
    if (!mounted_) GTEST_SKIP() << "cannot mount a tmpfs: " << std::strerror(errno);
  }
  void TearDown() override {
    if (mounted_) ::umount2(path_.c_str(), MNT_DETACH);
    std::filesystem::remove_all(path_);
  }
  LedgerOptions options() const {
    return {.directory = path_ + "/ledger", .segment_bytes = 512 * 1024, .reserve_bytes = 512 * 1024};
  }
  // Takes all the space there is, to the last page.
  void fill() {
    const int fd = ::open((path_ + "/filler").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    const std::string page(4096, 'x');
    while (::write(fd, page.data(), page.size()) == static_cast<ssize_t>(page.size())) {
    }
    ::close(fd);
  }
  void give_back() { std::filesystem::remove(path_ + "/filler"); }
  static bool within(std::chrono::milliseconds time, const std::function<bool()>& holds) {
    const auto end = std::chrono::steady_clock::now() + time;
    while (!holds()) {
      if (std::chrono::steady_clock::now() > end) return false;
      std::this_thread::sleep_for(5ms);
    }
    return true;
  }

  std::string path_;
  bool mounted_ = false;
  core::SystemClock clock_;
  RecordingHooks hooks_;
};

TEST_F(FullVolume, RefusesWithinASecondEndsWhatRunsAndResumesWithinFive) {
  const auto ledger = Ledger::open(options(), clock_, hooks_).value();
  const auto keeper = LedgerKeeper::open(options(), *ledger, clock_).value();
  std::set<std::string> acknowledged;
  const auto end = [&](IntentId id, const std::string& name) {
    if (await(ledger->terminal(id, finished()))) acknowledged.insert(name);
    return acknowledged.contains(name);
  };
  std::vector<IntentId> running;
  for (int i = 0; i < 1000; ++i) running.push_back(ledger->intent(subject("run" + std::to_string(i)), "x").value());
  for (int turn = 0; turn < 3; ++turn) {
    fill();
    // New requests are refused within a second, by name.
    core::Result<IntentId> refused = IntentId{};
    ASSERT_TRUE(within(1s, [&] {
      refused = ledger->intent(subject("new"), "x");
      if (refused) ledger->terminal_async(*refused, finished());
      return !refused;
    }));
    EXPECT_EQ(refused.error().kind, core::ErrorKind::ledger_unavailable);
    // What runs ends, acknowledged, out of the reserve.
    for (int i = 0; i < 300; ++i) {
      const std::string name = "run" + std::to_string(turn * 300 + i);
      ASSERT_TRUE(end(running[static_cast<std::size_t>(turn * 300 + i)], name)) << name;
    }
    give_back();
    ASSERT_TRUE(within(5s, [&] { return ledger->intent(subject("back" + std::to_string(turn)), "x").has_value(); }));
    ASSERT_TRUE(within(5s, [&] { return keeper->run_once().has_value(); }));
  }
  ledger->close();
  std::set<std::string> written;
  for (const LedgerRecord& record : records_of(options().directory)) {
    if (record.request_id != "new")
      EXPECT_TRUE(written.insert(record.request_id).second) << record.request_id << " twice";
  }
  for (const std::string& name : acknowledged) EXPECT_TRUE(written.contains(name)) << name;
  EXPECT_TRUE(verify(options().directory)->ok) << verify(options().directory)->problem;
}

TEST_F(FullVolume, StartsOnAFullVolumeThatHasALedger) {
  std::size_t before = 0;
  {
    const auto ledger = Ledger::open(options(), clock_, hooks_).value();
    for (int i = 0; i < 20; ++i)
      ASSERT_TRUE(await(ledger->terminal(ledger->intent(subject("r" + std::to_string(i)), "x").value(), finished())));
    before = records_of(options().directory).size();
  }
  fill();
  const auto opened = Ledger::open(options(), clock_, hooks_);
  ASSERT_TRUE(opened) << opened.error().message;
  ASSERT_TRUE(within(1s, [&] { return !(*opened)->intent(subject("new"), "x").has_value(); }));
  give_back();
  ASSERT_TRUE(within(5s, [&] { return (*opened)->intent(subject("again"), "x").has_value(); }));
  EXPECT_GE(records_of(options().directory).size(), before);
}

TEST_F(FullVolume, AnEmptyFullVolumeIsAClearError) {
  fill();
  const auto opened = Ledger::open(options(), clock_, hooks_);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().kind, core::ErrorKind::ledger_unavailable);
  EXPECT_THAT(opened.error().message, ::testing::HasSubstr("No space left"));
}

}  // namespace
}  // namespace ganglion::metering
