#pragma once
// The operator's listener: /metrics, /healthz (the process runs), /readyz (it takes requests), /admin/config (what is
// in force, secrets redacted), /admin/sinks. Its own listener, on loopback by default, behind an AdminGate; nothing
// here touches the request path.

#include <boost/asio/awaitable.hpp>
#include <functional>
#include <map>
#include <string>

#include "gateway/admin_access.hpp"
#include "net/exchange.hpp"
#include "net/hooks.hpp"

namespace ganglion::gateway {

struct AdminSources {
  std::function<std::string()> metrics;        // Prometheus text exposition
  std::function<std::string()> not_ready;      // "" when ready, else why not
  std::function<std::string()> config_json;    // redacted
  std::function<std::string()> semantic_json;  // what the semantic cache looked for lately
  // Further paths, each answered by a handler of its own, which checks the method itself.
  std::map<std::string, net::Handler, std::less<>> routes;
  std::function<std::string()> sinks_json;  // where the ledger's records are sent, and how far each is
};

// Every path is behind the gate; `hooks` hears of what it refuses. All three outlive the returned handler, which is as
// thread-safe as they are.
net::Handler admin_handler(const AdminSources& sources, const AdminGate& gate, net::ServerHooks& hooks);

}  // namespace ganglion::gateway
