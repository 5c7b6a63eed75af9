#pragma once
// Records into a PostgreSQL table. Position and records are one transaction, so a commit whose answer was lost is found
// out by asking: exactly once, whatever dies when. Several gateways may share a schema; each has its ledger id.

#include <atomic>
#include <memory>
#include <string>

#include "sinks/options.hpp"
#include "sinks/sink.hpp"

namespace pqxx {
class dbtransaction;
}

namespace ganglion::sinks {

class PostgresSink final : public Sink {
 public:
  PostgresSink(const SinkOptions& options, std::string ledger_id);
  ~PostgresSink() override;

  core::Result<std::uint64_t> open() override;
  core::Result<void> deliver(std::span<const metering::LedgerRecord> records, std::uint64_t upto) override;
  void interrupt() override;

 private:
  struct Session;
  core::Result<std::string> conninfo() const;
  core::Result<std::uint64_t> connect();
  core::Result<void> insert(std::span<const metering::LedgerRecord> records, std::uint64_t upto);

  const core::Secret dsn_;
  const std::string schema_;
  const std::string ledger_id_;
  std::unique_ptr<Session> session_;
  std::uint64_t position_ = 0;
  std::string json_;
  std::atomic<int> socket_{-1};  // of the session, to be shut down by interrupt()
};

}  // namespace ganglion::sinks
