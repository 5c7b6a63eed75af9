// See sinks/postgres_schema.hpp. Add to the end of kMigrations; never change what is there.

#include "sinks/postgres_schema.hpp"

#include <array>
#include <pqxx/pqxx>

namespace ganglion::sinks {
namespace {

// Any number that nobody else takes; all ganglions of a database queue up at it.
constexpr long kAdvisoryLock = 0x67616e67;

constexpr auto kMigrations = std::to_array<const char*>({
    // 1
    R"sql(
CREATE TABLE ledger_records (
  ledger_id uuid NOT NULL,
  sequence bigint NOT NULL,
  request_id text NOT NULL,
  time timestamptz NOT NULL,
  tenant text NOT NULL,
  api_key text NOT NULL,
  gateway text NOT NULL,
  model text NOT NULL,
  endpoint text NOT NULL,
  tier text NOT NULL,
  tags jsonb NOT NULL,
  outcome text NOT NULL,
  reason text NOT NULL,
  http_status integer NOT NULL,
  latency_us bigint NOT NULL,
  input_tokens bigint NOT NULL,
  cached_input_tokens bigint NOT NULL,
  output_tokens bigint NOT NULL,
  requests bigint NOT NULL,
  gpu_us bigint NOT NULL,
  llm_responses bigint NOT NULL,
  image_classifications bigint NOT NULL,
  embeddings bigint NOT NULL,
  estimated boolean NOT NULL,
  neurons numeric NOT NULL,
  neuron_parts numeric NOT NULL,
  usd_per_1000_neurons numeric NOT NULL,
  schedule text NOT NULL,
  price_source text NOT NULL,
  attempts jsonb NOT NULL,
  PRIMARY KEY (ledger_id, sequence)
);
CREATE INDEX ledger_records_time ON ledger_records (time);
CREATE INDEX ledger_records_tenant_time ON ledger_records (tenant, time);
CREATE INDEX ledger_records_request_id ON ledger_records (request_id);
CREATE TABLE sink_positions (
  ledger_id uuid PRIMARY KEY,
  sequence bigint NOT NULL,
  updated_at timestamptz NOT NULL DEFAULT now()
);
)sql",
});

}  // namespace

int schema_version() {
  return static_cast<int>(kMigrations.size());
}

core::Result<void> migrate(pqxx::dbtransaction& transaction, std::string_view schema) {
  const std::string quoted = transaction.quote_name(std::string{schema});
  transaction.exec_params("SELECT pg_advisory_xact_lock($1)", kAdvisoryLock);
  // Asked first, because CREATE SCHEMA needs a right that a schema made by the database's owner makes needless.
  if (transaction.exec_params("SELECT 1 FROM pg_namespace WHERE nspname=$1", std::string{schema}).empty()) {
    transaction.exec("CREATE SCHEMA " + quoted);
  }
  transaction.exec("SET LOCAL search_path TO " + quoted);
  transaction.exec(
      "CREATE TABLE IF NOT EXISTS schema_migrations (version integer PRIMARY KEY, applied_at timestamptz NOT NULL "
      "DEFAULT now())");
  const int applied = transaction.exec1("SELECT coalesce(max(version), 0) FROM schema_migrations")[0].as<int>();
  if (applied > schema_version()) {
    return core::fail(core::ErrorKind::internal,
                      "the schema " + std::string{schema} + " has version " + std::to_string(applied) +
                          ", made by a newer ganglion than this (" + std::to_string(schema_version()) + ")");
  }
  for (int version = applied + 1; version <= schema_version(); ++version) {
    transaction.exec(kMigrations[static_cast<std::size_t>(version - 1)]);
    transaction.exec_params("INSERT INTO schema_migrations (version) VALUES ($1)", version);
  }
  return {};
}

}  // namespace ganglion::sinks
