// The pieces under server and client that can be tested on a clock moved by hand.

#include <gtest/gtest.h>

#include <memory>
#include <new>

#include "net/dns_cache.hpp"
#include "net/timer_wheel.hpp"
#include "net/url.hpp"
#include "tests/support/coroutine.hpp"

namespace ganglion::net {
namespace {

using namespace std::chrono_literals;
using boost::asio::awaitable;
using ganglion::test::run_coroutine;

class TimerWheelTest : public ::testing::Test {
 protected:
  boost::asio::io_context io_{1};
  TimerWheel& wheel_ = TimerWheel::of(io_.get_executor());
  core::SteadyTime now_ = std::chrono::steady_clock::now();
};

TEST_F(TimerWheelTest, FiresOnceNotEarlyAndNotLate) {
  int fired = 0;
  TimerWheel::Entry entry(wheel_, [&] { ++fired; });
  entry.arm(now_ + 1s);
  for (auto at = now_; at < now_ + 1s; at += 5ms) wheel_.advance(at);
  EXPECT_EQ(fired, 0);
  wheel_.advance(now_ + 1s + 2 * TimerWheel::kTick);
  EXPECT_EQ(fired, 1);
  wheel_.advance(now_ + 60s);
  EXPECT_EQ(fired, 1);
  EXPECT_EQ(wheel_.linked(), 0U);
}

TEST_F(TimerWheelTest, FarDeadlinesGoRound) {
  int fired = 0;
  TimerWheel::Entry entry(wheel_, [&] { ++fired; });
  entry.arm(now_ + 75s);
  for (auto at = now_; at < now_ + 75s; at += 100ms) wheel_.advance(at);
  EXPECT_EQ(fired, 0);
  wheel_.advance(now_ + 75s + 2 * TimerWheel::kTick);
  EXPECT_EQ(fired, 1);
}

TEST_F(TimerWheelTest, RearmingMovesBothWays) {
  int fired = 0;
  TimerWheel::Entry entry(wheel_, [&] { ++fired; });
  entry.arm(now_ + 1s);
  entry.arm(now_ + 5s);
  wheel_.advance(now_ + 2s);
  EXPECT_EQ(fired, 0);
  entry.arm(now_ + 2500ms);
  wheel_.advance(now_ + 3s);
  EXPECT_EQ(fired, 1);
  entry.arm(now_ + 4s);
  entry.disarm();
  wheel_.advance(now_ + 10s);
  EXPECT_EQ(fired, 1);
}

TEST_F(TimerWheelTest, CallbackMayDestroyItsNeighbours) {
  int fired = 0;
  auto second = std::make_unique<TimerWheel::Entry>(wheel_, [&] { ++fired; });
  TimerWheel::Entry first(wheel_, [&] {
    ++fired;
    second.reset();
  });
  first.arm(now_ + 1s);
  second->arm(now_ + 1s);
  wheel_.advance(now_ + 2s);
  EXPECT_EQ(fired, 1);
}

TEST_F(TimerWheelTest, TicksByItselfAndStops) {
  bool fired = false;
  TimerWheel::Entry entry(wheel_, [&] { fired = true; });
  entry.arm(now_ + 30ms);
  io_.run_for(60s);  // ends as soon as nothing is linked
  EXPECT_TRUE(fired);
  EXPECT_LT(std::chrono::steady_clock::now() - now_, 50s);
}

struct FakeResolver {
  int calls = 0;
  bool hold = false;
  DnsCache::Addresses answer;
  std::function<void(DnsCache::Addresses)> held;
  DnsCache::Lookup lookup() {
    return [this](const std::string&, std::function<void(DnsCache::Addresses)> done) {
      ++calls;
      if (hold) {
        held = std::move(done);
      } else {
        done(answer);
      }
    };
  }
};

class DnsCacheTest : public ::testing::Test {
 protected:
  std::shared_ptr<DnsCache> make(const std::string& host = "up.test") {
    return std::make_shared<DnsCache>(io_.get_executor(), host, 30s, hooks_, clock_, resolver_.lookup());
  }
  core::Result<DnsCache::Addresses> ask(DnsCache& cache, core::Deadline until = {}) {
    core::Result<DnsCache::Addresses> out;
    run_coroutine(io_, [&]() -> awaitable<void> { out = co_await cache.resolve(until, cancel_); });
    return out;
  }
  const boost::asio::ip::address one_ = boost::asio::ip::make_address("192.0.2.1");
  const boost::asio::ip::address two_ = boost::asio::ip::make_address("2001:db8::2");
  boost::asio::io_context io_{1};
  UpstreamHooks hooks_;
  core::ManualClock clock_;
  core::CancelSource cancel_;
  FakeResolver resolver_;
};

TEST_F(DnsCacheTest, KeepsAnswersForTheirTtl) {
  auto cache = make();
  resolver_.answer = {one_, two_, one_};
  EXPECT_EQ(ask(*cache).value(), (DnsCache::Addresses{one_, two_}));
  clock_.advance(29s);
  EXPECT_EQ(ask(*cache).value().size(), 2U);
  EXPECT_EQ(resolver_.calls, 1);
  clock_.advance(2s);
  resolver_.answer = {two_};
  EXPECT_EQ(ask(*cache).value(), DnsCache::Addresses{two_});
  EXPECT_EQ(resolver_.calls, 2);
}

TEST_F(DnsCacheTest, OldAnswersServeWhileAndAfterARefreshFails) {
  auto cache = make();
  resolver_.answer = {one_};
  ASSERT_TRUE(ask(*cache));
  clock_.advance(31s);
  resolver_.hold = true;
  EXPECT_EQ(ask(*cache).value(), DnsCache::Addresses{one_}) << "not held up by the lookup";
  resolver_.held({});
  EXPECT_EQ(ask(*cache).value(), DnsCache::Addresses{one_});
  EXPECT_EQ(resolver_.calls, 2) << "a failed refresh is not repeated at once";
}

TEST_F(DnsCacheTest, FailureIsRememberedForASecond) {
  auto cache = make();
  EXPECT_EQ(ask(*cache).error().kind, core::ErrorKind::upstream_connect);
  EXPECT_EQ(ask(*cache).error().kind, core::ErrorKind::upstream_connect);
  EXPECT_EQ(resolver_.calls, 1);
  clock_.advance(1100ms);
  resolver_.answer = {one_};
  EXPECT_TRUE(ask(*cache));
}

TEST_F(DnsCacheTest, WaitersShareOneLookupAndKeepTheirLimits) {
  auto cache = make();
  resolver_.hold = true;
  EXPECT_EQ(ask(*cache, core::Deadline::after(20ms)).error().kind, core::ErrorKind::deadline_exceeded);
  EXPECT_EQ(ask(*cache, core::Deadline::after(20ms)).error().kind, core::ErrorKind::deadline_exceeded);
  EXPECT_EQ(resolver_.calls, 1);
  cancel_.cancel(core::CancelReason::client_gone);
  EXPECT_EQ(ask(*cache).error().kind, core::ErrorKind::cancelled);
}

TEST_F(DnsCacheTest, ALookUpThatIsLostIsBegunAnew) {
  auto cache = make();
  resolver_.hold = true;
  EXPECT_FALSE(ask(*cache, core::Deadline::after(20ms)));
  clock_.advance(60s);
  EXPECT_FALSE(ask(*cache, core::Deadline::after(20ms))) << "it may still come";
  EXPECT_EQ(resolver_.calls, 1);
  resolver_.held = nullptr;  // nobody is going to answer
  resolver_.hold = false;
  resolver_.answer = {one_};
  EXPECT_EQ(ask(*cache).value(), DnsCache::Addresses{one_});
  EXPECT_EQ(resolver_.calls, 2);
}

TEST_F(DnsCacheTest, ALookUpThatCannotBeginCostsOneRequest) {
  int calls = 0;
  auto cache =
      std::make_shared<DnsCache>(io_.get_executor(), "up.test", 30s, hooks_, clock_,
                                 [&](const std::string&, const std::function<void(DnsCache::Addresses)>& done) {
                                   if (++calls == 1) throw std::bad_alloc();
                                   done({one_});
                                 });
  bool threw = false;
  run_coroutine(io_, [&]() -> awaitable<void> {
    try {
      co_await cache->resolve({}, cancel_);
    } catch (const std::bad_alloc&) {
      threw = true;
    }
  });
  EXPECT_TRUE(threw);
  EXPECT_EQ(ask(*cache).value(), DnsCache::Addresses{one_});
  clock_.advance(31s);
  calls = 0;
  EXPECT_EQ(ask(*cache).value(), DnsCache::Addresses{one_}) << "old ones are good enough";
}

TEST_F(DnsCacheTest, LiteralsNeedNoLookup) {
  EXPECT_EQ(ask(*make("::1")).value().front().to_string(), "::1");
  EXPECT_EQ(resolver_.calls, 0);
}

TEST(BaseUrl, TakesUrlsApart) {
  const auto url = parse_base_url("https://api.example.com/v1/");
  ASSERT_TRUE(url);
  EXPECT_TRUE(url->tls);
  EXPECT_EQ(url->port, 443);
  EXPECT_EQ(url->authority, "api.example.com");
  EXPECT_EQ(url->prefix, "/v1");
  const auto six = parse_base_url("http://[::1]:8000");
  ASSERT_TRUE(six);
  EXPECT_EQ(six->host, "::1");
  EXPECT_EQ(six->authority, "[::1]:8000");
  EXPECT_EQ(six->prefix, "");
}

}  // namespace
}  // namespace ganglion::net
