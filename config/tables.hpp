#pragma once
// The one table of fields. Everything that the YAML file may say is declared in tables*.cpp, once.

#include "config/config.hpp"
#include "config/field.hpp"

namespace ganglion::config {

Table<Config> root_table();

// Parts of it, in the files that declare them.
Table<Config> server_table();
Table<Config> admin_table();
Table<backends::RemoteOptions> provider_table();
Table<backends::LocalModelOptions> local_table();
Table<gateway::KeyOptions> key_table();
Table<gateway::TenantOptions> tenant_table();
Table<gateway::GatewayPolicy> gateway_table();
Table<gateway::ModelLimits> model_limits_table();
Table<metering::ModelPrice> price_table();
Table<net::RedisOptions> redis_table();
Table<sinks::SinkOptions> sink_table();
Table<metering::BudgetOptions> budget_table();
Table<metering::ReserveOptions> budget_reserve_table();
Table<metering::BudgetAlertOptions> budget_alerts_table();
Table<gateway::BudgetShareOptions> budget_sharing_table();

// A provider's model as a plain string.
void read_plain_model(Reader& reader, const Node& node, backends::ModelAlias& model);

}  // namespace ganglion::config
