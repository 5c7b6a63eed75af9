#pragma once
// A gateway's limiter with its leases, driven by hand: every exchange is delivered before the next step.

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <memory>
#include <vector>

#include "ratelimit/lease_broker.hpp"
#include "tests/unit/ratelimit/memory_store.hpp"

namespace ganglion::ratelimit {

class TestGateway {
 public:
  TestGateway(MemoryStore& store, const core::Clock& clock, std::uint32_t gateways, const LimitSet& limits)
      : link(store),
        limiter({.gateways = gateways}, clock, true),
        broker(io_.get_executor(), limiter, link),
        keeper(io_.get_executor(), limiter, link) {
    const std::vector<ScopedLimits> scoped{{Scope::key, "k", limits}};
    handle = limiter.resolve(scoped, 1).value();
  }

  core::Result<Permit> admit(const Estimate& estimate) {
    auto decision = broker.try_admit(handle, estimate);
    if (!decision) {
      boost::asio::co_spawn(io_, broker.admit(handle, estimate),
                            [&](std::exception_ptr, core::Result<Permit> decided) { decision = std::move(decided); });
      while (!decision) settle_down();
    }
    settle_down();
    return std::move(*decision);
  }
  void tick() {
    keeper.tick();
    settle_down();
  }
  void settle_down() {
    do {
      io_.restart();
      io_.poll();
    } while (link.deliver());
    io_.restart();
    io_.poll();
  }

 private:
  boost::asio::io_context io_{1};

 public:
  StoreLink link;
  Limiter limiter;
  LeaseBroker broker;
  LeaseKeeper keeper;
  LimiterHandle handle;
};

}  // namespace ganglion::ratelimit
