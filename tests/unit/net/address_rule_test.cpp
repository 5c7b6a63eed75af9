// Every way of writing an address that leads inwards, judged by what it means.

#include "net/address_rule.hpp"

#include <gtest/gtest.h>

#include <boost/asio/ip/address.hpp>

#include "tests/unit/net/upstream_fixture.hpp"

namespace ganglion::net {
namespace {

namespace ip = boost::asio::ip;

AddressReach reach_of(const char* text) {
  return reach(ip::make_address(text));
}

TEST(AddressRule, KnowsWhereAddressesLead) {
  for (const char* text :
       {"1.1.1.1",         "8.8.8.8",     "100.63.255.255",  "100.128.0.0",      "126.255.255.255", "128.0.0.1",
        "172.15.255.255",  "172.32.0.0",  "192.167.255.255", "192.169.0.0",      "198.17.255.255",  "198.20.0.0",
        "169.253.255.255", "169.255.0.0", "223.255.255.255", "11.0.0.0",         "9.255.255.255",   "1.0.0.0",
        "2606:4700::1111", "2a00::1",     "::ffff:8.8.8.8",  "64:ff9b::808:808", "2002:808:808::1"}) {
    EXPECT_EQ(reach_of(text), AddressReach::everywhere) << text;
  }
  for (const char* text : {"10.0.0.0",        "10.255.255.255",
                           "100.64.0.1",      "100.127.255.255",
                           "127.0.0.1",       "127.255.255.254",
                           "172.16.0.1",      "172.31.255.255",
                           "192.168.0.1",     "192.168.255.255",
                           "192.0.0.8",       "192.0.2.1",
                           "198.18.0.1",      "198.19.255.255",
                           "198.51.100.7",    "203.0.113.9",
                           "192.88.99.1",     "::1",
                           "fc00::1",         "fdff::1",
                           "fec0::1",         "2001:db8::1",
                           "2001::1",         "::ffff:127.0.0.1",
                           "::ffff:10.0.0.1", "::ffff:192.168.1.1",
                           "::127.0.0.1",     "::8.8.8.8",
                           "64:ff9b::7f00:1", "64:ff9b::a00:1",
                           "64:ff9b:1::1",    "2002:7f00:1::",
                           "2002:a00:1::1",   "100::1",
                           "3fff::1"}) {
    EXPECT_EQ(reach_of(text), AddressReach::here) << text;
  }
  for (const char* text :
       {"0.0.0.0", "0.1.2.3", "169.254.169.254", "169.254.0.1", "224.0.0.1", "239.255.255.255", "240.0.0.1",
        "255.255.255.255", "::", "fe80::1", "febf::1", "ff02::1", "::ffff:169.254.169.254", "::ffff:0.0.0.0",
        "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::", "::169.254.169.254", "4000::1", "e000::1"}) {
    EXPECT_EQ(reach_of(text), AddressReach::nowhere) << text;
  }
}

TEST(AddressRule, WhatTheBaseUrlNamesIsTheOperatorsWord) {
  const auto refused = [](const char* address, const char* host, bool public_only) {
    return refused_address(ip::make_address(address), host, public_only) != nullptr;
  };
  EXPECT_FALSE(refused("127.0.0.1", "127.0.0.1", false));
  EXPECT_FALSE(refused("10.1.2.3", "models.internal", false)) << "a private provider";
  EXPECT_FALSE(refused("169.254.1.1", "169.254.1.1", false));
  EXPECT_TRUE(refused("169.254.169.254", "api.example", false)) << "rebound to the cloud's metadata";
  EXPECT_TRUE(refused("::ffff:169.254.169.254", "api.example", false));
  EXPECT_TRUE(refused("0.0.0.0", "api.example", false));
  EXPECT_TRUE(refused("10.1.2.3", "api.example", true));
  EXPECT_TRUE(refused("127.0.0.1", "127.0.0.1", true));
  EXPECT_TRUE(refused("127.0.0.1", "localhost", true));
  EXPECT_FALSE(refused("8.8.8.8", "api.example", true));
}

using test::awaitable;
using test::UpstreamTest;

TEST_F(UpstreamTest, PublicOnlyConnectsToNoLocalAddress) {
  test::ScriptedUpstream upstream({[&](test::RawSocket& peer) { (void)peer.read_message(); }});
  for (const char* host : {"localhost", "127.0.0.1"}) {
    UpstreamOptions options;
    options.base_url = std::string{"http://"} + host + ":" + std::to_string(upstream.port());
    options.public_only = true;
    run(options, [&](UpstreamClient& client) -> awaitable<void> {
      EXPECT_EQ((co_await ask(client)).error, core::ErrorKind::upstream_connect) << host;
    });
  }
  EXPECT_EQ(upstream.accepted(), 0);
}

}  // namespace
}  // namespace ganglion::net
