// See gateway/billed_call.hpp.

#include "gateway/billed_call.hpp"

#include <algorithm>
#include <array>

#include "api/openai_response.hpp"
#include "api/rewrite.hpp"
#include "core/limits.hpp"
#include "core/log.hpp"
#include "gateway/access_log.hpp"
#include "gateway/estimate.hpp"
#include "gateway/subject.hpp"

namespace ganglion::gateway {
namespace {

using core::ErrorKind;
using metering::Outcome;

// Of a stream, handed out at once: what lies here for a client that does not read is memory.
constexpr std::size_t kPieceBytesMax = 16 * 1024;

// Statuses by which an upstream refuses the client's own request; anything else is between us and the upstream.
constexpr std::array kClientStatuses{400, 404, 409, 413, 415, 422, 429};

Outcome outcome_of(const core::Error& error) {
  if (error.kind == ErrorKind::cancelled) return Outcome::cancelled;
  if (error.kind == ErrorKind::queue_full) return Outcome::rejected;
  switch (error.source) {
    case core::ErrorSource::upstream:
      return Outcome::upstream_error;
    case core::ErrorSource::client:
      return Outcome::rejected;
    case core::ErrorSource::gateway:
      return Outcome::gateway_error;
  }
  return Outcome::gateway_error;
}

// Why it ended, for the ledger: who called it off, or what failed.
std::string_view reason_of(const core::Error& error, const core::CancelSource* cancel) {
  const bool called_off = error.kind == ErrorKind::cancelled && cancel != nullptr && cancel->cancelled();
  return called_off ? core::name(cancel->reason()) : core::face(error.kind).name;
}

// From where nothing may be thrown.
void tell(std::string_view event, const core::RequestId& id, const char* problem) noexcept {
  try {
    core::log(core::LogLevel::error, event, {{"request_id", id.view()}, {"problem", problem}});
  } catch (...) {  // NOLINT(bugprone-empty-catch): out of memory; there is nobody left to tell
  }
}

// Adds what passes in a scope to a total.
class Stopwatch {
 public:
  explicit Stopwatch(std::chrono::nanoseconds& total) : total_(total), began_(std::chrono::steady_clock::now()) {}
  ~Stopwatch() { total_ += std::chrono::steady_clock::now() - began_; }

 private:
  std::chrono::nanoseconds& total_;
  core::SteadyTime began_;
};

}  // namespace

BilledCall::BilledCall(Services& services, CallSpec spec) : services_(services), spec_(std::move(spec)) {
  bill_.prices = &spec_.runtime->snapshot().prices(services.clock.wall());
  ledger_attempts_.reserve(metering::kAttemptsMax);  // the record is written without asking for memory
}

BilledCall::~BilledCall() {
  abandon();
  settle_budget();
}

void BilledCall::abandon() noexcept {
  if (!intent_ || bill_.settled) return;
  count_usage(answer_ != nullptr);
  const std::string_view reason =
      spec_.cancel != nullptr && spec_.cancel->cancelled() ? core::name(spec_.cancel->reason()) : "dropped";
  settle_now(Outcome::cancelled, reason, 0);
}

core::Result<core::TextParts> BilledCall::before_dispatch(const backends::Target& target) {
  const std::string_view backend = target.backend->name();
  bill_.backend = backend;
  ++bill_.attempts;
  if (!intent_) bill_.prices = &spec_.runtime->snapshot().prices(services_.clock.wall());  // it may have waited
  if (auto fits = spec_.budget.check(target, *bill_.prices); !fits) return std::unexpected(std::move(fits.error()));
  if (!intent_) {
    auto intent = services_.ledger.intent(
        subject_of(spec_.id, *spec_.who, *spec_.model, spec_.view.endpoint, spec_.tier, spec_.tags), backend);
    if (!intent) return std::unexpected(std::move(intent.error()));
    intent_ = *intent;
    services_.intents_written.add();
  } else if (auto again = services_.ledger.attempt(intent_, static_cast<std::uint32_t>(bill_.attempts), backend);
             !again) {
    return std::unexpected(std::move(again.error()));
  }
  return api::rewrite_body(spec_.body, spec_.view, {.model = target.upstream_model, .include_usage = spec_.view.stream},
                           rewritten_);
}

// A kept connection was dead when the request went out on it: whether the provider got it there nobody knows, so it is
// an attempt like any other.
core::Result<void> BilledCall::before_resend() {
  ++bill_.attempts;
  attempts_.push_back({.backend = bill_.backend, .outcome = ErrorKind::upstream_closed});
  return services_.ledger.attempt(intent_, static_cast<std::uint32_t>(bill_.attempts), bill_.backend);
}

// A place among the calls in flight, by tier: after a wait, or not at all.
boost::asio::awaitable<core::Result<void>> BilledCall::wait_for_place() {
  auto place = co_await services_.admission.place(spec_.tier, spec_.deadline, *spec_.cancel);
  if (!place) co_return std::unexpected(std::move(place.error()));
  place_ = std::move(*place);
  bill_.queued = place_.waited();
  if (bill_.queued.count() > 0) services_.tier_wait[ratelimit::index(spec_.tier)].observe(bill_.queued);
  co_return core::Result<void>{};
}

boost::asio::awaitable<core::Result<void>> BilledCall::start() {
  if (auto place = services_.admission.place_now(spec_.tier)) {
    place_ = std::move(*place);
  } else if (auto done = co_await wait_for_place(); !done) {
    settle_now(outcome_of(done.error()), reason_of(done.error(), spec_.cancel),
               core::face(done.error().kind).http_status);
    co_return done;
  }
  const ratelimit::TierOptions& tiers = spec_.runtime->snapshot().input().gateway.tiers;
  backends::Call call{.endpoint = spec_.view.endpoint,
                      .stream = spec_.view.stream,
                      .tier = spec_.tier,
                      .request_id = spec_.id.view(),
                      .tenant = spec_.who->tenant,
                      .capacity_wait = spec_.tier == api::Tier::fast ? tiers.fast_wait_max : tiers.regular_wait_max,
                      .deadline = spec_.deadline,
                      .cancel = spec_.cancel};
  backends::Rejection rejection;
  const backends::BodyFor body_for = [this](const backends::Target& target) { return before_dispatch(target); };
  const std::function<core::Result<void>()> resend = [this] { return before_resend(); };
  call.before_resend = &resend;
  auto& set = spec_.runtime->backends_of(*spec_.model);
  const auto& retry = spec_.runtime->snapshot().policy(spec_.who->gateway).retry;
  core::Result<backends::Started> started;
  {
    const Stopwatch waiting(bill_.upstream);
    started = co_await set.start(call, retry, body_for, attempts_, rejection);
  }
  if (started) {
    unanswered_us_ = rejection.engine_us;
    answer_ = std::move(started->answer);
    head_ = answer_->head();
    co_return core::Result<void>{};
  }
  core::Error error = std::move(started.error());
  unanswered_us_ = rejection.engine_us;
  if (error.kind == ErrorKind::overloaded) {
    services_.admission.count_shed(spec_.tier, ratelimit::Shed::upstream_busy);
    error.retry_after = std::max<std::chrono::milliseconds>(error.retry_after, std::chrono::seconds{1});
  }
  if (error.kind == ErrorKind::upstream_rejected) co_return accept_rejection(std::move(error), std::move(rejection));
  settle_now(outcome_of(error), reason_of(error, spec_.cancel), core::face(error.kind).http_status);
  co_return std::unexpected(std::move(error));
}

core::Result<void> BilledCall::accept_rejection(core::Error error, backends::Rejection rejection) {
  const bool clients = std::ranges::find(kClientStatuses, rejection.status) != kClientStatuses.end();
  if (clients && rejection.content_type.starts_with("application/json") && !rejection.body.empty()) {
    head_ = {.status = rejection.status, .content_type = std::move(rejection.content_type)};
    if (rejection.retry_after) {
      head_.headers.emplace_back("retry-after", std::to_string((rejection.retry_after->count() + 999) / 1000));
    }
    body_ = std::move(rejection.body);
    refused_ = true;
    settle_now(Outcome::upstream_error, "upstream_rejected", head_.status);
    return {};
  }
  if (rejection.status == 401 || rejection.status == 403) {
    core::log(core::LogLevel::error, "provider_refused_credentials",
              {{"backend", bill_.backend}, {"status", rejection.status}});
    error.message = "the provider refused the gateway's credentials; the operator must check its API key";
    error.retryable = false;
  }
  settle_now(Outcome::upstream_error, core::face(error.kind).name, core::face(error.kind).http_status);
  return std::unexpected(std::move(error));
}

void BilledCall::count_usage(bool answered) noexcept {
  if (answered) {
    try {
      if (const auto exact = answer_->usage()) {
        bill_.usage = *exact;
        return;
      }
    } catch (const std::exception& error) {
      tell("usage_unknown", spec_.id, error.what());
    }
  }
  if (const auto& reported = reported_ ? reported_ : inspector_.usage()) {
    bill_.usage = *reported;  // a provider's explicit 0 stays 0
    return;
  }
  if (!answered) return;
  std::optional<std::string> taped;
  try {
    if (!tape_.full()) taped = tape_.events();
  } catch (const std::exception& error) {  // then its events are counted
    tell("token_count_failed", spec_.id, error.what());
  }
  bill_.usage = own_count(
      {.view = spec_.view, .body = spec_.body, .answer = body_, .tape = taped, .text_events = inspector_.text_events()},
      services_.token_counter);
}

// Of an answer that is there.
metering::Units BilledCall::units_now(const api::Usage& usage) const {
  metering::Units units = metering::units_of(spec_.view.endpoint, usage, vectors_);
  units.gpu_us = std::min(answer_->engine_us(), metering::kUnitsPerRequestMax);
  return units;
}

metering::Terminal BilledCall::terminal(Outcome outcome, std::string_view reason, int status) {
  const bool billed = outcome == Outcome::completed || outcome == Outcome::cancelled;
  metering::Units units;
  if (answer_ != nullptr) units = units_now(bill_.usage);
  bill_.charge = billed && answer_ != nullptr ? bill_.prices->price(spec_.model->name, spec_.tier, units)
                                              : bill_.prices->free(spec_.tier);
  // On record, and not paid for: tries without an answer are free.
  units.gpu_us = std::min(units.gpu_us + unanswered_us_, metering::kUnitsPerRequestMax);
  bill_.outcome = outcome;
  bill_.settled = true;
  if (intent_) services_.terminals_written.add();
  spec_.counters.add({.input_tokens = bill_.usage.input_tokens,
                      .cached_input_tokens = bill_.usage.cached_input_tokens,
                      .output_tokens = bill_.usage.output_tokens,
                      .usage_estimated = bill_.usage.estimated,
                      .nano_neurons = bill_.charge.nano_neurons});
  ledger_attempts_.clear();
  for (const backends::Attempt& attempt : attempts_) {
    if (ledger_attempts_.size() == metering::kAttemptsMax) break;
    const bool answered = attempt.outcome == ErrorKind::kCount;
    ledger_attempts_.push_back({.backend = attempt.backend,
                                .http_status = attempt.status,
                                .reason = answered ? "" : core::face(attempt.outcome).name});
  }
  spec_.permit.settle(units.input_tokens + units.output_tokens, bill_.charge.nano_neurons);
  return {.outcome = outcome,
          .reason = reason,
          .units = units,
          .estimated = bill_.usage.estimated,
          .charge = bill_.charge,
          .http_status = status,
          .latency = std::chrono::duration_cast<std::chrono::microseconds>(services_.clock.steady() - spec_.began),
          .attempts = ledger_attempts_};
}

void BilledCall::settle_now(Outcome outcome, std::string_view reason, int status) noexcept {
  const metering::Terminal record = terminal(outcome, reason, status);
  if (intent_) append(record);
  settle_budget();
}

// What failed for want of memory is tried once more without what may be left out. A record that is there already is not
// written again; an intent that stays open costs nothing and is closed as aborted by the next start.
void BilledCall::append(metering::Terminal record) noexcept {
  for (int i = 0; i < 2; ++i) {
    try {
      return services_.ledger.terminal_async(intent_, record);
    } catch (const std::exception& error) {
      tell("ledger_record_delayed", spec_.id, error.what());
      record.attempts = {};
    }
  }
}

// After the record was appended: what the ledger filed under one window is never counted under an earlier one.
void BilledCall::settle_budget() noexcept {
  try {
    spec_.budget.settle(budget_subject(*spec_.who, *spec_.model, spec_.tags), bill_.charge, spec_.id.view());
  } catch (const std::exception& error) {
    tell("budget_not_settled", spec_.id, error.what());
  }
}

boost::asio::awaitable<core::Result<void>> BilledCall::settle(Outcome outcome, std::string_view reason, int status) {
  const metering::Terminal record = terminal(outcome, reason, status);
  if (record.charge.exact == 0) {
    append(record);
    settle_budget();
    co_return core::Result<void>{};
  }
  core::Result<void> durable;
  try {
    const bool alone = spec_.load != nullptr && spec_.load->alone();
    durable = co_await services_.ledger.terminal(intent_, record,
                                                 alone ? metering::Commit::in_place : metering::Commit::apart);
  } catch (const std::exception& error) {
    append(record);
    durable = core::fail(ErrorKind::ledger_unavailable, std::string{"usage cannot be recorded: "} + error.what());
  }
  settle_budget();
  co_return durable;
}

// Ends the call after an error while the answer was coming.
core::Error BilledCall::broken(core::Error error) {
  ended_ = true;
  if (!bill_.settled) {
    count_usage(true);
    settle_now(outcome_of(error), reason_of(error, spec_.cancel), head_.status);
  }
  return error;
}

// Appends the usage event with the neurons that it costs.
void BilledCall::annotate(const api::SseEvent& event, const api::ChunkFacts& facts) {
  const metering::Units units = units_now(inspector_.usage().value_or(api::Usage{}));
  const metering::Charge charge = bill_.prices->price(spec_.model->name, spec_.tier, units);
  std::string annotated;
  events_.copy(api::with_neurons(event, facts, neurons_text(charge.nano_neurons), annotated));
}

// Takes the whole events that the parser holds, up to a usage event that stands alone or the end.
StreamPiece BilledCall::take_events() {
  StreamPiece piece;
  events_.clear();
  while (usage_event_.empty() && done_event_.empty() && !cut_ && events_.size() < kPieceBytesMax) {
    const auto event = parser_.next();
    if (!event) {
      ended_ = true;  // one event over the maximum: next() reports it
      break;
    }
    if (!*event) break;
    const api::ChunkFacts facts = inspector_.inspect(**event);
    if (facts.text_bytes > 0 && !within_budget()) {
      held_back_ = (*event)->raw;
      break;
    }
    piece.text = piece.text || facts.first_text;
    if (facts.done) {
      done_event_ = (*event)->raw;
    } else if (facts.usage_only && spec_.usage_events != UsageEvents::annotate) {
      if (spec_.usage_events == UsageEvents::raw) usage_event_ = (*event)->raw;
    } else if (!facts.usage_object.empty() && spec_.usage_events == UsageEvents::annotate) {
      annotate(**event, facts);
    } else {
      events_.add((*event)->raw, (*event)->in_place);
      if (facts.text_bytes > 0) tape_.keep((*event)->raw);
    }
  }
  piece.bytes = events_.copied();
  piece.more = events_.in_place();
  return piece;
}

// What has just been read may be handed out; else the stream is cut before it.
bool BilledCall::within_budget() {
  const auto count = [this] {
    return !tape_.full() ? count_stream_tokens(tape_.events(), services_.token_counter) : inspector_.text_events();
  };
  auto fits = spec_.budget.go_on(inspector_, count);
  if (!fits) {
    cut_ = std::move(fits.error());
    cut_->message = "The answer was cut. " + cut_->message;
  }
  return fits.has_value();
}

// Budgets that are shared may find room at other gateways: then the stream goes on with the event that was held back.
boost::asio::awaitable<bool> BilledCall::found_room() {
  if (bill_.settled) co_return false;
  BudgetWait wait(services_, spec_.deadline, *spec_.cancel);
  while (cut_->retryable && co_await wait.again()) {
    cut_.reset();
    if (within_budget()) co_return true;
  }
  held_back_.clear();
  cut_->retryable = false;
  co_return false;
}

// Of a cut stream: the bill for what was handed out, then a last chunk that says why, then the error.
boost::asio::awaitable<core::Result<StreamPiece>> BilledCall::end_cut() {
  if (bill_.settled) co_return std::unexpected(*cut_);
  ended_ = true;
  count_usage(true);
  bill_.usage = spec_.budget.cap(bill_.usage);
  auto durable = co_await settle(Outcome::cancelled, "budget_exceeded", head_.status);
  answer_.reset();  // the upstream stops at once
  if (!durable) co_return std::unexpected(std::move(durable.error()));
  if (tape_.empty()) co_return std::unexpected(*cut_);
  out_ = budget_end(spec_.view.endpoint, tape_.first(), spec_.id.view(), spec_.model->name, inspector_);
  co_return StreamPiece{.bytes = out_};
}

boost::asio::awaitable<core::Result<StreamPiece>> BilledCall::next() {
  for (;;) {
    StreamPiece piece = take_events();
    if (events_.size() > 0) co_return piece;
    if (cut_ && !co_await found_room()) co_return co_await end_cut();
    if (!held_back_.empty()) {
      out_ = std::exchange(held_back_, {});
      tape_.keep(out_);
      co_return StreamPiece{.bytes = out_, .text = inspector_.text_events() == 1};
    }
    if (ended_)
      co_return std::unexpected(
          broken(core::make_error(ErrorKind::upstream_protocol, "the provider sent an event over the size limit")));
    if (!usage_event_.empty()) {
      out_.swap(usage_event_);
      usage_event_.clear();
      co_return StreamPiece{.bytes = out_, .usage_event = true};
    }
    if (!done_event_.empty()) {
      answer_->expect_end();
      break;
    }
    core::Result<std::string_view> bytes;
    {
      const Stopwatch waiting(bill_.upstream);
      bytes = co_await answer_->next();
    }
    if (!bytes) co_return std::unexpected(broken(std::move(bytes.error())));
    if (!bytes->empty()) {
      parser_.feed(*bytes);
      continue;
    }
    // The body ended without [DONE]. Where every choice had its finish reason the answer is whole, and ends as the
    // upstream ended it; otherwise it was cut.
    if (const auto rest = parser_.finish(); rest && inspector_.inspect(*rest).done) {
      done_event_ = api::kSseDone;
      break;
    }
    if (inspector_.finished() && !inspector_.failed()) break;
    co_return std::unexpected(broken(
        core::make_error(ErrorKind::upstream_closed, "the provider's stream ended before the answer was complete")));
  }
  ended_ = true;
  count_usage(true);
  bill_.complete = inspector_.finished() && !inspector_.failed() && head_.status == 200;
  const bool failed = inspector_.failed();
  if (spec_.before_bill && !failed) co_await spec_.before_bill(done_event_);
  if (auto durable = co_await settle(failed ? Outcome::upstream_error : Outcome::completed,
                                     failed ? "stream_error" : "", head_.status);
      !durable) {
    co_return std::unexpected(std::move(durable.error()));
  }
  co_return StreamPiece{.bytes = done_event_, .last = true};
}

boost::asio::awaitable<core::Result<std::string_view>> BilledCall::whole() {
  if (refused_) co_return std::string_view{body_};
  for (;;) {
    core::Result<std::string_view> bytes;
    {
      const Stopwatch waiting(bill_.upstream);
      bytes = co_await answer_->next();
    }
    if (!bytes) co_return std::unexpected(broken(std::move(bytes.error())));
    if (bytes->empty()) break;
    if (body_.size() + bytes->size() > core::kUpstreamBodyBytesMax) {
      co_return std::unexpected(
          broken(core::make_error(ErrorKind::upstream_protocol, "the provider's answer is over the size limit")));
    }
    body_ += *bytes;
    if (answer_->ended()) break;
  }
  const auto facts = api::scan_answer(body_);
  if (!facts)
    co_return std::unexpected(
        broken(core::make_error(ErrorKind::upstream_protocol, "the provider's answer is not JSON")));
  if (facts->error && facts->choices == 0 &&
      head_.status == 200) {  // nothing has left yet: clients look at the status first
    co_return std::unexpected(broken(core::make_error(
        ErrorKind::upstream_rejected, "the provider answered with an error in place of an answer, under status 200")));
  }
  if (spec_.view.endpoint == api::Endpoint::embeddings) vectors_ = facts->choices;
  reported_ = facts->usage;
  count_usage(true);
  bill_.complete = !facts->error && head_.status == 200;
  const bool ok = !facts->error;
  if (spec_.before_bill && ok) co_await spec_.before_bill(body_);
  if (auto durable =
          co_await settle(ok ? Outcome::completed : Outcome::upstream_error, ok ? "" : "error_body", head_.status);
      !durable) {
    co_return std::unexpected(std::move(durable.error()));
  }
  co_return std::string_view{body_};
}

}  // namespace ganglion::gateway
