#pragma once
// What net reports, as metrics; and the body of the answers that net gives by itself, in OpenAI's shape.

#include <string_view>

#include "metrics/registry.hpp"
#include "net/hooks.hpp"

namespace ganglion::gateway {

// One a listener ("proxy" or "admin"). Thread-safe: counts into the registry's shared shard.
class ServerMetrics final : public net::ServerHooks {
 public:
  ServerMetrics(metrics::Registry& registry, std::string_view listener);

  net::ErrorBody error_body(const core::Error& error) override;
  void connection_opened() override;
  void connection_closed() override { open_.add(-1); }
  void connection_rejected() override { refused_limit_.add(); }
  void accept_failed(int errno_value) override;
  void tls_handshake_failed() override { refused_tls_.add(); }
  void tls_reloaded(bool ok) override { (ok ? tls_reloads_ : tls_reloads_failed_).add(); }
  void request_refused(core::ErrorKind kind) override;
  void handler_threw() override;

 private:
  metrics::Shard& shard_;
  metrics::Gauge open_;
  metrics::Counter accepted_, refused_limit_, refused_accept_, refused_tls_, tls_reloads_, tls_reloads_failed_;
};

// One a backend, shared by all workers.
class UpstreamMetrics final : public net::UpstreamHooks {
 public:
  UpstreamMetrics(metrics::Registry& registry, std::string_view backend);

  void connected(double seconds) override;
  void reused() override { reuses_.add(); }
  void connections(int open, int idle) override;
  void waiting(bool urgent, int delta) override { (urgent ? fast_waiting_ : regular_waiting_).add(delta); }

 private:
  metrics::Counter connects_, reuses_;
  metrics::Gauge active_, idle_, fast_waiting_, regular_waiting_;
};

}  // namespace ganglion::gateway
