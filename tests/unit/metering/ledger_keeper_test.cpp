// Rollups, anchors, retention: nothing is counted twice or lost whatever dies when, and what is removed or changed
// behind the gateway's back is found.

#include "metering/ledger_keeper.hpp"

#include <gmock/gmock.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <random>

#include "core/digest.hpp"
#include "metering/ledger_id.hpp"
#include "metering/repair_report.hpp"
#include "metering/usage.hpp"
#include "tests/unit/metering/ledger_support.hpp"

namespace ganglion::metering {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

class LedgerKeeperTest : public ::testing::Test {
 protected:
  LedgerOptions options(std::chrono::hours retention = 0h) const {
    LedgerOptions out = options_in(dir_);
    out.retention = retention;
    return out;
  }
  std::unique_ptr<Ledger> open(std::chrono::hours retention = 0h) {
    return Ledger::open(options(retention), clock_, hooks_).value();
  }
  std::unique_ptr<LedgerKeeper> keep(Ledger& ledger, std::chrono::hours retention = 0h,
                                     RollupStore::Between between = {}) {
    auto keeper = LedgerKeeper::open(options(retention), ledger, clock_, std::move(between));
    EXPECT_TRUE(keeper) << keeper.error().message;
    return keeper ? std::move(*keeper) : nullptr;
  }
  bool there(std::uint64_t epoch) const { return std::filesystem::exists(segment_path(dir_.ledger(), epoch)); }

  TempDir dir_{true};
  core::ManualClock clock_;
  RecordingHooks hooks_;
};

// Every sum of a report, as text: two reports over the same records are equal whatever they were made from.
std::string sums(const std::string& directory, std::string_view by) {
  UsageQuery query{.by = parse_usage_columns(by).value(), .daily_free_neurons = 100};
  const auto report = usage(directory, query);
  EXPECT_TRUE(report) << report.error().message;
  return report ? format_json(*report) : "";
}

// The same from the records alone, with the plainest code there is.
NeuronParts total_of_records(const std::vector<LedgerRecord>& records) {
  NeuronParts sum = 0;
  for (const LedgerRecord& record : records) sum += record.exact;
  return sum;
}

// Requests of several tenants, models, tiers and tags at odd prices.
void mixed(Ledger& ledger, int count, std::mt19937_64& random) {
  for (int i = 0; i < count; ++i) {
    if (i % 20 == 0) let_segments_keep_up(ledger);
    const std::string id = "m" + std::to_string(random());
    const api::Tags tags{{"team", random() % 2 == 0 ? "search" : "ads", api::TagType::text}};
    Subject who = subject(id, random() % 2 == 0 ? "acme" : "bolt");
    who.model = random() % 2 == 0 ? "small" : "large";
    who.tier = random() % 3 == 0 ? api::Tier::fast : api::Tier::regular;
    if (random() % 4 != 0) who.tags = tags;
    const NeuronParts parts = NeuronParts{random()} * (random() % 100'000);
    const Charge charge{.nano_neurons = round_to_nano(parts),
                        .exact = parts,
                        .usd_pico_per_neuron = who.tier == api::Tier::fast ? 125'000'000U : 11'000'000U,
                        .schedule = "s"};
    auto intent = ledger.intent(who, "x");
    for (int tries = 0; !intent && tries < 5000; ++tries) {
      std::this_thread::sleep_for(1ms);
      intent = ledger.intent(who, "x");
    }
    ASSERT_TRUE(intent);
    ledger.terminal_async(*intent, finished(charge, random() % 1000));
    if (i % 50 == 0) ASSERT_TRUE(ledger.flush());
  }
  ASSERT_TRUE(ledger.flush());
}

TEST_F(LedgerKeeperTest, RollupsAndTailTogetherAreTheRecords) {
  std::mt19937_64 random{3};
  const auto ledger = open();
  const auto keeper = keep(*ledger);
  const std::string all = "tenant,key,gateway,model,tier,schedule,day,hour,tag:team";
  std::string before;
  for (int round = 0; round < 6; ++round) {
    mixed(*ledger, 150, random);
    before = sums(dir_.ledger(), all);  // a part of it from the tail
    if (round % 2 == 0) ASSERT_TRUE(keeper->run_once());
    EXPECT_EQ(sums(dir_.ledger(), all), before);
    clock_.advance(7h);
  }
  ASSERT_TRUE(keeper->run_once());
  EXPECT_EQ(sums(dir_.ledger(), all), before);
  EXPECT_EQ(keeper->status().position, ledger->stats().durable_sequence);
  const auto report = usage(dir_.ledger(), {}).value();
  EXPECT_TRUE(report.total.counts.exact == total_of_records(records_of(dir_.ledger())));
  EXPECT_EQ(report.total.counts.records, 900U);
  // And it is what the records alone say.
  std::filesystem::rename(rollups_path(dir_.ledger()), dir_.ledger() + "/away");
  EXPECT_EQ(sums(dir_.ledger(), all), before);
}

TEST_F(LedgerKeeperTest, SumsAreForTheGatewaysUserAlone) {
  using std::filesystem::perms;
  const mode_t before = ::umask(022);
  const auto ledger = open();
  auto keeper = keep(*ledger);
  const std::string path = rollups_path(dir_.ledger());
  for (const char* end : {"", "-wal", "-shm"}) {
    EXPECT_EQ(std::filesystem::status(path + end).permissions(), perms::owner_read | perms::owner_write) << end;
  }
  keeper.reset();
  std::filesystem::permissions(path, perms{0644});  // as an earlier version made it
  keeper = keep(*ledger);
  for (const char* end : {"", "-wal", "-shm"}) {
    EXPECT_EQ(std::filesystem::status(path + end).permissions(), perms::owner_read | perms::owner_write) << end;
  }
  ::umask(before);
}

TEST_F(LedgerKeeperTest, FiltersAndGroupsByTag) {
  const auto ledger = open();
  const auto keeper = keep(*ledger);
  const Charge one{.exact = kPartsPerNeuron, .usd_pico_per_neuron = 11'000'000, .schedule = "s"};
  const auto write = [&](const std::string& id, const api::Tags& tags) {
    Subject who = subject(id);
    who.tags = tags;
    ledger->terminal_async(ledger->intent(who, "x").value(), finished(one));
  };
  write("a", {{"team", "search", api::TagType::text}, {"user", "1", api::TagType::number}});
  write("b", {{"team", "ads", api::TagType::text}});
  ASSERT_TRUE(ledger->flush());
  ASSERT_TRUE(keeper->run_once());
  write("c", {{"team", "search", api::TagType::text}});
  write("d", {});
  ASSERT_TRUE(ledger->flush());
  UsageQuery query;
  ASSERT_TRUE(set_usage_option(query, "by", "tag:team").value());
  const auto report = usage(dir_.ledger(), query).value();
  ASSERT_EQ(report.rows.size(), 3U);
  EXPECT_EQ(report.rows[0].group, std::vector<std::string>{""});
  EXPECT_EQ(report.rows[2].group, std::vector<std::string>{"search"});
  EXPECT_EQ(report.rows[2].neurons, "2");
  ASSERT_TRUE(set_usage_option(query, "tag", "team=search").value());
  EXPECT_EQ(usage(dir_.ledger(), query)->total.counts.records, 2U);
  EXPECT_TRUE(usage(dir_.ledger(), query)->invoices.empty()) << "a part of a tenant's usage makes no invoice";
  EXPECT_FALSE(set_usage_option(query, "tag", "team").has_value());
  EXPECT_FALSE(set_usage_option(query, "tier", "slow").has_value());
  EXPECT_FALSE(set_usage_option(query, "colour", "red").value());
}

TEST_F(LedgerKeeperTest, RetentionDropsSegmentsAndNoHistory) {
  std::mt19937_64 random{4};
  const auto ledger = open(48h);
  const auto keeper = keep(*ledger, 48h);
  mixed(*ledger, 1500, random);
  ASSERT_TRUE(keeper->run_once());
  ASSERT_GE(ledger->stats().segments, 3U);
  EXPECT_TRUE(there(1)) << "nothing is old";
  const std::string before = sums(dir_.ledger(), "tenant,tier,tag:team");
  clock_.advance(72h);
  ASSERT_TRUE(keeper->run_once());
  EXPECT_FALSE(there(1));
  EXPECT_TRUE(there(ledger->stats().segments - 1)) << "recovery may need the one before the current";
  EXPECT_GT(keeper->status().segments_dropped, 0U);
  EXPECT_EQ(sums(dir_.ledger(), "tenant,tier,tag:team"), before);
  EXPECT_TRUE(verify(dir_.ledger())->ok) << verify(dir_.ledger())->problem;
  // Parts of an hour are known from records only.
  UsageQuery query{.range = {.from = parse_time("2026-01-01T00:30:00Z").value()}};
  const auto partial = usage(dir_.ledger(), query);
  ASSERT_FALSE(partial);
  EXPECT_THAT(partial.error().message, HasSubstr("whole hours"));
}

TEST_F(LedgerKeeperTest, RetentionWaitsForEveryReader) {
  std::mt19937_64 random{5};
  const auto ledger = open(48h);
  const auto keeper = keep(*ledger, 48h);
  std::atomic<std::uint64_t> taken{0};
  keeper->hold("sink", [&] { return taken.load(); });
  mixed(*ledger, 1500, random);
  clock_.advance(72h);
  ASSERT_TRUE(keeper->run_once());
  EXPECT_TRUE(there(1));
  taken = read_segment_start({.epoch = 2, .path = segment_path(dir_.ledger(), 2)})->sequence - 1;
  ASSERT_TRUE(keeper->run_once());
  EXPECT_FALSE(there(1));
  EXPECT_TRUE(there(2));
  keeper->release("sink");
  ASSERT_TRUE(keeper->run_once());
  EXPECT_TRUE(there(ledger->stats().segments - 1));
  if (ledger->stats().segments > 3) EXPECT_FALSE(there(2));
}

// A reader that was behind when the process ended is behind when it starts: nothing may be dropped before it is asked.
TEST_F(LedgerKeeperTest, HoldsGivenAtTheStartComeBeforeTheFirstDrop) {
  std::mt19937_64 random{5};
  {
    const auto ledger = open(48h);
    const auto keeper = keep(*ledger, 48h);
    // On a busy machine segments are prepared late and grow longer.
    for (int tries = 0; tries < 50 && ledger->stats().segments < 5; ++tries) mixed(*ledger, 200, random);
    ASSERT_TRUE(keeper->run_once());
  }
  clock_.advance(72h);
  const auto ledger = open(48h);
  LedgerOptions options = options_in(dir_);
  options.retention = 48h;
  std::atomic<std::uint64_t> taken{0};
  LedgerKeeper::Holds holds{{"sink", [&] { return taken.load(); }}};
  auto keeper = LedgerKeeper::open(options, *ledger, clock_, {}, std::move(holds)).value();
  ASSERT_TRUE(keeper->run_once());
  EXPECT_TRUE(there(1));
  taken = ledger->stats().durable_sequence;
  ASSERT_TRUE(keeper->run_once());
  EXPECT_FALSE(there(1));
}

TEST_F(LedgerKeeperTest, AClockThatLeapsForwardMakesNothingOld) {
  std::mt19937_64 random{6};
  const auto ledger = open(48h);
  const auto keeper = keep(*ledger, 48h);
  mixed(*ledger, 1500, random);
  clock_.jump_wall(24h * 365);
  ASSERT_TRUE(keeper->run_once());
  EXPECT_TRUE(there(1));
}

// Runs `work` in a process that dies at its `step`-th call of the hook; true: it got through.
template <class Work>
bool survives(int step, Work work) {
  const pid_t child = ::fork();
  if (child == 0) {
    int left = step;
    work([&left](std::string_view) {
      if (left-- == 0) ::_exit(9);
    });
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

TEST_F(LedgerKeeperTest, KilledAtAnyStepNothingIsCountedTwiceOrLost) {
  std::mt19937_64 random{7};
  std::string id;
  std::string expected;
  {
    const auto ledger = open();
    mixed(*ledger, 40, random);
    id = ledger->id();
  }
  const auto records = records_of(dir_.ledger());
  expected = sums(dir_.ledger(), "tenant,model,tier,tag:team");
  // As the keeper does it, in bites of 13 records; the process dies between any two steps.
  const auto roll = [&](const RollupStore::Between& between) {
    auto store = RollupStore::open(dir_.ledger(), id, between).value();
    TailReader reader{dir_.ledger(), store->position().value()};
    RollupBatch batch;
    while (true) {
      batch.clear();
      if (reader.poll(TailReader::kNoLimit, 13, [&](const LedgerRecord& r) { batch.add(r); }).value() == 0) break;
      if (!store->apply(batch, reader.position())) ::_exit(8);
    }
  };
  int deaths = 0;
  for (int step = 0; step < 10'000; ++step) {
    for (const char* file : {"", "-wal", "-shm"}) std::filesystem::remove(rollups_path(dir_.ledger()) + file);
    const bool through = survives(step, roll);
    deaths += through ? 0 : 1;
    EXPECT_EQ(sums(dir_.ledger(), "tenant,model,tier,tag:team"), expected) << "after dying at step " << step;
    // And what is left is finished by the next process.
    ASSERT_TRUE(survives(1'000'000, roll));
    ASSERT_EQ(sums(dir_.ledger(), "tenant,model,tier,tag:team"), expected) << "finished after step " << step;
    auto store = RollupStore::open_to_read(dir_.ledger()).value();
    UsageCounts stored;
    ASSERT_TRUE(store->read({}, [&](std::int64_t, const UsageDimensions&, const UsageCounts& c) { stored.add(c); }));
    ASSERT_EQ(stored.records, records.size());
    ASSERT_TRUE(stored.exact == total_of_records(records));
    if (through) break;
  }
  EXPECT_GT(deaths, 60);
}

TEST_F(LedgerKeeperTest, SumsPast64BitsAreExact) {
  const auto ledger = open();
  const auto keeper = keep(*ledger);
  const NeuronParts large = (NeuronParts{1} << 120) + 12'345;
  for (int i = 0; i < 9; ++i) {
    const Charge charge{.exact = large, .usd_pico_per_neuron = 1, .schedule = "s"};
    ledger->terminal_async(ledger->intent(subject("r" + std::to_string(i)), "x").value(), finished(charge));
    ASSERT_TRUE(ledger->flush());
    ASSERT_TRUE(keeper->run_once());
    clock_.advance(30min);  // over several hours and rows
  }
  EXPECT_TRUE(usage(dir_.ledger(), {})->total.counts.exact == 9 * large);
}

TEST_F(LedgerKeeperTest, ForeignOrNewerRollupsAreRefusedAndLeftAlone) {
  const auto ledger = open();
  const std::string path = rollups_path(dir_.ledger());
  const auto refused = [&](std::string_view why) {
    const auto keeper = LedgerKeeper::open(options(), *ledger, clock_);
    ASSERT_FALSE(keeper) << why;
    EXPECT_EQ(keeper.error().kind, core::ErrorKind::ledger_unavailable);
    EXPECT_THAT(keeper.error().message, HasSubstr(std::string{why}));
  };
  write_file(path, std::string(5000, 'x'));
  refused("not a database");
  EXPECT_EQ(read_file(path), std::string(5000, 'x'));
  std::filesystem::remove(path);
  {
    auto other = Database::open(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE).value();
    ASSERT_TRUE(other.run("CREATE TABLE theirs (x)"));
  }
  refused("another program");
  std::filesystem::remove(path);
  ASSERT_TRUE(RollupStore::open(dir_.ledger(), "00000000-0000-4000-8000-000000000000"));
  refused("holds the usage of the ledger 00000000");
  std::filesystem::remove(path);
  {
    auto store = RollupStore::open(dir_.ledger(), ledger->id()).value();
    ASSERT_TRUE(store->apply({}, 1000));
  }
  refused("its newest records are missing");
  EXPECT_THAT(verify(dir_.ledger())->problem, HasSubstr("its newest records are missing"));
}

class AnchorsTest : public LedgerKeeperTest {
 protected:
  void SetUp() override {
    std::mt19937_64 random{8};
    const auto ledger = open();
    const auto keeper = keep(*ledger);
    mixed(*ledger, 900, random);
    ASSERT_TRUE(keeper->run_once());
    segments_ = ledger->stats().segments;
    ASSERT_GE(segments_, 4U);
    ASSERT_TRUE(verify(dir_.ledger())->ok) << verify(dir_.ledger())->problem;
  }
  std::string problem() const {
    const auto report = verify(dir_.ledger());
    return report ? (report->ok ? "" : describe(*report)) : report.error().message;
  }
  std::uint64_t segments_ = 0;
};

TEST_F(AnchorsTest, RemovedOldSegmentsAreMissed) {
  std::filesystem::remove(segment_path(dir_.ledger(), 1));
  EXPECT_THAT(problem(), HasSubstr("000000000001.segment offset 0: is missing; it held the records 1 to "));
}

TEST_F(AnchorsTest, RemovedNewSegmentsAreMissed) {
  for (std::uint64_t epoch = segments_ - 1; epoch <= segments_ + 1; ++epoch)
    std::filesystem::remove(segment_path(dir_.ledger(), epoch));
  EXPECT_THAT(problem(), HasSubstr("is missing; it held"));
}

TEST_F(AnchorsTest, ATruncatedSegmentIsFoundWhereItWasCut) {
  // At the end of a record: each record that is left is whole.
  const std::string path = segment_path(dir_.ledger(), segments_ - 1);
  const std::string bytes = read_file(path);
  std::uint64_t at = 0;
  Frame frame;
  for (int i = 0; i < 100; ++i) {
    ASSERT_EQ(parse_frame(std::string_view{bytes}.substr(at), frame), FrameStatus::ok);
    at += frame.bytes;
  }
  std::filesystem::resize_file(path, at);
  EXPECT_THAT(problem(),
              HasSubstr("offset " + std::to_string(at) + ": ends with record " + std::to_string(frame.sequence)));
}

TEST_F(AnchorsTest, AnchorsThemselvesAreChecked) {
  const std::string path = anchors_path(dir_.ledger());
  const std::string text = read_file(path);
  std::string other = text;
  other[10] = other[10] == '1' ? '2' : '1';
  write_file(path, other);
  EXPECT_THAT(problem(), HasSubstr("anchors offset 0: chain of anchors broken"));
  const auto ledger = open();
  const auto keeper = LedgerKeeper::open(options(), *ledger, clock_);
  ASSERT_FALSE(keeper);
  EXPECT_THAT(keeper.error().message, HasSubstr("anchors is bad at offset 0"));
  // A line that a crash cut is written again.
  write_file(path, text.substr(0, text.size() - 20));
  EXPECT_EQ(problem(), "");
  ASSERT_TRUE(keep(*ledger)->run_once());
  EXPECT_EQ(read_file(path).substr(0, text.size()), text);
}

TEST_F(AnchorsTest, ArchivedCopiesCanBeCheckedBySha256) {
  const auto anchors = read_anchors(dir_.ledger(), ledger_id_bytes(read_ledger_id(dir_.ledger()).value())).value();
  ASSERT_EQ(anchors.segments.size(), segments_ - 1);
  const Anchor& first = anchors.segments.begin()->second;
  const std::string bytes = read_file(segment_path(dir_.ledger(), first.epoch));
  EXPECT_EQ(core::hex(core::sha256(std::string_view{bytes}.substr(0, first.bytes))), first.sha256);
}

TEST_F(AnchorsTest, ASegmentThatIsDamagedIsNeitherAnchoredNorDropped) {
  std::mt19937_64 random{9};
  const auto ledger = open(1h);
  mixed(*ledger, 400, random);
  const std::string path = segment_path(dir_.ledger(), ledger->stats().segments - 1);
  std::string bytes = read_file(path);
  bytes[3000] = static_cast<char>(bytes[3000] ^ 1);
  write_file(path, bytes);
  const auto keeper = keep(*ledger, 1h);
  const auto done = keeper->run_once();
  ASSERT_FALSE(done);
  EXPECT_THAT(done.error().message, HasSubstr("Run `ganglion ledger verify`"));
  EXPECT_GT(keeper->status().failures, 0U);
  clock_.advance(100h);
  static_cast<void>(keeper->run_once());
  EXPECT_TRUE(std::filesystem::exists(path));
}

TEST_F(LedgerKeeperTest, EveryWrongByteIsNamed) {
  {
    const auto ledger = open();
    for (int i = 0; i < 5; ++i) {
      const auto id = ledger->intent(subject("r" + std::to_string(i)), "local").value();
      ASSERT_TRUE(await(ledger->terminal(id, finished())));
    }
  }
  const std::string path = segment_path(dir_.ledger(), 1);
  const std::string bytes = read_file(path);
  const std::size_t used = used_bytes(bytes);
  Frame first;
  ASSERT_EQ(parse_frame(bytes, first), FrameStatus::ok);
  std::mt19937 random{11};
  // The very first record has nothing before it that would prove what it was.
  for (std::size_t at = first.bytes; at < used + 100; ++at) {
    std::string damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 + random() % 255));
    write_file(path, damaged);
    const auto report = verify(dir_.ledger()).value();
    ASSERT_TRUE(report.wrong_byte) << at << ": " << report.problem;
    EXPECT_EQ(*report.wrong_byte, at) << report.problem;
  }
  // Two wrong bytes: only the record can be named.
  std::string damaged = bytes;
  damaged[first.bytes + 50] = static_cast<char>(damaged[first.bytes + 50] ^ 1);
  damaged[first.bytes + 70] = static_cast<char>(damaged[first.bytes + 70] ^ 1);
  write_file(path, damaged);
  EXPECT_FALSE(verify(dir_.ledger())->wrong_byte);
  EXPECT_EQ(verify(dir_.ledger())->bad_offset, first.bytes);
}

TEST_F(LedgerKeeperTest, ARepairReportTellsWhatCrashesLeft) {
  std::string bytes;
  {
    const auto ledger = open();
    ASSERT_TRUE(ledger->intent(subject("open-one"), "remote"));
    ASSERT_TRUE(ledger->flush());
    bytes = read_file(segment_path(dir_.ledger(), 1));
  }
  write_file(segment_path(dir_.ledger(), 1), bytes);  // as kill -9 leaves it
  auto report = repair_report(dir_.ledger()).value();
  EXPECT_TRUE(report.verify.ok);
  ASSERT_EQ(report.open.size(), 1U);
  EXPECT_EQ(report.open[0].request_id, "open-one");
  EXPECT_THAT(format_text(report), HasSubstr("open   open-one  tenant acme  model demo-chat  sent to remote"));
  {
    const auto ledger = open();
  }
  write_file(dir_.ledger() + "/000000000009.segment.set-aside", "x");
  report = repair_report(dir_.ledger()).value();
  EXPECT_TRUE(report.open.empty());
  ASSERT_EQ(report.aborted, 1U);
  EXPECT_THAT(format_text(report), HasSubstr("ended  open-one  aborted at 2026-01-01T00:00:00"));
  EXPECT_THAT(format_text(report), HasSubstr("aside  000000000009.segment.set-aside"));
  EXPECT_THAT(format_json(report), HasSubstr(R"("aborted":1,"aborted_last":[{"id":"open-one")"));
}

}  // namespace
}  // namespace ganglion::metering
