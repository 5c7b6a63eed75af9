#pragma once
// A Redis that a test plays: it answers what a client asks when it connects, the test the rest.

#include <array>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <functional>
#include <string>
#include <vector>

#include "net/redis_resp.hpp"

namespace ganglion::test {

namespace asio = boost::asio;
using asio::ip::tcp;
using Words = std::vector<net::RedisReply>;

// Answers what a client of a cluster asks when it connects; the rest is `other`'s: it is given each command's words.
class ScriptedRedis {
 public:
  using Other = std::function<asio::awaitable<void>(tcp::socket&, const Words& words)>;

  // `greedy`: reads as much as comes; else byte by byte up to a command's end, so that `other` may read on by itself.
  ScriptedRedis(asio::io_context& io, bool greedy, Other other)
      : acceptor_(io, {asio::ip::address_v4::loopback(), 0}), greedy_(greedy), other_(std::move(other)) {
    // Small, so that a large command certainly has to wait.
    acceptor_.set_option(asio::socket_base::receive_buffer_size(4096));
  }

  std::uint16_t port() const { return acceptor_.local_endpoint().port(); }
  void start(std::string slots) {
    slots_ = std::move(slots);
    asio::co_spawn(acceptor_.get_executor(), accept(), asio::detached);
  }
  static asio::awaitable<void> say(tcp::socket& socket, std::string_view text) {
    co_await asio::async_write(socket, asio::buffer(text), asio::use_awaitable);
  }
  static asio::awaitable<std::string> read(tcp::socket& socket, std::size_t bytes) {
    std::string out(bytes, '\0');
    co_await asio::async_read(socket, asio::buffer(out), asio::use_awaitable);
    co_return out;
  }

 private:
  asio::awaitable<void> accept() {
    for (;;) {
      auto socket = co_await acceptor_.async_accept(asio::use_awaitable);
      asio::co_spawn(acceptor_.get_executor(), serve(std::move(socket)), asio::detached);
    }
  }
  // Commands have the form of replies. Only what is needed is read: the rest is for `other`, or not read at all.
  asio::awaitable<void> serve(tcp::socket socket) {
    net::redis::RespReader reader(std::size_t{1} << 26);
    std::array<char, 1 << 16> bytes;
    for (std::size_t at_once = 1;;) {
      const std::size_t got = co_await socket.async_read_some(asio::buffer(bytes, at_once), asio::use_awaitable);
      reader.feed({bytes.data(), got});
      const auto command = reader.next();
      at_once = command && !*command && greedy_ ? bytes.size() : 1;
      if (!command || !*command) continue;
      const Words& words = (*command)->items;
      if (words.at(0).text == "PING")
        co_await say(socket, "+PONG\r\n");
      else if (words.at(0).text == "DEL")
        co_await say(socket, ":0\r\n");
      else if (words.at(0).text == "CLUSTER")
        co_await say(socket, slots_);
      else
        co_await other_(socket, words);
    }
  }

  tcp::acceptor acceptor_;
  const bool greedy_;
  const Other other_;
  std::string slots_;
};

}  // namespace ganglion::test
