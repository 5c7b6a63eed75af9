#pragma once
// The hash of core::hash128 for data that comes in parts.

#include <cstdint>
#include <memory>
#include <string_view>

#include "core/digest.hpp"

namespace ganglion::core {

// Made once and used again: 576 bytes of state. Not thread-safe.
class Hash128Stream {
 public:
  Hash128Stream();
  ~Hash128Stream();
  Hash128Stream(Hash128Stream&&) noexcept;
  Hash128Stream& operator=(Hash128Stream&&) noexcept;

  void reset(std::uint64_t seed);  // before the first update
  void update(std::string_view part);
  // Of everything since reset(): what hash128() returns for the parts put together.
  Hash128 digest() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ganglion::core
