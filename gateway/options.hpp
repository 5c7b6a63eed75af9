#pragma once
// Policy: keys, tenants, gateways, models and the request's limits.

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "api/types.hpp"
#include "backends/local/options.hpp"
#include "backends/remote/options.hpp"
#include "cache/options.hpp"
#include "core/secret.hpp"
#include "metering/options.hpp"
#include "net/options.hpp"
#include "ratelimit/options.hpp"

namespace ganglion::gateway {

struct KeyOptions {
  std::string id;       // public name, in logs, metrics and the ledger
  std::string hash;     // hex HMAC-SHA-256 of the key under key_pepper (`ganglion keys create`)
  core::Secret secret;  // or the key itself, from ${ENV_VAR}; hashed at load
  std::string tenant = "default";
  std::string gateway = "default";
  std::vector<std::string> models;      // allowed model names, `*` wildcard at the end; empty: all
  api::Tier tier = api::Tier::regular;  // when the request names none
  bool tier_fixed = false;              // true: the request may not pick another
  bool revoked = false;
  ratelimit::LimitSet limits;
};

struct TenantOptions {
  std::string name;
  bool free_only = false;  // stops at its daily free allocation
  ratelimit::LimitSet limits;
};

// A named policy set.
struct GatewayPolicy {
  std::string name = "default";
  cache::CachePolicy cache;
  ratelimit::LimitSet limits;
  backends::RetryOptions retry;
};

struct ModelLimits {
  std::string model;
  ratelimit::LimitSet limits;
};

struct RequestOptions {
  std::chrono::milliseconds timeout{600'000};  // the absolute deadline
  std::size_t body_bytes_max = 10UL * 1024 * 1024;
};

// Who may use the admin listener.
struct AdminAccess {
  core::Secret token;              // empty: none is asked for
  std::vector<std::string> hosts;  // names by which it may be addressed, besides those of loopback
};

struct GatewayOptions {
  core::Secret key_pepper;       // required as soon as a key is configured
  std::vector<KeyOptions> keys;  // none: open, loopback only
  std::vector<TenantOptions> tenants;
  std::vector<GatewayPolicy> gateways;
  std::vector<ModelLimits> model_limits;
  std::vector<metering::BudgetOptions> budgets;
  metering::ReserveOptions reserve;
  RequestOptions request;
  ratelimit::TierOptions tiers;
};

}  // namespace ganglion::gateway
