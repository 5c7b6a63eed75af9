// The admin listener of a whole gateway: whom it answers, and that nobody else learns or changes anything.

#include <gtest/gtest.h>

#include "tests/integration/answers.hpp"
#include "tests/integration/harness.hpp"
#include "tests/support/tls_files.hpp"

namespace ganglion::test {
namespace {

constexpr const char* kPaths[] = {"/metrics",       "/admin/config",         "/admin/sinks",  "/admin/usage",
                                  "/admin/budgets", "/admin/cache/semantic", "/no/such/path", "/admin/cache/purge"};

std::string ask(const RunningGateway& gateway, const std::string& path, const std::string& host,
                const std::string& headers = "") {
  RawSocket socket = gateway.connect_admin();
  socket.send("GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\n" + headers + "\r\n");
  return socket.read_message();
}

TEST(AdminListener, AnswersNoNameThatAWebPageCouldPointAtIt) {
  RunningGateway gateway(provider(1), 1, "127.0.0.1", {}, ", hosts: [ops.internal]");
  for (const char* path : kPaths) {
    const std::string answer = ask(gateway, path, "rebound.example:8081");
    EXPECT_EQ(status_of(answer), 403) << path;
    EXPECT_EQ(answer.find("ganglion_"), std::string::npos) << path;
  }
  for (const char* host : {"localhost:8081", "127.0.0.1", "[::1]:9", "ops.internal"}) {
    EXPECT_EQ(status_of(ask(gateway, "/metrics", host)), 200) << host;
  }
  EXPECT_GE(gateway.metric("ganglion_requests_rejected_total", {"reason=\"forbidden\""}), 8);
}

TEST(AdminListener, APurgeUnderAForeignNamePurgesNothing) {
  RunningGateway gateway(provider(1));
  RawSocket socket = gateway.connect_admin();
  const std::string body = R"({"all":true})";
  socket.send(
      "POST /admin/cache/purge HTTP/1.1\r\nHost: rebound.example\r\nContent-Type: "
      "application/json\r\nContent-Length: " +
      std::to_string(body.size()) + "\r\n\r\n" + body);
  EXPECT_EQ(status_of(socket.read_message()), 403);
  EXPECT_EQ(gateway.metric("ganglion_cache_purges_total", {"source=\"admin\""}), 0);
}

TEST(AdminListener, AsksForItsToken) {
  RunningGateway gateway(provider(1), 1, "127.0.0.1", {}, ", token: \"${ADMIN_TOKEN}\"");
  const std::string good = "Authorization: Bearer " + std::string{kAdminToken} + "\r\n";
  for (const char* path : kPaths) {
    const std::string refused = ask(gateway, path, "localhost");
    EXPECT_EQ(status_of(refused), 401) << path;
    EXPECT_NE(refused.find("www-authenticate: Bearer"), std::string::npos) << path;
    EXPECT_EQ(status_of(ask(gateway, path, "localhost", "Authorization: Bearer sk-app\r\n")), 401)
        << path << ": a client's key opens nothing here";
    EXPECT_NE(status_of(ask(gateway, path, "localhost", good)), 401) << path;
    EXPECT_EQ(status_of(ask(gateway, path, "rebound.example", good)), 403) << path;
  }
  for (const char* path : {"/healthz", "/readyz"}) EXPECT_EQ(status_of(ask(gateway, path, "localhost")), 200) << path;
  const std::string config = ask(gateway, "/admin/config", "localhost", good);
  EXPECT_EQ(config.find(kAdminToken), std::string::npos) << "it is not shown";
  EXPECT_NE(config.find("[redacted]"), std::string::npos);
}

TEST(AdminListener, ItsTokenOpensNothingElse) {
  RunningGateway gateway(provider(1) + "key_pepper: \"${PEPPER}\"\nkeys: [{id: app, secret: \"${APP_KEY}\"}]\n", 1,
                         "127.0.0.1", {}, ", token: \"${ADMIN_TOKEN}\"");
  EXPECT_EQ(status_of(gateway.chat("", "Authorization: Bearer " + std::string{kAdminToken} + "\r\n")), 401);
  for (const char* path : {"/metrics", "/admin/config", "/healthz"}) {
    RawSocket socket = gateway.connect();
    socket.send("GET " + std::string{path} + " HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + kAdminToken +
                "\r\n\r\n");
    EXPECT_EQ(status_of(socket.read_message()), 404) << path << " is not of the proxy listener";
  }
}

TEST(AdminListener, WithAnAuthorityServesItsClientsOnly) {
  const TlsFiles server("server");
  const TlsFiles known("operator");
  const TlsFiles stranger("stranger");
  RunningGateway gateway(
      provider(1), 1, "127.0.0.1", {},
      ", tls: {cert: " + server.cert() + ", key: " + server.key() + ", client_ca: " + known.cert() + "}");
  const auto metrics = [&](TlsSocket socket) {
    socket.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    return socket.read_until("ganglion_build_info");
  };
  EXPECT_TRUE(metrics(TlsSocket::as(known, gateway.connect_admin())).starts_with("HTTP/1.1 200"));
  EXPECT_EQ(metrics(TlsSocket::as(stranger, gateway.connect_admin())), "");
  EXPECT_EQ(metrics(TlsSocket(gateway.connect_admin())), "");
}

}  // namespace
}  // namespace ganglion::test
