// Who may pass to the admin listener, by Host and by token.

#include "gateway/admin_access.hpp"

#include <gtest/gtest.h>

namespace ganglion::gateway {
namespace {

struct Asked {
  std::string host;
  std::string path = "/metrics";
  std::string authorization;
};

std::optional<AdminRefusal> judge(const AdminGate& gate, const Asked& asked) {
  const net::Header header{"Authorization", asked.authorization};
  net::RequestHead head;
  head.path = asked.path;
  head.host = asked.host;
  head.http10 = asked.host.empty();
  if (!asked.authorization.empty()) head.headers = {&header, 1};
  return gate.judge(head);
}

TEST(AdminGate, OnLoopbackOnlyLoopbackNamesAndConfiguredOnesAreAnswered) {
  const AdminGate gate("127.0.0.1", {.hosts = {"ops.internal"}});
  for (const char* good : {"localhost", "LocalHost:8081", "127.0.0.1", "127.0.0.1:8081", "127.8.9.1:1", "[::1]",
                           "[::1]:8081", "ops.internal", "OPS.internal:80", ""}) {
    EXPECT_EQ(judge(gate, {.host = good}), std::nullopt) << good;
  }
  for (const char* bad : {"evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "127.evil.example:8081",
                          "10.0.0.1", "169.254.169.254", "[::2]:8081", "[::ffff:127.0.0.1]", "0.0.0.0", "localhost.",
                          "xlocalhost", "internal", "127.1", "2130706433"}) {
    EXPECT_EQ(judge(gate, {.host = bad}), AdminRefusal::host) << bad;
    EXPECT_EQ(judge(gate, {.host = bad, .path = "/healthz"}), AdminRefusal::host) << bad;
  }
}

TEST(AdminGate, BeyondLoopbackNamesAreCheckedWhereSomeAreGiven) {
  const core::Secret token{"0123456789abcdef"};
  const AdminGate any("0.0.0.0", {.token = token});
  EXPECT_FALSE(any.on_loopback());
  EXPECT_EQ(judge(any, {.host = "whatever.example", .path = "/healthz"}), std::nullopt);
  const AdminGate named("10.1.2.3", {.token = token, .hosts = {"ops.internal"}});
  EXPECT_EQ(judge(named, {.host = "10.1.2.3:8081", .path = "/healthz"}), std::nullopt);
  EXPECT_EQ(judge(named, {.host = "ops.internal", .path = "/healthz"}), std::nullopt);
  EXPECT_EQ(judge(named, {.host = "whatever.example", .path = "/healthz"}), AdminRefusal::host);
  EXPECT_EQ(judge(named, {.host = "", .path = "/healthz"}), AdminRefusal::host);
}

TEST(AdminGate, TheTokenIsAskedForEverywhereButByProbes) {
  AdminGate gate("127.0.0.1", {.token = core::Secret{"0123456789abcdef"}});
  EXPECT_EQ(judge(gate, {.host = "localhost", .authorization = "Bearer 0123456789abcdef"}), std::nullopt);
  EXPECT_EQ(judge(gate, {.host = "localhost", .authorization = "bearer 0123456789abcdef"}), std::nullopt);
  for (const char* bad : {"", "Bearer", "Bearer ", "Bearer 0123456789abcde", "Bearer 0123456789abcdef0",
                          "Bearer 0123456789abcdeg", "Basic 0123456789abcdef", "0123456789abcdef"}) {
    EXPECT_EQ(judge(gate, {.host = "localhost", .authorization = bad}), AdminRefusal::token) << bad;
  }
  for (const char* probe : {"/healthz", "/readyz"})
    EXPECT_EQ(judge(gate, {.host = "localhost", .path = probe}), std::nullopt);
  for (const char* other : {"/", "/healthz/", "/healthzx", "/admin/config", "/admin/cache/purge", "/Healthz"}) {
    EXPECT_EQ(judge(gate, {.host = "localhost", .path = other}), AdminRefusal::token) << other;
  }
  gate.use({.token = core::Secret{"fedcba9876543210"}});
  EXPECT_EQ(judge(gate, {.host = "localhost", .authorization = "Bearer 0123456789abcdef"}), AdminRefusal::token);
  EXPECT_EQ(judge(gate, {.host = "localhost", .authorization = "Bearer fedcba9876543210"}), std::nullopt);
  gate.use({});
  EXPECT_EQ(judge(gate, {.host = "localhost"}), std::nullopt) << "none is asked for";
}

}  // namespace
}  // namespace ganglion::gateway
