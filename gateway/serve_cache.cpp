// Answers that are shared: a cache entry, or the flight of identical requests.

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>

#include "api/error_body.hpp"
#include "gateway/free_usage.hpp"
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

}  // namespace

std::string free_usage_event(std::string_view usage_event) {
  return annotated(usage_event, [](const api::Usage&) { return 0; });
}

core::Result<cache::CacheKey> Worker::cache_key(const Request& request, const cache::KeyScope& scope) {
  if (!request.caching.custom_key.empty()) return keys_.from_text(scope, request.caching.custom_key);
  // Another request may have been read while this one waited.
  if (request.outlined != 0 && request.outlined == outline_.sequence()) return keys_.from_outline(scope, outline_);
  return keys_.from_body(scope, request.body);
}

boost::asio::awaitable<Worker::Done> Worker::serve_from_cache(Request& request) {
  const GatewayPolicy& policy = request.runtime->snapshot().policy(request.who->gateway);
  const cache::KeyScope scope{.tenant = request.who->tenant,
                              .gateway = request.who->gateway,
                              .endpoint = request.route.endpoint,
                              .model = request.model->name,
                              .policy_version = request.runtime->snapshot().cache_version(policy, *request.model)};
  auto key = cache_key(request, scope);
  if (!key) co_return std::unexpected(std::move(key.error()));
  Asked asked;
  asked.key = *key;
  request.cache = metrics::CacheOutcome::miss;
  cache::Found found;
  if (request.caching.lookup) {
    found = services_.cache.find(asked.key, request.who->tenant, request.who->gateway);
    if (found.freshness == cache::Freshness::fresh) co_return co_await serve_entry(request, found.entry);
  }
  // The name is of the body that keys_ read last: before any wait.
  if (tiers_ && request.caching.store) asked.name = keys_.store_key(services_.tiers.secret());
  if (request.caching.lookup) {
    // An answer to this very question, even a little old, comes before one to a similar question.
    if (found.freshness != cache::Freshness::revalidate) {
      if (policy.cache.semantic.on()) {
        if (const auto entry = co_await look_alike(request, scope)) co_return co_await serve_entry(request, entry);
      }
    }
    if (!request.caching.store) co_return co_await serve_direct(request);
  }
  asked.stale = std::move(found.entry);
  if (!request.caching.lookup) {
    co_return co_await serve_flight(request, services_.flights.lead_alone(io_.get_executor()), asked);
  }
  if (found.freshness == cache::Freshness::revalidate) co_return co_await serve_stale(request, asked, false);
  auto join = services_.flights.join(asked.key, request.view.stream, request.who->tenant, request.who->gateway,
                                     io_.get_executor(), request.tier == api::Tier::fast);
  if (join.hit) co_return co_await serve_entry(request, join.hit);
  co_return co_await serve_flight(request, std::move(join), asked);
}

// Past its ttl, within its windows. Unless an upstream has just failed, one call fetches a new one for those who come
// later.
boost::asio::awaitable<Worker::Done> Worker::serve_stale(Request& request, const Asked& asked, bool after_error) {
  if (!after_error) start_refresh(request, asked);
  request.stale = after_error ? "stale; reason=error" : "stale; reason=revalidate";
  co_return co_await serve_entry(request, asked.stale);
}

boost::asio::awaitable<Worker::Done> Worker::serve_entry(Request& request,
                                                         const std::shared_ptr<const cache::Entry>& entry) {
  const auto rendered = services_.cache.render(entry, request.view.stream);
  if (!rendered) co_return co_await serve_direct(request);  // no such form of this recording
  request.cache = request.stale.empty() ? metrics::CacheOutcome::hit : metrics::CacheOutcome::stale;
  request.streamed = request.view.stream && !entry->refusal;
  net::ResponseHead head;
  AnswerHeaders headers(head);
  const backends::AnswerHead stored{.status = entry->status, .content_type = std::string{rendered->content_type}};
  fill_head(request, head, headers, stored);
  headers.neurons(0);
  if (request.semantic_score) headers.semantic(*request.semantic_score);
  headers.number("age", entry->age(services_.clock.steady()).count());
  if (!request.stale.empty()) headers.text("x-ganglion-cache", request.stale);
  if (request.semantic_score) headers.semantic(*request.semantic_score);
  record_hit(request, entry->status);
  if (request.streamed && request.caching.replay == cache::Replay::recorded && !entry->pace.empty() &&
      entry->recorded_as == cache::RecordedAs::stream) {
    co_return co_await serve_paced(request, *entry, head);
  }
  std::string edited;
  std::string_view body = rendered->body;
  if (const api::Span at = rendered->usage_event; request.view.stream && !at.empty()) {
    edited = body.substr(0, at.offset);
    if (request.view.include_usage) edited += free_usage_event(at.of(body));
    edited += body.substr(at.offset + at.length);
    body = edited;
  }
  co_return co_await request.exchange.respond(head, body);
}

void Worker::record_hit(const Request& request, int status) {
  // The client that led has its record already: of the call that failed.
  if (request.dispatched) return;
  services_.terminals_written.add();
  services_.ledger.record_async(
      subject_of(request.id, *request.who, *request.model, request.route.endpoint, request.tier, request.tags),
      {.outcome = metering::Outcome::cache_hit,
       .reason = request.stale.empty() ? "" : "stale",
       .charge = request.runtime->snapshot().prices().free(request.tier),
       .http_status = status,
       .latency = std::chrono::duration_cast<std::chrono::microseconds>(services_.clock.steady() -
                                                                        request.exchange.received_at())});
}

// The call of a flight that outlives this request, so it reads its own copies.
std::unique_ptr<Pump> Worker::make_pump(Request& request, std::unique_ptr<cache::Recorder> recorder,
                                        const Asked& asked) {
  const Snapshot& snapshot = request.runtime->snapshot();
  auto pump = std::make_unique<Pump>(Pump{.services = services_,
                                          .recorder = std::move(recorder),
                                          .lead = std::make_shared<FlightLead>(),
                                          .body = request.exchange.hold_body(),
                                          .client_model = std::string{request.view.model},
                                          .name = asked.name,
                                          .stale = asked.stale});
  CallSpec& call = pump->lead->call.emplace(call_spec(request));
  call.body = pump->body.text;
  call.view.model = pump->client_model;
  call.view.user = call.view.service_tier = {};
  call.usage_events = UsageEvents::raw;
  // Each reader keeps its own deadline. The call may outlive its first reader's by one more, for those who joined
  // late; when nobody reads any more it is cancelled.
  call.deadline = core::Deadline::after(2 * snapshot.request().timeout);
  call.cancel = &pump->recorder->cancel();
  if (!request.caching.store) return pump;
  const cache::CachePolicy& policy = snapshot.policy(request.who->gateway).cache;
  pump->negative = policy.negative;
  pump->meta = std::make_shared<cache::Entry>();
  pump->meta->key = asked.key;
  pump->meta->tenant = request.who->tenant;
  pump->meta->gateway = request.who->gateway;
  pump->meta->model = request.model->name;
  pump->meta->endpoint = request.route.endpoint;
  pump->meta->custom_key = request.caching.custom_key;
  pump->meta->tags = request.caching.tags;
  pump->meta->ttl = request.caching.ttl;
  pump->semantic = std::move(request.semantic);
  pump->meta->stale_while_revalidate = policy.stale_while_revalidate;
  pump->meta->stale_if_error = policy.stale_if_error;
  pump->meta->purge_sequence = services_.tiers.purges().sequence();
  pump->meta->generation = services_.tiers.purges().generation();
  return pump;
}

// Billed to this request's key, with an id of its own: the request itself is a hit and costs nothing.
void Worker::start_refresh(Request& request, const Asked& asked) {
  const core::SteadyTime now = services_.clock.steady();
  if (!asked.stale->claim_refresh(now)) return;
  if (!try_reserve(request)) {  // no budget for it: somebody else's may be larger
    asked.stale->refresh_failed(now + std::chrono::seconds{1});
    return;
  }
  auto recorder = services_.flights.refresh(asked.key, request.view.stream, io_.get_executor());
  if (!recorder) {  // a flight of that key is under way, and may end with this very answer
    request.budget = {};
    asked.stale->refresh_failed(now + std::chrono::seconds{1});
    return;
  }
  auto pump = make_pump(request, std::move(recorder), asked);
  pump->refresh = true;
  pump->reader = tiers_.get();
  pump->lead->call->id = ids_.next(services_.clock.wall());
  pump->lead->call->began = now;
  boost::asio::co_spawn(io_, run_pump(std::move(pump)), boost::asio::detached);
}

boost::asio::awaitable<Worker::Done> Worker::serve_flight(Request& request, cache::Join join, Asked asked) {
  std::shared_ptr<FlightLead> lead;  // null for followers, whose share of the call is free
  if (join.recorder) {
    // Before the tiers below are asked: the request that led may be gone when they have answered.
    if (auto fits = co_await reserve(request); !fits) {
      join.recorder->fail(fits.error());
      co_return fits;
    }
    auto pump = make_pump(request, std::move(join.recorder), asked);
    lead = pump->lead;
    if (request.caching.lookup) pump->reader = tiers_.get();
    request.dispatched = true;
    boost::asio::co_spawn(io_, run_pump(std::move(pump)), boost::asio::detached);
  } else {
    request.cache = metrics::CacheOutcome::follower;
  }
  if (auto head = co_await join.reader->head(request.exchange.cancel(), request.deadline); head && (*head)->entry) {
    join.reader.reset();
    co_return co_await serve_found(request, std::move(asked), **head, lead.get());
  }
  const std::shared_ptr<Bill> bill{lead, lead ? &lead->bill : nullptr};
  Done done = co_await relay_flight(request, *join.reader, lead ? bill : nullptr);
  join.reader.reset();
  if (lead) {
    request.bill = *bill;
    // The first client left and the call goes on for others: its bill is the ledger's to tell.
    if (!bill->settled) request.bill.outcome = metering::Outcome::cancelled;
    // It left while the tiers below were asked: there was no call.
    if (lead->call) request.dispatched = false;
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

// The flight ended at a stored answer: of another tier, or a stale one because the upstream failed.
boost::asio::awaitable<Worker::Done> Worker::serve_found(Request& request, Asked asked, const cache::RecordedHead& head,
                                                         FlightLead* lead) {
  if (lead != nullptr) {
    request.bill = lead->bill;
    if (lead->call) {
      // There was no call: its permit is the request's again, and its budget free.
      request.dispatched = false;
      request.permit = std::move(lead->call->permit);
      lead->call.reset();
    }
  }
  asked.stale = head.entry;
  if (head.after_error) co_return co_await serve_stale(request, asked, true);
  if (!head.entry->fresh(services_.clock.steady())) co_return co_await serve_stale(request, asked, false);
  co_return co_await serve_entry(request, head.entry);
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
        if (!bill || bill->prices == nullptr) return api::NanoNeurons{0};
        return bill->prices->price(request.model->name, request.tier, metering::units_of(request.route.endpoint, used))
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
