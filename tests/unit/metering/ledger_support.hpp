#pragma once
// What the ledger's tests share: a directory of their own, a disk that fails on demand, requests to write.

#include <gtest/gtest.h>

#include <unistd.h>

#include <atomic>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>

#include "metering/ledger.hpp"
#include "metering/ledger_reader.hpp"
#include "metering/price_book.hpp"
#include "metering/segment_scan.hpp"
#include "metering/storage.hpp"
#include "tests/support/temp_dir.hpp"

namespace ganglion::metering {

struct TempDir : test::TempDir {
  using test::TempDir::TempDir;
  std::string ledger() const { return *this / "ledger"; }
};

inline std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

inline void write_file(const std::string& path, std::string_view bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

// The real file system, with faults.
class FaultyStorage final : public LedgerStorage {
 public:
  std::atomic<bool> create_fails{false};
  std::atomic<bool> write_full{false};
  std::atomic<bool> volume_full{false};
  std::atomic<bool> refuse_growth{false};  // writes past the preallocated bytes
  std::atomic<bool> sync_fails{false};
  std::atomic<bool> map_fails{false};  // the write buffer cannot be mapped: every append is a write
  std::atomic<int> syncs{0};
  std::atomic<int> slow_ms{0};  // what a sync takes more
  std::atomic<std::thread::id> synced_by;

  // While held, syncs wait.
  void hold() { set(true); }
  void release() { set(false); }
  void wait_until_held() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return waiting_; });
  }

  core::Result<std::unique_ptr<LedgerFile>> create(const std::string& path, std::uint64_t bytes,
                                                   const std::atomic<bool>& stop) override {
    if (create_fails) return core::fail(core::ErrorKind::ledger_unavailable, "cannot allocate: no space left");
    return wrap(real_.create(path, bytes, stop), bytes);
  }
  core::Result<std::unique_ptr<LedgerFile>> open(const std::string& path) override {
    std::error_code error;
    const std::uint64_t bytes = std::filesystem::file_size(path, error);
    return wrap(real_.open(path), bytes);
  }
  core::Result<std::unique_ptr<GuardedMap>> map(const std::string& path, std::size_t bytes) override {
    if (map_fails) return core::fail(core::ErrorKind::ledger_unavailable, "cannot map");
    return real_.map(path, bytes);
  }
  std::uint64_t free_bytes(const std::string& directory) override {
    return volume_full ? 4096 : real_.free_bytes(directory);
  }

 private:
  class File final : public LedgerFile {
   public:
    File(FaultyStorage& owner, std::unique_ptr<LedgerFile> real, std::uint64_t bytes)
        : owner_(owner), real_(std::move(real)), bytes_(bytes) {}
    core::Result<void> write(std::uint64_t offset, std::string_view data, bool& out_of_space) override {
      const bool grows = owner_.refuse_growth && offset + data.size() > bytes_;
      if (!owner_.write_full && !grows) return real_->write(offset, data, out_of_space);
      static_cast<void>(real_->write(offset, data.substr(0, data.size() / 2), out_of_space));  // as a short write would
      out_of_space = true;
      return core::fail(core::ErrorKind::ledger_unavailable, "cannot write to /ledger: no space left");
    }
    core::Result<void> sync() override {
      owner_.synced_by = std::this_thread::get_id();
      owner_.pass();
      ++owner_.syncs;
      if (const int more = owner_.slow_ms) std::this_thread::sleep_for(std::chrono::milliseconds{more});
      if (owner_.sync_fails) return core::fail(core::ErrorKind::ledger_unavailable, "cannot sync /ledger: I/O error");
      return real_->sync();
    }
    core::Result<void> truncate(std::uint64_t bytes) override { return real_->truncate(bytes); }

   private:
    FaultyStorage& owner_;
    std::unique_ptr<LedgerFile> real_;
    const std::uint64_t bytes_;  // preallocated
  };

  core::Result<std::unique_ptr<LedgerFile>> wrap(core::Result<std::unique_ptr<LedgerFile>> real, std::uint64_t bytes) {
    if (!real) return real;
    return std::make_unique<File>(*this, std::move(*real), bytes);
  }
  void set(bool held) {
    {
      const std::lock_guard lock(mutex_);
      held_ = held;
    }
    changed_.notify_all();
  }
  void pass() {
    std::unique_lock lock(mutex_);
    waiting_ = held_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return !held_; });
    waiting_ = false;
  }

  PosixStorage real_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool held_ = false;
  bool waiting_ = false;
};

class RecordingHooks final : public LedgerHooks {
 public:
  void committed(const CommitFacts& facts) override {
    committed_records += facts.records;
    ++commits;
  }
  void state_changed(LedgerState to, std::string_view why) override {
    {
      const std::lock_guard lock(mutex_);
      state_ = to;
      why_ = why;
    }
    changed_.notify_all();
  }
  bool wait_for(LedgerState wanted) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds{60}, [&] { return state_ == wanted; });
  }
  std::string why() {
    const std::lock_guard lock(mutex_);
    return why_;
  }
  std::atomic<std::uint64_t> committed_records{0};
  std::atomic<std::uint64_t> commits{0};

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  LedgerState state_ = LedgerState::ok;
  std::string why_;
};

inline LedgerOptions options_in(const TempDir& dir, std::uint64_t segment_bytes = 64 * 1024) {
  return {.directory = dir.ledger(), .segment_bytes = segment_bytes};
}

inline Subject subject(std::string_view id, std::string_view tenant = "acme") {
  return {.request_id = id, .tenant = tenant, .key_id = "key-1", .gateway = "default", .model = "demo-chat"};
}

inline Terminal finished(const Charge& charge = {.schedule = "none"}, std::uint64_t output_tokens = 5) {
  return {.outcome = Outcome::completed,
          .reason = "stop",
          .units = {.input_tokens = 11, .output_tokens = output_tokens, .requests = 1, .llm_responses = 1},
          .charge = charge,
          .http_status = 200,
          .latency = std::chrono::milliseconds{12}};
}

// Runs one awaitable to its end.
inline core::Result<void> await(boost::asio::awaitable<core::Result<void>> wait) {
  boost::asio::io_context io;
  std::optional<core::Result<void>> out;
  boost::asio::co_spawn(io, std::move(wait),
                        [&](const std::exception_ptr&, core::Result<void> result) { out = std::move(result); });
  io.run();
  return *out;
}

// Writes `count` whole requests "r0", "r1"..., as fast as segments can be prepared.
// The next segment is made by a thread of its own, and on a busy machine it may be late: waits for it.
inline void let_segments_keep_up(const Ledger& ledger) {
  for (int tries = 0; tries < 10'000 && !ledger.stats().next_segment_ready; ++tries) {
    std::this_thread::sleep_for(std::chrono::milliseconds{1});
  }
}

inline void churn(Ledger& ledger, int count) {
  for (int i = 0; i < count; ++i) {
    if (i % 20 == 0) let_segments_keep_up(ledger);
    auto id = ledger.intent(subject("r" + std::to_string(i)), "local");
    for (int tries = 0; !id && tries < 60'000; ++tries) {
      std::this_thread::sleep_for(std::chrono::milliseconds{1});
      id = ledger.intent(subject("r" + std::to_string(i)), "local");
    }
    ASSERT_TRUE(id) << id.error().message;
    ledger.terminal_async(*id, finished());
    if (i % 50 == 0) ASSERT_TRUE(ledger.flush());
  }
}

inline std::vector<LedgerRecord> records_of(const std::string& directory) {
  std::vector<LedgerRecord> out;
  const auto read = for_each_record(directory, {}, [&](const LedgerRecord& record) { out.push_back(record); });
  EXPECT_TRUE(read) << read.error().message;
  return out;
}

}  // namespace ganglion::metering
