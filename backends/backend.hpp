#pragma once
// The interface between the pipeline and whatever answers: a remote provider or the local engine. An answer is
// pulled piece by piece, so a slow client slows its upstream and nothing piles up between them.
// Everything here runs on the worker's thread.

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "api/types.hpp"
#include "core/cancel.hpp"
#include "core/deadline.hpp"
#include "core/error.hpp"
#include "core/text_parts.hpp"

namespace ganglion::backends {

// One attempt. Every view is owned by the pipeline and outlives the Answer.
struct Call {
  api::Endpoint endpoint = api::Endpoint::chat_completions;
  std::string_view model;  // the backend's own name of the model
  core::TextParts body;    // OpenAI-dialect JSON, policy already applied (model, include_usage)
  bool stream = false;     // the body asks for server-sent events
  api::Tier tier = api::Tier::regular;
  std::string_view request_id;
  std::string_view tenant;  // who pays; what one tenant's prompts leave in a local model is not used for another's
  std::chrono::milliseconds capacity_wait{0};  // the tier's longest wait for the backend's capacity; 0: its own default
  core::Deadline deadline;                     // the request's one absolute deadline
  core::CancelSource* cancel = nullptr;        // never null; a cancelled wait returns ErrorKind::cancelled
  // Called before the same bytes go to the same backend once more within one start() (a kept connection that was found
  // dead); an error ends the start with it. Null: nobody wants to know.
  const std::function<core::Result<void>()>* before_resend = nullptr;
};

struct AnswerHead {
  int status = 200;  // 2xx from start(); errors come as core::Error
  std::string content_type;
  bool event_stream = false;                                 // text/event-stream
  std::vector<std::pair<std::string, std::string>> headers;  // end-to-end headers that the client may see
};

// An answer being received. Destroying it before its end cancels the attempt: the upstream socket is closed or the
// local generation stopped (both at once, without waiting).
class Answer {
 public:
  virtual ~Answer() = default;
  virtual const AnswerHead& head() const = 0;

  // The next bytes of the body as they arrived (at most core::kStreamBufferBytesMax), valid until the next call.
  // An empty view is the clean end of the body; after it or after an error, next() must not be called again.
  // Errors: upstream_timeout (idle limit), upstream_closed (body cut), upstream_protocol, deadline_exceeded, cancelled.
  virtual boost::asio::awaitable<core::Result<std::string_view>> next() = 0;

  // True: what next() gave last was the end of the body as well, so that next() need not be asked for it.
  virtual bool ended() const { return false; }

  // The caller has all it wants and the body is about to end: its connection is worth keeping.
  virtual void expect_end() {}

  // Exact usage where the backend knows it apart from the body (the local engine); nullopt: read it from the body.
  // Valid after the end, and after a cancel: what was used until then.
  virtual std::optional<api::Usage> usage() const { return std::nullopt; }

  // Microseconds that a device of ours worked for this answer; valid as usage(). 0: none did.
  virtual std::uint64_t engine_us() const { return 0; }
};

// An upstream's error answer, for the one case where the dialect promises the provider's text to the client.
struct Rejection {
  int status = 0;
  std::string content_type;
  std::string body;  // at most 64 KiB, scrubbed of our provider key
  std::optional<std::chrono::milliseconds> retry_after;
  std::uint64_t engine_us = 0;  // that a device of ours worked for nothing, as Answer::engine_us()
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string_view name() const = 0;

  // Sends one attempt and waits for the head of its answer. No retry inside. On an upstream status >= 400 returns
  // ErrorKind::upstream_rejected (Error::retryable set for 408/409/429/5xx, retry_after from Retry-After) and fills
  // `rejection`, where given.
  virtual boost::asio::awaitable<core::Result<std::unique_ptr<Answer>>> start(const Call& call,
                                                                              Rejection* rejection) = 0;
};

}  // namespace ganglion::backends
