// Requests with an Idempotency-Key: one upstream call and one charge per key, the same answer to whoever asks again.
// They use neither the response cache nor its flights: the key's own answer is what is shared.

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <optional>

#include "core/deadline.hpp"
#include "core/limits.hpp"
#include "gateway/idempotency.hpp"
#include "gateway/key_share.hpp"
#include "gateway/pipeline.hpp"
#include "gateway/subject.hpp"

namespace ganglion::gateway {
namespace {

using core::ErrorKind;
using Kind = Idempotency::Known::Kind;

constexpr std::string_view kHeader = "idempotency-key";
// How often a key that runs at another gateway, or in another process of this one, is asked for.
constexpr std::chrono::milliseconds kAskFirst{20};
constexpr std::chrono::milliseconds kAskMax{250};
// The gateway that has a key and let its lease run out was asked what became of it, and is heard for so long.
constexpr std::chrono::milliseconds kHearSilent{500};
constexpr std::chrono::milliseconds kAskSilent{100};  // at first

// The one key of a request; invalid_value where there are several, or one that is none.
core::Result<std::string_view> key_of(const net::RequestHead& head) {
  std::string_view key;
  int found = 0;
  for (const net::Header& header : head.headers) {
    if (!net::iequals(header.name, kHeader)) continue;
    key = header.value;
    ++found;
  }
  if (found > 1) {
    return core::fail(ErrorKind::invalid_value, "the Idempotency-Key header is sent more than once",
                      std::string{kHeader});
  }
  if (auto good = idempotency::check_key(key); !good) return std::unexpected(std::move(good.error()));
  return key;
}

// The upstream call of a key, apart from every client: it goes on when all of them have left, so that who comes back
// finds its answer.
struct KeyedPump {
  Services& services;
  std::unique_ptr<KeyClaim> claim;
  std::unique_ptr<cache::Recorder> recorder;
  std::unique_ptr<cache::Reader> keeper;  // null once the answer is too large to be kept: then it lives by its readers
  std::shared_ptr<Bill> bill;             // of the client that led; same thread
  net::HeldBody body;
  std::string client_model;
  std::size_t answer_bytes_max = 0;
  CallSpec spec;

  boost::asio::awaitable<void> keep(const BilledCall& call, std::string_view rest) {
    if (!keeper) co_return;
    auto answer = std::make_shared<idempotency::StoredAnswer>();
    answer->status = call.head().status;
    answer->content_type = call.head().content_type;
    answer->body = recorder->bytes();
    answer->body += rest;
    co_await claim->keep(std::move(answer));
  }
};

// An answer that was not billed (the provider refused the request, or failed inside its answer) is not the key's
// answer: the next request with this key asks anew.
void end_claim(KeyedPump& pump, const Bill& bill) {
  if (bill.outcome == metering::Outcome::completed) {
    pump.claim->settle();
  } else {
    pump.claim->release();
  }
}

boost::asio::awaitable<core::Result<void>> pump_stream(KeyedPump& pump, BilledCall& call) {
  for (;;) {
    // While everything is kept anyway there is nothing to be gained by slowing the upstream down.
    if (!pump.keeper) {
      if (auto room = co_await pump.recorder->writable(); !room) co_return room;
    }
    auto piece = co_await call.next();
    *pump.bill = call.bill();
    if (!piece) co_return std::unexpected(std::move(piece.error()));
    if (piece->last) end_claim(pump, call.bill());
    if (!piece->bytes.empty()) pump.recorder->append(piece->bytes);
    if (!piece->more.empty()) pump.recorder->append(piece->more);
    if (piece->last) co_return core::Result<void>{};
    if (pump.recorder->size() > pump.answer_bytes_max) pump.keeper.reset();
  }
}

boost::asio::awaitable<core::Result<void>> pump_whole(KeyedPump& pump, BilledCall& call) {
  auto body = co_await call.whole();
  *pump.bill = call.bill();
  if (!body) co_return std::unexpected(std::move(body.error()));
  end_claim(pump, call.bill());
  if (body->size() > pump.answer_bytes_max) pump.keeper.reset();
  for (std::string_view rest = *body; !rest.empty();) {
    if (!pump.keeper) {
      if (auto room = co_await pump.recorder->writable(); !room) break;  // nobody is left
    }
    pump.recorder->append(rest.substr(0, core::kStreamBufferBytesMax));
    rest.remove_prefix(std::min(rest.size(), core::kStreamBufferBytesMax));
  }
  co_return core::Result<void>{};
}

boost::asio::awaitable<void> run_keyed(std::unique_ptr<KeyedPump> pump) {
  core::Result<void> done = co_await pump->claim->write(pump->spec.deadline);
  if (!done) {
    pump->claim->release();
    pump->recorder->fail(std::move(done.error()));
    co_return;
  }
  BilledCall* call_at = nullptr;
  pump->spec.before_bill = [raw = pump.get(), &call_at](std::string_view rest) { return raw->keep(*call_at, rest); };
  BilledCall call(pump->services, std::move(pump->spec));
  call_at = &call;
  done = co_await call.start();
  *pump->bill = call.bill();
  if (done) {
    pump->recorder->set_head({.status = call.head().status,
                              .content_type = call.head().content_type,
                              .event_stream = call.streaming(),
                              .headers = call.head().headers});
    done = call.streaming() ? co_await pump_stream(*pump, call) : co_await pump_whole(*pump, call);
  }
  call.abandon();
  *pump->bill = call.bill();
  if (done) {
    pump->recorder->finish();
    co_return;
  }
  const Bill& bill = call.bill();
  if (done.error().kind == ErrorKind::ledger_unavailable && bill.charge.exact != 0) {
    pump->claim.reset();  // billed or not: the ledger will tell after a restart
  } else if (bill.charge.exact != 0) {
    pump->claim->bury();
  } else {
    pump->claim->release();
  }
  pump->recorder->fail(std::move(done.error()));
}

}  // namespace

bool Worker::has_idempotency_key(const Request& request) const {
  if (services_.idempotency == nullptr) return false;
  for (const net::Header& header : request.exchange.head().headers) {
    if (net::iequals(header.name, kHeader)) return true;
  }
  return false;
}

boost::asio::awaitable<Worker::Done> Worker::serve_idempotent(Request& request) {
  const auto text = key_of(request.exchange.head());
  if (!text) co_return std::unexpected(text.error());
  const idempotency::Digest key = idempotency::key_digest(request.who->tenant, request.who->key_id, *text);
  const idempotency::Digest asked = idempotency::request_digest(request.route.endpoint, request.body);
  request.cache = metrics::CacheOutcome::off;
  auto known = services_.idempotency->look(key, asked, io_.get_executor());
  const auto wait_elsewhere = [&](auto ask) -> boost::asio::awaitable<Done> {
    for (auto next = kAskFirst; known.kind == Kind::elsewhere; next = std::min(next * 2, kAskMax)) {
      if (!co_await backends::pause(next, request.deadline, request.exchange.cancel())) {
        if (request.exchange.cancel().cancelled()) co_return core::fail(ErrorKind::cancelled);
        co_return core::fail(ErrorKind::deadline_exceeded,
                             "the request with this Idempotency-Key still runs in another process of this gateway");
      }
      known = ask();
    }
    co_return Done{};
  };
  if (auto done = co_await wait_elsewhere([&] { return services_.idempotency->look(key, asked, io_.get_executor()); });
      !done)
    co_return done;
  KeyShare::Hold hold;  // of the key among gateways
  if (known.kind == Kind::fresh && services_.key_share != nullptr) {
    auto met = co_await meet(request, key, asked, known);
    if (!met) co_return std::unexpected(std::move(met.error()));
    if (met->answer) co_return co_await replay(request, std::move(met->answer));
    hold = std::move(met->hold);
    // Another request of this gateway has it, or had it, and tells how it ends.
    if (known.kind != Kind::fresh) hold.forget();
  }
  if (known.kind == Kind::fresh) {
    if (auto done = weigh(request); !done) co_return done;
    auto admitted = try_admit(request);
    if (!admitted) admitted = co_await admit(request);
    if (!*admitted) co_return *admitted;
    if (auto fits = co_await reserve(request); !fits) co_return fits;
    const auto claim = [&] { return services_.idempotency->claim(key, asked, request.id.view(), io_.get_executor()); };
    known = claim();
    const bool elsewhere = known.kind == Kind::elsewhere;
    const Done waited = co_await wait_elsewhere(claim);
    if (waited && known.kind == Kind::lead)
      known.claim->take(std::move(hold));
    else if (!elsewhere && known.kind == Kind::refused && known.error.kind == ErrorKind::overloaded)
      hold.release();  // there was no room for it
    else
      hold.forget();  // as above; told as not billed, it would be free for others although it runs, or is billed
    if (!waited) co_return waited;
  }
  if (known.kind != Kind::lead) request.budget = {};  // another's call answers it
  if (known.kind == Kind::refused) co_return std::unexpected(std::move(known.error));
  if (known.kind == Kind::replay) co_return co_await serve_replay(request, key);
  std::shared_ptr<Bill> bill;  // null for followers, to whom the answer is free
  if (known.kind == Kind::lead) {
    bill = std::make_shared<Bill>();
    start_idempotent(request, known, bill);
  } else {
    request.replayed = true;
  }
  Done done = co_await relay_flight(request, *known.reader, bill);
  known.reader.reset();
  if (!bill) {
    record_replay(request, done);
    co_return done;
  }
  request.bill = *bill;
  // The client left and its call goes on: the bill is the ledger's to tell.
  if (!bill->settled) request.bill.outcome = metering::Outcome::cancelled;
  co_return done;
}

// What the other gateways make of a key that is new here. While it runs elsewhere the request waits for it; `known` is
// what this gateway makes of it afterwards.
boost::asio::awaitable<core::Result<KeyShare::Claimed>> Worker::meet(Request& request, const idempotency::Digest& key,
                                                                     const idempotency::Digest& asked,
                                                                     Idempotency::Known& known) {
  using Met = KeyShare::Met;
  std::optional<core::Deadline> silent_until;
  for (auto next = kAskFirst;; next = std::min(next * 2, kAskMax)) {
    auto met = co_await services_.key_share->claim(key, asked, request.deadline);
    if (!met) co_return met;
    switch (met->met) {
      case Met::mine:
      case Met::alone:
        known = services_.idempotency->look(key, asked, io_.get_executor());  // it took a while
        co_return met;
      case Met::answered:
        services_.idempotency->count_replay();
        co_return met;
      case Met::conflict:
        co_return std::unexpected(services_.idempotency->refuse(Idempotency::Refusal::another_request));
      case Met::lost:
        co_return std::unexpected(services_.idempotency->refuse(Idempotency::Refusal::lost));
      case Met::doubt:
        if (!silent_until) silent_until = core::Deadline::after(kHearSilent);
        if (silent_until->passed())
          co_return std::unexpected(services_.idempotency->refuse(Idempotency::Refusal::silent));
        next = std::max(next, kAskSilent);
        break;
      case Met::running:
        silent_until.reset();
        break;
    }
    if (!co_await backends::pause(next, request.deadline, request.exchange.cancel())) {
      if (request.exchange.cancel().cancelled()) co_return core::fail(ErrorKind::cancelled);
      if (silent_until) co_return std::unexpected(services_.idempotency->refuse(Idempotency::Refusal::silent));
      co_return core::fail(ErrorKind::deadline_exceeded,
                           "another gateway still works on the request with this Idempotency-Key");
    }
  }
}

void Worker::start_idempotent(Request& request, Idempotency::Known& known, const std::shared_ptr<Bill>& bill) {
  request.dispatched = true;
  auto pump =
      std::make_unique<KeyedPump>(KeyedPump{.services = services_,
                                            .claim = std::move(known.claim),
                                            .recorder = std::move(known.recorder),
                                            .keeper = std::move(known.keeper),
                                            .bill = bill,
                                            .body = request.exchange.hold_body(),
                                            .client_model = std::string{request.view.model},
                                            .answer_bytes_max = services_.idempotency->options().answer_bytes_max,
                                            .spec = call_spec(request)});
  // The call outlives this request, so it reads its own copies.
  pump->spec.body = pump->body.text;
  pump->spec.view.model = pump->client_model;
  pump->spec.view.user = pump->spec.view.service_tier = {};
  pump->spec.deadline = core::Deadline::after(request.runtime->snapshot().request().timeout);
  pump->spec.cancel = &pump->recorder->cancel();
  boost::asio::co_spawn(io_, run_keyed(std::move(pump)), boost::asio::detached);
}

boost::asio::awaitable<Worker::Done> Worker::serve_replay(Request& request, const idempotency::Digest& key) {
  const auto answer = co_await services_.idempotency->answer(key, request.deadline);
  if (!answer) co_return std::unexpected(answer.error());
  if (*answer == nullptr) {  // let go between the look and now
    core::Error gone =
        core::make_error(ErrorKind::conflict, "the answer for this Idempotency-Key is kept no longer; use a new key",
                         std::string{kHeader});
    co_return std::unexpected(std::move(gone));
  }
  co_return co_await replay(request, *answer);
}

boost::asio::awaitable<Worker::Done> Worker::replay(Request& request,
                                                    std::shared_ptr<const idempotency::StoredAnswer> answer) {
  request.replayed = true;
  request.streamed = answer->content_type.starts_with("text/event-stream");
  net::ResponseHead head;
  AnswerHeaders headers(head);
  const backends::AnswerHead stored{.status = answer->status, .content_type = answer->content_type};
  fill_head(request, head, headers, stored);
  if (request.streamed) headers.text("cache-control", "no-cache");
  headers.neurons(0);
  record_replay(request, Done{});
  co_return co_await request.exchange.respond(head, answer->body);
}

void Worker::record_replay(const Request& request, const Done& done) {
  metering::Outcome outcome = metering::Outcome::cache_hit;
  if (!done) {
    outcome = done.error().kind == ErrorKind::cancelled            ? metering::Outcome::cancelled
              : done.error().source == core::ErrorSource::upstream ? metering::Outcome::upstream_error
                                                                   : metering::Outcome::gateway_error;
  }
  services_.terminals_written.add();
  services_.ledger.record_async(
      subject_of(request.id, *request.who, *request.model, request.route.endpoint, request.tier, request.tags),
      {.outcome = outcome,
       .reason = done ? "idempotent_replay" : core::face(done.error().kind).name,
       .charge = request.runtime->snapshot().prices().free(request.tier),
       .http_status = done ? request.status : core::face(done.error().kind).http_status,
       .latency = std::chrono::duration_cast<std::chrono::microseconds>(services_.clock.steady() -
                                                                        request.exchange.received_at())});
}

}  // namespace ganglion::gateway
