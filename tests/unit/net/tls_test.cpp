// TLS on both sides, over real sockets with certificates made on the spot.

#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <thread>

#include "net/tls.hpp"
#include "tests/support/tls_files.hpp"
#include "tests/unit/net/server_fixture.hpp"
#include "tests/unit/net/upstream_fixture.hpp"

namespace ganglion::net {
namespace {

using namespace std::chrono_literals;
using ganglion::test::body_of;
using ganglion::test::TlsFiles;
using ganglion::test::TlsSocket;
using test::awaitable;
using test::eventually;
using test::RawSocket;
using test::TestServer;

constexpr const char* kGet = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

ServerOptions tls_options(const TlsFiles& files) {
  ServerOptions options;
  options.tls = {.cert_file = files.cert(), .key_file = files.key()};
  return options;
}

TEST(TlsServer, ServesKeepAliveRequests) {
  TlsFiles files;
  TestServer server(test::echo, tls_options(files));
  TlsSocket client(server.connect());
  ASSERT_TRUE(client.connected());
  for (int i = 0; i < 3; ++i) {
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    EXPECT_TRUE(client.read_until("POST /x\nhi").starts_with("HTTP/1.1 200"));
  }
  const std::string body(500'000, 'b');
  client.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n" + body);
  EXPECT_TRUE(client.read_until("POST /x\n" + body).ends_with(body));
}

TEST(TlsServer, StreamsAtTheClientsPace) {
  TlsFiles files;
  TestServer server(
      [](Exchange& exchange) -> awaitable<void> {
        const std::string piece(50'000, 'x');
        bool ok = (co_await exchange.start_stream({}, "go")).has_value();
        for (int i = 0; ok && i < 100; ++i) ok = (co_await exchange.write(piece)).has_value();
        EXPECT_TRUE(co_await exchange.finish("end"));
      },
      tls_options(files));
  TlsSocket client(server.connect());
  client.send(kGet);
  EXPECT_GT(client.read_until("end\r\n0\r\n\r\n").size(), 5'000'000U);
}

TEST(TlsServer, RefusesOldVersionsAndPlainText) {
  TlsFiles files;
  TestServer server(test::echo, tls_options(files));
  EXPECT_TRUE(TlsSocket(server.connect(), TLS1_2_VERSION).connected());
  EXPECT_FALSE(TlsSocket(server.connect(), TLS1_1_VERSION).connected());
  RawSocket plain = server.connect();
  plain.send(kGet);
  (void)plain.read_to_end();
  EXPECT_TRUE(eventually([&] { return server.hooks.handshakes_failed == 2; }));
  EXPECT_EQ(server.hooks.begun, 0);
}

TEST(TlsServer, HandshakeHasALimit) {
  TlsFiles files;
  ServerOptions options = tls_options(files);
  options.header_timeout = 60ms;
  TestServer server(test::echo, options);
  RawSocket silent = server.connect();
  EXPECT_EQ(silent.read_to_end(), "");
  EXPECT_EQ(server.hooks.handshakes_failed, 1);
}

TEST(TlsServer, HearsTheClientGo) {
  TlsFiles files;
  for (const bool only_notify : {true, false}) {
    std::promise<void> entered;
    std::promise<core::CancelReason> reason;
    TestServer server(
        [&](Exchange& exchange) -> awaitable<void> {
          entered.set_value();
          reason.set_value(co_await test::until_cancelled(exchange));
        },
        tls_options(files));
    TlsSocket client(server.connect());
    client.send(kGet);
    entered.get_future().wait();
    const auto gone = std::chrono::steady_clock::now();
    if (only_notify) {
      client.send_close_notify();
    } else {
      client.socket().close();
    }
    EXPECT_EQ(reason.get_future().get(), core::CancelReason::client_gone);
    EXPECT_LT(std::chrono::steady_clock::now() - gone, 5s);  // 1 ms where idle; otherwise never
  }
}

TEST(TlsServer, ServesOnlyClientsOfTheAuthority) {
  TlsFiles files("server");
  TlsFiles known("operator");
  TlsFiles stranger("stranger");
  ServerOptions options = tls_options(files);
  options.tls.client_ca_file = known.cert();
  TestServer server(test::echo, options);
  const auto served = [&](TlsSocket client) {
    client.send(kGet);  // a TLS 1.3 client learns only now that it was refused
    return client.read_until("GET /\n").starts_with("HTTP/1.1 200");
  };
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    EXPECT_TRUE(served(TlsSocket::as(known, server.connect(), version))) << version;
    EXPECT_FALSE(served(TlsSocket(server.connect(), version))) << version << ": no certificate";
    EXPECT_FALSE(served(TlsSocket::as(stranger, server.connect(), version))) << version << ": another authority's";
  }
  EXPECT_TRUE(eventually([&] { return server.hooks.handshakes_failed == 4; }));
  EXPECT_EQ(server.hooks.begun, 2);
}

TEST(TlsServer, ResumptionOutlivesNeitherTheClientAuthorityNorItsChange) {
  TlsFiles files("server");
  TlsFiles known("operator");
  TlsFiles next("next operator");
  ServerOptions options = tls_options(files);
  options.tls.client_ca_file = known.cert();
  TestServer server(test::echo, options);
  TlsSocket first = TlsSocket::as(known, server.connect());
  first.send(kGet);
  (void)first.read_until("GET /\n");  // the ticket came before
  SslSessionPtr session{first.session()};
  TlsSocket again = TlsSocket::as(known, server.connect(), 0, session.get());
  again.send(kGet);
  EXPECT_TRUE(again.read_until("GET /\n").starts_with("HTTP/1.1 200"));
  EXPECT_TRUE(again.resumed());
  options.tls.client_ca_file = next.cert();
  EXPECT_TRUE(server.server->reload_tls(options.tls));
  session.reset(again.session());
  TlsSocket late = TlsSocket::as(known, server.connect(), 0, session.get());
  late.send(kGet);
  EXPECT_EQ(late.read_until("GET /\n"), "") << "the ticket of a client that is no longer trusted";
}

TEST(TlsServer, SaysWhichClientAuthorityItCannotRead) {
  TlsFiles files;
  const auto context = make_server_context(
      {.cert_file = files.cert(), .key_file = files.key(), .client_ca_file = "/nonexistent/authority.pem"});
  ASSERT_FALSE(context);
  EXPECT_NE(context.error().message.find("/nonexistent/authority.pem"), std::string::npos) << context.error().message;
}

TEST(TlsServer, ReloadsItsCertificateAndKeepsTheOldOnFailure) {
  TlsFiles files("old");
  TestServer server(test::echo, tls_options(files));
  TlsSocket before(server.connect());
  EXPECT_EQ(before.peer_common_name(), "old");
  files.issue("new");
  EXPECT_TRUE(server.server->reload_tls(tls_options(files).tls));
  EXPECT_EQ(TlsSocket(server.connect()).peer_common_name(), "new");
  before.send(kGet);
  EXPECT_TRUE(before.read_until("GET /\n").starts_with("HTTP/1.1 200")) << "running connections go on";
  std::remove(files.key().c_str());
  EXPECT_FALSE(server.server->reload_tls(tls_options(files).tls));
  EXPECT_EQ(TlsSocket(server.connect()).peer_common_name(), "new");
  TlsFiles elsewhere("other files");
  EXPECT_TRUE(server.server->reload_tls(tls_options(elsewhere).tls));
  EXPECT_EQ(TlsSocket(server.connect()).peer_common_name(), "other files");
}

TEST(TlsServer, IsTurnedOnOrOffByARestartOnly) {
  TlsFiles files;
  TestServer secure(test::echo, tls_options(files));
  EXPECT_FALSE(secure.server->reload_tls({}));
  EXPECT_TRUE(TlsSocket(secure.connect()).connected());
  TestServer plain(test::echo, {});
  EXPECT_FALSE(plain.server->reload_tls(tls_options(files).tls));
  EXPECT_TRUE(plain.server->reload_tls({}));
}

TEST(ServerCertificate, NoticesChangedFilesOnce) {
  TlsFiles files;
  ServerCertificate certificate({.cert_file = files.cert(), .key_file = files.key()});
  ASSERT_TRUE(certificate.load());
  EXPECT_FALSE(certificate.files_changed());
  std::filesystem::last_write_time(files.cert(), std::filesystem::file_time_type::clock::now() + 10s);
  EXPECT_TRUE(certificate.files_changed());
  std::remove(files.key().c_str());
  EXPECT_FALSE(certificate.load());
  EXPECT_FALSE(certificate.files_changed()) << "a failed load is not repeated until a file changes again";
  EXPECT_NE(certificate.make_ssl(), nullptr) << "the old certificate stays";
  files.issue("localhost");
  EXPECT_TRUE(certificate.files_changed());
}

TEST(TlsServer, SaysWhatIsWrongWithItsFiles) {
  boost::asio::io_context io(1);
  test::CountingHooks hooks;
  ServerOptions options;
  options.port = 0;
  options.tls = {.cert_file = "/nonexistent/cert.pem", .key_file = "/nonexistent/key.pem"};
  Server server(options, {{&io, test::echo}}, hooks);
  auto bound = server.listen();
  ASSERT_FALSE(bound);
  EXPECT_NE(bound.error().message.find("/nonexistent/cert.pem"), std::string::npos) << bound.error().message;
}

class TlsUpstreamTest : public test::UpstreamTest {
 protected:
  UpstreamOptions tls_options_for(const test::ScriptedUpstream& upstream, const std::string& host = "localhost") {
    UpstreamOptions options;
    options.base_url = "https://" + host + ":" + std::to_string(upstream.port());
    options.tls.ca_file = files_.cert();
    return options;
  }
  // Answers every request of a TLS connection.
  test::ScriptedUpstream::Script tls_script(const std::string& answer, std::atomic<int>* resumed = nullptr) {
    return [this, answer, resumed](RawSocket& peer) {
      TlsSocket tls(RawSocket(::dup(peer.fd())), files_);
      if (resumed != nullptr && tls.connected() && tls.resumed()) ++*resumed;
      while (tls.connected() && !tls.read_until("\r\n\r\n").empty()) tls.send(answer);
    };
  }
  void SetUp() override { (void)files_.server_context(); }  // made before the script's threads use it
  TlsFiles files_;
};

TEST_F(TlsUpstreamTest, VerifiesReusesAndAnswers) {
  test::ScriptedUpstream upstream({tls_script(test::http_ok("secret"))});
  for (const char* host : {"localhost", "127.0.0.1"}) {
    run(tls_options_for(upstream, host), [&](UpstreamClient& client) -> awaitable<void> {
      for (int i = 0; i < 3; ++i) EXPECT_EQ((co_await ask(client, {.path = "/x"})).body, "secret");
      EXPECT_EQ(client.idle_connections(), 1U);
    });
  }
  EXPECT_EQ(upstream.accepted(), 2);
}

TEST_F(TlsUpstreamTest, RefusesCertificatesItDoesNotTrust) {
  TlsFiles other;
  test::ScriptedUpstream upstream({tls_script(test::http_ok("secret"))});
  UpstreamOptions options = tls_options_for(upstream);
  options.tls.ca_file = other.cert();
  run(options, [&](UpstreamClient& client) -> awaitable<void> {
    EXPECT_EQ((co_await ask(client, {.path = "/x"})).error, core::ErrorKind::upstream_connect);
  });
  options.tls.verify = false;
  options.tls.ca_file = "";
  run(options, [&](UpstreamClient& client) -> awaitable<void> {
    EXPECT_EQ((co_await ask(client, {.path = "/x"})).body, "secret");
  });
}

TEST_F(TlsUpstreamTest, RefusesAnotherHostsCertificate) {
  test::ScriptedUpstream upstream({tls_script(test::http_ok("secret"))});
  UpstreamOptions options = tls_options_for(upstream, "127.0.0.2");  // not among the certificate's names
  ASSERT_EQ(upstream.accepted(), 0);
  test::ScriptedUpstream elsewhere({tls_script(test::http_ok("secret"))}, "127.0.0.2");
  options.base_url = "https://127.0.0.2:" + std::to_string(elsewhere.port());
  run(options, [&](UpstreamClient& client) -> awaitable<void> {
    EXPECT_EQ((co_await ask(client, {.path = "/x"})).error, core::ErrorKind::upstream_connect);
  });
}

TEST_F(TlsUpstreamTest, ResumesItsSession) {
  std::atomic<int> resumed{0};
  test::ScriptedUpstream upstream({tls_script(test::http_ok("x", "Connection: close\r\n"), &resumed)});
  run(tls_options_for(upstream), [&](UpstreamClient& client) -> awaitable<void> {
    for (int i = 0; i < 3; ++i) EXPECT_EQ((co_await ask(client, {.path = "/x"})).body, "x");
  });
  EXPECT_EQ(upstream.accepted(), 3);
  EXPECT_EQ(resumed, 2);
}

TEST_F(TlsUpstreamTest, CutTlsStreamIsNoEnd) {
  test::ScriptedUpstream upstream({[&](RawSocket& peer) {
    TlsSocket tls(RawSocket(::dup(peer.fd())), files_);
    (void)tls.read_until("\r\n\r\n");
    tls.send("HTTP/1.0 200 OK\r\n\r\nclose-delimited");
    // TCP ends without close_notify.
  }});
  run(tls_options_for(upstream), [&](UpstreamClient& client) -> awaitable<void> {
    const test::Answer answer = co_await ask(client, {.path = "/x"});
    EXPECT_EQ(answer.body, "close-delimited");
    EXPECT_EQ(answer.error, core::ErrorKind::upstream_closed);
  });
}

}  // namespace
}  // namespace ganglion::net
