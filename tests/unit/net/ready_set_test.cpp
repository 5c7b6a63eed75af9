// Readiness: waits end by edges, by cancel and by close, never by being forgotten.

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "net/stream.hpp"

namespace ganglion::net {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

struct Pair {
  explicit Pair(asio::io_context& io) : peer(io) {
    tcp::acceptor acceptor(io, {asio::ip::address_v4::loopback(), 0});
    peer.connect(acceptor.local_endpoint());
    stream = std::make_unique<Stream>(acceptor.accept());
  }
  void send(std::string_view text) { asio::write(peer, asio::buffer(text)); }

  tcp::socket peer;
  std::unique_ptr<Stream> stream;
};

std::string drain(Stream& stream, Io::Kind& last) {
  std::string all;
  char bytes[64];
  for (;;) {
    const Io io = stream.read_now(bytes, sizeof bytes);
    last = io.kind;
    if (io.kind != Io::Kind::bytes) return all;
    all.append(bytes, io.n);
  }
}

// Whoever is woken first may ask for an idle connection whose news came in the same batch: it must not look quiet.
TEST(ReadySet, NewsOfTheSameBatchAreKnownBeforeAnybodyIsWoken) {
  for (const bool news : {true, false}) {
    asio::io_context io{1};
    Pair waiting(io);
    Pair idle(io);
    std::vector<bool> quiet;
    const auto look = [&](Pair& own, Pair& other) -> asio::awaitable<void> {
      other.stream->begin_idle();
      EXPECT_TRUE(co_await own.stream->wait_read());
      quiet.push_back(other.stream->quiet_and_open());
    };
    waiting.send("x");
    if (news) idle.send("surplus");
    asio::co_spawn(io, look(waiting, idle), asio::detached);
    if (news) asio::co_spawn(io, look(idle, waiting), asio::detached);
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds{5};
    while (quiet.empty() && std::chrono::steady_clock::now() < end) io.run_one_for(std::chrono::seconds{1});
    ASSERT_FALSE(quiet.empty());
    EXPECT_EQ(quiet.front(), !news);  // of the one that was not woken first
  }
}

TEST(ReadySet, AWaitEndsWithTheNextBytesAndWithTheEndAfterThem) {
  asio::io_context io{1};
  Pair pair(io);
  std::string got;
  int waits = 0;
  asio::co_spawn(
      io,
      [&]() -> asio::awaitable<void> {
        char bytes[64];
        for (;;) {
          const Io now = pair.stream->read_now(bytes, sizeof bytes);
          if (now.kind == Io::Kind::end) break;
          if (now.kind == Io::Kind::bytes) {
            got.append(bytes, now.n);
            if (got == "one") pair.send("two");
            if (got == "onetwo") {
              pair.send("three");  // the end comes with these bytes: a short read, and no edge after it
              pair.peer.close();
            }
          }
          ++waits;
          EXPECT_TRUE(co_await pair.stream->wait_read());
        }
        pair.stream.reset();
      },
      asio::detached);
  asio::post(io, [&] { pair.send("one"); });
  io.run();
  EXPECT_EQ(got, "onetwothree");
  EXPECT_LE(waits, 6);
}

TEST(ReadySet, AnEdgeBeforeTheWaitIsKept) {
  asio::io_context io{1};
  Pair pair(io);
  pair.send("early");
  io.run_for(std::chrono::milliseconds{50});  // the edge comes, nobody waits
  bool ready = false;
  asio::co_spawn(
      io,
      [&]() -> asio::awaitable<void> {
        ready = co_await pair.stream->wait_read();
        Io::Kind last{};
        EXPECT_EQ(drain(*pair.stream, last), "early");
        EXPECT_EQ(last, Io::Kind::want_read);
        pair.stream.reset();
      },
      asio::detached);
  io.restart();
  io.run();
  EXPECT_TRUE(ready);
}

TEST(ReadySet, CancelAndCloseEndWaits) {
  asio::io_context io{1};
  Pair pair(io);
  std::string order;
  asio::co_spawn(
      io,
      [&]() -> asio::awaitable<void> {
        order += co_await pair.stream->wait_read() ? "ready " : "cancelled ";
        order += co_await pair.stream->wait_read() ? "ready " : "closed ";
        order += co_await pair.stream->wait_read() ? "ready" : "still closed";
      },
      asio::detached);
  asio::post(io, [&] {
    pair.stream->cancel();
    asio::post(io, [&] { asio::post(io, [&] { pair.stream->close(); }); });
  });
  io.run();
  EXPECT_EQ(order, "cancelled closed still closed");
}

TEST(ReadySet, AListenerMayDestroyTheStream) {
  struct Listener final : Stream::PeerListener {
    void on_hangup() override { pair->stream.reset(); }
    Pair* pair = nullptr;
  };
  asio::io_context io{1};
  Pair pair(io);
  Listener listener;
  listener.pair = &pair;
  pair.stream->listen_for_hangup(&listener);
  pair.send("unread");
  pair.peer.close();
  io.run();  // ends: nothing is left to watch
  EXPECT_EQ(pair.stream, nullptr);
}

TEST(ReadySet, AContextThatGoesDropsItsWaiters) {
  auto io = std::make_unique<asio::io_context>(1);
  auto held = std::make_shared<int>(1);
  {
    auto pair = std::make_shared<Pair>(*io);
    asio::co_spawn(
        *io,
        [pair, held]() -> asio::awaitable<void> {
          (void)co_await pair->stream->wait_read();
          ADD_FAILURE() << "completed";
        },
        asio::detached);
  }
  io->poll();
  EXPECT_GT(held.use_count(), 1);
  io.reset();
  EXPECT_EQ(held.use_count(), 1);
}

}  // namespace
}  // namespace ganglion::net
