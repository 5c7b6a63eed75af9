#pragma once
// The one error type of the product: what went wrong, whose fault it is, whether a retry elsewhere may help.
// The outward face of each kind (HTTP status, error type, code) is one table in error.cpp; the dialects' JSON
// bodies are made from it in api/error_body. Errors are values on the request path; nothing throws there.

#include <chrono>
#include <cstdint>
#include <expected>
#include <string>
#include <string_view>

namespace ganglion::core {

enum class ErrorKind : std::uint8_t {
  // The client's request is wrong.
  malformed_http,      // framing or header grammar broken: 400 and close
  invalid_json,        // the body is not JSON; message carries line, column and byte offset
  invalid_value,       // a field has a wrong type or an impossible value; param names it
  missing_field,       // a required field is absent; param names it
  context_length,      // prompt + max_tokens do not fit the model
  unsupported,         // understood, and not served here
  unauthorized,        // no or bad key
  forbidden,           // good key, not allowed
  not_found,           // no such route
  model_not_found,     // no such model, or not for this key
  method_not_allowed,  // route exists for another method
  request_timeout,     // the client was too slow sending: 408 and close
  conflict,            // idempotency key used with another body
  payload_too_large,   // body over the cap: 413
  uri_too_long,        // request target over the cap: 414
  unsupported_media,   // content type or encoding that we do not take: 415
  header_too_large,    // header block over the cap: 431
  rate_limited,        // a bucket is empty: 429 with Retry-After
  quota_exceeded,      // a budget is spent: 429 insufficient_quota
  // The gateway cannot serve now.
  internal,            // a bug or an exhausted resource of ours: 500
  overloaded,          // an in-flight, connection or memory cap is reached: 503 + Retry-After
  queue_full,          // the local engine's queue is full: 429 + Retry-After
  shutting_down,       // draining: 503
  ledger_unavailable,  // usage cannot be made durable, so nothing billable is served: 503
  deadline_exceeded,   // the request's one deadline passed: 504
  // The upstream failed.
  upstream_connect,   // no connection (refused, DNS, TLS): 502
  upstream_timeout,   // first-byte or idle limit passed: 504
  upstream_closed,    // closed or reset before the answer was complete: 502
  upstream_protocol,  // not HTTP, or not the dialect promised: 502
  upstream_rejected,  // answered with an error status; status and body are the upstream's
  no_backend,         // every backend of the model is out of rotation: 503
  // The wait was called off by our side of the house; no answer is owed.
  cancelled,
  kCount
};

enum class ErrorSource : std::uint8_t { client, gateway, upstream };

// Error facts that outlive the place where they were born. Small; messages are short and client-safe: they never
// hold secrets, upstream text or prompt text.
struct Error {
  ErrorKind kind = ErrorKind::internal;
  ErrorSource source = ErrorSource::gateway;
  bool retryable = false;                    // another attempt or another backend may succeed
  std::chrono::milliseconds retry_after{0};  // > 0: when it is worth asking again
  std::string message;                       // what was wrong and what would be right
  std::string param;                         // the request field at fault, "" if none
};

template <class T = void>
using Result = std::expected<T, Error>;

// The outward face of a kind.
struct ErrorFace {
  std::string_view name;         // snake_case, for logs and metric labels
  int http_status;               // 0: no answer is owed
  std::string_view openai_type;  // error.type in OpenAI's shape
  std::string_view openai_code;  // error.code in OpenAI's shape; "" is null
  ErrorSource source;            // who caused it, unless the error says otherwise
  bool retryable;                // default of Error::retryable
};

const ErrorFace& face(ErrorKind kind);

// Builds an error with the table's source and retryable.
Error make_error(ErrorKind kind, std::string message = {}, std::string param = {});

inline std::unexpected<Error> fail(ErrorKind kind, std::string message = {}, std::string param = {}) {
  return std::unexpected(make_error(kind, std::move(message), std::move(param)));
}

}  // namespace ganglion::core
