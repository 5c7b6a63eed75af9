// See address_count.hpp.

#include "net/address_count.hpp"

#include <algorithm>

namespace ganglion::net {
namespace {

namespace ip = boost::asio::ip;

// The first 64 bits of an IPv6 address; an IPv4 one behind a prefix that no such address has.
std::array<std::uint8_t, 8> key_of(const ip::address& address) {
  std::array<std::uint8_t, 8> out{};
  if (address.is_v6() && !address.to_v6().is_v4_mapped()) {
    const auto bytes = address.to_v6().to_bytes();
    std::copy_n(bytes.begin(), out.size(), out.begin());
    return out;
  }
  const auto v4 = address.is_v4() ? address.to_v4() : ip::make_address_v4(ip::v4_mapped, address.to_v6());
  out[2] = out[3] = 0xff;
  std::ranges::copy(v4.to_bytes(), out.begin() + 4);
  return out;
}

}  // namespace

std::optional<AddressCount::Place> AddressCount::enter(const ip::address& address, std::size_t most) {
  if (most == 0) return Place{};
  const Key key = key_of(address);
  const std::lock_guard lock(mutex_);
  std::size_t& open = open_[key];
  if (open >= most) return std::nullopt;
  ++open;
  return Place{*this, key};
}

void AddressCount::leave(const Key& key) {
  const std::lock_guard lock(mutex_);
  const auto found = open_.find(key);
  if (found != open_.end() && --found->second == 0) open_.erase(found);
}

std::size_t AddressCount::addresses() const {
  const std::lock_guard lock(mutex_);
  return open_.size();
}

}  // namespace ganglion::net
