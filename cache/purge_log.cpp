// See cache/purge_log.hpp.

#include "cache/purge_log.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace ganglion::cache {
namespace {

using Json = nlohmann::json;

struct Field {
  const char* name;
  std::string PurgeScope::* member;
};
constexpr Field kFields[] = {{"tenant", &PurgeScope::tenant},
                             {"gateway", &PurgeScope::gateway},
                             {"model", &PurgeScope::model},
                             {"tag", &PurgeScope::tag},
                             {"key", &PurgeScope::key}};

}  // namespace

bool PurgeScope::matches(const Entry& entry) const {
  const auto agrees = [](const std::string& wanted, const std::string& has) { return wanted.empty() || wanted == has; };
  return agrees(tenant, entry.tenant) && agrees(gateway, entry.gateway) && agrees(model, entry.model) &&
         agrees(key, entry.custom_key) && (tag.empty() || std::ranges::find(entry.tags, tag) != entry.tags.end());
}

std::string to_text(const PurgeScope& scope) {
  Json out = Json::object();
  for (const Field& field : kFields) {
    if (!(scope.*field.member).empty()) out[field.name] = scope.*field.member;
  }
  return out.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::optional<PurgeScope> scope_from_text(std::string_view text) {
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) return std::nullopt;
  PurgeScope out;
  for (const auto& [name, value] : json.items()) {
    const auto field = std::ranges::find_if(kFields, [&](const Field& f) { return name == f.name; });
    if (field == std::end(kFields) || !value.is_string()) return std::nullopt;
    out.*(field->member) = value.get<std::string>();
  }
  return out;
}

std::uint64_t PurgeLog::add(PurgeScope scope) {
  const std::lock_guard guard{lock_};
  const std::uint64_t sequence = sequence_.load(std::memory_order_relaxed) + 1;
  purges_.push_back({.sequence = sequence, .scope = std::move(scope)});
  trim();
  sequence_.store(sequence, std::memory_order_release);
  return sequence;
}

void PurgeLog::set_generation(std::uint64_t sequence, std::uint64_t generation) {
  const std::lock_guard guard{lock_};
  for (Purge& purge : purges_) {
    if (purge.sequence == sequence) purge.generation = generation;
  }
  // The generation known moves in caught_up() only: others' purges before this one may not have been heard.
}

bool PurgeLog::hear(std::uint64_t generation, PurgeScope scope) {
  const std::lock_guard guard{lock_};
  if (known(generation)) return false;
  const std::uint64_t sequence = sequence_.load(std::memory_order_relaxed) + 1;
  purges_.push_back({.sequence = sequence, .generation = generation, .scope = std::move(scope)});
  trim();
  sequence_.store(sequence, std::memory_order_release);
  return true;
}

bool PurgeLog::known(std::uint64_t generation) const {
  return generation <= generation_floor_ ||
         std::ranges::any_of(purges_, [&](const Purge& purge) { return purge.generation == generation; });
}

bool PurgeLog::knows(std::uint64_t generation) const {
  const std::lock_guard guard{lock_};
  return known(generation);
}

void PurgeLog::caught_up(std::uint64_t generation) {
  const std::lock_guard guard{lock_};
  if (generation > generation_.load(std::memory_order_relaxed))
    generation_.store(generation, std::memory_order_release);
}

void PurgeLog::trim() {
  while (purges_.size() > kPurgesMax) {
    sequence_floor_ = std::max(sequence_floor_, purges_.front().sequence);
    generation_floor_ = std::max(generation_floor_, purges_.front().generation);
    const bool untold = purges_.front().generation == 0;
    purges_.pop_front();
    // Whoever could not be told of this one is told to purge everything with the next.
    if (untold) purges_.front().scope = {};
  }
}

bool PurgeLog::purged(const Entry& entry) const {
  if (entry.purge_sequence >= sequence()) return false;
  const std::lock_guard guard{lock_};
  if (entry.purge_sequence < sequence_floor_) return true;
  return std::ranges::any_of(
      purges_, [&](const Purge& purge) { return purge.sequence > entry.purge_sequence && purge.scope.matches(entry); });
}

bool PurgeLog::purged_in_cluster(const Entry& entry) const {
  const std::lock_guard guard{lock_};
  if (entry.generation < generation_floor_) return true;
  return std::ranges::any_of(purges_, [&](const Purge& purge) {
    return (purge.generation == 0 || purge.generation > entry.generation) && purge.scope.matches(entry);
  });
}

std::vector<Purge> PurgeLog::with_generation() const {
  std::vector<Purge> out;
  const std::lock_guard guard{lock_};
  std::ranges::copy_if(purges_, std::back_inserter(out), [](const Purge& purge) { return purge.generation != 0; });
  std::ranges::sort(out, {}, &Purge::generation);
  return out;
}

std::vector<Purge> PurgeLog::without_generation() const {
  std::vector<Purge> out;
  const std::lock_guard guard{lock_};
  std::ranges::copy_if(purges_, std::back_inserter(out), [](const Purge& purge) { return purge.generation == 0; });
  return out;
}

}  // namespace ganglion::cache
