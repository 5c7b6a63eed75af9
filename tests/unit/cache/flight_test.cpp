// A flight outside the table: who may follow it, and who keeps it going.

#include "cache/flight.hpp"

#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>

#include "tests/support/coroutine.hpp"

namespace ganglion::cache {
namespace {

std::string read_all(boost::asio::io_context& io, Reader& reader) {
  std::string out;
  test::run_coroutine(io, [&]() -> boost::asio::awaitable<void> {
    core::CancelSource cancel;
    for (;;) {
      const auto piece = co_await reader.next(cancel);
      if (!piece) {
        out += "(" + std::string{core::face(piece.error().kind).name} + ")";
        co_return;
      }
      if (piece->bytes.empty()) co_return;
      out += piece->bytes;
    }
  });
  return out;
}

TEST(Flight, WhoFollowsLateReadsFromTheFirstByte) {
  boost::asio::io_context io;
  Flight flight(1000);
  const auto recorder = flight.record(io.get_executor());
  const auto first = flight.follow(io.get_executor());
  recorder->set_head({});
  recorder->append("one ");
  const auto second = flight.follow(io.get_executor());
  recorder->append("two");
  recorder->finish();
  const auto third = flight.follow(io.get_executor());
  for (Reader* reader : {first.get(), second.get(), third.get()}) {
    ASSERT_NE(reader, nullptr);
    EXPECT_EQ(read_all(io, *reader), "one two");
  }
}

TEST(Flight, AReaderThatNeverReadsKeepsTheCallGoing) {
  boost::asio::io_context io;
  Flight flight(1000);
  const auto recorder = flight.record(io.get_executor());
  auto keeper = flight.follow(io.get_executor());
  flight.follow(io.get_executor()).reset();  // a client that came and left
  io.poll();
  EXPECT_FALSE(recorder->cancel().cancelled());
  keeper.reset();
  io.restart();
  io.poll();
  EXPECT_EQ(recorder->cancel().reason(), core::CancelReason::superseded);
}

TEST(Flight, IsNotFollowedOnceItFailedOrOutgrewWhatIsKept) {
  boost::asio::io_context io;
  Flight failed(1000);
  const auto recorder = failed.record(io.get_executor());
  const auto reader = failed.follow(io.get_executor());
  recorder->append("part");
  recorder->fail(core::make_error(core::ErrorKind::upstream_closed));
  EXPECT_EQ(failed.follow(io.get_executor()), nullptr);
  EXPECT_EQ(read_all(io, *reader), "part(upstream_closed)");
  Flight large(10);
  const auto large_recorder = large.record(io.get_executor());
  const auto large_reader = large.follow(io.get_executor());
  large_recorder->append(std::string(11, 'x'));
  EXPECT_EQ(large.follow(io.get_executor()), nullptr);
  EXPECT_FALSE(large_recorder->whole());
}

}  // namespace
}  // namespace ganglion::cache
