// The table ErrorKind -> outward face. One row per kind, in the order of the enum.

#include "core/error.hpp"

#include <array>

namespace ganglion::core {
namespace {

constexpr auto kFaces = std::to_array<ErrorFace>({
    {"malformed_http", 400, "invalid_request_error", "malformed_http", ErrorSource::client, false},
    {"invalid_json", 400, "invalid_request_error", "invalid_json", ErrorSource::client, false},
    {"invalid_value", 400, "invalid_request_error", "invalid_value", ErrorSource::client, false},
    {"missing_field", 400, "invalid_request_error", "missing_required_parameter", ErrorSource::client, false},
    {"context_length", 400, "invalid_request_error", "context_length_exceeded", ErrorSource::client, false},
    {"unsupported", 400, "invalid_request_error", "unsupported_parameter", ErrorSource::client, false},
    {"unauthorized", 401, "invalid_request_error", "invalid_api_key", ErrorSource::client, false},
    {"forbidden", 403, "permission_error", "forbidden", ErrorSource::client, false},
    {"not_found", 404, "invalid_request_error", "not_found", ErrorSource::client, false},
    {"model_not_found", 404, "invalid_request_error", "model_not_found", ErrorSource::client, false},
    {"method_not_allowed", 405, "invalid_request_error", "method_not_allowed", ErrorSource::client, false},
    {"request_timeout", 408, "invalid_request_error", "request_timeout", ErrorSource::client, false},
    {"conflict", 409, "invalid_request_error", "conflict", ErrorSource::client, false},
    {"payload_too_large", 413, "invalid_request_error", "payload_too_large", ErrorSource::client, false},
    {"uri_too_long", 414, "invalid_request_error", "uri_too_long", ErrorSource::client, false},
    {"unsupported_media", 415, "invalid_request_error", "unsupported_media_type", ErrorSource::client, false},
    {"header_too_large", 431, "invalid_request_error", "header_too_large", ErrorSource::client, false},
    {"rate_limited", 429, "rate_limit_error", "rate_limit_exceeded", ErrorSource::client, false},
    {"quota_exceeded", 429, "insufficient_quota", "budget_exceeded", ErrorSource::client, false},
    {"internal", 500, "server_error", "internal_error", ErrorSource::gateway, false},
    {"overloaded", 503, "server_error", "overloaded", ErrorSource::gateway, true},
    {"queue_full", 429, "rate_limit_error", "queue_full", ErrorSource::gateway, true},
    {"shutting_down", 503, "server_error", "shutting_down", ErrorSource::gateway, true},
    {"ledger_unavailable", 503, "server_error", "ledger_unavailable", ErrorSource::gateway, false},
    {"deadline_exceeded", 504, "server_error", "deadline_exceeded", ErrorSource::gateway, false},
    {"upstream_connect", 502, "server_error", "upstream_unreachable", ErrorSource::upstream, true},
    {"upstream_timeout", 504, "server_error", "upstream_timeout", ErrorSource::upstream, true},
    {"upstream_closed", 502, "server_error", "upstream_closed", ErrorSource::upstream, true},
    {"upstream_protocol", 502, "server_error", "upstream_protocol", ErrorSource::upstream, true},
    {"upstream_rejected", 502, "server_error", "upstream_error", ErrorSource::upstream, true},
    {"no_backend", 503, "server_error", "model_unavailable", ErrorSource::gateway, true},
    {"cancelled", 0, "", "", ErrorSource::client, false},
});
static_assert(kFaces.size() == static_cast<std::size_t>(ErrorKind::kCount));

}  // namespace

const ErrorFace& face(ErrorKind kind) {
  return kFaces.at(static_cast<std::size_t>(kind));
}

Error make_error(ErrorKind kind, std::string message, std::string param) {
  const ErrorFace& f = face(kind);
  return Error{.kind = kind,
               .source = f.source,
               .retryable = f.retryable,
               .retry_after = {},
               .message = std::move(message),
               .param = std::move(param)};
}

}  // namespace ganglion::core
