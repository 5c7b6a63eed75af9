#pragma once
// Which resolved addresses an upstream connection may go to. The operator's configuration names hosts; what they
// resolve to is the name server's word, and must not lead inwards (SSRF, DNS rebinding).

#include <boost/asio/ip/address.hpp>
#include <cstdint>
#include <string_view>

namespace ganglion::net {

enum class AddressReach : std::uint8_t {
  everywhere,  // the public Internet
  here,        // loopback, private, carrier, documentation and test networks: fine where the operator means them
  nowhere,     // unspecified, link-local (cloud metadata), multicast, broadcast, reserved: no provider lives there
};

// Addresses that carry an IPv4 address (mapped, NAT64, 6to4, compatible) are judged by that one as well.
AddressReach reach(const boost::asio::ip::address& address);

// Why `address`, to which `host` of a base URL resolved, must not be connected to; null when it may be. An address
// that the base URL itself names is the operator's own word.
const char* refused_address(const boost::asio::ip::address& address, std::string_view host, bool public_only);

}  // namespace ganglion::net
