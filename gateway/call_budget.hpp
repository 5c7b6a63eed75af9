#pragma once
// The budgets' side of one upstream call: the most that it may cost is held before it is dispatched, checked again for
// every further target, raised or refused while a stream runs past it, and settled with the bill.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "api/openai_request.hpp"
#include "api/openai_stream.hpp"
#include "api/tags.hpp"
#include "backends/backend_set.hpp"
#include "gateway/runtime.hpp"
#include "metering/budgets.hpp"

namespace ganglion::gateway {

// The most tokens that a call may use at a target.
struct TokenBound {
  std::uint64_t input = 0;
  std::uint64_t output = 0;
};

// Prompt: a token is at least one byte of the body, what chat templates add comes on top, media count as configured.
// Answer: what the request asks for, else what the model is known to give, else reserve.output_max.
TokenBound token_bound(const api::RequestView& view, std::size_t body_bytes, const backends::Target& target,
                       const metering::ReserveOptions& reserve);

metering::BudgetSubject budget_subject(const Principal& who, const ModelEntry& model, std::span<const api::Tag> tags);

// "acme-month; remaining=12.5; limit=100; unit=usd; reset=2026-12-01T00:00:00Z", "" for none that may be shown.
std::string budget_header(const metering::BudgetView& view);

// Waits for a slice of budgets that are shared with other gateways.
class BudgetWait {
 public:
  BudgetWait(Services& services, core::Deadline deadline, core::CancelSource& cancel)
      : services_(services), deadline_(deadline), cancel_(cancel) {}
  // False: it is not worth waiting any longer.
  boost::asio::awaitable<bool> again();

 private:
  Services& services_;
  core::Deadline deadline_;
  core::CancelSource& cancel_;
  std::chrono::milliseconds waited_{0};
  std::chrono::milliseconds next_{1};
};

class CallBudget {
 public:
  // What the call is. Everything but `tags` and `body` must outlive the CallBudget; the view's text is not read later.
  struct Of {
    const Principal& who;
    const ModelEntry& model;
    api::Tier tier;
    const api::Tags& tags;
    const api::RequestView& view;
    std::string_view body;
  };

  CallBudget() = default;
  // Holds enough for the cheapest of the model's targets; check() sees which it is. quota_exceeded, or overloaded.
  static core::Result<CallBudget> reserve(Services& services, Runtime& runtime, const Of& call);

  // Before a dispatch to `target`. `prices`: of the instant of dispatch, by which the call will be billed; it outlives
  // the CallBudget.
  core::Result<void> check(const backends::Target& target, const metering::PriceBook& prices);
  // Before more of a stream is handed out: may it go on? `count` counts the tokens shown until now, exactly and slowly.
  core::Result<void> go_on(const api::StreamInspector& seen, const std::function<std::uint64_t()>& count);
  // Of a call that was cut: what it is billed for at most.
  api::Usage cap(api::Usage usage) const;
  // After the ledger has its record; the first call counts.
  void settle(const metering::BudgetSubject& subject, const metering::Charge& charge, std::string_view request_id);

  const metering::BudgetHandle& handle() const { return handle_; }

 private:
  metering::BudgetCost cost(const TokenBound& bound) const;
  core::Result<void> raise(const TokenBound& bound, bool running);

  Services* services_ = nullptr;  // null: nothing to settle
  const Snapshot* snapshot_ = nullptr;
  const metering::PriceBook* prices_ = nullptr;
  const ModelEntry* model_ = nullptr;
  api::Tier tier_ = api::Tier::regular;
  api::RequestView view_;  // its text is gone
  std::size_t body_bytes_ = 0;
  metering::BudgetHandle handle_;
  metering::BudgetReservation held_;
  TokenBound bound_;
  bool stepwise_ = false;
  bool counted_ = false;  // the prompt, by our tokenizer
  std::uint64_t count_again_at_ = 0;
};

// The end of a cut stream: a chunk of the answer's own shape for each open choice, with finish_reason
// "budget_exceeded". `events` are the stream's first events, as they came.
std::string budget_end(api::Endpoint endpoint, std::string_view events, std::string_view request_id,
                       std::string_view model, const api::StreamInspector& seen);

}  // namespace ganglion::gateway
