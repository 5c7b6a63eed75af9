#pragma once
// The semantic cache as the request path uses it: the index, how many embeddings run at once, what was counted, and the
// looks that an operator reads to set a threshold. Process-wide, thread-safe.

#include <array>
#include <atomic>
#include <boost/asio/thread_pool.hpp>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "cache/semantic_index.hpp"
#include "cache/semantic_journal.hpp"
#include "core/clock.hpp"
#include "metrics/metrics.hpp"

namespace ganglion::gateway {

// One look, as kept for GET /admin/cache/semantic.
struct SemanticLogLine {
  core::WallTime time;
  std::string tenant, gateway, model;
  cache::SemanticResult result = cache::SemanticResult::empty;
  double score = 0;
  double threshold = 0;
  std::size_t asked_bytes = 0, stored_bytes = 0;
  std::uint64_t asked_digest = 0, stored_digest = 0;
  std::string asked, stored;  // only where texts are shown
};

class SemanticCache {
 public:
  SemanticCache(const cache::SemanticOptions& options, const core::Clock& clock, metrics::Registry& registry);

  cache::SemanticLook look(const cache::SemanticPoint& asked, const cache::SemanticPolicy& policy) {
    return index_.look(asked, policy);
  }
  // Into the index, and out of it, on a thread of its own; dropped when too many wait.
  void keep(cache::SemanticPoint point, const cache::CacheKey& answer, std::chrono::seconds ttl);
  void forget(const cache::CacheKey& partition, const cache::CacheKey& answer);
  // Keeps the index in this file too, and fills it from there, behind the caller's back. `seed` and `secret` are those
  // that keys and names are made with, the same in each process that uses the file. At start, once.
  void persist(const std::string& file, const cache::StoreSecret& secret, cache::KeySeed seed);
  // For the process that takes this one's place: the file is closed, and questions stored from here on are not in it.
  // False: it is still being read or written after `limit`.
  bool give_up_file(std::chrono::milliseconds limit);
  void take_file_back();  // that process did not
  const cache::SemanticOptions& options() const { return options_; }
  ~SemanticCache();

  // One embedding under way; false: as many run as may.
  class Running {
   public:
    explicit Running(SemanticCache& cache);
    ~Running();
    Running(const Running&) = delete;
    Running& operator=(const Running&) = delete;
    explicit operator bool() const { return admitted_; }
    void done(std::uint64_t tokens, std::string_view model);

   private:
    SemanticCache& cache_;
    const core::SteadyTime began_;
    const bool admitted_;
  };

  // A digest of a text that tells equal from different and nothing else: keyed with a secret of this process.
  std::uint64_t digest(std::string_view text) const;

  // Counts the look and keeps it, where there was anything to compare.
  void note(SemanticLogLine line);
  // {"entries":..,"looks":[..]}, newest first.
  std::string json() const;

  void scrape(metrics::Scrape& out) const;

 private:
  void open_file();

  const cache::SemanticOptions options_;
  const core::Clock& clock_;
  metrics::Registry& registry_;
  cache::SemanticIndex index_;
  std::uint64_t secret_;
  std::atomic<std::uint32_t> running_{0};
  std::array<metrics::Counter, static_cast<std::size_t>(cache::SemanticResult::kCount)> looks_;
  metrics::Histogram hit_score_, refused_score_, embed_seconds_;
  mutable std::mutex mutex_;  // guards the log
  std::deque<SemanticLogLine> log_;
  std::atomic<std::uint32_t> waiting_{0};  // for the indexer
  std::timed_mutex journal_mutex_;         // guards what follows; the indexer holds it as long as it uses the file
  std::unique_ptr<cache::SemanticJournal> journal_;  // opened by the indexer; null: there is none, or it is given up
  std::function<std::unique_ptr<cache::SemanticJournal>()> make_journal_;
  bool given_up_ = false;
  bool loaded_ = false;  // into the index
  boost::asio::thread_pool indexer_{1};
};

}  // namespace ganglion::gateway
