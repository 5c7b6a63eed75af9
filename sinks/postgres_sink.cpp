// See sinks/postgres_sink.hpp.

#include "sinks/postgres_sink.hpp"

#include <libpq-fe.h>
#include <sys/socket.h>

#include <array>
#include <pqxx/pqxx>
#include <utility>

#include "sinks/postgres_schema.hpp"
#include "sinks/record_json.hpp"

namespace ganglion::sinks {
namespace {

// Against a server that is gone without a word, where the operator's DSN does not say otherwise.
constexpr std::array<std::pair<const char*, const char*>, 6> kDefaults{{{"connect_timeout", "10"},
                                                                        {"keepalives_idle", "10"},
                                                                        {"keepalives_interval", "5"},
                                                                        {"keepalives_count", "3"},
                                                                        {"tcp_user_timeout", "30000"},
                                                                        {"application_name", "ganglion"}}};

// One parameter carries the batch, so that its size is no matter of the number of parameters.
constexpr const char* kInsert =
    R"sql(INSERT INTO ledger_records (ledger_id, sequence, request_id, time, tenant, api_key, gateway, model, endpoint, tier,
  tags, outcome, reason, http_status, latency_us, input_tokens, cached_input_tokens, output_tokens, requests, gpu_us,
  llm_responses, image_classifications, embeddings, estimated, neurons, neuron_parts, usd_per_1000_neurons, schedule,
  price_source, attempts)
SELECT ledger, sequence, id, time, tenant, key, gateway, model, endpoint, tier,
  tags, outcome, reason, http_status, latency_us, input_tokens, cached_input_tokens, output_tokens, requests, gpu_us,
  llm_responses, image_classifications, embeddings, estimated, neurons, neuron_parts, usd_per_1000_neurons, schedule,
  price_source, attempts
FROM json_to_recordset($1::json) AS r(ledger uuid, sequence bigint, id text, time timestamptz, tenant text, key text,
  gateway text, model text, endpoint text, tier text, tags jsonb, outcome text, reason text, http_status integer,
  latency_us bigint, input_tokens bigint, cached_input_tokens bigint, output_tokens bigint, requests bigint,
  gpu_us bigint, llm_responses bigint, image_classifications bigint, embeddings bigint, estimated boolean,
  neurons numeric, neuron_parts numeric, usd_per_1000_neurons numeric, schedule text, price_source text, attempts jsonb)
ON CONFLICT (ledger_id, sequence) DO NOTHING)sql";

std::string quoted(std::string_view value) {
  std::string out = "'";
  for (const char c : value) {
    if (c == '\'' || c == '\\') out.push_back('\\');
    out.push_back(c);
  }
  return out + "'";
}

// libpq ends its messages with line feeds.
std::unexpected<core::Error> failed(std::string message) {
  while (!message.empty() && (message.back() == '\n' || message.back() == ' ')) message.pop_back();
  return core::fail(core::ErrorKind::upstream_connect, "PostgreSQL: " + message);
}

}  // namespace

struct PostgresSink::Session {
  explicit Session(const std::string& conninfo) : connection(conninfo) {}
  pqxx::connection connection;
};

PostgresSink::PostgresSink(const SinkOptions& options, std::string ledger_id)
    : dsn_(options.dsn), schema_(options.schema), ledger_id_(std::move(ledger_id)) {}

PostgresSink::~PostgresSink() {
  socket_.store(-1);
}

void PostgresSink::interrupt() {
  if (const int socket = socket_.load(); socket >= 0) ::shutdown(socket, SHUT_RDWR);
}

// The operator's DSN, URL or pairs, with our defaults for what it leaves open.
core::Result<std::string> PostgresSink::conninfo() const {
  char* problem = nullptr;
  const std::string dsn{dsn_.reveal()};
  PQconninfoOption* const options = PQconninfoParse(dsn.c_str(), &problem);
  if (options == nullptr) {
    // libpq's message may quote the DSN, and with it a password.
    PQfreemem(problem);
    return core::fail(core::ErrorKind::internal, "PostgreSQL: the dsn cannot be read; see `libpq connection strings`");
  }
  std::string out;
  const auto add = [&out](std::string_view key, std::string_view value) {
    out.append(key).append("=").append(quoted(value)).append(" ");
  };
  for (const PQconninfoOption* option = options; option->keyword != nullptr; ++option) {
    if (option->val != nullptr) add(option->keyword, option->val);
  }
  for (const auto& [key, value] : kDefaults) {
    bool given = false;
    for (const PQconninfoOption* option = options; option->keyword != nullptr; ++option) {
      given = given || (option->val != nullptr && std::string_view{option->keyword} == key);
    }
    if (!given) add(key, value);
  }
  PQconninfoFree(options);
  return out;
}

core::Result<std::uint64_t> PostgresSink::connect() {
  const auto info = conninfo();
  if (!info) return std::unexpected(info.error());
  session_ = std::make_unique<Session>(*info);
  socket_.store(session_->connection.sock());
  session_->connection.set_variable("statement_timeout", "'60s'");
  session_->connection.set_variable("lock_timeout", "'30s'");
  pqxx::work transaction{session_->connection};
  if (auto migrated = migrate(transaction, schema_); !migrated) return std::unexpected(migrated.error());
  transaction.exec_params("INSERT INTO sink_positions (ledger_id, sequence) VALUES ($1, 0) ON CONFLICT DO NOTHING",
                          ledger_id_);
  const auto row = transaction.exec_params1("SELECT sequence FROM sink_positions WHERE ledger_id=$1", ledger_id_);
  position_ = row[0].as<std::uint64_t>();
  transaction.commit();
  session_->connection.set_variable("search_path", session_->connection.quote_name(schema_));
  return position_;
}

core::Result<std::uint64_t> PostgresSink::open() {
  socket_.store(-1);
  session_.reset();
  try {
    auto position = connect();
    if (!position) {
      socket_.store(-1);
      session_.reset();
    }
    return position;
  } catch (const std::exception& error) {
    socket_.store(-1);
    session_.reset();
    return failed(error.what());
  }
}

core::Result<void> PostgresSink::insert(std::span<const metering::LedgerRecord> records, std::uint64_t upto) {
  json_ = "[";
  for (const metering::LedgerRecord& record : records) {
    if (&record != records.data()) json_.push_back(',');
    append_record_json(json_, ledger_id_, record);
  }
  json_.push_back(']');
  pqxx::work transaction{session_->connection};
  // Locked: a copy of this ledger's directory that runs elsewhere is found out instead of mixing its records in.
  const auto row =
      transaction.exec_params1("SELECT sequence FROM sink_positions WHERE ledger_id=$1 FOR UPDATE", ledger_id_);
  if (const auto there = row[0].as<std::uint64_t>(); there != position_) {
    return core::fail(core::ErrorKind::internal, "PostgreSQL: the position of ledger " + ledger_id_ + " moved from " +
                                                     std::to_string(position_) + " to " + std::to_string(there) +
                                                     " by itself; does another gateway run on a copy of this ledger?");
  }
  transaction.exec_params(kInsert, json_);
  transaction.exec_params("UPDATE sink_positions SET sequence=$2, updated_at=now() WHERE ledger_id=$1", ledger_id_,
                          upto);
  transaction.commit();
  position_ = upto;
  return {};
}

core::Result<void> PostgresSink::deliver(std::span<const metering::LedgerRecord> records, std::uint64_t upto) {
  if (!session_) return core::fail(core::ErrorKind::internal, "PostgreSQL: not connected");
  try {
    return insert(records, upto);
  } catch (const std::exception& error) {
    // Also where the commit's answer was lost: open() asks for the position.
    return failed(error.what());
  }
}

}  // namespace ganglion::sinks
