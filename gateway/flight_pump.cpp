// See gateway/flight_pump.hpp.

#include "gateway/flight_pump.hpp"

#include <algorithm>

#include "core/limits.hpp"

namespace ganglion::gateway {
namespace {

using core::ErrorKind;
using Done = core::Result<void>;

constexpr std::chrono::seconds kRefreshAgain{1};  // after a refresh that failed

cache::RecordedHead recorded(const BilledCall& call) {
  return {.status = call.head().status,
          .content_type = call.head().content_type,
          .event_stream = call.streaming(),
          .headers = call.head().headers};
}

// The head goes to the readers with the first piece: until then a stale answer can still take the place of an error.
boost::asio::awaitable<Done> pump_stream(Pump& pump, BilledCall& call) {
  bool begun = false;
  for (;;) {
    if (begun) {
      if (auto room = co_await pump.recorder->writable(); !room) co_return room;
    }
    auto piece = co_await call.next();
    pump.lead->bill = call.bill();
    if (!piece) co_return std::unexpected(std::move(piece.error()));
    if (!begun) pump.recorder->set_head(recorded(call));
    begun = true;
    if (piece->usage_event) {
      pump.recorder->append_usage_event(piece->bytes);
    } else {
      if (!piece->bytes.empty()) pump.recorder->append(piece->bytes);
      if (!piece->more.empty()) pump.recorder->append(piece->more);
    }
    if (piece->last) co_return Done{};
  }
}

boost::asio::awaitable<Done> pump_whole(Pump& pump, BilledCall& call) {
  auto body = co_await call.whole();
  if (!body) co_return std::unexpected(std::move(body.error()));
  pump.lead->bill = call.bill();
  pump.recorder->set_head(recorded(call));
  // In pieces that wait for the fastest reader: of an answer larger than what is kept, only the newest part is there,
  // and a reader that is further behind is cut off.
  std::string_view rest = *body;
  pump.recorder->append(rest.substr(0, core::kStreamBufferBytesMax));
  while (rest.size() > core::kStreamBufferBytesMax) {
    rest.remove_prefix(core::kStreamBufferBytesMax);
    if (auto room = co_await pump.recorder->writable(); !room) co_return room;
    pump.recorder->append(rest.substr(0, core::kStreamBufferBytesMax));
  }
  co_return Done{};
}

bool stale_serves(const Pump& pump) {
  if (!pump.stale || pump.refresh || pump.recorder->head()) return false;
  const cache::Freshness freshness = pump.stale->freshness(pump.services.clock.steady());
  return freshness == cache::Freshness::if_error || freshness == cache::Freshness::revalidate ||
         freshness == cache::Freshness::fresh;
}

// Failures of the backends, or no room for the call; not of the client's request.
bool backends_failed(const core::Error& error) {
  return error.source == core::ErrorSource::upstream || error.kind == ErrorKind::no_backend ||
         error.kind == ErrorKind::queue_full || error.kind == ErrorKind::overloaded;
}

// The ttl of a refusal that the policy wants kept; 0: it does not.
std::chrono::seconds negative_ttl(const Pump& pump, const BilledCall& call) {
  if (!call.refused()) return std::chrono::seconds{0};
  const auto found = std::ranges::find(pump.negative, call.head().status, &cache::NegativeTtl::status);
  return found == pump.negative.end() ? std::chrono::seconds{0} : found->ttl;
}

// What the tiers below have. True: the flight is over.
boost::asio::awaitable<bool> ask_tiers(Pump& pump, std::unique_ptr<cache::Lease>& lease) {
  if (pump.reader == nullptr || !pump.meta || !pump.name) co_return false;
  cache::TierAnswer answer = co_await pump.reader->find({.name = *pump.name,
                                                         .key = pump.meta->key,
                                                         .tenant = pump.meta->tenant,
                                                         .gateway = pump.meta->gateway,
                                                         .lease = true,
                                                         .known = pump.stale,
                                                         .cancel = &pump.recorder->cancel(),
                                                         .deadline = pump.lead->call->deadline});
  lease = std::move(answer.lease);
  cache::Found& found = answer.found;
  if (found.freshness == cache::Freshness::fresh ||
      (found.freshness == cache::Freshness::revalidate && !pump.refresh)) {
    pump.recorder->redirect(std::move(found.entry), false);
    co_return true;
  }
  if (found.entry) pump.stale = std::move(found.entry);
  co_return false;
}

void fail(Pump& pump, core::Error error) {
  if (pump.refresh && pump.stale) pump.stale->refresh_failed(pump.services.clock.steady() + kRefreshAgain);
  if (stale_serves(pump) && backends_failed(error)) {
    pump.recorder->redirect(pump.stale, true);
  } else {
    pump.recorder->fail(std::move(error));
  }
}

void finish(Pump& pump, BilledCall& call, std::unique_ptr<cache::Lease> lease) {
  const std::chrono::seconds negative = negative_ttl(pump, call);
  const bool keep = call.bill().complete || negative.count() > 0;
  if (pump.refresh && pump.stale && !call.bill().complete) {
    pump.stale->refresh_failed(pump.services.clock.steady() + kRefreshAgain);
  }
  if (pump.meta && negative.count() > 0) {
    pump.meta->refusal = true;
    pump.meta->ttl = negative;
    pump.meta->stale_while_revalidate = pump.meta->stale_if_error = {};
  }
  if (pump.meta) pump.meta->usage = call.bill().usage;
  const bool stored = pump.services.flights.finish(*pump.recorder, keep ? pump.meta : nullptr);
  if (stored && pump.semantic && !pump.meta->refusal) {
    pump.semantic->name = pump.name;
    pump.services.semantic.keep(*std::move(pump.semantic), pump.meta->key, pump.meta->ttl);
  }
  // A refusal's short life is not worth the way to other gateways.
  if (!stored || !pump.name || pump.meta->refusal) return;
  pump.services.tiers.store(pump.meta, *pump.name, lease ? lease->hand_over() : std::string{});
}

}  // namespace

boost::asio::awaitable<void> run_pump(std::unique_ptr<Pump> pump) {
  std::unique_ptr<cache::Lease> lease;
  if (co_await ask_tiers(*pump, lease)) co_return;
  if (pump->recorder->cancel().cancelled()) {  // while the tiers were asked; nothing was dispatched
    pump->recorder->fail(core::make_error(ErrorKind::cancelled));
    co_return;
  }
  CallSpec spec = std::move(*pump->lead->call);
  pump->lead->call.reset();
  BilledCall call(pump->services, std::move(spec));
  Done done = co_await call.start();
  pump->lead->bill = call.bill();
  // The provider's own limit is a failure where there is something to serve instead.
  const bool limited = done && call.head().status == 429 && stale_serves(*pump);
  if (limited) done = core::fail(ErrorKind::upstream_rejected);
  if (done) done = call.streaming() ? co_await pump_stream(*pump, call) : co_await pump_whole(*pump, call);
  call.abandon();
  pump->lead->bill = call.bill();
  if (done) {
    finish(*pump, call, std::move(lease));
  } else {
    fail(*pump, std::move(done.error()));
  }
}

}  // namespace ganglion::gateway
