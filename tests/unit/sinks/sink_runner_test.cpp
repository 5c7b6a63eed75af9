// Moving along the ledger: in order, each once by position, no further than what is durable, through every failure.

#include "sinks/sink_runner.hpp"

#include <gmock/gmock.h>

#include <random>

#include "core/log.hpp"
#include "sinks/file_sink.hpp"
#include "sinks/sink_set.hpp"
#include "tests/unit/metering/ledger_support.hpp"
#include "tests/unit/sinks/records.hpp"

namespace ganglion::sinks {
namespace {

using ::testing::HasSubstr;

// Keeps records and position as a transactional store would, and fails as told: before it took them or after.
class FakeSink final : public Sink {
 public:
  enum class Mood : std::uint8_t { fine, refuse, take_and_fail };
  struct Store {
    std::mutex mutex;
    std::vector<std::uint64_t> taken;
    std::uint64_t position = 0;
    std::size_t largest = 0;
    int opens = 0;
    std::function<Mood()> mood = [] { return Mood::fine; };
  };
  explicit FakeSink(std::shared_ptr<Store> store) : store_(std::move(store)) {}
  core::Result<std::uint64_t> open() override {
    const std::lock_guard lock(store_->mutex);
    ++store_->opens;
    if (store_->mood() == Mood::refuse) return core::fail(core::ErrorKind::upstream_connect, "no connection");
    return store_->position;
  }
  core::Result<void> deliver(std::span<const metering::LedgerRecord> records, std::uint64_t upto) override {
    const std::lock_guard lock(store_->mutex);
    const Mood mood = store_->mood();
    if (mood == Mood::refuse) return core::fail(core::ErrorKind::upstream_closed, "refused");
    store_->largest = std::max(store_->largest, records.size());
    for (const auto& record : records) store_->taken.push_back(record.sequence);
    store_->position = upto;
    if (mood == Mood::take_and_fail) return core::fail(core::ErrorKind::upstream_closed, "the answer was lost");
    return {};
  }

 private:
  std::shared_ptr<Store> store_;
};

class SinkRunnerTest : public ::testing::Test {
 protected:
  SinkRunnerTest() {
    core::set_log_level(core::LogLevel::off);
    ledger_ = metering::Ledger::open(metering::options_in(dir_), clock_, hooks_).value();
    options_.name = "fake";
    options_.batch_max = 20;
    options_.interval = std::chrono::milliseconds{1};
    options_.backoff_max = std::chrono::milliseconds{1};
  }
  std::unique_ptr<SinkRunner> start() {
    auto runner = std::make_unique<SinkRunner>(
        options_, std::make_unique<FakeSink>(store_), dir_.ledger(),
        PositionFile(dir_.ledger() + "/sinks", "fake", kLedger), [this] { return ledger_->stats().durable_sequence; },
        system_);
    runner->start();
    return runner;
  }
  template <class Condition>
  static bool wait(Condition condition) {
    for (int i = 0; i < 4000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds{5});
    }
    return false;
  }
  bool caught_up(const SinkRunner& runner) {
    EXPECT_TRUE(ledger_->flush());
    return wait([&] { return runner.status().up && runner.status().behind == 0; });
  }
  std::vector<std::uint64_t> due() const {
    std::vector<std::uint64_t> out;
    for (const auto& one : metering::records_of(dir_.ledger())) out.push_back(one.sequence);
    return out;
  }

  metering::TempDir dir_{true};
  core::ManualClock clock_;
  core::SystemClock system_;
  metering::RecordingHooks hooks_;
  std::unique_ptr<metering::Ledger> ledger_;
  SinkOptions options_;
  std::shared_ptr<FakeSink::Store> store_ = std::make_shared<FakeSink::Store>();
};

TEST_F(SinkRunnerTest, TakesEverythingInBoundedBatchesBesideTheWriter) {
  const auto runner = start();
  metering::churn(*ledger_, 1000);
  ASSERT_TRUE(caught_up(*runner));
  runner->stop();
  EXPECT_EQ(store_->taken, due());
  EXPECT_LE(store_->largest, 20U);
  EXPECT_EQ(runner->status().sent, 1000U);
  EXPECT_EQ(runner->status().lag_seconds, 0);
}

// The process that takes this one's place writes while this one still ends its requests.
TEST_F(SinkRunnerTest, AStoppedSinkIsAnotherProcesssToOpen) {
  metering::churn(*ledger_, 5);
  ASSERT_TRUE(ledger_->flush());
  options_.type = "file";
  options_.directory = dir_ / "usage";
  SinkSet sinks(
      std::vector<SinkOptions>{options_}, dir_.ledger(), kLedger, [this] { return ledger_->stats().durable_sequence; },
      system_);
  sinks.start();
  ASSERT_TRUE(wait([&] { return sinks.min_position() == ledger_->stats().durable_sequence; }));
  FileSink next(options_, kLedger);
  EXPECT_FALSE(next.open());
  sinks.stop();
  const auto opened = next.open();
  EXPECT_TRUE(opened) << opened.error().message;
}

TEST_F(SinkRunnerTest, NoRecordIsLostOrTakenTwiceWhateverFails) {
  for (const unsigned seed : {1U, 2U, 3U}) {
    std::minstd_rand random{seed};
    store_->mood = [&] {
      const auto roll = random() % 10;
      return roll < 3 ? FakeSink::Mood::refuse : roll < 5 ? FakeSink::Mood::take_and_fail : FakeSink::Mood::fine;
    };
    auto runner = start();
    metering::churn(*ledger_, 600);
    if (seed == 2) {  // a new process, the old one gone in the middle
      runner.reset();
      runner = start();
    }
    metering::churn(*ledger_, 100);
    ASSERT_TRUE(wait([&] { return runner->status().errors > 5; }));
    {
      const std::lock_guard lock(store_->mutex);
      store_->mood = [] { return FakeSink::Mood::fine; };
    }
    ASSERT_TRUE(caught_up(*runner));
    runner->stop();
    EXPECT_GT(runner->status().errors, 0U);
    EXPECT_EQ(store_->taken, due()) << seed;
  }
}

TEST_F(SinkRunnerTest, AnOutageIsSeenAndNothingBehindIsGivenUp) {
  store_->mood = [] { return FakeSink::Mood::refuse; };
  auto runner = start();
  metering::churn(*ledger_, 50);
  ASSERT_TRUE(ledger_->flush());
  ASSERT_TRUE(wait([&] { return runner->status().errors > 3; }));
  SinkStatus status = runner->status();
  EXPECT_FALSE(status.up);
  EXPECT_THAT(status.problem, HasSubstr("no connection"));
  EXPECT_GE(status.behind, 100U);
  EXPECT_GT(status.lag_seconds, 0);
  EXPECT_EQ(runner->position(), 0U);
  {
    const std::lock_guard lock(store_->mutex);
    store_->mood = [] { return FakeSink::Mood::fine; };
  }
  ASSERT_TRUE(caught_up(*runner));
  const std::uint64_t position = runner->position();
  runner.reset();
  // A start without the other side knows where it was: the ledger keeps what comes behind.
  store_->mood = [] { return FakeSink::Mood::refuse; };
  runner = start();
  EXPECT_GT(runner->position(), 0U);
  EXPECT_LE(runner->position(), position);
}

TEST_F(SinkRunnerTest, NothingIsSentBeforeItIsDurable) {
  std::atomic<std::uint64_t> durable{0};
  SinkRunner runner(
      options_, std::make_unique<FakeSink>(store_), dir_.ledger(),
      PositionFile(dir_.ledger() + "/sinks", "fake", kLedger), [&] { return durable.load(); }, system_);
  metering::churn(*ledger_, 30);
  ASSERT_TRUE(ledger_->flush());
  runner.start();
  const auto all = due();
  for (const std::size_t upto : {std::size_t{0}, std::size_t{4}, std::size_t{29}}) {
    durable = all[upto];
    ASSERT_TRUE(wait([&] { return runner.position() == all[upto]; }));
    const std::lock_guard lock(store_->mutex);
    EXPECT_EQ(store_->taken.size(), upto + 1);
  }
}

TEST_F(SinkRunnerTest, RecordsThatAreGoneAreAnErrorNotAGap) {
  auto runner = start();
  metering::churn(*ledger_, 20);
  ASSERT_TRUE(caught_up(*runner));
  runner.reset();
  metering::churn(*ledger_, 1500);
  ASSERT_TRUE(ledger_->flush());
  const auto segments = metering::list_segments(dir_.ledger()).value();
  ASSERT_GT(segments.size(), 3U);
  std::filesystem::remove(segments[0].path);
  std::filesystem::remove(segments[1].path);
  const std::size_t before = store_->taken.size();
  runner = start();
  ASSERT_TRUE(wait([&] { return runner->status().errors > 0; }));
  EXPECT_THAT(runner->status().problem, HasSubstr("no longer in the ledger"));
  EXPECT_EQ(store_->taken.size(), before);
}

TEST_F(SinkRunnerTest, ASetTellsTheLowestPositionOfAll) {
  SinkOptions files;
  files.name = "files";
  files.directory = dir_.ledger() + "/../usage";
  files.interval = std::chrono::milliseconds{1};
  SinkOptions table;
  table.name = "table";
  table.type = "postgres";
  table.dsn = core::Secret{"postgresql://nobody@127.0.0.1:1/none?connect_timeout=2"};
  table.backoff_max = std::chrono::milliseconds{1};
  const auto durable = [this] { return ledger_->stats().durable_sequence; };
  metering::churn(*ledger_, 10);
  ASSERT_TRUE(ledger_->flush());
  EXPECT_EQ(SinkSet({}, dir_.ledger(), kLedger, durable, system_).min_position(), UINT64_MAX);
  SinkSet set({files, table}, dir_.ledger(), kLedger, durable, system_);
  set.start();
  ASSERT_TRUE(wait([&] { return set.json().find(R"("sent":10)") != std::string::npos; }));
  ASSERT_TRUE(wait([&] { return set.json().find("PostgreSQL: ") != std::string::npos; })) << set.json();
  EXPECT_EQ(set.min_position(), 0U);
  EXPECT_THAT(set.json(), HasSubstr(R"({"name":"table","type":"postgres","up":false,"problem":"PostgreSQL: )"));
  set.stop();
}

TEST_F(SinkRunnerTest, ABadDsnIsAnErrorWithoutItsPassword) {
  SinkOptions table;
  table.name = "table";
  table.type = "postgres";
  table.dsn = core::Secret{"host=x password=hunter2 nonsense"};
  SinkSet set({table}, dir_.ledger(), kLedger, [] { return 0; }, system_);
  set.start();
  ASSERT_TRUE(wait([&] { return set.json().find("cannot be read") != std::string::npos; })) << set.json();
  EXPECT_EQ(set.json().find("hunter2"), std::string::npos);
  set.stop();
}

}  // namespace
}  // namespace ganglion::sinks
