// See app/preflight.hpp.

#include "app/preflight.hpp"

#include "net/redis_client.hpp"
#include "net/tls.hpp"

namespace ganglion::app {
namespace {

std::unexpected<core::Error> bad(const std::string& part, core::Error error) {
  error.message = part + ": " + error.message;
  return std::unexpected(std::move(error));
}

}  // namespace

gateway::SnapshotInput snapshot_input(const config::Config& config) {
  return {.gateway = config.gateway,
          .pricing = config.pricing,
          .remotes = config.remotes,
          .local_models = config.local_models};
}

core::Result<void> preflight(const config::Config& config) {
  for (const auto& [listener, tls] : {std::pair{"server", &config.server.tls}, std::pair{"admin", &config.admin.tls}}) {
    if (tls->cert_file.empty()) continue;
    if (auto context = net::make_server_context(*tls); !context) return bad(listener, std::move(context.error()));
  }
  for (const backends::RemoteOptions& remote : config.remotes) {
    if (!remote.upstream.base_url.starts_with("https://")) continue;
    auto context = net::make_client_context(remote.upstream.tls);
    if (!context) return bad("provider " + remote.name, std::move(context.error()));
  }
  if (auto redis = net::check_redis_tls(config.redis); !redis) return bad("redis", std::move(redis.error()));
  if (auto prices = metering::PriceBook::make(config.pricing); !prices)
    return bad("pricing", std::move(prices.error()));
  return {};
}

}  // namespace ganglion::app
