// See net/address_rule.hpp. Ranges: IANA's special-purpose registries of IPv4 and IPv6 addresses.

#include "net/address_rule.hpp"

#include <algorithm>
#include <array>
#include <string>

namespace ganglion::net {

namespace ip = boost::asio::ip;

namespace {

struct Range4 {
  std::uint32_t network;
  unsigned bits;
  AddressReach reach;
};

constexpr std::uint32_t v4(unsigned a, unsigned b, unsigned c, unsigned d) {
  return a << 24 | b << 16 | c << 8 | d;
}

constexpr Range4 kRanges4[] = {
    {v4(0, 0, 0, 0), 8, AddressReach::nowhere},       // "this network"
    {v4(169, 254, 0, 0), 16, AddressReach::nowhere},  // link-local, cloud metadata
    {v4(224, 0, 0, 0), 4, AddressReach::nowhere},     // multicast
    {v4(240, 0, 0, 0), 4, AddressReach::nowhere},     // reserved, broadcast
    {v4(10, 0, 0, 0), 8, AddressReach::here},         //
    {v4(100, 64, 0, 0), 10, AddressReach::here},      // carrier NAT
    {v4(127, 0, 0, 0), 8, AddressReach::here},        //
    {v4(172, 16, 0, 0), 12, AddressReach::here},      //
    {v4(192, 0, 0, 0), 24, AddressReach::here},       // protocol assignments
    {v4(192, 0, 2, 0), 24, AddressReach::here},       // documentation
    {v4(192, 88, 99, 0), 24, AddressReach::here},     // 6to4 relays, withdrawn
    {v4(192, 168, 0, 0), 16, AddressReach::here},     //
    {v4(198, 18, 0, 0), 15, AddressReach::here},      // benchmarks
    {v4(198, 51, 100, 0), 24, AddressReach::here},    // documentation
    {v4(203, 0, 113, 0), 24, AddressReach::here},     // documentation
};

AddressReach reach4(std::uint32_t address) {
  for (const Range4& range : kRanges4) {
    if ((address ^ range.network) >> (32 - range.bits) == 0) return range.reach;
  }
  return AddressReach::everywhere;
}

using Bytes6 = ip::address_v6::bytes_type;

std::uint32_t word(const Bytes6& b, std::size_t at) {
  return v4(b[at], b[at + 1], b[at + 2], b[at + 3]);
}

bool zero(const Bytes6& b, std::size_t from, std::size_t to) {
  return std::all_of(b.begin() + static_cast<std::ptrdiff_t>(from), b.begin() + static_cast<std::ptrdiff_t>(to),
                     [](unsigned char c) { return c == 0; });
}

AddressReach reach6(const ip::address_v6& address) {
  if (address.is_loopback()) return AddressReach::here;
  if (address.is_unspecified()) return AddressReach::nowhere;
  const Bytes6 b = address.to_bytes();
  const std::uint32_t first = word(b, 0);
  if (b[0] == 0xff || (b[0] == 0xfe && (b[1] & 0xc0) == 0x80)) return AddressReach::nowhere;  // multicast, link-local
  if (zero(b, 0, 10) && b[10] == 0xff && b[11] == 0xff) return reach4(word(b, 12));           // ::ffff:0:0/96
  if (zero(b, 0, 12)) return std::max(AddressReach::here, reach4(word(b, 12)));               // ::/96, deprecated
  if (first == 0x0064ff9b) {                                                                  // NAT64
    if (zero(b, 4, 12)) return reach4(word(b, 12));
    return AddressReach::here;  // 64:ff9b:1::/48 is for local use
  }
  if (b[0] == 0x20 && b[1] == 0x02) return reach4(word(b, 2));                      // 6to4
  if ((b[0] & 0xfe) == 0xfc) return AddressReach::here;                             // unique local
  if ((first & 0xffc00000) == 0xfec00000) return AddressReach::here;                // site-local, deprecated
  if (first == 0x20010db8 || first == 0x20010000) return AddressReach::here;        // documentation; Teredo
  if (first >> 12 == 0x3fff0) return AddressReach::here;                            // documentation
  if (first == 0x01000000 && zero(b, 4, 8)) return AddressReach::here;              // discard
  return (b[0] & 0xe0) == 0x20 ? AddressReach::everywhere : AddressReach::nowhere;  // 2000::/3 is all that is assigned
}

}  // namespace

AddressReach reach(const ip::address& address) {
  return address.is_v4() ? reach4(address.to_v4().to_uint()) : reach6(address.to_v6());
}

const char* refused_address(const ip::address& address, std::string_view host, bool public_only) {
  const AddressReach where = reach(address);
  if (where == AddressReach::everywhere) return nullptr;
  boost::system::error_code error;
  const bool named = ip::make_address(std::string{host}, error) == address && !error;
  if (named && !public_only) return nullptr;
  if (where == AddressReach::nowhere) return "the upstream's name resolved to an address where no provider can be";
  return public_only ? "the upstream's name resolved to an address that is not of the public Internet" : nullptr;
}

}  // namespace ganglion::net
