// The stages up to the decision where the answer comes from; serving it is gateway/serve.cpp.

#include "gateway/pipeline.hpp"

#include <algorithm>

#include "api/error_body.hpp"
#include "api/models_body.hpp"
#include "gateway/estimate.hpp"
#include "gateway/host_name.hpp"

namespace ganglion::gateway {
namespace {

using core::ErrorKind;

// The tier as far as it is known before the body: what the body says may change it.
api::Tier presumed_tier(const Request& request) {
  if (request.who->tier_fixed) return request.who->tier;
  return api::parse_tier(request.exchange.head().header("x-neuron-tier")).value_or(request.who->tier);
}

// Header tier, then OpenAI's service_tier, then the key's own.
core::Result<api::Tier> choose_tier(const Request& request) {
  const std::string_view header = request.exchange.head().header("x-neuron-tier");
  std::optional<api::Tier> asked;
  if (!header.empty()) {
    asked = api::parse_tier(header);
    if (!asked)
      return core::fail(ErrorKind::invalid_value, "x-neuron-tier must be 'regular' or 'fast'", "x-neuron-tier");
  } else if (request.view.service_tier == "flex") {
    asked = api::Tier::regular;
  } else if (request.view.service_tier == "priority") {
    asked = api::Tier::fast;
  }
  if (!asked || *asked == request.who->tier) return request.who->tier;
  if (request.who->tier_fixed) {
    return core::fail(ErrorKind::forbidden,
                      "this key may use the tier '" + std::string{api::name(request.who->tier)} + "' only",
                      "service_tier");
  }
  return *asked;
}

bool given_twice(const net::RequestHead& head, std::string_view name) {
  return std::ranges::count_if(head.headers, [&](const net::Header& h) { return net::iequals(h.name, name); }) > 1;
}

cache::CacheHeaders cache_headers(const net::RequestHead& head) {
  cache::CacheHeaders out;
  for (const net::Header& header : head.headers) {
    if (net::iequals(header.name, "cf-aig-cache-ttl")) out.ttl = header.value;
    if (net::iequals(header.name, "cf-aig-skip-cache")) out.skip = header.value;
    if (net::iequals(header.name, "cf-aig-cache-key")) out.key = header.value;
    if (net::iequals(header.name, "cf-cache-ttl")) out.old_ttl = header.value;
    if (net::iequals(header.name, "cf-skip-cache")) out.old_skip = header.value;
    if (net::iequals(header.name, "cache-control")) out.cache_control = header.value;
    if (net::iequals(header.name, cache::kTagsHeader)) out.tags = header.value;
    if (net::iequals(header.name, cache::kReplayHeader)) out.replay = header.value;
  }
  return out;
}

// Official SDKs retry a 429 and a 5xx by themselves. A budget does not come back within seconds; what is larger than a
// limit ever allows, and a provider that refuses our credentials, do not change at all.
bool is_lasting(const core::Error& error) {
  switch (error.kind) {
    case ErrorKind::quota_exceeded:
      return error.retry_after != std::chrono::seconds{1};
    case ErrorKind::rate_limited:
      return error.retry_after.count() == 0;
    case ErrorKind::upstream_rejected:
      return !error.retryable && error.retry_after.count() == 0;
    default:
      return false;
  }
}

}  // namespace

core::Error name_cancel(core::Error error, core::CancelReason reason) {
  if (error.kind != ErrorKind::cancelled) return error;
  switch (reason) {
    case core::CancelReason::deadline:
      return core::make_error(ErrorKind::deadline_exceeded,
                              "the request took longer than the gateway's request timeout");
    case core::CancelReason::shutdown:
      return core::make_error(ErrorKind::shutting_down, "the gateway is shutting down; ask again");
    default:
      return error;
  }
}

Worker::Worker(boost::asio::io_context& io, WorkerLoad& load, Services& services, int access_fd,
               net::RedisClient* redis)
    : services_(services),
      io_(io),
      load_(load),
      leases_(redis != nullptr && services.limiter.shared() ? std::make_unique<Leases>(io, services, *redis) : nullptr),
      keys_(services.cache_seed),
      tiers_(services.tiers.reader(io.get_executor())),
      metrics_(services.metrics.registry(), services.metrics.bounds()),
      access_log_(io, access_fd, metrics_.shard().counter(metrics::Family::access_log_dropped_total)) {}

void Worker::use(std::shared_ptr<const Snapshot> snapshot) {
  runtime_ = std::make_shared<Runtime>(io_.get_executor(), services_, std::move(snapshot));
}

boost::asio::awaitable<void> Worker::handle(net::Exchange& exchange) {
  const WorkerLoad::Running running(load_, exchange.received_at());
  Request request(exchange);
  request.error.kind = ErrorKind::kCount;
  request.runtime = runtime_;
  request.id = ids_.next(services_.clock.wall());
  request.counted = metrics_.request_started();
  if (auto done = co_await serve(request); !done) {
    request.error = name_cancel(std::move(done.error()), exchange.cancel().reason());
    co_await answer_error(request);
  }
  finish(request);
}

// The order is the contract: cheap refusals first, nothing is read before it is admitted, nothing is dispatched before
// it is in the ledger.
boost::asio::awaitable<Worker::Done> Worker::serve(Request& request) {
  const net::RequestHead& head = request.exchange.head();
  // Where to: by method and path alone, never by Host.
  auto route = match(head.method_text, head.path);
  if (!route) {
    request.route.endpoint = endpoint_of(head.path);  // for whoever counts
    co_return std::unexpected(std::move(route.error()));
  }
  request.route = std::move(*route);
  // Who: before a byte of the body is taken.
  if (given_twice(head, "authorization")) {
    co_return core::fail(ErrorKind::malformed_http, "Authorization is given twice; send the one that counts");
  }
  auto who = request.runtime->auth().identify(head.header("authorization"));
  if (!who) co_return std::unexpected(std::move(who.error()));
  request.who = *who;
  if (auto done = check_origin(request); !done) co_return done;
  if (request.route.endpoint == api::Endpoint::models) co_return co_await list_models(request);
  // The client's own labels of it, for the ledger and for budgets.
  if (auto done = label(request); !done) co_return done;
  // Room for its body comes before any work; a place among the calls in flight is taken right before the dispatch, when
  // the tier is known and no cached answer serves. Then the body, and what it asks.
  if (auto done = co_await read(request); !done) co_return done;
  // Which model, on which tier: the names that limits and prices go by.
  if (auto done = resolve(request); !done) co_return done;
  // Asked before under the same Idempotency-Key: the same answer, once more and free.
  if (has_idempotency_key(request)) co_return co_await serve_idempotent(request);
  // Within its limits: estimated now, settled after the answer.
  if (auto done = weigh(request); !done) co_return done;
  auto admitted = try_admit(request);
  if (!admitted) admitted = co_await admit(request);
  if (!*admitted) co_return *admitted;
  // From the cache, from an identical call in flight, or from a backend.
  if (request.caching.lookup || request.caching.store) co_return co_await serve_from_cache(request);
  co_return co_await serve_direct(request);
}

// Where nobody needs a key, a page of any site that a browser here shows could ask, by a form or by a name that has
// been pointed at this machine: browsers say in Origin whose page it is, of all but GET.
Worker::Done Worker::check_origin(const Request& request) {
  if (!request.runtime->auth().ring().open()) return {};
  const std::string_view origin = request.exchange.head().header("origin");
  if (origin.empty()) return {};
  const std::size_t scheme = origin.find("://");
  if (scheme != std::string_view::npos && is_loopback_host(origin.substr(scheme + 3))) return {};
  return core::fail(ErrorKind::forbidden,
                    "no API key is configured here, so pages of this machine alone may ask; configure a key for others "
                    "(`ganglion keys create`)");
}

Worker::Done Worker::label(Request& request) {
  const auto& headers = request.exchange.head().headers;
  const auto named = [](const net::Header& header) { return net::iequals(header.name, api::kTagsHeader); };
  const auto first = std::ranges::find_if(headers, named);
  if (first == headers.end()) return {};
  if (given_twice(request.exchange.head(), api::kTagsHeader)) {
    return core::fail(ErrorKind::invalid_value,
                      std::string{api::kTagsHeader} + " is given twice; send one JSON object with all entries",
                      std::string{api::kTagsHeader});
  }
  auto tags = api::parse_tags(first->value);
  if (!tags) return std::unexpected(std::move(tags.error()));
  request.tags = std::move(*tags);
  return {};
}

boost::asio::awaitable<Worker::Done> Worker::read(Request& request) {
  const net::RequestHead& head = request.exchange.head();
  const RequestOptions& limits = request.runtime->snapshot().request();
  request.deadline = core::Deadline::after(limits.timeout, request.exchange.received_at());
  request.exchange.set_deadline(request.deadline);
  if (const std::string_view encoding = head.header("content-encoding");
      !encoding.empty() && !net::iequals(encoding, "identity")) {
    co_return core::fail(ErrorKind::unsupported_media,
                         "request bodies are taken uncompressed; send no Content-Encoding", "content-encoding");
  }
  if (head.content_length.value_or(0) > limits.body_bytes_max) {
    co_return core::fail(ErrorKind::payload_too_large,
                         "the body is larger than the " + std::to_string(limits.body_bytes_max) + " bytes taken here");
  }
  // A chunked body may grow to the cap, so the cap is reserved until its length is known.
  auto ticket = services_.admission.enter(presumed_tier(request),
                                          head.chunked ? limits.body_bytes_max : head.content_length.value_or(0));
  if (!ticket) co_return std::unexpected(std::move(ticket.error()));
  request.ticket = std::move(*ticket);
  auto body = co_await request.exchange.read_body(limits.body_bytes_max);
  if (!body) co_return std::unexpected(std::move(body.error()));
  if (head.chunked) {
    request.ticket.release_body();
    if (auto held = request.ticket.reserve_body(body->size()); !held) co_return held;
  }
  request.body = *body;
  co_return parse(request);
}

// Scanned once: where a cache key may be asked for, the scan also records what that needs.
Worker::Done Worker::parse(Request& request) {
  auto caching = cache::decide(services_.cache_options, request.runtime->snapshot().policy(request.who->gateway).cache,
                               cache_headers(request.exchange.head()));
  const bool outline = caching && caching->keys_body() && request.body.size() <= api::JsonOutline::kTextBytesMax;
  auto view = api::parse_request(request.route.endpoint, request.body, request.scratch, outline ? &outline_ : nullptr);
  if (!view) return std::unexpected(std::move(view.error()));
  request.view = *view;
  request.outlined = outline ? outline_.sequence() : 0;
  if (!caching) {
    request.caching_error = std::move(caching.error());  // told when the model and the tier are known
    return {};
  }
  request.caching = *std::move(caching);
  cache::narrow(request.caching, request.view);
  return {};
}

Worker::Done Worker::resolve(Request& request) {
  const Snapshot& snapshot = request.runtime->snapshot();
  request.model = snapshot.model(request.view.model);
  if (request.model == nullptr || !request.who->may_use(request.model->name)) {
    request.model = nullptr;
    std::string asked{request.view.model.substr(0, core::kModelNameBytesMax)};
    return core::fail(ErrorKind::model_not_found,
                      "the model '" + asked + "' does not exist or this key may not use it; it may use: " +
                          snapshot.names_for(*request.who),
                      "model");
  }
  auto tier = choose_tier(request);
  if (!tier) return std::unexpected(std::move(tier.error()));
  request.tier = *tier;
  if (request.caching_error) return std::unexpected(*std::move(request.caching_error));
  if (request.caching.why == cache::CacheWhy::skipped) request.cache = metrics::CacheOutcome::skip;
  return {};
}

Worker::Done Worker::weigh(Request& request) {
  auto handle = request.runtime->limits(*request.who, *request.model);
  if (!handle) return std::unexpected(std::move(handle.error()));
  request.limits = *handle;
  const std::uint64_t input = guess_prompt_tokens(request.view);
  const bool embeddings = request.route.endpoint == api::Endpoint::embeddings;
  const std::uint64_t output = guess_answer_tokens(request.view);
  const api::Usage usage{.input_tokens = input, .output_tokens = output};
  const auto units = metering::units_of(request.route.endpoint, usage, embeddings ? request.view.prompt_items : 0);
  const auto charge = request.runtime->snapshot().prices().price(request.model->name, request.tier, units);
  request.estimate = {.tokens = input + output, .nano_neurons = charge.nano_neurons};
  return {};
}

std::optional<Worker::Done> Worker::try_admit(Request& request) {
  if (!leases_) return admitted(request, services_.limiter.admit(request.limits, request.estimate));
  auto permit = leases_->broker.try_admit(request.limits, request.estimate);
  if (!permit) return std::nullopt;
  return admitted(request, std::move(*permit));
}

// The limits are shared and the slice that lies here is too small: one exchange with Redis, tens of microseconds away,
// milliseconds at most.
boost::asio::awaitable<Worker::Done> Worker::admit(Request& request) {
  auto permit = co_await leases_->broker.admit(request.limits, request.estimate);
  co_return admitted(request, std::move(permit));
}

Worker::Done Worker::admitted(Request& request, core::Result<ratelimit::Permit> permit) {
  if (!permit) {
    // The limiter names the empty bucket's scope and kind in `param`; the client has no such parameter.
    const std::string where = std::exchange(permit.error().param, {});
    const auto dot = where.find('.');
    if (dot != std::string::npos) metrics_.limited(where.substr(0, dot), where.substr(dot + 1));
    return std::unexpected(std::move(permit.error()));
  }
  request.permit = std::move(*permit);
  metrics_.admitted();
  return {};
}

// Within its budgets: the most that an upstream call may cost is held before there is one. What is answered from the
// cache or by another's call costs nothing and does not come here.
boost::asio::awaitable<Worker::Done> Worker::reserve(Request& request) {
  BudgetWait wait(services_, request.deadline, request.exchange.cancel());
  for (;;) {
    auto fits = try_reserve(request);
    if (fits || fits.error().kind != ErrorKind::quota_exceeded || !fits.error().retryable) co_return fits;
    // Gateways that share the budget may have room: their slices are asked for.
    if (!co_await wait.again()) {
      fits.error().retryable = false;
      co_return fits;
    }
  }
}

Worker::Done Worker::try_reserve(Request& request) {
  auto budget = CallBudget::reserve(services_, *request.runtime,
                                    {.who = *request.who,
                                     .model = *request.model,
                                     .tier = request.tier,
                                     .tags = request.tags,
                                     .view = request.view,
                                     .body = request.body});
  if (!budget) return std::unexpected(std::move(budget.error()));
  request.budget = std::move(*budget);
  request.budgets = request.budget.handle();
  return {};
}

boost::asio::awaitable<Worker::Done> Worker::list_models(Request& request) {
  const Snapshot& snapshot = request.runtime->snapshot();
  std::vector<api::ModelCard> cards;
  for (const ModelEntry& model : snapshot.models()) {
    if (!request.who->may_use(model.name)) continue;
    if (!request.route.model.empty() && request.route.model != model.name) continue;
    cards.push_back({.id = model.name, .created_s = snapshot.created_s(), .owned_by = "ganglion"});
  }
  if (!request.route.model.empty() && cards.empty()) {
    co_return core::fail(
        ErrorKind::model_not_found,
        "the model '" + request.route.model +
            "' does not exist or this key may not use it; it may use: " + snapshot.names_for(*request.who),
        "model");
  }
  const std::string body = request.route.model.empty() ? api::models_body(cards) : api::model_body(cards.front());
  net::ResponseHead head{.status = 200, .content_type = "application/json"};
  AnswerHeaders headers(head);
  headers.text("x-request-id", request.id.view());
  request.status = 200;
  co_return co_await request.exchange.respond(head, body);
}

boost::asio::awaitable<void> Worker::answer_error(Request& request) {
  const core::Error& error = request.error;
  const int status = api::http_status(error);
  if (status == 0 || request.exchange.started()) co_return;  // the client is gone, or was told inside the stream
  net::ResponseHead head{.status = status, .content_type = "application/json"};
  AnswerHeaders headers(head);
  headers.text("x-request-id", request.id.view());
  headers.retry_after(error.retry_after);
  if (error.kind == ErrorKind::method_not_allowed) {
    headers.text("allow", request.exchange.head().path.starts_with("/v1/models") ? "GET, HEAD" : "POST");
  }
  if (error.kind == ErrorKind::unauthorized) headers.text("www-authenticate", "Bearer");
  if (is_lasting(error)) headers.text("x-should-retry", "false");
  if (error.kind == ErrorKind::rate_limited) headers.rate_limits(services_.limiter.view(request.limits));
  request.status = status;
  const std::string body = api::openai_error_body(error);
  // A client that left meanwhile is counted by its cancel reason.
  [[maybe_unused]] const auto sent = co_await request.exchange.respond(head, body);
}

void Worker::finish(Request& request) {
  outline_.trim();
  const core::SteadyTime now = std::chrono::steady_clock::now();
  const core::SteadyTime began = request.exchange.received_at();
  const bool failed = request.error.kind != ErrorKind::kCount;
  const Bill& bill = request.bill;
  if (bill.attempts == 0) request.dispatched = false;  // it got no place, or was called off before
  metrics::RequestSample sample{
      .endpoint = api::name(request.route.endpoint),
      .model = request.model != nullptr ? std::string_view{request.model->name} : "",
      .tenant = request.who != nullptr ? std::string_view{request.who->tenant} : "",
      .tier = api::name(request.tier),
      .http_status = request.status,
      .cache = request.cache,
      .dispatched = request.dispatched,
      .error = failed ? &request.error : nullptr,
      .cancelled = request.exchange.finished() ? core::CancelReason::none : request.exchange.cancel().reason(),
      .duration = now - began,
      .request_body_bytes = request.exchange.bytes_in(),
      .response_body_bytes = request.exchange.bytes_out(),
  };
  if (request.first_text != core::SteadyTime{}) sample.first_token = request.first_text - began;
  if (request.dispatched) {
    sample.upstream = bill.upstream;
    sample.overhead = std::max(sample.duration - bill.upstream - bill.queued, std::chrono::nanoseconds{0});
  }
  metrics_.request_done(sample);
  if (!access_log_.on()) return;
  const net::RequestHead& head = request.exchange.head();
  access_log_.write({
      .time = services_.clock.wall(),
      .request_id = request.id.view(),
      .peer = request.exchange.peer_address(),
      .method = head.method_text,
      .path = head.path,
      .endpoint = sample.endpoint,
      .tenant = sample.tenant,
      .key = request.who != nullptr ? std::string_view{request.who->key_id} : "",
      .gateway = request.who != nullptr ? std::string_view{request.who->gateway} : "",
      .model = sample.model,
      .backend = request.dispatched ? bill.backend : "",
      .tier = sample.tier,
      .cache = metrics::name(request.cache),
      .outcome = request.dispatched ? metering::name(bill.outcome) : "",
      .error = failed ? core::face(request.error.kind).name : "",
      .status = request.status,
      .stream = request.streamed,
      .bytes_in = sample.request_body_bytes,
      .bytes_out = sample.response_body_bytes,
      .usage = request.dispatched ? bill.usage : api::Usage{},
      .nano_neurons = request.dispatched ? bill.charge.nano_neurons : 0,
      .duration_us = std::chrono::duration_cast<std::chrono::microseconds>(sample.duration).count(),
      .upstream_us =
          request.dispatched ? std::chrono::duration_cast<std::chrono::microseconds>(bill.upstream).count() : -1,
      .first_token_us = sample.first_token.count() >= 0
                            ? std::chrono::duration_cast<std::chrono::microseconds>(sample.first_token).count()
                            : -1,
      .attempts = bill.attempts,
  });
}

}  // namespace ganglion::gateway
