// See cache/disk_place.hpp.

#include "cache/disk_place.hpp"

#include <algorithm>
#include <utility>

#include "core/log.hpp"

namespace ganglion::cache {
namespace {

constexpr std::uint64_t DiskStats::* kCounts[] = {
    &DiskStats::reads,   &DiskStats::writes,  &DiskStats::read_errors, &DiskStats::write_errors,  &DiskStats::refused,
    &DiskStats::evicted, &DiskStats::carried, &DiskStats::bytes_read,  &DiskStats::bytes_written,
};

void add_counts(DiskStats& to, const DiskStats& from) {
  for (const auto count : kCounts) to.*count += from.*count;
}

}  // namespace

core::Result<void> DiskPlace::take() {
  if (tier_) return {};
  auto opened = DiskTier::open(options_, clock_);
  if (!opened) return std::unexpected(std::move(opened.error()));
  make_missed(**opened);  // before anybody looks
  const std::lock_guard guard{lock_};
  tier_ = std::move(*opened);
  return {};
}

void DiskPlace::give_up() {
  std::unique_ptr<DiskTier> gone;  // closed after the lock
  const std::lock_guard guard{lock_};
  if (!tier_) return;
  add_counts(before_, tier_->stats());
  gone = std::move(tier_);
}

bool DiskPlace::here() const {
  const std::lock_guard guard{lock_};
  return tier_ != nullptr;
}

bool DiskPlace::holds(const StoreKey& key) const {
  const std::lock_guard guard{lock_};
  return tier_ && tier_->holds(key);
}

DiskStats DiskPlace::stats() const {
  const std::lock_guard guard{lock_};
  DiskStats out{.writing = false};
  if (tier_) out = tier_->stats();
  add_counts(out, before_);
  return out;
}

bool DiskPlace::scan_some() {
  return tier_ && tier_->scan_some();
}

std::optional<DiskTier::Record> DiskPlace::read(const StoreKey& key) {
  return tier_ ? tier_->read(key) : std::nullopt;
}

bool DiskPlace::purged(std::uint64_t position, const Entry& entry) const {
  return !tier_ || tier_->purged(position, entry);
}

void DiskPlace::forget(const StoreKey& key) {
  if (tier_) tier_->forget(key);
}

bool DiskPlace::write(const StoreKey& key, std::string_view encoded, core::WallTime expires) {
  return tier_ && tier_->write(key, encoded, expires);
}

core::Result<void> DiskPlace::purge(const PurgeScope& scope, std::uint64_t generation) {
  if (tier_) {
    if (generation != 0 && generation <= tier_->generation()) return {};
    return tier_->purge(scope);
  }
  if (missed_.size() < kMissedMax) {
    missed_.push_back({.generation = generation, .scope = scope});
  } else {
    missed_ = {Missed{}};
  }
  return {};
}

void DiskPlace::caught_up(std::uint64_t generation) {
  if (tier_) return tier_->caught_up(generation);
  missed_generation_ = std::max(missed_generation_, generation);
}

void DiskPlace::make_missed(DiskTier& tier) {
  for (const Missed& missed : std::exchange(missed_, {})) {
    if (missed.generation != 0 && missed.generation <= tier.generation()) continue;
    if (auto done = tier.purge(missed.scope); !done) {
      core::log(core::LogLevel::error, "cache_purge_not_durable", {{"why", done.error().message}});
    }
  }
  if (const std::uint64_t generation = std::exchange(missed_generation_, 0); generation != 0) {
    tier.caught_up(generation);
  }
}

}  // namespace ganglion::cache
