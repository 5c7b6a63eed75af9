// The memory tier: bytes, time, isolation, both forms, and eviction against LRU on a trace with scans.

#include "cache/memory_cache.hpp"

#include <gtest/gtest.h>
#include <malloc.h>

#include <algorithm>
#include <cmath>
#include <list>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>
#include <unordered_map>

namespace ganglion::cache {
namespace {

using std::chrono::seconds;

CacheKey key_of(std::uint64_t n) {
  // Spread, as hashes are.
  const std::uint64_t a = (n + 1) * 0x9E3779B97F4A7C15ULL;
  const std::uint64_t b = (a ^ (a >> 29)) * 0xBF58476D1CE4E5B9ULL;
  return {.hash = {.low = a ^ (b >> 31), .high = b}, .check = {.low = n, .high = ~n}, .bytes = 7};
}

std::shared_ptr<Entry> entry_of(std::uint64_t n, std::size_t body_bytes = 100, seconds ttl = seconds{60}) {
  auto entry = std::make_shared<Entry>();
  entry->key = key_of(n);
  entry->tenant = "t";
  entry->gateway = "g";
  entry->content_type = "application/json";
  entry->body = std::string(body_bytes, 'x');
  entry->ttl = ttl;
  return entry;
}

struct Fixture {
  explicit Fixture(std::size_t bytes, unsigned shards = 1, std::size_t entry_max = 1 << 20)
      : cache({.memory_bytes_max = bytes, .entry_bytes_max = entry_max, .shards = shards}, clock) {}
  bool has(std::uint64_t n) { return cache.lookup(key_of(n), "t", "g") != nullptr; }
  core::ManualClock clock;
  MemoryCache cache;
};

TEST(MemoryCache, FindsWhatWasStoredUntilItsTimeIsOver) {
  Fixture f{1 << 20};
  EXPECT_FALSE(f.has(1));
  ASSERT_TRUE(f.cache.insert(entry_of(1, 100, seconds{60})));
  EXPECT_TRUE(f.has(1));
  f.clock.advance(seconds{59});
  EXPECT_TRUE(f.has(1));
  f.clock.advance(seconds{1});
  EXPECT_FALSE(f.has(1));
  const MemoryStats stats = f.cache.stats();
  EXPECT_EQ(stats.hits, 2U);
  EXPECT_EQ(stats.misses, 2U);
  EXPECT_EQ(stats.expired, 1U);
  EXPECT_EQ(stats.entries_now, 0U);
  EXPECT_EQ(stats.bytes_now, 0U);
}

#if !defined(__has_feature)
#define __has_feature(x) 0
#endif
#if !__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer)
TEST(MemoryCache, AHundredThousandAnswersStayWithinTheBoundOnTheHeap) {
  constexpr std::size_t kMax = 64UL << 20;
  const std::size_t before = ::mallinfo2().uordblks;
  Fixture f{kMax, 4};
  for (std::uint64_t n = 0; n < 100'000; ++n) {
    auto entry = entry_of(n, 200 + n % 1500);
    entry->tags = {"a tag that is longer than a small string"};
    entry->pace.assign(n % 8, PaceMark{});
    f.cache.insert(std::move(entry));
  }
  const MemoryStats stats = f.cache.stats();
  const std::size_t heap = ::mallinfo2().uordblks - before;
  EXPECT_LE(stats.bytes_now, kMax);
  EXPECT_GT(stats.entries_now, 20'000U);
  EXPECT_GT(stats.evicted, 10'000U);
  EXPECT_LE(heap, kMax + kMax / 8) << "what is charged is what is taken";
}
#endif

TEST(MemoryCache, KeepsAStaleAnswerForItsWindows) {
  Fixture f{1 << 20};
  auto entry = entry_of(1, 100, seconds{60});
  entry->stale_while_revalidate = seconds{30};
  entry->stale_if_error = seconds{100};
  ASSERT_TRUE(f.cache.insert(std::move(entry)));
  const auto freshness = [&] { return f.cache.find(key_of(1), "t", "g").freshness; };
  EXPECT_EQ(freshness(), Freshness::fresh);
  f.clock.advance(seconds{60});
  EXPECT_EQ(freshness(), Freshness::revalidate);
  EXPECT_FALSE(f.has(1)) << "stale is for those who ask for it";
  EXPECT_EQ(f.cache.find(key_of(1), "other", "g").entry, nullptr);
  f.clock.advance(seconds{30});
  EXPECT_EQ(freshness(), Freshness::if_error);
  f.clock.advance(seconds{69});
  EXPECT_EQ(freshness(), Freshness::if_error);
  f.clock.advance(seconds{1});
  EXPECT_EQ(f.cache.find(key_of(1), "t", "g").entry, nullptr);
  EXPECT_EQ(f.cache.stats().entries_now, 0U);
  EXPECT_EQ(f.cache.stats().expired, 1U);
}

TEST(MemoryCache, OneCallerRefreshesAStaleAnswer) {
  const auto entry = entry_of(1);
  const core::SteadyTime now{seconds{1000}};
  EXPECT_TRUE(entry->claim_refresh(now));
  EXPECT_FALSE(entry->claim_refresh(now));
  entry->refresh_failed(now + seconds{1});
  EXPECT_FALSE(entry->claim_refresh(now));
  EXPECT_TRUE(entry->claim_refresh(now + seconds{1}));
  EXPECT_TRUE(entry->claim_refresh(now + std::chrono::hours{1})) << "a refresh that never came back";
}

TEST(MemoryCache, AnAnswerFromAnotherTierKeepsItsAgeAndNeverReplacesANewerOne) {
  Fixture f{1 << 20};
  auto old = entry_of(1, 100, seconds{60});
  old->stored = f.clock.steady() - seconds{50};
  ASSERT_TRUE(f.cache.insert(std::move(old)));
  EXPECT_EQ(f.cache.lookup(key_of(1), "t", "g")->age(f.clock.steady()), seconds{50});
  ASSERT_TRUE(f.cache.insert(entry_of(1, 200)));
  auto older = entry_of(1, 300);
  older->stored = f.clock.steady() - seconds{10};
  EXPECT_FALSE(f.cache.insert(std::move(older)));
  EXPECT_EQ(f.cache.lookup(key_of(1), "t", "g")->body.size(), 200U);
}

TEST(MemoryCache, ARefusalIsKeptOnlyWhereItIsMeantToBe) {
  Fixture f{1 << 20};
  auto entry = entry_of(1);
  entry->status = 404;
  EXPECT_FALSE(f.cache.insert(std::move(entry)));
  entry = entry_of(1);
  entry->status = 404;
  entry->refusal = true;
  ASSERT_TRUE(f.cache.insert(std::move(entry)));
  const auto rendered = f.cache.render(f.cache.lookup(key_of(1), "t", "g"), true);
  ASSERT_TRUE(rendered.has_value());
  EXPECT_EQ(rendered->body, std::string(100, 'x')) << "an error body is the same for streams";
}

TEST(MemoryCache, OtherTenantsAndGatewaysMissEvenOnACollision) {
  Fixture f{1 << 20};
  f.cache.insert(entry_of(1));
  EXPECT_EQ(f.cache.lookup(key_of(1), "other", "g"), nullptr);
  EXPECT_EQ(f.cache.lookup(key_of(1), "t", "other"), nullptr);
  CacheKey forged = key_of(1);
  forged.check.low ^= 1;
  EXPECT_EQ(f.cache.lookup(forged, "t", "g"), nullptr);
  EXPECT_TRUE(f.has(1));
}

TEST(MemoryCache, RefusesWhatMustNotBeKept) {
  Fixture f{1 << 20, 1, 1000};
  EXPECT_FALSE(f.cache.insert(entry_of(1, 1001)));
  EXPECT_TRUE(f.cache.insert(entry_of(1, 1000)));
  EXPECT_FALSE(f.cache.insert(entry_of(2, 10, seconds{0})));
  auto error = entry_of(3);
  error->status = 429;
  EXPECT_FALSE(f.cache.insert(error));
  EXPECT_EQ(f.cache.stats().refused_size, 1U);
  EXPECT_EQ(f.cache.stats().refused_answers, 2U);
}

TEST(MemoryCache, ReplacesAndErases) {
  Fixture f{1 << 20};
  f.cache.insert(entry_of(1, 10));
  const std::size_t before = f.cache.stats().bytes_now;
  f.cache.insert(entry_of(1, 5010));
  EXPECT_EQ(f.cache.stats().entries_now, 1U);
  EXPECT_GE(f.cache.stats().bytes_now, before + 4000);
  EXPECT_EQ(f.cache.lookup(key_of(1), "t", "g")->body.size(), 5010U);
  EXPECT_TRUE(f.cache.erase(key_of(1)));
  EXPECT_FALSE(f.cache.erase(key_of(1)));
  EXPECT_EQ(f.cache.stats().bytes_now, 0U);
}

TEST(MemoryCache, AReaderKeepsAnEvictedEntryAlive) {
  Fixture f{1 << 20};
  f.cache.insert(entry_of(1));
  const auto held = f.cache.lookup(key_of(1), "t", "g");
  f.cache.clear();
  EXPECT_EQ(f.cache.stats().bytes_now, 0U);
  EXPECT_EQ(held->body, std::string(100, 'x'));
}

TEST(MemoryCache, NeverExceedsItsBytesUnderRandomOperations) {
  constexpr std::size_t kMax = 256 * 1024;
  Fixture f{kMax, 2, 8 * 1024};
  std::mt19937 random{3};
  for (int i = 0; i < 50'000; ++i) {
    const std::uint64_t n = random() % 400;
    switch (random() % 8) {
      case 0:
      case 1:
      case 2:
        f.cache.insert(entry_of(n, random() % 9000, seconds{1 + random() % 50}));
        break;
      case 3:
        f.cache.erase(key_of(n));
        break;
      case 4:
        f.clock.advance(std::chrono::milliseconds{random() % 20});
        break;
      default:
        f.has(n);
    }
    ASSERT_LE(f.cache.stats().bytes_now, kMax);
  }
  EXPECT_GT(f.cache.stats().evicted, 1000U);
  EXPECT_GT(f.cache.stats().bytes_now, kMax / 2);
  for (std::uint64_t n = 0; n < 400; ++n) f.cache.erase(key_of(n));
  EXPECT_EQ(f.cache.stats().bytes_now, 0U) << "the accounting drifted";
}

TEST(MemoryCache, IsSafeFromManyThreads) {
  Fixture f{64 * 1024, 4, 4096};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&f, t] {
      std::mt19937 random{t};
      for (int i = 0; i < 3000; ++i) {
        const std::uint64_t n = random() % 100;
        if (random() % 3 == 0) f.cache.insert(entry_of(n, random() % 2000));
        if (const auto entry = f.cache.lookup(key_of(n), "t", "g")) ASSERT_EQ(entry->key, key_of(n));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(f.cache.stats().bytes_now, 64U * 1024);
}

// A plain LRU over the same number of equal entries, to compare with.
class Lru {
 public:
  explicit Lru(std::size_t capacity) : capacity_(capacity) {}
  bool touch(std::uint64_t n) {
    if (const auto it = index_.find(n); it != index_.end()) {
      order_.splice(order_.end(), order_, it->second);
      return true;
    }
    if (order_.size() == capacity_) {
      index_.erase(order_.front());
      order_.pop_front();
    }
    index_[n] = order_.insert(order_.end(), n);
    return false;
  }

 private:
  std::size_t capacity_;
  std::list<std::uint64_t> order_;
  std::unordered_map<std::uint64_t, std::list<std::uint64_t>::iterator> index_;
};

struct HitRatio {
  double s3fifo = 0;
  double lru = 0;
};

// Popular prompts by Zipf(0.9) over 20,000, and every so often a scan of prompts that never come again.
HitRatio replay(bool scans) {
  constexpr std::size_t kEntries = 1000;
  const std::size_t each = entry_of(0)->bytes() + 320;
  Fixture f{kEntries * each};
  Lru lru{kEntries};
  std::vector<double> cumulative;
  double sum = 0;
  for (int rank = 1; rank <= 20'000; ++rank) cumulative.push_back(sum += 1 / std::pow(rank, 0.9));
  std::mt19937_64 random{11};
  std::uniform_real_distribution<double> uniform{0, sum};
  std::uint64_t unseen = 1'000'000;
  int asked = 0;
  int ours = 0;
  int theirs = 0;
  const auto ask = [&](std::uint64_t n, bool count) {
    const bool hit = f.has(n);
    if (!hit) f.cache.insert(entry_of(n));
    const bool lru_hit = lru.touch(n);
    if (!count) return;
    ++asked;
    ours += hit ? 1 : 0;
    theirs += lru_hit ? 1 : 0;
  };
  for (int i = 0; i < 100'000; ++i) {
    const auto rank = std::lower_bound(cumulative.begin(), cumulative.end(), uniform(random)) - cumulative.begin();
    ask(static_cast<std::uint64_t>(rank), true);
    if (scans && i % 5000 == 4999) {
      for (int k = 0; k < 2000; ++k) ask(unseen++, false);
    }
  }
  return {.s3fifo = double(ours) / asked, .lru = double(theirs) / asked};
}

TEST(MemoryCache, ResistsScansBetterThanLru) {
  const HitRatio calm = replay(false);
  const HitRatio scanned = replay(true);
  RecordProperty("s3fifo_zipf", std::to_string(calm.s3fifo));
  RecordProperty("lru_zipf", std::to_string(calm.lru));
  RecordProperty("s3fifo_scans", std::to_string(scanned.s3fifo));
  RecordProperty("lru_scans", std::to_string(scanned.lru));
  std::printf("hit ratio: zipf s3-fifo %.4f lru %.4f; with scans s3-fifo %.4f lru %.4f\n", calm.s3fifo, calm.lru,
              scanned.s3fifo, scanned.lru);
  EXPECT_GT(calm.s3fifo, calm.lru + 0.03);
  EXPECT_GT(scanned.s3fifo, scanned.lru + 0.05);
  EXPECT_GT(scanned.s3fifo, calm.s3fifo - 0.03) << "a scan must not wash out what is popular";
}

const char* const kBody =
    R"({"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hello","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}})";

TEST(MemoryCache, ServesBothFormsAndChargesTheSecond) {
  Fixture f{1 << 20};
  auto entry = entry_of(1);
  entry->body = kBody;
  f.cache.insert(entry);
  const auto found = f.cache.lookup(key_of(1), "t", "g");
  const auto whole = f.cache.render(found, false);
  ASSERT_TRUE(whole);
  EXPECT_EQ(whole->body.data(), found->body.data());
  const std::size_t before = f.cache.stats().bytes_now;
  const auto stream = f.cache.render(found, true);
  ASSERT_TRUE(stream) << stream.error().message;
  EXPECT_TRUE(stream->content_type.starts_with("text/event-stream"));
  EXPECT_TRUE(stream->body.ends_with("data: [DONE]\n\n"));
  EXPECT_NE(stream->usage_event.of(stream->body).find("\"choices\":[]"), std::string_view::npos);
  EXPECT_TRUE(stream->usage_event.of(stream->body).ends_with("\n\n"));
  EXPECT_GE(f.cache.stats().bytes_now, before + stream->body.size());
  const auto again = f.cache.render(found, true);
  EXPECT_EQ(again->body.data(), stream->body.data()) << "made once";
  EXPECT_EQ(f.cache.stats().bytes_now, before + stream->body.size() + sizeof(std::string) + 1);

  auto recorded = entry_of(2);
  recorded->recorded_as = RecordedAs::stream;
  recorded->body = std::string{stream->body};
  f.cache.insert(recorded);
  const auto back = f.cache.render(f.cache.lookup(key_of(2), "t", "g"), false);
  ASSERT_TRUE(back);
  EXPECT_EQ(nlohmann::json::parse(back->body), nlohmann::json::parse(kBody));
  f.cache.erase(key_of(1));
  f.cache.erase(key_of(2));
  EXPECT_EQ(f.cache.stats().bytes_now, 0U);
}

TEST(MemoryCache, SaysWhenThereIsNoOtherForm) {
  Fixture f{1 << 20};
  f.cache.insert(entry_of(1));
  const auto found = f.cache.lookup(key_of(1), "t", "g");
  EXPECT_FALSE(f.cache.render(found, true));
  EXPECT_TRUE(f.cache.render(found, false));
}

}  // namespace
}  // namespace ganglion::cache
