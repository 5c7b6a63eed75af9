// See api/error_body.hpp.

#include "api/error_body.hpp"

#include <algorithm>

#include "api/json_text.hpp"
#include "api/sse.hpp"

namespace ganglion::api {
namespace {

using core::ErrorKind;

// What a client reads where the place of the error said nothing of its own.
std::string_view standing_message(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::unauthorized:
      return "Incorrect or missing API key. Send it as 'Authorization: Bearer KEY'.";
    case ErrorKind::rate_limited:
      return "Rate limit reached. Try again after the time in Retry-After.";
    case ErrorKind::quota_exceeded:
      return "The budget of this key or tenant is spent.";
    case ErrorKind::overloaded:
      return "The gateway is at its limit of concurrent requests. Try again shortly.";
    case ErrorKind::queue_full:
      return "The model's queue is full. Try again after the time in Retry-After.";
    case ErrorKind::shutting_down:
      return "The gateway is shutting down. Try again shortly.";
    case ErrorKind::ledger_unavailable:
      return "Usage cannot be recorded now, so nothing billable is served.";
    case ErrorKind::deadline_exceeded:
      return "The request did not finish within its time limit.";
    case ErrorKind::upstream_connect:
      return "The upstream provider could not be reached.";
    case ErrorKind::upstream_timeout:
      return "The upstream provider did not answer in time.";
    case ErrorKind::upstream_closed:
      return "The upstream provider closed the connection before its answer was complete.";
    case ErrorKind::upstream_protocol:
      return "The upstream provider sent an answer that could not be understood.";
    case ErrorKind::upstream_rejected:
      return "The upstream provider refused the request.";
    case ErrorKind::no_backend:
      return "No backend of this model is available now.";
    case ErrorKind::internal:
      return "The gateway failed to process the request.";
    default:
      return {};
  }
}

void append_error(std::string& out, const core::Error& error) {
  const core::ErrorFace& face = core::face(error.kind);
  out += R"({"error":{"message":)";
  if (!error.message.empty()) {
    append_json_string(out, error.message);
  } else if (const std::string_view standing = standing_message(error.kind); !standing.empty()) {
    append_json_string(out, standing);
  } else {
    std::string words{face.name};
    std::replace(words.begin(), words.end(), '_', ' ');
    append_json_string(out, words);
  }
  out += R"(,"type":)";
  append_json_string(out, face.openai_type.empty() ? "server_error" : face.openai_type);
  out += R"(,"param":)";
  if (error.param.empty()) {
    out += "null";
  } else {
    append_json_string(out, error.param);
  }
  out += R"(,"code":)";
  if (face.openai_code.empty()) {
    out += "null";
  } else {
    append_json_string(out, face.openai_code);
  }
  out += "}}";
}

}  // namespace

int http_status(const core::Error& error) {
  return core::face(error.kind).http_status;
}

std::string openai_error_body(const core::Error& error) {
  std::string out;
  append_error(out, error);
  return out;
}

std::string openai_error_event(const core::Error& error) {
  std::string out;
  append_sse_event(out, openai_error_body(error));
  return out;
}

}  // namespace ganglion::api
