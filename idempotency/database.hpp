#pragma once
// The tables of the idempotency store in one SQLite file: which keys are known, and the answers kept for them.
// Blocking; one thread at a time. A write is durable once its transaction is committed (WAL, synchronous=FULL).

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.hpp"
#include "idempotency/key.hpp"

struct sqlite3;
struct sqlite3_stmt;

namespace ganglion::idempotency {

enum class KeyState : std::uint8_t {
  claimed,   // a call runs, or its process died
  answered,  // the answer is here; whether the ledger has its bill is not known yet
  settled,   // answered and billed
  lost,      // billed, and the answer is not here (cut off, too large, or let go to make room)
};

struct KeyRow {
  Digest key{};
  Digest request{};
  KeyState state = KeyState::claimed;
  std::string request_id;             // of the request that led; names its ledger record
  std::uint64_t ledger_sequence = 0;  // all of its ledger records come behind this one
  std::int64_t expires_ms = 0;        // wall clock since 1970
  std::uint64_t body_bytes = 0;
};

struct StoredAnswer {
  int status = 200;
  std::string content_type;
  std::string body;
};

class Database {
 public:
  // Makes the file where it is not there. Error: ledger_unavailable (cannot be opened, not ours, of a newer version).
  static core::Result<std::unique_ptr<Database>> open(const std::string& path);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  core::Result<void> begin();
  core::Result<void> commit();
  void rollback();

  core::Result<void> put_key(const KeyRow& row);                          // a new claim; replaces what was there
  core::Result<void> put_answer(const Digest& key, const StoredAnswer&);  // the key becomes `answered`
  core::Result<void> set_state(const Digest& key, KeyState state);        // `lost` lets the answer go
  core::Result<void> remove(const Digest& key);
  core::Result<std::optional<StoredAnswer>> answer(const Digest& key);
  core::Result<std::vector<KeyRow>> keys();  // by expiry
  core::Result<bool> has(const Digest& key);
  core::Result<std::int64_t> complete_from(std::int64_t if_new);  // see Store
  // Gives free pages back to the file system, a bounded number a call.
  void shrink();
  std::uint64_t file_bytes() const;

  // The last failure was of a sync: what the kernel still has in memory can no longer be trusted.
  bool sync_failed() const { return sync_failed_; }

 private:
  explicit Database(sqlite3* handle, std::string path);
  class Statement;
  core::Result<void> run(std::string_view sql);
  core::Result<Statement> prepare(std::string_view sql);
  core::Result<void> finish(Statement& statement);
  core::Result<std::optional<std::int64_t>> first_number(std::string_view sql);
  std::unexpected<core::Error> failed();
  core::Result<void> set_up();
  core::Result<void> empty_log();

  sqlite3* handle_;
  const std::string path_;
  bool sync_failed_ = false;
};

}  // namespace ganglion::idempotency
