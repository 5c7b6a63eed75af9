// Scheduler, page pool and prefix tree under random schedules, against a model that knows what every page must hold.
// Prints its seed; GANGLION_FUZZ_SEED repeats a run.

#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <map>
#include <random>
#include <set>

#include "backends/local/engine/scheduler.hpp"

namespace ganglion::local {
namespace {

constexpr int kSchedules = 100'000;

struct Tracked final : Sequence {
  std::vector<std::uint64_t> meaning;  // of tokens [0, i] in this sequence's space: what position i must hold
  std::size_t goal = 0;                // length at which it is done
  std::uint64_t epoch = 0;             // how often its tokens came to mean something else
};

std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  std::uint64_t x = a * 0x9e3779b97f4a7c15ULL + b + 1;
  x ^= x >> 29;
  x *= 0xbf58476d1ce4e5b9ULL;
  return x ^ x >> 32;
}

class Schedule {
 public:
  explicit Schedule(std::uint64_t seed)
      : random_(seed),
        pages_(3 + pick(10)),
        scheduler_(pages_, {.batch_max = 1 + pick(4),
                            .step_tokens_max = 4 + pick(60),
                            .batch_regular = pick(3),
                            .fast_slowdown = pick(2) == 0 ? -1.0 : 0.2,
                            .alone_length = pick(2) == 0 ? 0.0 : 2.0}),
        store_(static_cast<std::size_t>(pages_.total()) * kPageTokens, 0) {}

  void run() {
    const int operations = 4 + pick(14);
    for (int i = 0; i < operations && ok(); ++i) operation();
    for (int left = 5'000; !scheduler_.empty() && ok(); --left) {
      ASSERT_GT(left, 0) << "no progress";
      step(false);
    }
    check_references();
    ASSERT_EQ(pages_.used(), scheduler_.tree().idle()) << "a page has leaked";
    scheduler_.forget_pages();
    ASSERT_EQ(pages_.used(), 0) << "a page has leaked";
  }

  static inline std::uint64_t preempted = 0, evicted = 0, reused = 0, steps = 0, guessed_ = 0, right_ = 0;
  ~Schedule() {
    preempted += scheduler_.preempted();
    evicted += scheduler_.tree().evicted();
    reused += scheduler_.reused();
  }

 private:
  int pick(int below) { return static_cast<int>(random_() % static_cast<unsigned>(below)); }
  static bool ok() { return !testing::Test::HasFatalFailure(); }

  void operation() {
    const int what = pick(10);
    if (what < 3) {
      add();
    } else if (what < 8) {
      step(pick(8) == 0);
    } else if (what == 8 && !alive_.empty()) {
      auto victim = alive_.begin();
      std::advance(victim, pick(static_cast<int>(alive_.size())));
      end(victim->first);
    } else if (what == 9 && pick(3) == 0 && !alive_.empty()) {
      auto changed = alive_.begin();
      std::advance(changed, pick(static_cast<int>(alive_.size())));
      restart(*changed->second);
    } else if (what == 9 && pick(4) == 0) {
      for (const auto& [id, s] : alive_) note_computed(*s);
      while (scheduler_.remove_one() != nullptr) {
      }
      ASSERT_TRUE(scheduler_.empty());
      alive_.clear();
      fresh_.clear();
      if (pick(2) == 0) {  // the device lost everything
        scheduler_.forget_pages();
        std::ranges::fill(store_, 0);
        known_.clear();
      }
    }
    check_references();
  }

  void append(Tracked& s, std::int32_t token) {
    const std::uint64_t before = s.meaning.empty()
                                     ? std::hash<std::string>{}(s.space.empty() ? std::to_string(s.id) : s.space) +
                                           s.space.size() + (s.space.empty() ? s.epoch : 0)
                                     : s.meaning.back();
    s.tokens.push_back(token);
    s.meaning.push_back(mix(before, static_cast<std::uint64_t>(token)));
  }

  // Prompts are made of few different pages, so that many begin alike.
  void add() {
    auto s = std::make_unique<Tracked>();
    s->id = next_++;
    s->priority = pick(3) == 0 ? Priority::fast : Priority::regular;
    static const std::string kSpaces[] = {"", "a", "b"};
    s->space = kSpaces[pick(3)];
    const int longest = pages_.total() * kPageTokens;
    const int prompt = 1 + pick(longest - 1);
    std::int32_t page = 0;
    for (int i = 0; i < prompt; ++i) {
      if (i % kPageTokens == 0) page = pick(2);
      append(*s, page);
    }
    s->goal = static_cast<std::size_t>(prompt + 1 + pick(std::min(longest - prompt, 24)));
    alive_[s->id] = s.get();
    fresh_.insert(s->id);
    scheduler_.add(std::move(s));
  }

  // What it has computed is of no more use to it: its tokens mean something else from here on.
  void restart(Tracked& s) {
    note_computed(s);
    scheduler_.restart(s.id, s.space.empty() ? "" : s.space + '+');
    ++s.epoch;
    ASSERT_EQ(s.computed, 0);
    ASSERT_TRUE(s.pages.empty());
    const std::vector<std::int32_t> tokens = std::move(s.tokens);
    s.tokens.clear(), s.meaning.clear();
    for (const std::int32_t token : tokens) append(s, token);
    fresh_.erase(s.id);  // what it finds now is not counted
  }

  void end(std::uint64_t id) {
    note_computed(*alive_.at(id));
    alive_.erase(id);
    fresh_.erase(id);
    ASSERT_NE(scheduler_.remove(id), nullptr);
  }

  // Whole pages that a sequence of a shared space has computed: all of them are found, as long as nothing is evicted.
  void note_computed(const Tracked& s) {
    if (s.space.empty()) return;
    for (int end = kPageTokens; end <= s.computed; end += kPageTokens) {
      known_.insert(s.meaning[static_cast<std::size_t>(end) - 1]);
    }
  }

  void step(bool fails) {
    ++steps;
    for (const auto& [id, s] : alive_) note_computed(*s);
    for (const auto& [id, s] : alive_) {
      s->guesses.clear();
      const int longest = pages_.total() * kPageTokens - static_cast<int>(s->tokens.size());
      for (int n = guesses_ ? pick(std::min(longest, 24) + 1) : 0; n > 0; --n) s->guesses.push_back(pick(2));
    }
    const auto work = scheduler_.plan(pick(8));
    if (scheduler_.empty()) return;
    ASSERT_FALSE(work.empty()) << "stuck";
    check_work(work);
    if (fails) return;  // nothing of it counts
    std::vector<std::uint64_t> done;
    for (const auto& [sequence, tokens] : work) {
      auto& s = static_cast<Tracked&>(*sequence);
      const int guessed = Scheduler::Work{sequence, tokens}.guessed();
      for (int i = 0; i < tokens - guessed; ++i, ++s.computed)
        slot(s, s.computed) = s.meaning[static_cast<std::size_t>(s.computed)];
      if (s.computed < static_cast<int>(s.tokens.size())) continue;
      const auto guesses = s.guesses;
      std::uint64_t meaning = s.meaning.back();
      for (int i = 0; i < guessed; ++i) {  // all guesses are computed, whatever becomes of them
        meaning = mix(meaning, static_cast<std::uint64_t>(guesses[static_cast<std::size_t>(i)]));
        slot(s, s.computed + i) = meaning;
      }
      guessed_ += static_cast<std::uint64_t>(guessed);
      for (int i = 0;; ++i) {
        append(s, pick(2));
        if (s.tokens.size() >= s.goal) done.push_back(s.id);
        if (s.tokens.size() >= s.goal || i == guessed || guesses[static_cast<std::size_t>(i)] != s.tokens.back()) break;
        ++s.computed;
        ++right_;
      }
    }
    for (const std::uint64_t id : done) end(id);
  }

  std::uint64_t& slot(const Tracked& s, int position) {
    const std::int32_t page = s.pages[static_cast<std::size_t>(position / kPageTokens)];
    return store_[static_cast<std::size_t>(page) * kPageTokens + static_cast<std::size_t>(position % kPageTokens)];
  }

  // What counts as computed is what lies in the pages, and what is written now is nobody else's.
  void check_work(std::span<const Scheduler::Work> work) {
    std::map<std::int32_t, int> users;
    for (const auto& [id, s] : alive_) {
      for (const std::int32_t page : s->pages) ++users[page];
    }
    for (const auto& [sequence, tokens] : work) {
      const auto& s = static_cast<const Tracked&>(*sequence);
      ASSERT_GT(tokens, 0);
      ASSERT_LE(s.computed + tokens, static_cast<int>(s.tokens.size() + s.guesses.size()));
      if (Scheduler::Work{sequence, tokens}.guessed() > 0) {
        ASSERT_EQ(s.computed + 1, static_cast<int>(s.tokens.size())) << "guesses behind more than the last token";
      }
      ASSERT_LE(s.computed + tokens, static_cast<int>(s.pages.size()) * kPageTokens);
      for (int i = 0; i < s.computed; ++i) {
        ASSERT_EQ(slot(s, i), s.meaning[static_cast<std::size_t>(i)]) << "wrong keys at " << i;
      }
      if (Scheduler::Work{sequence, tokens}.kept()) {  // its last token alone, which is read and not written
        ASSERT_EQ(s.computed + 1, static_cast<int>(s.tokens.size()));
        ASSERT_EQ(slot(s, s.computed), s.meaning.back()) << "wrong keys of the last token";
        continue;
      }
      for (int i = s.computed; i < s.computed + tokens; ++i) {
        const std::int32_t page = s.pages[static_cast<std::size_t>(i / kPageTokens)];
        ASSERT_EQ(users.at(page), 1) << "writes into a page of another";
        ASSERT_FALSE(scheduler_.tree().holds(page)) << "writes into a page that others may find";
      }
    }
    std::erase_if(fresh_, [&](std::uint64_t id) {
      const Tracked& s = *alive_.at(id);
      if (s.admitted && scheduler_.tree().evicted() == 0) check_found(s);
      return s.admitted;
    });
  }

  void check_found(const Tracked& s) {
    int expected = 0;
    const int prompt = static_cast<int>(s.tokens.size());
    while (!s.space.empty() && expected + kPageTokens <= prompt &&
           known_.contains(s.meaning[static_cast<std::size_t>(expected + kPageTokens) - 1])) {
      expected += kPageTokens;
    }
    ASSERT_EQ(s.reused, std::min(expected, prompt - 1)) << "a prompt of " << prompt << " tokens";
  }

  void check_references() {
    std::vector<int> expected(static_cast<std::size_t>(pages_.total()), 0);
    int idle = 0, free = 0;
    for (const auto& [id, s] : alive_) {
      for (const std::int32_t page : s->pages) ++expected[static_cast<std::size_t>(page)];
    }
    for (std::int32_t page = 0; page < pages_.total(); ++page) {
      const int users = expected[static_cast<std::size_t>(page)];
      const bool kept = scheduler_.tree().holds(page);
      ASSERT_EQ(pages_.references(page), users + (kept ? 1 : 0)) << "page " << page;
      idle += kept && users == 0 ? 1 : 0;
      free += kept || users > 0 ? 0 : 1;
    }
    ASSERT_EQ(scheduler_.tree().idle(), idle);
    ASSERT_EQ(pages_.free(), free);
  }

  std::mt19937_64 random_;
  PagePool pages_;
  Scheduler scheduler_;
  std::vector<std::uint64_t> store_;  // what lies in the pages
  std::map<std::uint64_t, Tracked*> alive_;
  std::set<std::uint64_t> fresh_;  // not admitted yet
  std::set<std::uint64_t> known_;  // meanings of the ends of pages that are computed
  std::uint64_t next_ = 1;
  bool guesses_ = pick(2) == 0;  // half of the schedules guess ahead
};

TEST(SchedulerFuzz, PagesNeverLeakAndAreNeverSharedWrongly) {
  const char* fixed = std::getenv("GANGLION_FUZZ_SEED");
  const std::uint64_t seed = fixed != nullptr ? std::strtoull(fixed, nullptr, 10) : std::random_device{}();
  std::cout << "seed " << seed << " (GANGLION_FUZZ_SEED repeats)\n";
  for (int i = 0; i < kSchedules; ++i) {
    Schedule schedule(mix(seed, static_cast<std::uint64_t>(i)));
    schedule.run();
    ASSERT_FALSE(HasFatalFailure()) << "schedule " << i << " of seed " << seed;
  }
  std::cout << Schedule::steps << " steps, " << Schedule::preempted << " preemptions, " << Schedule::evicted
            << " evictions, " << Schedule::reused << " tokens reused, " << Schedule::guessed_ << " guessed, "
            << Schedule::right_ << " right\n";
  EXPECT_GT(Schedule::preempted, 1'000U);
  EXPECT_GT(Schedule::evicted, 1'000U);
  EXPECT_GT(Schedule::reused, 100'000U);
  EXPECT_GT(Schedule::guessed_, 1'000'000U);
  EXPECT_GT(Schedule::right_, 100'000U);
}

}  // namespace
}  // namespace ganglion::local
