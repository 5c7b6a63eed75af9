// See metering/day_totals.hpp.

#include "metering/day_totals.hpp"

namespace ganglion::metering {
namespace {

constexpr std::uint64_t kDayUs = 86'400'000'000;

}  // namespace

DayTotal* DayTotals::slot(std::uint64_t day, std::string_view tenant) {
  if (day != day_) {
    tenants_.clear();
    day_ = day;
  }
  const auto found = tenants_.find(tenant);
  if (found != tenants_.end()) return &found->second;
  if (tenants_.size() >= kTenantsMax) return nullptr;
  return &tenants_.emplace(tenant, DayTotal{}).first->second;
}

void DayTotals::add(std::uint64_t time_us, std::string_view tenant, api::Tier tier, NeuronParts parts) {
  if (parts == 0) return;
  DayTotal* const total = slot(time_us / kDayUs, tenant);
  if (total == nullptr) return;
  (tier == api::Tier::fast ? total->fast : total->regular) += parts;
}

void DayTotals::restore(const TenantTotal& total) {
  DayTotal* const to = slot(total.day, total.tenant);
  if (to != nullptr) *to = {.regular = total.regular, .fast = total.fast};
}

DayTotal DayTotals::get(std::uint64_t time_us, std::string_view tenant) const {
  if (time_us / kDayUs != day_) return {};
  const auto found = tenants_.find(tenant);
  return found == tenants_.end() ? DayTotal{} : found->second;
}

std::vector<TenantTotal> DayTotals::snapshot() const {
  std::vector<TenantTotal> out;
  out.reserve(tenants_.size());
  for (const auto& [tenant, total] : tenants_)
    out.push_back({.day = day_, .tenant = tenant, .regular = total.regular, .fast = total.fast});
  return out;
}

}  // namespace ganglion::metering
