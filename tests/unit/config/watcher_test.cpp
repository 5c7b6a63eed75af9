// Reloads from real files, with time moved by hand.

#include "config/watcher.hpp"

#include <poll.h>

#include "tests/unit/config/support.hpp"

namespace ganglion::config {
namespace {

using namespace std::chrono_literals;
using Kind = Reload::Kind;

class ReloaderTest : public testing::Test {
 protected:
  ReloaderTest() { folder.write("c.yaml", text("30s")); }

  static std::string text(const std::string& drain) { return kBase + "shutdown: {drain: " + drain + "}\n"; }

  std::unique_ptr<Reloader> make(const std::string& file = "c.yaml") {
    auto first = load_file(folder / file, with_env({}));
    EXPECT_TRUE(first);
    return std::make_unique<Reloader>(folder / file, std::make_shared<const Config>(*first), clock, with_env({}));
  }

  static bool readable(int fd) {
    pollfd p{.fd = fd, .events = POLLIN, .revents = 0};
    return ::poll(&p, 1, 0) == 1;
  }

  // Inode and size may repeat, and the clock of the file system has a grain: say explicitly that the file is newer.
  void touch_newer(const std::string& file) {
    const auto path = folder / file;
    std::filesystem::last_write_time(path, std::filesystem::last_write_time(path) + std::chrono::seconds(++touches));
  }

  TempFolder folder;
  core::ManualClock clock;
  int touches = 0;
};

TEST_F(ReloaderTest, AppliesAChangeOnceItHasSettled) {
  const auto reloader = make();
  const auto old = reloader->current();
  ASSERT_GE(reloader->fd(), 0);
  EXPECT_FALSE(readable(reloader->fd()));
  EXPECT_EQ(reloader->check().kind, Kind::unchanged);
  EXPECT_FALSE(reloader->wait_hint());

  folder.write("c.yaml", text("31s"));
  touch_newer("c.yaml");
  EXPECT_TRUE(readable(reloader->fd()));
  EXPECT_EQ(reloader->check().kind, Kind::unchanged);
  EXPECT_EQ(reloader->wait_hint(), 100ms);
  clock.advance(99ms);
  EXPECT_EQ(reloader->check().kind, Kind::unchanged);
  clock.advance(1ms);
  const Reload done = reloader->check();
  ASSERT_EQ(done.kind, Kind::applied) << format(done.errors);
  EXPECT_EQ(done.snapshot->shutdown.drain, 31s);
  EXPECT_EQ(reloader->current(), done.snapshot);
  EXPECT_EQ(old->shutdown.drain, 30s);  // running requests keep theirs
  EXPECT_FALSE(reloader->wait_hint());
  EXPECT_EQ(reloader->check().kind, Kind::unchanged);
}

TEST_F(ReloaderTest, AHalfWrittenFileWaitsForItsRest) {
  const auto reloader = make();
  folder.write("c.yaml", kBase + "shutdown: {dra");
  touch_newer("c.yaml");
  EXPECT_EQ(reloader->check().kind, Kind::unchanged);
  clock.advance(60ms);
  folder.write("c.yaml", text("32s"));
  touch_newer("c.yaml");
  EXPECT_EQ(reloader->check().kind, Kind::unchanged);
  clock.advance(60ms);  // 120 ms after the first half, 60 ms after the rest
  EXPECT_EQ(reloader->check().kind, Kind::unchanged);
  clock.advance(40ms);
  const Reload done = reloader->check();
  ASSERT_EQ(done.kind, Kind::applied);
  EXPECT_EQ(done.snapshot->shutdown.drain, 32s);
}

TEST_F(ReloaderTest, AnInvalidFileKeepsTheOldSnapshot) {
  const auto reloader = make();
  const auto old = reloader->current();
  folder.write("c.yaml", kBase + "shutdwn: {}\n");
  touch_newer("c.yaml");
  (void)reloader->check();
  clock.advance(100ms);
  const Reload bad = reloader->check();
  EXPECT_EQ(bad.kind, Kind::rejected);
  EXPECT_THAT(format(bad.errors), testing::HasSubstr(":2:1: unknown key `shutdwn` (did you mean `shutdown`?)"));
  EXPECT_EQ(bad.snapshot, old);
  EXPECT_EQ(reloader->current(), old);
  EXPECT_EQ(reloader->check().kind, Kind::unchanged);  // told once

  folder.write("c.yaml", text("33s"));
  touch_newer("c.yaml");
  (void)reloader->check();
  clock.advance(100ms);
  EXPECT_EQ(reloader->check().kind, Kind::applied);
}

TEST_F(ReloaderTest, ARenameOverTheFileIsSeen) {
  const auto reloader = make();
  folder.write("new.yaml", text("34s"));
  std::filesystem::rename(folder / "new.yaml", folder / "c.yaml");
  EXPECT_TRUE(readable(reloader->fd()));
  (void)reloader->check();
  clock.advance(100ms);
  const Reload done = reloader->check();
  ASSERT_EQ(done.kind, Kind::applied);
  EXPECT_EQ(done.snapshot->shutdown.drain, 34s);
}

TEST_F(ReloaderTest, ASwappedLinkIsSeen) {
  folder.write("one/c.yaml", text("30s"));
  folder.write("two/c.yaml", text("35s"));
  std::filesystem::create_symlink(folder / "one", folder / "data");
  std::filesystem::create_symlink("data/c.yaml", folder / "link.yaml");
  const auto reloader = make("link.yaml");
  std::filesystem::create_symlink(folder / "two", folder / "data_tmp");
  std::filesystem::rename(folder / "data_tmp", folder / "data");
  EXPECT_TRUE(readable(reloader->fd()));
  (void)reloader->check();
  clock.advance(100ms);
  const Reload done = reloader->check();
  ASSERT_EQ(done.kind, Kind::applied);
  EXPECT_EQ(done.snapshot->shutdown.drain, 35s);
}

TEST_F(ReloaderTest, AFileThatIsAwayIsWaitedForWithoutSpinning) {
  const auto reloader = make();
  std::filesystem::remove(folder / "c.yaml");
  EXPECT_EQ(reloader->check().kind, Kind::unchanged);
  clock.advance(1s);
  EXPECT_EQ(reloader->check().kind, Kind::unchanged);
  EXPECT_FALSE(reloader->wait_hint());
  EXPECT_EQ(reloader->reload().kind, Kind::rejected);  // asked for by signal: told
  folder.write("c.yaml", text("36s"));
  (void)reloader->check();
  clock.advance(100ms);
  EXPECT_EQ(reloader->check().kind, Kind::applied);
}

TEST_F(ReloaderTest, ReloadBySignalDoesNotWait) {
  const auto reloader = make();
  folder.write("c.yaml", text("37s") + "server: {workers: 7}\n");
  const Reload done = reloader->reload();
  ASSERT_EQ(done.kind, Kind::applied);
  EXPECT_EQ(done.snapshot->shutdown.drain, 37s);
  EXPECT_THAT(done.needs_restart, testing::ElementsAre("server.workers"));
  EXPECT_EQ(reloader->check().kind, Kind::unchanged);
}

TEST_F(ReloaderTest, WhatNeedsARestartIsToldUntilItIsAsItRuns) {
  const auto reloader = make();
  const unsigned workers = reloader->current()->server.workers;
  for (const char* drain : {"38s", "39s"}) {
    folder.write("c.yaml", text(drain) + "server: {workers: 7}\n");
    const Reload done = reloader->reload();
    ASSERT_EQ(done.kind, Kind::applied);
    EXPECT_THAT(done.needs_restart, testing::ElementsAre("server.workers")) << drain;
    EXPECT_EQ(done.snapshot->server.workers, workers) << "what is in force";
    EXPECT_EQ(done.file->server.workers, 7U);
  }
  folder.write("c.yaml", text("40s"));
  const Reload reverted = reloader->reload();
  ASSERT_EQ(reverted.kind, Kind::applied);
  EXPECT_THAT(reverted.needs_restart, testing::IsEmpty());
  EXPECT_EQ(reverted.snapshot->hash, reverted.file->hash);
}

TEST_F(ReloaderTest, AModelThatWouldBeGoneIsNotTakenAway) {
  const std::string serves = "providers: [{name: up, base_url: \"http://127.0.0.1:1/v1\", models: [";
  folder.write("c.yaml", kBase + serves + "m, talk]}]\n");
  const auto reloader = make();
  const auto old = reloader->current();
  folder.write("c.yaml", "local: [{name: talk, path: p}]\n" + serves + "m]}]\n");
  const Reload moved = reloader->reload();
  EXPECT_EQ(moved.kind, Kind::rejected);
  EXPECT_THAT(format(moved.errors), testing::HasSubstr("`talk` moves from `providers` to `local`"));
  EXPECT_EQ(moved.snapshot, old);
  EXPECT_EQ(reloader->current(), old);
}

TEST_F(ReloaderTest, WhatTheOwnerCouldNotUseIsPutBack) {
  const auto reloader = make();
  const auto old = reloader->current();
  folder.write("c.yaml", text("41s"));
  ASSERT_EQ(reloader->reload().kind, Kind::applied);
  reloader->put_back(old);
  EXPECT_EQ(reloader->current(), old);
  EXPECT_EQ(reloader->check().snapshot, old);
}

TEST_F(ReloaderTest, OtherFilesOfTheFolderDoNotMatter) {
  const auto reloader = make();
  folder.write("other.yaml", "x");
  EXPECT_TRUE(readable(reloader->fd()));
  EXPECT_EQ(reloader->check().kind, Kind::unchanged);
  EXPECT_FALSE(reloader->wait_hint());
  EXPECT_FALSE(readable(reloader->fd()));
}

}  // namespace
}  // namespace ganglion::config
