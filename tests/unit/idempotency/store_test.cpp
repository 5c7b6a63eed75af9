// The durable half: what a store gives back after it was closed, and how it fails.

#include "idempotency/store.hpp"

#include <gmock/gmock.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <future>

#include "tests/support/coroutine.hpp"
#include "tests/support/temp_dir.hpp"

namespace ganglion::idempotency {
namespace {

using ::testing::HasSubstr;

struct TempDir : test::TempDir {
  std::string file() const { return *this / "keys.sqlite"; }
};

KeyRow row(const std::string& name, std::int64_t expires_ms = 1000) {
  return {.key = key_digest("t", "k", name),
          .request = request_digest(api::Endpoint::chat_completions, name),
          .request_id = "id-" + name,
          .ledger_sequence = 42,
          .expires_ms = expires_ms};
}

std::shared_ptr<const StoredAnswer> answer(std::string body) {
  return std::make_shared<const StoredAnswer>(
      StoredAnswer{.status = 200, .content_type = "application/json", .body = std::move(body)});
}

class StoreTest : public ::testing::Test {
 protected:
  void open() { store_ = Store::open(dir_.file()).value(); }
  void claim(const KeyRow& claimed) {
    test::run_coroutine([&]() -> boost::asio::awaitable<void> { EXPECT_TRUE(co_await write(claimed)); });
  }
  boost::asio::awaitable<core::Result<void>> write(KeyRow claimed) {
    auto writing = store_->claim(std::move(claimed), co_await boost::asio::this_coro::executor);
    co_return co_await store_->written(std::move(writing), {});
  }
  core::Result<void> claim_by_callback(const std::string& name) {
    std::promise<core::Result<void>> done;
    store_->claim(row(name), [&](core::Result<void> result) { done.set_value(std::move(result)); });
    return done.get_future().get();
  }
  void put(const KeyRow& to, std::string body) {
    test::run_coroutine([&]() -> boost::asio::awaitable<void> {
      EXPECT_TRUE(co_await store_->put(to.key, answer(std::move(body)), {}));
    });
  }
  std::shared_ptr<const StoredAnswer> get(const KeyRow& of) {
    std::shared_ptr<const StoredAnswer> out;
    test::run_coroutine([&]() -> boost::asio::awaitable<void> {
      auto got = co_await store_->answer(of.key, {});
      EXPECT_TRUE(got);
      if (got) out = *got;
    });
    return out;
  }

  TempDir dir_;
  std::unique_ptr<Store> store_;
};

// What a failed sync has left in the log would cut it short at a loss of power, with all that was added behind.
TEST_F(StoreTest, AStartBeginsAnEmptyLog) {
  open();
  claim(row("before", 10));
  // As a process leaves it that does not close.
  const TempDir left;
  for (const char* end : {"", "-wal"}) std::filesystem::copy_file(dir_.file() + end, left.file() + end);
  ASSERT_GT(std::filesystem::file_size(left.file() + "-wal"), 0U);
  const auto again = Store::open(left.file()).value();
  EXPECT_EQ(std::filesystem::file_size(left.file() + "-wal"), 0U);
  // The database alone has it.
  const TempDir database;
  std::filesystem::copy_file(left.file(), database.file());
  const auto keys = Store::open(database.file()).value()->keys().value();
  ASSERT_EQ(keys.size(), 1U);
  EXPECT_EQ(keys[0].key, row("before").key);
}

TEST_F(StoreTest, GivesBackEverythingAfterItWasClosed) {
  open();
  const std::string binary("\0\xff{\"a\":1}\n", 10);
  claim(row("settled", 30));
  put(row("settled"), binary);
  store_->set_state(row("settled").key, KeyState::settled);
  claim(row("claimed", 10));
  claim(row("answered", 20));
  put(row("answered"), "b");
  claim(row("lost", 40));
  put(row("lost"), "c");
  store_->set_state(row("lost").key, KeyState::lost);
  claim(row("removed", 50));
  put(row("removed"), "d");
  store_->remove(row("removed").key);
  store_.reset();
  open();
  const auto keys = store_->keys().value();
  ASSERT_EQ(keys.size(), 4U);
  EXPECT_EQ(keys[0].state, KeyState::claimed);  // by expiry
  EXPECT_EQ(keys[1].state, KeyState::answered);
  EXPECT_EQ(keys[2].state, KeyState::settled);
  EXPECT_EQ(keys[3].state, KeyState::lost);
  EXPECT_EQ(keys[2].key, row("settled").key);
  EXPECT_EQ(keys[2].request, row("settled").request);
  EXPECT_EQ(keys[2].request_id, "id-settled");
  EXPECT_EQ(keys[2].ledger_sequence, 42U);
  EXPECT_EQ(keys[2].body_bytes, binary.size());
  EXPECT_EQ(keys[3].body_bytes, 0U);
  const auto got = get(row("settled"));
  ASSERT_TRUE(got);
  EXPECT_EQ(got->body, binary);
  EXPECT_EQ(got->content_type, "application/json");
  EXPECT_EQ(get(row("lost")), nullptr);
  EXPECT_EQ(get(row("removed")), nullptr);
}

TEST_F(StoreTest, RemembersSinceWhenItIsComplete) {
  open();
  EXPECT_EQ(store_->complete_from(77).value(), 77);
  EXPECT_EQ(store_->complete_from(99).value(), 77);
  store_.reset();
  const auto other = Database::open(dir_.file()).value(), mine = Database::open(dir_.file()).value();
  ASSERT_TRUE(other->begin());  // a process that is being replaced, in the middle of a write
  EXPECT_EQ(mine->complete_from(99).value(), 77);
  other->rollback();
}

TEST_F(StoreTest, SaysWhetherAKeyIsWrittenBehindTheClaimsThatWait) {
  open();
  std::promise<core::Result<void>> done;
  store_->claim(row("a"), [&](core::Result<void> result) { done.set_value(std::move(result)); });
  test::run_coroutine([&]() -> boost::asio::awaitable<void> {
    EXPECT_TRUE((co_await store_->has(row("a").key, {})).value());
    EXPECT_FALSE((co_await store_->has(row("b").key, {})).value());
  });
  EXPECT_TRUE(done.get_future().get());
}

TEST_F(StoreTest, ANewClaimForgetsTheOldAnswer) {
  open();
  claim(row("k"));
  put(row("k"), "old");
  claim(row("k", 99));
  EXPECT_EQ(get(row("k")), nullptr);
  const auto keys = store_->keys().value();
  ASSERT_EQ(keys.size(), 1U);
  EXPECT_EQ(keys[0].state, KeyState::claimed);
  EXPECT_EQ(keys[0].expires_ms, 99);
}

TEST_F(StoreTest, WritesThatComeTogetherShareACommit) {
  open();
  boost::asio::io_context io;
  int done = 0;
  for (int i = 0; i < 200; ++i) {
    boost::asio::co_spawn(
        io,
        [&, i]() -> boost::asio::awaitable<void> {
          EXPECT_TRUE(co_await write(row("k" + std::to_string(i))));
          ++done;
        },
        [](const std::exception_ptr& error) { EXPECT_FALSE(error); });
  }
  io.run_for(std::chrono::seconds{20});
  EXPECT_EQ(done, 200);
  EXPECT_LT(store_->commits(), 100U);
  EXPECT_EQ(store_->keys()->size(), 200U);
}

// What is given before a flush is in the file behind it, awaited or not.
TEST_F(StoreTest, AClaimIsWrittenBeforeAnybodyWaitsForIt) {
  open();
  boost::asio::io_context io;
  const auto writing = store_->claim(row("given"), io.get_executor());
  ASSERT_NE(writing, nullptr);
  store_->flush();
  ASSERT_TRUE(claim_by_callback("waited"));
  EXPECT_EQ(store_->keys()->size(), 2U);
  test::run_coroutine(io,
                      [&]() -> boost::asio::awaitable<void> { EXPECT_TRUE(co_await store_->written(writing, {})); });
}

TEST_F(StoreTest, RefusesAnotherProgramsFileAndLeavesItAlone) {
  {
    std::ofstream out(dir_.file());
    out << std::string(4096, 'x');
  }
  const auto opened = Store::open(dir_.file());
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().kind, core::ErrorKind::ledger_unavailable);
  EXPECT_THAT(opened.error().message, HasSubstr(dir_.file()));
  EXPECT_EQ(std::filesystem::file_size(dir_.file()), 4096U);
}

// Answers lie in them in the clear.
TEST_F(StoreTest, ItsFilesAreForTheGatewaysUserAlone) {
  using std::filesystem::perms;
  const auto expect_private = [&] {
    for (const char* end : {"", "-wal", "-shm"}) {
      EXPECT_EQ(std::filesystem::status(dir_.file() + end).permissions(), perms::owner_read | perms::owner_write)
          << end;
    }
  };
  const mode_t before = ::umask(022);
  open();
  claim(row("k"));
  expect_private();
  // As an earlier version and its crash have left them.
  const TempDir left;
  for (const char* end : {"", "-wal"}) std::filesystem::copy_file(dir_.file() + end, left.file() + end);
  store_.reset();
  for (const char* end : {"", "-wal"}) {
    std::filesystem::copy_file(left.file() + end, dir_.file() + end, std::filesystem::copy_options::overwrite_existing);
    std::filesystem::permissions(dir_.file() + end, perms{0644});
  }
  open();
  claim(row("again"));
  expect_private();
  ::umask(before);
}

TEST_F(StoreTest, RefusesADirectoryThatIsNotThere) {
  const auto opened = Store::open(dir_.file() + "/no/keys.sqlite");
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().message, HasSubstr("cannot open"));
}

TEST_F(StoreTest, AStoppedStoreFailsAtOnce) {
  open();
  store_->stop();
  test::run_coroutine([&]() -> boost::asio::awaitable<void> {
    const auto done = co_await write(row("k"));
    EXPECT_FALSE(done);
    if (!done) EXPECT_EQ(done.error().kind, core::ErrorKind::ledger_unavailable);
  });
  EXPECT_FALSE(claim_by_callback("k"));
  EXPECT_FALSE(store_->keys());
}

// A disk of its own that is full: mounting needs root.
TEST_F(StoreTest, AFullDiskIsAnErrorAndHealsByItself) {
  const std::string disk = dir_.file() + ".disk";
  std::filesystem::create_directories(disk);
  if (::geteuid() != 0 || ::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=1m") != 0) {
    GTEST_SKIP() << "cannot mount a small disk";
  }
  store_ = Store::open(disk + "/keys.sqlite").value();
  claim(row("before"));
  {
    std::ofstream filler(disk + "/filler");
    filler << std::string(2 << 20, 'x');
  }
  test::run_coroutine([&]() -> boost::asio::awaitable<void> {
    const auto put = co_await store_->put(row("before").key, answer(std::string(200'000, 'y')), {});
    EXPECT_FALSE(put);
    if (!put) EXPECT_THAT(put.error().message, HasSubstr("cannot be used"));
  });
  EXPECT_GE(store_->errors(), 1U);
  std::filesystem::remove(disk + "/filler");
  put(row("before"), "after all");
  EXPECT_EQ(get(row("before"))->body, "after all");
  store_.reset();
  EXPECT_EQ(::umount2(disk.c_str(), MNT_DETACH), 0);
}

}  // namespace
}  // namespace ganglion::idempotency
