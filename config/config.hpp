#pragma once
// The whole configuration as plain settings structs: one immutable value per load, shared by pointer as a snapshot.

#include <chrono>
#include <string>
#include <vector>

#include "backends/local/options.hpp"
#include "backends/remote/options.hpp"
#include "cache/options.hpp"
#include "config/diagnostic.hpp"
#include "gateway/budget_share_options.hpp"
#include "gateway/options.hpp"
#include "idempotency/options.hpp"
#include "metering/options.hpp"
#include "metrics/options.hpp"
#include "net/options.hpp"
#include "net/redis_options.hpp"
#include "ratelimit/options.hpp"
#include "sinks/options.hpp"

namespace ganglion::config {

struct ShutdownOptions {
  std::chrono::milliseconds drain{30'000};
  std::chrono::milliseconds upgrade_drain{600'000};  // of the process that was replaced
};

struct Config {
  net::ServerOptions server;                // the proxy listener
  std::size_t address_connections_max = 0;  // of it, from one client address; 0: any number
  // /metrics, /healthz, /readyz, /admin/*
  net::ServerOptions admin{.port = 8081, .workers = 1, .connections_max = 256};
  gateway::AdminAccess admin_access;
  ShutdownOptions shutdown;
  metrics::LogOptions log;
  metrics::MetricsOptions metrics;
  ratelimit::AdmissionOptions admission;
  ratelimit::LimiterOptions limiter;
  cache::CacheOptions cache;
  metering::PricingOptions pricing;
  metering::LedgerOptions ledger;
  idempotency::IdempotencyOptions idempotency;
  net::RedisOptions redis;
  std::vector<sinks::SinkOptions> sinks;
  metering::BudgetAlertOptions budget_alerts;
  gateway::BudgetShareOptions budget_sharing;
  gateway::GatewayOptions gateway;
  std::vector<backends::RemoteOptions> remotes;
  std::vector<backends::LocalModelOptions> local_models;

  std::string source;                // the file it came from, "" for the embedded default
  std::string hash;                  // 16 hex digits over every value, secrets included; equal for equal settings
  std::vector<Diagnostic> warnings;  // what the loader let pass; to be logged at start and reload
};

}  // namespace ganglion::config
