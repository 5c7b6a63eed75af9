#pragma once
// One upstream call with its bill: the ledger's intent before each dispatch, the answer watched for usage as it passes,
// and the terminal record made durable before the answer's last byte is handed out. However it ends, including by
// destruction, exactly one terminal record is written. Used by one coroutine at a time on the worker's thread: directly
// by a request, or by the pump of a flight.

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "api/openai_request.hpp"
#include "api/openai_stream.hpp"
#include "api/sse.hpp"
#include "api/tags.hpp"
#include "backends/backend_set.hpp"
#include "core/ids.hpp"
#include "gateway/call_budget.hpp"
#include "gateway/event_run.hpp"
#include "gateway/runtime.hpp"
#include "gateway/tape.hpp"
#include "gateway/worker_load.hpp"
#include "metering/record.hpp"
#include "metrics/worker_metrics.hpp"

namespace ganglion::gateway {

// What is done with a stream's usage event. raw: handed out as it came. annotate: with the neurons added. strip: left
// out, because the client did not ask for it and we did.
enum class UsageEvents : std::uint8_t { raw, annotate, strip };

struct CallSpec {
  std::shared_ptr<Runtime> runtime;
  const Principal* who = nullptr;
  const ModelEntry* model = nullptr;
  core::RequestId id;
  api::Tier tier = api::Tier::regular;
  api::Tags tags;
  std::string_view body;  // the client's bytes; outlive the call
  api::RequestView view;  // of body
  UsageEvents usage_events = UsageEvents::raw;
  core::Deadline deadline;
  core::CancelSource* cancel = nullptr;
  core::SteadyTime began;
  ratelimit::Permit permit;
  CallBudget budget;
  metrics::BillCounters counters;    // of this tenant, model and tier
  const WorkerLoad* load = nullptr;  // of the worker that it runs on
  // Called when the answer is whole and good, before it is billed and before its last bytes, `rest`, are handed out.
  std::function<boost::asio::awaitable<void>(std::string_view rest)> before_bill;
};

// The outcome so far; complete once the call has settled.
struct Bill {
  const metering::PriceBook* prices = nullptr;  // of the instant of dispatch; lives as long as the call's runtime
  api::Usage usage;
  metering::Charge charge;
  metering::Outcome outcome = metering::Outcome::completed;
  std::string_view backend;  // that answered, or was tried last
  std::size_t attempts = 0;
  std::chrono::nanoseconds upstream{0};  // time spent waiting for backends
  std::chrono::nanoseconds queued{0};    // and, before that, for a place
  bool settled = false;
  bool complete = false;  // whole, 2xx, not broken: fit for the cache
};

struct StreamPiece {
  // Whole events, in two places, one after the other; valid until the next call; may be empty on the last piece.
  std::string_view bytes;
  std::string_view more;
  bool usage_event = false;  // exactly one event, which only those who asked may see (UsageEvents::raw only)
  bool last = false;         // the bill is durable; nothing follows
  bool text = false;         // holds the first text of the stream
};

class BilledCall {
 public:
  BilledCall(Services& services, CallSpec spec);
  ~BilledCall();
  BilledCall(const BilledCall&) = delete;
  BilledCall& operator=(const BilledCall&) = delete;

  // Dispatches, with retries and fallback, until an answer's head is there. An upstream's refusal of the client's own
  // request (400, 404, 422, 429, ...) counts as an answer: its status and body are the client's to see.
  boost::asio::awaitable<core::Result<void>> start();
  const backends::AnswerHead& head() const { return head_; }
  bool streaming() const { return head_.event_stream && answer_ != nullptr; }
  bool refused() const { return refused_; }  // the upstream refused the client's request

  // A streaming answer, piece by piece.
  boost::asio::awaitable<core::Result<StreamPiece>> next();
  // Any other answer, whole; settled when it returns. Valid while the call lives.
  boost::asio::awaitable<core::Result<std::string_view>> whole();

  // The client left, or nobody wants the answer any more: bills what was produced until now. Does nothing once settled.
  void abandon() noexcept;
  const Bill& bill() const { return bill_; }

 private:
  core::Result<core::TextParts> before_dispatch(const backends::Target& target);
  core::Result<void> before_resend();
  core::Result<void> accept_rejection(core::Error error, backends::Rejection rejection);
  boost::asio::awaitable<core::Result<void>> settle(metering::Outcome outcome, std::string_view reason, int status);
  void settle_now(metering::Outcome outcome, std::string_view reason, int status) noexcept;
  void append(metering::Terminal record) noexcept;
  metering::Units units_now(const api::Usage& usage) const;
  metering::Terminal terminal(metering::Outcome outcome, std::string_view reason, int status);
  void count_usage(bool answered) noexcept;
  boost::asio::awaitable<core::Result<void>> wait_for_place();
  core::Error broken(core::Error error);
  StreamPiece take_events();
  void annotate(const api::SseEvent& event, const api::ChunkFacts& facts);
  bool within_budget();
  boost::asio::awaitable<core::Result<StreamPiece>> end_cut();
  boost::asio::awaitable<bool> found_room();
  void settle_budget() noexcept;

  Services& services_;
  CallSpec spec_;
  Bill bill_;
  metering::IntentId intent_;
  std::vector<backends::Attempt> attempts_;
  std::vector<metering::Attempt> ledger_attempts_;
  ratelimit::Place place_;
  std::string rewritten_;  // outlives answer_, which may hold views of it
  std::unique_ptr<backends::Answer> answer_;
  backends::AnswerHead head_;
  std::string body_;                    // of a whole answer
  std::optional<api::Usage> reported_;  // by it
  bool refused_ = false;
  std::uint64_t unanswered_us_ = 0;  // that devices of ours worked on tries that brought no answer
  // Streams.
  api::SseParser parser_;
  api::StreamInspector inspector_;
  EventRun events_;
  std::string out_;  // an event handed out alone
  std::string usage_event_;
  std::string done_event_;
  Tape tape_;
  bool ended_ = false;
  std::optional<core::Error> cut_;  // by a budget
  std::string held_back_;           // the event before which it was cut
  std::uint64_t vectors_ = 0;
};

}  // namespace ganglion::gateway
