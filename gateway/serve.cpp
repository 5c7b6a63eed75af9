// A call of its own, for a request whose answer is not shared, and what all answers have in common. The stages before
// are gateway/pipeline.cpp; answers from the cache and from flights are gateway/serve_cache.cpp.

#include "api/error_body.hpp"
#include "gateway/pipeline.hpp"

namespace ganglion::gateway {
namespace {

using core::ErrorKind;

}  // namespace

CallSpec Worker::call_spec(Request& request) {
  return {.runtime = request.runtime,
          .who = request.who,
          .model = request.model,
          .id = request.id,
          .tier = request.tier,
          .tags = request.tags,
          .body = request.body,
          .view = request.view,
          .usage_events = request.view.include_usage ? UsageEvents::annotate : UsageEvents::strip,
          .deadline = request.deadline,
          .cancel = &request.exchange.cancel(),
          .began = request.exchange.received_at(),
          .permit = std::move(request.permit),
          .budget = std::move(request.budget),
          .counters = metrics_.bills(request.who->tenant, request.model->name, api::name(request.tier)),
          .load = &load_};
}

// `head` borrows from `answer`, which must outlive its sending.
void Worker::fill_head(Request& request, net::ResponseHead& head, AnswerHeaders& headers,
                       const backends::AnswerHead& answer) {
  head.status = answer.status;
  head.content_type = answer.content_type;
  headers.text("x-request-id", request.id.view());
  headers.text("x-neuron-tier", api::name(request.tier));
  if (request.replayed) headers.text("idempotent-replayed", "true");
  switch (request.cache) {
    case metrics::CacheOutcome::hit:
    case metrics::CacheOutcome::follower:
    case metrics::CacheOutcome::stale:
      headers.text("cf-aig-cache-status", "HIT");
      break;
    case metrics::CacheOutcome::miss:
      headers.text("cf-aig-cache-status", "MISS");
      break;
    default:
      break;
  }
  const auto overhead = std::chrono::steady_clock::now() - request.exchange.received_at() - request.bill.upstream;
  headers.number("x-ganglion-overhead-us",
                 std::max<std::int64_t>(std::chrono::duration_cast<std::chrono::microseconds>(overhead).count(), 0));
  headers.rate_limits(services_.limiter.view(request.limits));
  if (!request.budgets.empty()) {
    request.budget_header = budget_header(services_.budgets.view(request.budgets));
    if (!request.budget_header.empty()) headers.text("x-ganglion-budget", request.budget_header);
  }
  for (const auto& [name, value] : answer.headers) headers.text(name, value);
  request.status = answer.status;
}

boost::asio::awaitable<Worker::Done> Worker::serve_direct(Request& request) {
  if (auto fits = try_reserve(request); !fits) {
    if (fits.error().kind != ErrorKind::quota_exceeded || !fits.error().retryable) co_return fits;
    if (fits = co_await reserve(request); !fits) co_return fits;
  }
  request.dispatched = true;
  BilledCall call(services_, call_spec(request));
  Done done = co_await call.start();
  request.bill = call.bill();
  if (done && call.streaming()) {
    done = co_await relay_stream(request, call);
  } else if (done) {
    auto body = co_await call.whole();
    request.bill = call.bill();
    if (body) {
      net::ResponseHead head;
      AnswerHeaders headers(head);
      fill_head(request, head, headers, call.head());
      headers.neurons(request.bill.charge.nano_neurons);
      done = co_await request.exchange.respond(head, *body);
    } else {
      done = std::unexpected(std::move(body.error()));
    }
  }
  call.abandon();
  request.bill = call.bill();
  co_return done;
}

boost::asio::awaitable<Worker::Done> Worker::relay_stream(Request& request, BilledCall& call) {
  request.streamed = true;
  net::Exchange& exchange = request.exchange;
  metrics::TokenGaps gaps = metrics_.token_gaps(request.model->name);
  for (;;) {
    auto piece = co_await call.next();
    request.bill = call.bill();
    if (!piece) {
      if (!exchange.started()) co_return std::unexpected(std::move(piece.error()));
      if (piece.error().kind != ErrorKind::cancelled || exchange.cancel().reason() != core::CancelReason::client_gone) {
        // The client has part of the answer: it is told inside the stream, and no [DONE] is made up.
        [[maybe_unused]] const auto told =
            co_await exchange.finish(api::openai_error_event(name_cancel(piece.error(), exchange.cancel().reason())));
      }
      co_return std::unexpected(std::move(piece.error()));
    }
    const core::SteadyTime now = std::chrono::steady_clock::now();
    if (piece->text && request.first_text == core::SteadyTime{}) request.first_text = now;
    gaps.on_event(now);
    Done sent;
    if (!exchange.started()) {
      net::ResponseHead head;
      AnswerHeaders headers(head);
      fill_head(request, head, headers, call.head());
      headers.text("cache-control", "no-cache");
      sent = co_await exchange.start_stream(head, piece->last ? std::string_view{} : piece->bytes, piece->more);
      if (sent && piece->last) sent = co_await exchange.finish(piece->bytes);
    } else {
      sent = piece->last ? co_await exchange.finish(piece->bytes) : co_await exchange.write(piece->bytes, piece->more);
    }
    if (!sent || piece->last) co_return sent;
  }
}

}  // namespace ganglion::gateway
