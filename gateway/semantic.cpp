// See gateway/semantic.hpp.

#include "gateway/semantic.hpp"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/digest.hpp"
#include "core/log.hpp"
#include "core/thread.hpp"

namespace ganglion::gateway {
namespace {

using cache::SemanticResult;
using metrics::Family;

constexpr double kScoreUnits = 1e6;           // a score in the histogram's integers
constexpr std::uint32_t kWaitingMax = 1'024;  // for the indexer

std::uint64_t observed(double score) {
  return static_cast<std::uint64_t>(std::clamp(score, 0.0, 1.0) * kScoreUnits);
}

std::string hex(std::uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

// Whether a stored question was compared at all.
bool compared(SemanticResult result) {
  return result == SemanticResult::hit || result == SemanticResult::too_far || result == SemanticResult::length ||
         result == SemanticResult::numbers || result == SemanticResult::gone;
}

}  // namespace

SemanticCache::SemanticCache(const cache::SemanticOptions& options, const core::Clock& clock,
                             metrics::Registry& registry)
    : options_(options),
      clock_(clock),
      registry_(registry),
      index_(options, clock),
      secret_(cache::KeySeed::random().hash),
      hit_score_(registry.shared().histogram(Family::semantic_score, {"hit"})),
      refused_score_(registry.shared().histogram(Family::semantic_score, {"refused"})),
      embed_seconds_(registry.shared().histogram(Family::semantic_embedding_seconds)) {
  boost::asio::post(indexer_, [] { core::name_this_thread("semantic"); });
  for (std::size_t i = 0; i < looks_.size(); ++i) {
    looks_[i] =
        registry.shared().counter(Family::semantic_lookups_total, {cache::name(static_cast<SemanticResult>(i))});
  }
}

SemanticCache::~SemanticCache() {
  indexer_.stop();
  indexer_.join();
}

void SemanticCache::keep(cache::SemanticPoint point, const cache::CacheKey& answer, std::chrono::seconds ttl) {
  if (waiting_.fetch_add(1, std::memory_order_relaxed) >= kWaitingMax) {
    waiting_.fetch_sub(1, std::memory_order_relaxed);
    return;
  }
  boost::asio::post(indexer_, [this, point = std::move(point), answer, ttl]() mutable {
    waiting_.fetch_sub(1, std::memory_order_relaxed);
    if (const std::lock_guard lock(journal_mutex_); journal_ && point.name) {
      const core::WallTime now = clock_.wall();
      journal_->append({.partition = point.partition,
                        .answer = answer,
                        .name = *point.name,
                        .vector = point.vector,
                        .text_bytes = point.text_bytes,
                        .numbers = point.numbers,
                        .text_digest = point.text_digest,
                        .expires = now + ttl},
                       now);
    }
    index_.insert(std::move(point), answer, ttl);
  });
}

void SemanticCache::forget(const cache::CacheKey& partition, const cache::CacheKey& answer) {
  boost::asio::post(indexer_, [this, partition, answer] { index_.forget(partition, answer); });
}

void SemanticCache::persist(const std::string& file, const cache::StoreSecret& secret, cache::KeySeed seed) {
  secret_ = seed.check;
  make_journal_ = [this, file, secret] {
    return std::make_unique<cache::SemanticJournal>(file, secret, options_.entries_max);
  };
  boost::asio::post(indexer_, [this] { open_file(); });
}

// The indexer's.
void SemanticCache::open_file() {
  const std::lock_guard lock(journal_mutex_);
  if (given_up_ || journal_) return;
  const core::WallTime now = clock_.wall();
  journal_ = make_journal_();
  std::function<void(cache::SemanticRecord)> insert;
  if (!std::exchange(loaded_, true)) {
    insert = [&](cache::SemanticRecord record) {
      const auto left = std::chrono::floor<std::chrono::seconds>(record.expires - now);
      index_.insert({.partition = record.partition,
                     .vector = std::move(record.vector),
                     .text_bytes = record.text_bytes,
                     .numbers = record.numbers,
                     .text_digest = record.text_digest,
                     .name = record.name},
                    record.answer, left);
    };
  }
  journal_->load(now, insert);
  core::log(core::LogLevel::info, "semantic_index_loaded", {{"entries", index_.entries()}});
}

bool SemanticCache::give_up_file(std::chrono::milliseconds limit) {
  const std::unique_lock lock(journal_mutex_, limit);
  if (!lock) return false;
  journal_.reset();
  given_up_ = true;
  return true;
}

void SemanticCache::take_file_back() {
  if (!make_journal_) return;
  {
    const std::lock_guard lock(journal_mutex_);
    given_up_ = false;
  }
  boost::asio::post(indexer_, [this] { open_file(); });
}

SemanticCache::Running::Running(SemanticCache& cache)
    : cache_(cache),
      began_(cache.clock_.steady()),
      admitted_(cache.running_.fetch_add(1, std::memory_order_relaxed) < cache.options_.concurrent_max) {}

SemanticCache::Running::~Running() {
  cache_.running_.fetch_sub(1, std::memory_order_relaxed);
}

void SemanticCache::Running::done(std::uint64_t tokens, std::string_view model) {
  cache_.embed_seconds_.observe(cache_.clock_.steady() - began_);
  if (tokens > 0) cache_.registry_.shared().counter(Family::semantic_embedding_tokens_total, {model}).add(tokens);
}

std::uint64_t SemanticCache::digest(std::string_view text) const {
  return core::hash128(text, secret_).low;
}

void SemanticCache::note(SemanticLogLine line) {
  looks_[static_cast<std::size_t>(line.result)].add();
  if (!compared(line.result)) return;
  (line.result == SemanticResult::hit ? hit_score_ : refused_score_).observe_count(observed(line.score));
  line.time = clock_.wall();
  const std::lock_guard lock(mutex_);
  if (log_.size() >= options_.log_size && !log_.empty()) log_.pop_back();
  if (options_.log_size > 0) log_.push_front(std::move(line));
}

std::string SemanticCache::json() const {
  nlohmann::ordered_json out;
  out["entries"] = index_.entries();
  out["evicted"] = index_.evicted();
  out["looks"] = nlohmann::ordered_json::array();
  const std::lock_guard lock(mutex_);
  for (const SemanticLogLine& line : log_) {
    nlohmann::ordered_json look{
        {"time_s", std::chrono::duration_cast<std::chrono::seconds>(line.time.time_since_epoch()).count()},
        {"tenant", line.tenant},
        {"gateway", line.gateway},
        {"model", line.model},
        {"result", cache::name(line.result)},
        {"score", line.score},
        {"threshold", line.threshold},
        {"asked_bytes", line.asked_bytes},
        {"stored_bytes", line.stored_bytes},
        {"asked_digest", hex(line.asked_digest)},
        {"stored_digest", hex(line.stored_digest)}};
    if (options_.show_texts) {
      look["asked"] = line.asked;
      look["stored"] = line.stored;
    }
    out["looks"].push_back(std::move(look));
  }
  return out.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

void SemanticCache::scrape(metrics::Scrape& out) const {
  out.set(Family::semantic_entries, static_cast<double>(index_.entries()));
  out.set(Family::semantic_evictions_total, static_cast<double>(index_.evicted()));
}

}  // namespace ganglion::gateway
