#pragma once
// A Server on a free loopback port with one worker on a thread of its own, and a handler that echoes what it was asked.

#include <gtest/gtest.h>

#include <atomic>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "net/server.hpp"
#include "tests/support/raw_socket.hpp"

namespace ganglion::net::test {

using boost::asio::awaitable;
using ganglion::test::RawSocket;

struct CountingHooks final : ServerHooks {
  ErrorBody error_body(const core::Error& error) override {
    return {.content_type = "application/json", .text = "{\"error\":\"" + error.message + "\"}"};
  }
  void connection_opened() override { ++opened; }
  void connection_closed() override { ++closed; }
  void connection_rejected() override { ++rejected; }
  void accept_failed(int) override { ++accept_failures; }
  void tls_handshake_failed() override { ++handshakes_failed; }
  void request_begun() override { ++begun; }
  void request_ended(std::uint64_t, std::uint64_t) override { ++ended; }
  void request_refused(core::ErrorKind kind) override { last_refusal = kind; }
  void exchange_cancelled(core::CancelReason reason) override { last_cancel = reason; }
  void handler_threw() override { ++threw; }

  std::atomic<int> opened{0}, closed{0}, rejected{0}, handshakes_failed{0}, begun{0}, ended{0}, threw{0},
      accept_failures{0};
  std::atomic<core::ErrorKind> last_refusal{core::ErrorKind::kCount};
  std::atomic<core::CancelReason> last_cancel{core::CancelReason::none};
};

// Answers "METHOD target\nbody".
inline awaitable<void> echo(Exchange& exchange) {
  auto body = co_await exchange.read_body(1 << 20);
  ResponseHead head;
  head.content_type = "text/plain";
  std::string text;
  if (!body) {
    head.status = core::face(body.error().kind).http_status;
    text = body.error().message;
    if (head.status == 0) co_return;
  } else {
    text = std::string{exchange.head().method_text} + " " + std::string{exchange.head().target} + "\n" +
           std::string{*body};
  }
  (void)co_await exchange.respond(head, text);
}

class TestServer {
 public:
  explicit TestServer(Handler handler = echo, ServerOptions options = {},
                      const std::function<void(Server&)>& before_listening = {}) {
    options.port = 0;
    server.emplace(options, std::vector<ServerWorker>{{&io, std::move(handler)}}, hooks);
    if (before_listening) before_listening(*server);
    auto bound = server->listen();
    EXPECT_TRUE(bound.has_value()) << (bound ? "" : bound.error().message);
    port = bound.value_or(0);
    thread = std::thread([this] { io.run(); });
  }
  ~TestServer() {
    io.stop();
    thread.join();
  }

  RawSocket connect() const { return RawSocket::connect(port); }
  // Runs on the worker.
  void on_worker(std::function<void()> what) {
    std::promise<void> done;
    boost::asio::post(io, [&] {
      what();
      done.set_value();
    });
    done.get_future().wait();
  }

  CountingHooks hooks;
  boost::asio::io_context io{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work{io.get_executor()};
  std::optional<Server> server;
  std::uint16_t port = 0;
  std::thread thread;
};

// True as soon as the condition holds, false after 5 s.
inline bool eventually(const std::function<bool()>& condition) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds{60};
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds{1});
  }
  return true;
}

// Waits until the exchange is cancelled.
inline awaitable<core::CancelReason> until_cancelled(Exchange& exchange) {
  boost::asio::steady_timer timer(co_await boost::asio::this_coro::executor, std::chrono::seconds{60});
  core::CancelRegistration registration(exchange.cancel(), [&](core::CancelReason) { timer.cancel(); });
  if (!exchange.cancel().cancelled()) {
    (void)co_await timer.async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
  }
  co_return exchange.cancel().reason();
}

}  // namespace ganglion::net::test
