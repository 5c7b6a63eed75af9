#pragma once
// A value that must not be printed: formatting it gives "[redacted]", comparing takes the same time wherever the
// difference is, and its bytes are wiped when it dies.

#include <ostream>
#include <string>
#include <string_view>

namespace ganglion::core {

class Secret {
 public:
  Secret() = default;
  explicit Secret(std::string value) : value_(std::move(value)) {}
  Secret(const Secret&) = default;
  Secret& operator=(const Secret&) = default;
  Secret(Secret&& other) noexcept : value_(std::move(other.value_)) { other.wipe(); }
  Secret& operator=(Secret&& other) noexcept;
  ~Secret() { wipe(); }

  // Only where the value must leave the process (an upstream header, an HMAC).
  std::string_view reveal() const { return value_; }
  bool empty() const { return value_.empty(); }

 private:
  void wipe();
  std::string value_;
};

inline std::ostream& operator<<(std::ostream& out, const Secret&) {
  return out << "[redacted]";
}

// Same time for equal lengths, whatever differs.
bool equal_constant_time(std::string_view a, std::string_view b);

}  // namespace ganglion::core
