#pragma once
// Request ids: 26 characters, time-ordered (48 bits of wall-clock milliseconds, then 80 random bits, Crockford base
// 32), unique across replicas without coordination. Used as x-request-id and as the ledger's request id.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/clock.hpp"

namespace ganglion::core {

class RequestId {
 public:
  RequestId() { text_.fill('0'); }
  std::string_view view() const { return {text_.data(), text_.size()}; }
  std::string str() const { return std::string{view()}; }
  friend bool operator==(const RequestId&, const RequestId&) = default;

 private:
  friend class RequestIds;
  std::array<char, 26> text_;
};

// One a worker; not thread-safe. Seeded from the system's random generator.
class RequestIds {
 public:
  RequestIds();
  RequestId next(WallTime now);

 private:
  std::uint64_t random();
  std::array<std::uint64_t, 4> state_{};
};

}  // namespace ganglion::core
