#pragma once
// Running neurons per tenant of one UTC day. Not thread-safe.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "metering/record_codec.hpp"

namespace ganglion::metering {

class DayTotals {
 public:
  // A record of another day than the current one starts that day at zero. Tenants past kTenantsMax are not counted.
  void add(std::uint64_t time_us, std::string_view tenant, api::Tier tier, NeuronParts parts);
  void restore(const TenantTotal& total);
  DayTotal get(std::uint64_t time_us, std::string_view tenant) const;
  std::vector<TenantTotal> snapshot() const;

  static constexpr std::size_t kTenantsMax = 10'000;  // keeps a segment's checkpoint below 1 MiB

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };
  DayTotal* slot(std::uint64_t day, std::string_view tenant);

  std::uint64_t day_ = 0;
  std::unordered_map<std::string, DayTotal, Hash, std::equal_to<>> tenants_;
};

}  // namespace ganglion::metering
