// The server as a whole: listening, caps, fairness, workers, draining.

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "net/address_count.hpp"
#include "net/server.hpp"
#include "tests/unit/net/server_fixture.hpp"

namespace ganglion::net {
namespace {

using namespace std::chrono_literals;
using ganglion::test::body_of;
using ganglion::test::header_of;
using ganglion::test::status_of;
using test::awaitable;
using test::eventually;
using test::RawSocket;
using test::TestServer;

std::string post(const std::string& body) {
  return "POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

TEST(Server, ListensOnIPv6) {
  ServerOptions options;
  options.host = "::1";
  std::string peer;
  TestServer server(
      [&](Exchange& exchange) -> awaitable<void> { (void)co_await exchange.respond({}, exchange.peer_address()); },
      options);
  RawSocket client = RawSocket::connect(server.port, "::1");
  ASSERT_TRUE(client.valid());
  client.send("GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n");
  EXPECT_EQ(body_of(client.read_message()), "::1");
}

TEST(Server, ConnectionsOverTheCapGet503) {
  ServerOptions options;
  options.connections_max = 2;
  TestServer server(test::echo, options);
  RawSocket first = server.connect();
  RawSocket second = server.connect();
  first.send(post("1"));
  second.send(post("2"));
  EXPECT_EQ(status_of(first.read_message()), 200);
  EXPECT_EQ(status_of(second.read_message()), 200);
  RawSocket third = server.connect();
  const std::string answer = third.read_message();
  EXPECT_EQ(status_of(answer), 503);
  EXPECT_EQ(header_of(answer, "Retry-After"), "1");
  third.close();
  EXPECT_EQ(server.hooks.rejected, 1);
  first.close();
  EXPECT_TRUE(eventually([&] { return server.server->connections() == 1; }));
  RawSocket fourth = server.connect();
  fourth.send(post("4"));
  EXPECT_EQ(status_of(fourth.read_message()), 200);
}

TEST(Server, ConnectionsOverTheirAddressesCapGet429) {
  std::atomic<int> told{0};
  TestServer server(test::echo, {}, [&](Server& of) { of.limit_addresses(2, [&told] { ++told; }); });
  RawSocket first = server.connect();
  RawSocket second = server.connect();
  first.send(post("1"));
  second.send(post("2"));
  EXPECT_EQ(status_of(first.read_message()), 200);
  EXPECT_EQ(status_of(second.read_message()), 200);
  RawSocket third = server.connect();
  const std::string answer = third.read_message();
  EXPECT_EQ(status_of(answer), 429);
  EXPECT_EQ(header_of(answer, "Retry-After"), "1");
  EXPECT_EQ(header_of(answer, "Connection"), "close");
  third.close();
  EXPECT_EQ(told, 1);
  EXPECT_EQ(server.hooks.rejected, 0);
  first.close();
  EXPECT_TRUE(eventually([&] { return server.server->connections() == 1; }));
  RawSocket fourth = server.connect();
  fourth.send(post("4"));
  EXPECT_EQ(status_of(fourth.read_message()), 200);
}

TEST(AddressCount, CountsAnIpv6NetworkAsOne) {
  const auto address = [](const char* text) { return boost::asio::ip::make_address(text); };
  AddressCount count;
  auto first = count.enter(address("2001:db8:1:2::1"), 1);
  EXPECT_TRUE(first);
  EXPECT_FALSE(count.enter(address("2001:db8:1:2:ffff::9"), 1)) << "of the same /64";
  EXPECT_TRUE(count.enter(address("2001:db8:1:3::1"), 1));
  auto v4 = count.enter(address("192.0.2.1"), 1);
  EXPECT_TRUE(v4);
  EXPECT_FALSE(count.enter(address("::ffff:192.0.2.1"), 1)) << "the same client through another socket";
  EXPECT_TRUE(count.enter(address("192.0.2.2"), 1));
  EXPECT_EQ(count.addresses(), 2U) << "those that are held";
  first.reset();
  EXPECT_TRUE(count.enter(address("2001:db8:1:2:ffff::9"), 1));
  EXPECT_TRUE(count.enter(address("192.0.2.1"), 0)) << "not limited";
}

TEST(Server, DrainsIdleAtOnceAndBusyAfterTheirAnswer) {
  std::promise<void> entered;
  std::unique_ptr<boost::asio::steady_timer> hold;
  TestServer* running = nullptr;
  TestServer server([&](Exchange& exchange) -> awaitable<void> {
    if (exchange.head().path == "/busy") {
      hold = std::make_unique<boost::asio::steady_timer>(running->io, 8s);
      entered.set_value();
      (void)co_await hold->async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
    }
    (void)co_await exchange.respond({}, "done");
  });
  running = &server;
  RawSocket idle = server.connect();
  idle.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
  (void)idle.read_message();
  RawSocket busy = server.connect();
  busy.send("GET /busy HTTP/1.1\r\nHost: a\r\n\r\n");
  entered.get_future().wait();
  server.server->stop_accepting();
  server.server->drain();
  EXPECT_EQ(idle.read_to_end(), "");
  EXPECT_TRUE(eventually([&] { return !server.connect().valid(); }));
  EXPECT_EQ(server.server->exchanges(), 1U);
  server.on_worker([&] { hold->cancel(); });
  const std::string answer = busy.read_to_end();
  EXPECT_EQ(body_of(answer), "done");
  EXPECT_EQ(header_of(answer, "Connection"), "close");
  busy.close();
  EXPECT_TRUE(eventually([&] { return server.server->connections() == 0; }));
  server.on_worker([&] { hold.reset(); });
}

TEST(Server, PipeliningDoesNotStarveOthers) {
  std::promise<void> begun;
  std::promise<void> go_on;
  int served = 0;
  std::atomic<int> served_before_other{-1};
  TestServer server([&](Exchange& exchange) -> awaitable<void> {
    if (exchange.head().path == "/other") {
      served_before_other = served;
    } else if (served++ == 0) {
      begun.set_value();
      go_on.get_future().wait();  // holds the worker until both clients have sent everything
    }
    (void)co_await exchange.respond({}, "");
  });
  RawSocket greedy = server.connect();
  RawSocket other = server.connect();
  std::string all;
  for (int i = 0; i < 1000; ++i) all += "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
  greedy.send(all);
  begun.get_future().wait();
  other.send("GET /other HTTP/1.1\r\nHost: a\r\n\r\n");
  go_on.set_value();
  EXPECT_EQ(status_of(other.read_message()), 200);
  EXPECT_LT(served_before_other, 200);
}

TEST(Server, WorkersShareThePort) {
  test::CountingHooks hooks;
  boost::asio::io_context first(1);
  boost::asio::io_context second(1);
  std::atomic<int> by_first{0};
  std::atomic<int> by_second{0};
  const auto counting = [](std::atomic<int>& count) -> Handler {
    return [&count](Exchange& exchange) -> awaitable<void> {
      ++count;
      (void)co_await exchange.respond({}, "ok");
    };
  };
  ServerOptions options;
  options.port = 0;
  Server server(options, {{&first, counting(by_first)}, {&second, counting(by_second)}}, hooks);
  const auto port = server.listen();
  ASSERT_TRUE(port);
  std::thread first_thread([&] { first.run(); });
  std::thread second_thread([&] { second.run(); });
  for (int i = 0; i < 64; ++i) {
    RawSocket client = RawSocket::connect(*port);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT_EQ(status_of(client.read_message()), 200);
  }
  EXPECT_EQ(by_first + by_second, 64);
  EXPECT_GT(by_first, 0);
  EXPECT_GT(by_second, 0);
  // With nothing left to accept or to serve, the loops end by themselves.
  server.stop_accepting();
  server.drain();
  first_thread.join();
  second_thread.join();
  EXPECT_EQ(server.connections(), 0U);
  EXPECT_EQ(hooks.closed, 64);
}

TEST(Server, SecondAnswerIsRefused) {
  TestServer server([](Exchange& exchange) -> awaitable<void> {
    EXPECT_TRUE(co_await exchange.respond({}, "one"));
    EXPECT_FALSE(co_await exchange.respond({}, "two"));
    EXPECT_FALSE(co_await exchange.start_stream({}));
  });
  RawSocket client = server.connect();
  client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(body_of(client.read_message()), "one");
  EXPECT_EQ(body_of(client.read_message()), "one");
}

// Out of descriptors, the acceptor must neither spin nor give up.
TEST(Server, OutOfDescriptorsBacksOff) {
#if defined(__has_feature)
#if __has_feature(undefined_behavior_sanitizer)
  GTEST_SKIP() << "UBSan probes memory through a pipe, and reports a false error when it cannot open one";
#endif
#endif
  TestServer server;
  RawSocket warm = server.connect();  // everything lazily opened is open after this
  warm.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  ASSERT_EQ(status_of(warm.read_message()), 200);
  const int client_fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none_left{.rlim_cur = static_cast<rlim_t>(client_fd) + 1, .rlim_max = before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none_left), 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(server.port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::connect(client_fd, reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
  RawSocket client(client_fd);
  std::this_thread::sleep_for(250ms);
  const int failures = server.hooks.accept_failures;
  ::setrlimit(RLIMIT_NOFILE, &before);
  EXPECT_GE(failures, 1);
  EXPECT_LE(failures, 4);
  client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(status_of(client.read_message()), 200);
}

TEST(Server, SaysWhyItCannotListen) {
  TestServer first;
  boost::asio::io_context io(1);
  test::CountingHooks hooks;
  ServerOptions options;
  options.port = first.port;
  Server second(options, {{&io, test::echo}}, hooks);
  auto bound = second.listen();
  ASSERT_FALSE(bound);
  EXPECT_NE(bound.error().message.find("Address already in use"), std::string::npos) << bound.error().message;
}

// One server takes another's place, as two processes do: the same sockets, and connections that go over.
struct Replaced {
  explicit Replaced(TestServer& from) : old(from) {
    std::vector<int> sockets;
    for (const int fd : old.server->listeners()) sockets.push_back(::dup(fd));
    ServerOptions options;
    options.port = old.port;
    fresh.emplace(options, std::vector<ServerWorker>{{&io, test::echo}}, hooks);
    EXPECT_EQ(fresh->listen(sockets).value_or(0), old.port);
    thread = std::thread([this] { io.run(); });
  }
  ~Replaced() {
    io.stop();
    thread.join();
    fresh.reset();
  }
  void give() {
    old.server->give([this](int fd, std::string_view received) { fresh->adopt(fd, std::string{received}); });
  }
  TestServer& old;
  boost::asio::io_context io{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work{io.get_executor()};
  test::CountingHooks hooks;
  std::optional<Server> fresh;
  std::thread thread;
};

TEST(ServerReplacement, IdleConnectionsGoOverAndAnswerThere) {
  TestServer server;
  RawSocket client = server.connect();
  client.send(post("1"));
  EXPECT_EQ(status_of(client.read_message()), 200);
  server.server->pause();
  Replaced replaced(server);
  replaced.give();
  ASSERT_TRUE(eventually([&] { return replaced.fresh->connections() == 1 && server.server->connections() == 0; }));
  client.send(post("2"));
  EXPECT_EQ(body_of(client.read_message()), "POST /v1/x\n2");
  EXPECT_EQ(replaced.hooks.begun, 1);
  EXPECT_EQ(server.hooks.begun, 1);
}

TEST(ServerReplacement, WhatWasReadAndNotBegunGoesAlong) {
  TestServer server;
  RawSocket client = server.connect();
  client.send(post("1"));
  EXPECT_EQ(status_of(client.read_message()), 200);
  const std::string request = post("22");
  client.send(request.substr(0, 20));  // half a head
  RawSocket whole = server.connect();
  server.server->pause();
  whole.send(post("3"));  // a connection that may not be accepted yet, with a request in it
  Replaced replaced(server);
  replaced.give();
  EXPECT_EQ(body_of(whole.read_message()), "POST /v1/x\n3");
  client.send(request.substr(20));
  EXPECT_EQ(body_of(client.read_message()), "POST /v1/x\n22");
  EXPECT_EQ(server.hooks.begun, 1);
}

TEST(ServerReplacement, ARunningRequestEndsHereAndItsConnectionGoesOver) {
  std::promise<void> go_on;
  auto may = go_on.get_future().share();
  TestServer server([may](Exchange& exchange) -> awaitable<void> {
    boost::asio::steady_timer timer(co_await boost::asio::this_coro::executor);
    while (may.wait_for(0s) != std::future_status::ready) {
      timer.expires_after(1ms);
      co_await timer.async_wait(boost::asio::use_awaitable);
    }
    co_await test::echo(exchange);
  });
  RawSocket client = server.connect();
  client.send(post("1"));
  ASSERT_TRUE(eventually([&] { return server.server->exchanges() == 1; }));
  server.server->pause();
  Replaced replaced(server);
  replaced.give();
  go_on.set_value();
  const std::string answer = client.read_message();
  EXPECT_EQ(body_of(answer), "POST /v1/x\n1");
  EXPECT_NE(header_of(answer, "Connection"), "close");
  client.send(post("2"));
  EXPECT_EQ(body_of(client.read_message()), "POST /v1/x\n2");
  EXPECT_EQ(replaced.hooks.begun, 1);
}

TEST(ServerReplacement, AServerThatIsNotReplacedGoesOn) {
  TestServer server;
  RawSocket idle = server.connect();
  idle.send(post("1"));
  EXPECT_EQ(status_of(idle.read_message()), 200);
  server.server->pause();
  RawSocket late = server.connect();
  late.send(post("2"));
  idle.send(post("3"));
  EXPECT_EQ(server.hooks.begun, 1);
  server.server->resume();
  EXPECT_EQ(body_of(late.read_message()), "POST /v1/x\n2");
  EXPECT_EQ(body_of(idle.read_message()), "POST /v1/x\n3");
}

}  // namespace
}  // namespace ganglion::net
