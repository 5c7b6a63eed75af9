// See session_property.hpp.

#include "tests/fuzz/session_property.hpp"

#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <optional>
#include <vector>

#include "core/log.hpp"
#include "net/connection.hpp"
#include "net/http_client.hpp"
#include "tests/fuzz/http1_property.hpp"

namespace ganglion::fuzz {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

constexpr std::size_t kBodyMax = 64 * 1024;

struct Heard {
  std::vector<std::string> requests;  // method, target and body of each that was read to its end
  std::vector<int> statuses;          // of the answers
  bool operator==(const Heard&) const = default;
};

std::string line_of(std::string_view method, std::string_view target, std::string_view body) {
  return std::string{method} + " " + std::string{target} + " " + std::string{body};
}

void settle(asio::io_context& io) {
  while (io.poll() > 0) io.restart();
  io.restart();
}

// All answers of a connection; a broken frame ends the process. `heads`: which of them answer HEAD.
std::vector<int> read_answers(std::string_view bytes) {
  std::vector<int> out;
  while (!bytes.empty()) {
    net::http1::ResponseParser parser;
    const auto status = parser.feed(bytes);
    GW_ASSERT(status == net::http1::ResponseParser::Status::done);
    const Fields fields = copy_fields(parser.headers());
    GW_ASSERT(count_named(fields, "content-length") + count_named(fields, "transfer-encoding") <= 1);
    bytes.remove_prefix(parser.head_bytes());
    if (parser.status() < 200) continue;
    out.push_back(parser.status());
    std::size_t length = 0;
    for (const auto& [name, value] : fields)
      if (net::iequals(name, "content-length")) length = std::stoul(value);
    // HEAD: counted and not sent.
    if (bytes.size() >= length && !(length > 0 && bytes.starts_with("HTTP/1.")))
      bytes.remove_prefix(length);
    else
      GW_ASSERT(bytes.empty() || bytes.starts_with("HTTP/1."));
  }
  return out;
}

Heard serve(std::string_view bytes, std::size_t step) {
  Heard heard;
  asio::io_context io(1);
  net::ServerHooks hooks;
  auto shared = std::make_shared<net::ServerShared>(net::ServerOptions{}, hooks);
  const auto handler = [&heard](net::Exchange& exchange) -> asio::awaitable<void> {
    const net::RequestHead& head = exchange.head();
    GW_ASSERT(!(head.content_length && head.chunked));
    const std::string method{head.method_text};
    const std::string target{head.target};
    const auto body = co_await exchange.read_body(kBodyMax);
    if (body) heard.requests.push_back(line_of(method, target, *body));
    const net::ResponseHead answer{.status = body ? 200 : 400, .content_type = "text/plain"};
    [[maybe_unused]] const auto sent = co_await exchange.respond(answer, body ? "ok" : "no");
  };
  auto worker = std::make_shared<net::Worker>(shared, io, handler);
  int ends[2];
  GW_ASSERT(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
  tcp::socket socket(io);
  socket.assign(tcp::v4(), ends[0]);
  asio::co_spawn(io,
                 net::Connection::run(std::make_unique<net::Connection>(
                     worker, std::move(socket), "peer", net::Connection::Admission::accepted, net::Counted(*shared))),
                 asio::detached);
  std::string answers;
  const auto take = [&] {
    char buffer[4096];
    for (ssize_t n = 0; (n = ::recv(ends[1], buffer, sizeof buffer, 0)) > 0;)
      answers.append(buffer, static_cast<std::size_t>(n));
  };
  settle(io);
  while (!bytes.empty()) {
    const ssize_t n = ::send(ends[1], bytes.data(), std::min(step, bytes.size()), MSG_NOSIGNAL);
    if (n <= 0 && errno != EAGAIN) break;  // it has closed
    if (n > 0) bytes.remove_prefix(static_cast<std::size_t>(n));
    settle(io);
    take();
  }
  ::shutdown(ends[1], SHUT_WR);
  settle(io);
  take();
  ::close(ends[1]);
  settle(io);
  heard.statuses = read_answers(answers);
  return heard;
}

// ---- a provider's answer ----

struct Got {
  std::optional<core::ErrorKind> error;
  int status = 0;
  std::string body;
  std::size_t idle = 0;  // connections kept
  bool operator==(const Got&) const = default;
};

asio::awaitable<void> ask(net::UpstreamClient& client, Got& got) {
  core::CancelSource cancel;
  auto response = co_await client.send({.path = "/x", .body = "hi"}, {}, cancel);
  if (!response) {
    got.error = response.error().kind;
    co_return;
  }
  got.status = (*response)->status();
  for (;;) {
    const auto piece = co_await (*response)->next();
    if (!piece) got.error = piece.error().kind;
    if (!piece || piece->empty()) break;
    got.body += *piece;
  }
}

asio::awaitable<void> provide(tcp::acceptor& acceptor, std::string_view bytes, std::size_t step) {
  tcp::socket socket = co_await acceptor.async_accept(asio::use_awaitable);
  socket.set_option(tcp::no_delay(true));
  std::string request;
  auto [error, n] = co_await asio::async_read_until(socket, asio::dynamic_buffer(request), "\r\n\r\nhi",
                                                    asio::as_tuple(asio::use_awaitable));
  while (!error && !bytes.empty()) {
    const std::string_view piece = bytes.substr(0, step);
    bytes.remove_prefix(piece.size());
    std::tie(error, n) = co_await asio::async_write(socket, asio::buffer(piece), asio::as_tuple(asio::use_awaitable));
    co_await asio::post(asio::use_awaitable);  // the client reads it first
  }
  boost::system::error_code ignored;
  socket.shutdown(tcp::socket::shutdown_send, ignored);
  char rest[256];
  while (!error)
    std::tie(error, n) = co_await socket.async_read_some(asio::buffer(rest), asio::as_tuple(asio::use_awaitable));
  socket.set_option(asio::socket_base::linger(true, 0), ignored);  // no port is left waiting
}

Got provided(std::string_view bytes, std::size_t step) {
  Got got;
  asio::io_context io(1);
  tcp::acceptor acceptor(io, {asio::ip::address_v4::loopback(), 0});
  net::UpstreamHooks hooks;
  std::optional<net::UpstreamClient> client;
  client.emplace(
      io.get_executor(),
      net::UpstreamOptions{.base_url = "http://127.0.0.1:" + std::to_string(acceptor.local_endpoint().port())}, hooks);
  asio::co_spawn(io, provide(acceptor, bytes, step), asio::detached);
  bool done = false;
  asio::co_spawn(io, ask(*client, got), [&](std::exception_ptr failed) {
    GW_ASSERT(!failed);
    done = true;
  });
  while (!done) io.run_one();
  got.idle = client->idle_connections();
  client.reset();
  io.restart();
  for (int i = 0; i < 20; ++i) settle(io);  // what is left closes
  return got;
}

}  // namespace

void check_http_server(std::string_view bytes) {
  if (bytes.size() > kBodyMax) return;
  core::set_log_level(core::LogLevel::off);
  const Heard whole = serve(bytes, SIZE_MAX);
  GW_ASSERT(whole.statuses.size() >= whole.requests.size());
  GW_ASSERT(whole.statuses.size() <= whole.requests.size() + 1);
  for (std::size_t i = 0; i < whole.statuses.size(); ++i) {
    if (i < whole.requests.size())
      GW_ASSERT(whole.statuses[i] == 200);
    else
      GW_ASSERT(whole.statuses[i] >= 400 && whole.statuses[i] < 500);
  }
  const Connection parsed = read_requests(bytes, SIZE_MAX);
  std::vector<std::string> expected;
  for (const Served& request : parsed.served) expected.push_back(line_of(request.method, request.target, request.body));
  GW_ASSERT(whole.requests == expected);
  for (const std::size_t step : {std::size_t{1}, std::size_t{7}}) {
    if (bytes.size() / step > 2'000) continue;
    GW_ASSERT(serve(bytes, step) == whole);
  }
}

void check_http_client(std::string_view bytes) {
  if (bytes.size() > kBodyMax) return;
  core::set_log_level(core::LogLevel::off);
  const Got whole = provided(bytes, SIZE_MAX);
  GW_ASSERT(whole.body.size() <= bytes.size());
  GW_ASSERT(whole.error || (whole.status >= 200 && whole.status <= 999));
  for (const std::size_t step : {std::size_t{1}, std::size_t{5}}) {
    if (bytes.size() / step > 300) continue;
    const Got split = provided(bytes, step);
    GW_ASSERT(split.error == whole.error && split.status == whole.status && split.body == whole.body);
  }
}

}  // namespace ganglion::fuzz
