// Answers that are shared: a cache entry, or the flight of identical requests.

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>

#include "api/error_body.hpp"
#include "gateway/pipeline.hpp"
#include "gateway/subject.hpp"

namespace ganglion::gateway {
namespace {

using core::ErrorKind;

// The usage event of a recorded stream with the neurons that this client pays for that usage.
template <class Price>
std::string annotated(std::string_view usage_event, Price price) {
  api::SseParser parser;
  parser.feed(usage_event);
  const auto event = parser.next();
  if (!event || !*event) return std::string{usage_event};
  api::StreamInspector inspector;
  const api::ChunkFacts facts = inspector.inspect(**event);
  std::string out;
  return std::string{
      api::with_neurons(**event, facts, neurons_text(price(inspector.usage().value_or(api::Usage{}))), out)};
}

// A follower whose leader is refused by its budget joins again; so many times, then it calls for itself.
constexpr int kTurnsMax = 3;

// One flight's upstream call, apart from every client: lives until the answer is whole or nobody wants it.
struct Pump {
  Services& services;
  std::unique_ptr<cache::Recorder> recorder;
  std::shared_ptr<cache::Entry> meta;  // null: share, do not store
  std::shared_ptr<Bill> bill;          // of the client that led; same thread
  std::string body;
  std::string client_model;
  CallSpec spec;
};

boost::asio::awaitable<core::Result<void>> pump_stream(Pump& pump, BilledCall& call) {
  for (;;) {
    if (auto room = co_await pump.recorder->writable(); !room) co_return room;
    auto piece = co_await call.next();
    *pump.bill = call.bill();
    if (!piece) co_return std::unexpected(std::move(piece.error()));
    if (piece->usage_event) {
      pump.recorder->append_usage_event(piece->bytes);
    } else if (!piece->bytes.empty()) {
      pump.recorder->append(piece->bytes);
    }
    if (piece->last) co_return core::Result<void>{};
  }
}

boost::asio::awaitable<void> run_pump(std::unique_ptr<Pump> pump) {
  BilledCall call(pump->services, std::move(pump->spec));
  core::Result<void> done = co_await call.start();
  *pump->bill = call.bill();
  if (done) {
    pump->recorder->set_head({.status = call.head().status,
                              .content_type = call.head().content_type,
                              .event_stream = call.streaming(),
                              .headers = call.head().headers});
    if (call.streaming()) {
      done = co_await pump_stream(*pump, call);
    } else {
      auto body = co_await call.whole();
      if (body) {
        *pump->bill = call.bill();
        pump->recorder->append(*body);
      } else {
        done = std::unexpected(std::move(body.error()));
      }
    }
  }
  call.abandon();
  *pump->bill = call.bill();
  if (!done) {
    pump->recorder->fail(std::move(done.error()));
    co_return;
  }
  if (pump->meta) pump->meta->usage = call.bill().usage;
  pump->services.flights.finish(*pump->recorder, call.bill().complete ? std::move(pump->meta) : nullptr);
}

}  // namespace

boost::asio::awaitable<Worker::Done> Worker::serve_from_cache(Request& request) {
  const cache::KeyScope scope{.tenant = request.who->tenant,
                              .gateway = request.who->gateway,
                              .endpoint = request.route.endpoint,
                              .model = request.model->name,
                              .policy_version = request.model->version};
  cache::CacheKey key;
  if (!request.caching.custom_key.empty()) {
    key = keys_.from_text(scope, request.caching.custom_key);
  } else if (auto made = keys_.from_body(scope, request.body)) {
    key = *made;
  } else {
    co_return std::unexpected(std::move(made.error()));
  }
  request.cache = metrics::CacheOutcome::miss;
  if (!request.caching.lookup)
    co_return co_await serve_flight(request, services_.flights.lead_alone(io_.get_executor()), key);
  if (const auto entry = services_.cache.lookup(key, request.who->tenant, request.who->gateway)) {
    co_return co_await serve_entry(request, entry);
  }
  if (!request.caching.store) co_return co_await serve_direct(request);
  auto join = services_.flights.join(key, request.view.stream, request.who->tenant, request.who->gateway,
                                     io_.get_executor(), request.tier == api::Tier::fast);
  if (join.hit) co_return co_await serve_entry(request, join.hit);
  co_return co_await serve_flight(request, std::move(join), key);
}

boost::asio::awaitable<Worker::Done> Worker::serve_entry(Request& request,
                                                         const std::shared_ptr<const cache::Entry>& entry) {
  const auto rendered = services_.cache.render(entry, request.view.stream);
  if (!rendered) co_return co_await serve_direct(request);  // no such form of this recording
  request.cache = metrics::CacheOutcome::hit;
  request.streamed = request.view.stream;
  std::string edited;
  std::string_view body = rendered->body;
  if (const api::Span at = rendered->usage_event; request.view.stream && !at.empty()) {
    edited = body.substr(0, at.offset);
    if (request.view.include_usage) edited += annotated(at.of(body), [](const api::Usage&) { return 0; });
    edited += body.substr(at.offset + at.length);
    body = edited;
  }
  net::ResponseHead head;
  AnswerHeaders headers(head);
  const backends::AnswerHead stored{.status = entry->status, .content_type = std::string{rendered->content_type}};
  fill_head(request, head, headers, stored);
  headers.neurons(0);
  headers.number("age", entry->age(services_.clock.steady()).count());
  services_.terminals_written.add();
  services_.ledger.record_async(
      subject_of(request.id, *request.who, *request.model, request.route.endpoint, request.tier, request.tags),
      {.outcome = metering::Outcome::cache_hit,
       .charge = request.runtime->snapshot().prices().free(request.tier),
       .http_status = entry->status,
       .latency = std::chrono::duration_cast<std::chrono::microseconds>(services_.clock.steady() -
                                                                        request.exchange.received_at())});
  co_return co_await request.exchange.respond(head, body);
}

boost::asio::awaitable<Worker::Done> Worker::serve_flight(Request& request, cache::Join join,
                                                          const cache::CacheKey& key) {
  std::shared_ptr<Bill> bill;  // null for followers, whose share of the call is free
  if (join.recorder) {
    if (auto fits = reserve(request); !fits) {
      join.recorder->fail(fits.error());
      co_return fits;
    }
    bill = std::make_shared<Bill>();
    request.dispatched = true;
    auto pump = std::make_unique<Pump>(Pump{.services = services_,
                                            .recorder = std::move(join.recorder),
                                            .bill = bill,
                                            .body = std::string{request.body},
                                            .client_model = std::string{request.view.model},
                                            .spec = call_spec(request)});
    // The call outlives this request, so it reads its own copies.
    pump->spec.body = pump->body;
    pump->spec.view.model = pump->client_model;
    pump->spec.view.user = pump->spec.view.service_tier = {};
    pump->spec.usage_events = UsageEvents::raw;
    // Each reader keeps its own deadline. The call may outlive its first reader's by one more, for those who joined
    // late; when nobody reads any more it is cancelled.
    pump->spec.deadline = core::Deadline::after(2 * request.runtime->snapshot().request().timeout);
    pump->spec.cancel = &pump->recorder->cancel();
    if (request.caching.store) {
      pump->meta = std::make_shared<cache::Entry>();
      pump->meta->key = key;
      pump->meta->tenant = request.who->tenant;
      pump->meta->gateway = request.who->gateway;
      pump->meta->model = request.model->name;
      pump->meta->endpoint = request.route.endpoint;
      pump->meta->ttl = request.caching.ttl;
    }
    boost::asio::co_spawn(io_, run_pump(std::move(pump)), boost::asio::detached);
  } else {
    request.cache = metrics::CacheOutcome::follower;
  }
  Done done = co_await relay_flight(request, *join.reader, bill);
  join.reader.reset();
  if (bill) {
    request.bill = *bill;
    // The first client left and the call goes on for others: its bill is the ledger's to tell.
    if (!bill->settled) request.bill.outcome = metering::Outcome::cancelled;
    co_return done;
  }
  if (!done && done.error().kind == ErrorKind::quota_exceeded && !request.exchange.started()) {
    // Its leader had no budget, which says nothing about this one's.
    if (++request.turns < kTurnsMax) co_return co_await serve_from_cache(request);
    co_return co_await serve_direct(request);
  }
  record_follower(request, done);
  co_return done;
}

void Worker::record_follower(const Request& request, const Done& done) {
  metering::Outcome outcome = metering::Outcome::cache_hit;
  if (!done) {
    const bool upstream = done.error().source == core::ErrorSource::upstream;
    outcome = done.error().kind == ErrorKind::cancelled ? metering::Outcome::cancelled
              : upstream                                ? metering::Outcome::upstream_error
                                                        : metering::Outcome::gateway_error;
  }
  services_.terminals_written.add();
  services_.ledger.record_async(
      subject_of(request.id, *request.who, *request.model, request.route.endpoint, request.tier, request.tags),
      {.outcome = outcome,
       .reason = done ? "coalesced" : core::face(done.error().kind).name,
       .charge = request.runtime->snapshot().prices().free(request.tier),
       .http_status = done ? request.status : core::face(done.error().kind).http_status,
       .latency = std::chrono::duration_cast<std::chrono::microseconds>(services_.clock.steady() -
                                                                        request.exchange.received_at())});
}

boost::asio::awaitable<Worker::Done> Worker::relay_flight(Request& request, cache::Reader& reader,
                                                          const std::shared_ptr<Bill>& bill) {
  net::Exchange& exchange = request.exchange;
  auto answer = co_await reader.head(exchange.cancel(), request.deadline);
  if (!answer) co_return std::unexpected(std::move(answer.error()));
  request.streamed = (*answer)->event_stream;
  const backends::AnswerHead answer_head{
      .status = (*answer)->status, .content_type = (*answer)->content_type, .headers = (*answer)->headers};
  metrics::TokenGaps gaps = metrics_.token_gaps(request.model->name);
  std::string whole;
  for (;;) {
    auto piece = co_await reader.next(exchange.cancel(), request.deadline);
    if (bill) request.bill = *bill;
    if (!piece) {
      if (exchange.started() && exchange.cancel().reason() != core::CancelReason::client_gone) {
        [[maybe_unused]] const auto told =
            co_await exchange.finish(api::openai_error_event(name_cancel(piece.error(), exchange.cancel().reason())));
      }
      co_return std::unexpected(std::move(piece.error()));
    }
    const bool end = piece->bytes.empty();
    if (!request.streamed && !end) {
      whole += piece->bytes;
      continue;
    }
    std::string usage;
    std::string_view bytes = piece->bytes;
    if (piece->usage_event) {
      if (!request.view.include_usage) continue;
      bytes = usage = annotated(bytes, [&](const api::Usage& used) {
        if (!bill) return api::NanoNeurons{0};
        return request.runtime->snapshot()
            .prices()
            .price(request.model->name, request.tier, metering::units_of(request.route.endpoint, used))
            .nano_neurons;
      });
    }
    if (request.streamed && !end) {
      const core::SteadyTime now = std::chrono::steady_clock::now();
      if (request.first_text == core::SteadyTime{}) request.first_text = now;
      gaps.on_event(now);
    }
    Done sent;
    if (exchange.started()) {
      sent = end ? co_await exchange.finish() : co_await exchange.write(bytes);
    } else {
      net::ResponseHead head;
      AnswerHeaders headers(head);
      fill_head(request, head, headers, answer_head);
      if (request.streamed) {
        headers.text("cache-control", "no-cache");
        sent = co_await exchange.start_stream(head, bytes);
        if (sent && end) sent = co_await exchange.finish();
      } else {
        headers.neurons(bill ? bill->charge.nano_neurons : 0);
        sent = co_await exchange.respond(head, whole);
      }
    }
    if (!sent || end) co_return sent;
  }
}

}  // namespace ganglion::gateway
