// See cache/purge_hearing.hpp.

#include "cache/purge_hearing.hpp"

#include <utility>

#include "core/log.hpp"

namespace ganglion::cache {

PurgeHearing::PurgeHearing(PurgeLog& purges, MemoryCache& memory, DiskPlace* disk, Post post)
    : purges_(purges), memory_(memory), disk_(disk), post_(std::move(post)) {}

void PurgeHearing::hear(const SharedStore::Told& told) {
  // Older ones than those it keeps may have been made: everything, then.
  if (!told.complete && !told.purges.empty()) make(told.purges.front().first - 1, {});
  for (const auto& [generation, text] : told.purges) {
    // A scope of a later version may say more than we understand: everything, too.
    if (generation > purges_.generation()) make(generation, scope_from_text(text).value_or(PurgeScope{}));
  }
  if (disk_ != nullptr && told.generation > purges_.generation()) {
    post_([disk = disk_, generation = told.generation] { disk->caught_up(generation); });
  }
  purges_.caught_up(told.generation);
}

// Posted before it is entered: who reads the log and then asks the disk is behind the disk's part.
void PurgeHearing::make(std::uint64_t generation, const PurgeScope& scope) {
  if (purges_.knows(generation)) return;
  if (disk_ != nullptr) post_([this, generation, scope] { make_on_disk(generation, scope); });
  enter(generation, scope);
}

// The disk's thread and the caller both come here, and neither goes on before memory is purged.
void PurgeHearing::enter(std::uint64_t generation, const PurgeScope& scope) {
  if (purges_.hear(generation, scope)) heard_.fetch_add(1, std::memory_order_relaxed);
  memory_.purge(scope);
}

void PurgeHearing::make_on_disk(std::uint64_t generation, const PurgeScope& scope) {
  if (!purges_.knows(generation)) enter(generation, scope);
  // A gateway that was restarted hears of purges that its disk has seen before what lies there now was written: those
  // are left out there.
  if (auto done = disk_->purge(scope, generation); !done) {
    core::log(core::LogLevel::error, "cache_purge_not_durable", {{"why", done.error().message}});
  }
}

}  // namespace ganglion::cache
