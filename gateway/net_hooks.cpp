// See gateway/net_hooks.hpp.

#include "gateway/net_hooks.hpp"

#include "api/error_body.hpp"
#include "core/log.hpp"

namespace ganglion::gateway {

using metrics::Family;

ServerMetrics::ServerMetrics(metrics::Registry& registry, std::string_view listener)
    : shard_(registry.shared()),
      open_(shard_.gauge(Family::connections, {listener})),
      accepted_(shard_.counter(Family::connections_accepted_total, {listener})),
      refused_limit_(shard_.counter(Family::connections_refused_total, {listener, "limit"})),
      refused_accept_(shard_.counter(Family::connections_refused_total, {listener, "accept"})),
      refused_tls_(shard_.counter(Family::connections_refused_total, {listener, "tls"})),
      tls_reloads_(shard_.counter(Family::tls_reloads_total, {listener, "ok"})),
      tls_reloads_failed_(shard_.counter(Family::tls_reloads_total, {listener, "failed"})) {}

net::ErrorBody ServerMetrics::error_body(const core::Error& error) {
  return {.content_type = "application/json", .text = api::openai_error_body(error)};
}

void ServerMetrics::connection_opened() {
  accepted_.add();
  open_.add(1);
}

void ServerMetrics::accept_failed(int errno_value) {
  refused_accept_.add();
  core::log(core::LogLevel::warn, "accept_failed", {{"errno", errno_value}});
}

void ServerMetrics::request_refused(core::ErrorKind kind) {
  shard_.counter(Family::requests_rejected_total, {core::face(kind).name}).add();
}

void ServerMetrics::handler_threw() {
  core::log(core::LogLevel::error, "handler_threw");
}

UpstreamMetrics::UpstreamMetrics(metrics::Registry& registry, std::string_view backend)
    : connects_(registry.shared().counter(Family::upstream_connects_total, {backend})),
      reuses_(registry.shared().counter(Family::upstream_connection_reuses_total, {backend})),
      active_(registry.shared().gauge(Family::upstream_connections, {backend, "active"})),
      idle_(registry.shared().gauge(Family::upstream_connections, {backend, "idle"})),
      fast_waiting_(registry.shared().gauge(Family::upstream_waiting, {backend, "fast"})),
      regular_waiting_(registry.shared().gauge(Family::upstream_waiting, {backend, "regular"})) {}

void UpstreamMetrics::connected(double /*seconds*/) {
  connects_.add();
}

void UpstreamMetrics::connections(int open, int idle) {
  active_.add(open - idle);
  idle_.add(idle);
}

}  // namespace ganglion::gateway
