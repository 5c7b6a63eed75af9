// See idempotency/database.hpp.

#include "idempotency/database.hpp"

#include <sqlite3.h>

#include <filesystem>
#include <limits>
#include <system_error>
#include <utility>

#include "core/private_files.hpp"

namespace ganglion::idempotency {
namespace {

constexpr int kApplicationId = 0x67414e47;  // "gANG"
constexpr int kVersion = 1;

std::string_view text_of(const Digest& digest) {
  return {reinterpret_cast<const char*>(digest.data()), digest.size()};
}

}  // namespace

class Database::Statement {
 public:
  explicit Statement(sqlite3_stmt* handle) : handle_(handle) {}
  Statement(Statement&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Statement& operator=(Statement&&) = delete;
  ~Statement() { sqlite3_finalize(handle_); }

  // Bound bytes must live until the statement is done.
  Statement& blob(int at, std::string_view value) {
    sqlite3_bind_blob64(handle_, at, value.data(), value.size(), SQLITE_STATIC);
    return *this;
  }
  Statement& text(int at, std::string_view value) {
    sqlite3_bind_text64(handle_, at, value.data(), value.size(), SQLITE_STATIC, SQLITE_UTF8);
    return *this;
  }
  Statement& number(int at, std::int64_t value) {
    sqlite3_bind_int64(handle_, at, value);
    return *this;
  }
  int step() { return sqlite3_step(handle_); }
  std::int64_t number_at(int column) const { return sqlite3_column_int64(handle_, column); }
  std::string_view bytes_at(int column) const {
    const void* const data = sqlite3_column_blob(handle_, column);
    const int size = sqlite3_column_bytes(handle_, column);
    return data == nullptr ? std::string_view{}
                           : std::string_view{static_cast<const char*>(data), static_cast<std::size_t>(size)};
  }
  bool digest_at(int column, Digest& out) const {
    const std::string_view bytes = bytes_at(column);
    if (bytes.size() != out.size()) return false;
    std::memcpy(out.data(), bytes.data(), out.size());
    return true;
  }

 private:
  sqlite3_stmt* handle_;
};

Database::Database(sqlite3* handle, std::string path) : handle_(handle), path_(std::move(path)) {}

Database::~Database() {
  sqlite3_close_v2(handle_);
}

std::unexpected<core::Error> Database::failed() {
  if (sqlite3_extended_errcode(handle_) == SQLITE_IOERR_FSYNC) sync_failed_ = true;
  return core::fail(core::ErrorKind::ledger_unavailable,
                    "the store of idempotency keys cannot be used: " + std::string{sqlite3_errmsg(handle_)});
}

core::Result<void> Database::run(std::string_view sql) {
  const std::string text{sql};
  if (sqlite3_exec(handle_, text.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) return failed();
  return {};
}

core::Result<Database::Statement> Database::prepare(std::string_view sql) {
  sqlite3_stmt* statement = nullptr;
  if (sqlite3_prepare_v2(handle_, sql.data(), static_cast<int>(sql.size()), &statement, nullptr) != SQLITE_OK) {
    return failed();
  }
  return Statement{statement};
}

core::Result<void> Database::finish(Statement& statement) {
  if (const int result = statement.step(); result != SQLITE_DONE && result != SQLITE_ROW) return failed();
  return {};
}

core::Result<std::unique_ptr<Database>> Database::open(const std::string& path) {
  sqlite3* handle = nullptr;
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
  core::make_private_database(path);  // it holds answers in the clear
  const int result = sqlite3_open_v2(path.c_str(), &handle, flags, nullptr);
  std::unique_ptr<Database> database{new Database{handle, path}};
  if (result != SQLITE_OK) {
    return core::fail(core::ErrorKind::ledger_unavailable,
                      "cannot open " + path + ": " +
                          (handle != nullptr ? std::string{sqlite3_errmsg(handle)} : std::string{"out of memory"}));
  }
  if (auto done = database->set_up(); !done) {
    done.error().message = path + ": " + done.error().message;
    return std::unexpected(std::move(done.error()));
  }
  return database;
}

core::Result<void> Database::set_up() {
  // One process, held by the ledger directory's lock; while it is being replaced, two that wait for each other.
  if (auto done = run("PRAGMA busy_timeout=10000; PRAGMA auto_vacuum=INCREMENTAL"); !done) return done;
  if (auto done = run("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA journal_size_limit=67108864"); !done) {
    return done;
  }
  if (auto done = empty_log(); !done) return done;
  std::int64_t id = 0;
  std::int64_t version = 0;
  for (auto [pragma, value] : {std::pair{"PRAGMA application_id", &id}, std::pair{"PRAGMA user_version", &version}}) {
    const auto number = first_number(pragma);
    if (!number) return std::unexpected(number.error());
    if (!*number) return failed();
    *value = **number;
  }
  if (id == kApplicationId && version == kVersion) return {};  // `about` may be missing: it came later
  if (id != 0 || version != 0) {
    return core::fail(core::ErrorKind::ledger_unavailable, id == kApplicationId
                                                               ? "it was made by a newer version of ganglion"
                                                               : "it is another program's database");
  }
  // Answers stand apart, so that a start reads the keys alone.
  return run(
      "BEGIN IMMEDIATE;"
      "CREATE TABLE keys (key BLOB PRIMARY KEY, request BLOB NOT NULL, state INTEGER NOT NULL, request_id TEXT NOT "
      "NULL,"
      " ledger_sequence INTEGER NOT NULL, expires_ms INTEGER NOT NULL, body_bytes INTEGER NOT NULL) WITHOUT ROWID;"
      "CREATE TABLE answers (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, status INTEGER NOT NULL,"
      " content_type TEXT NOT NULL, body BLOB NOT NULL);"
      "CREATE TABLE about (complete_from_ms INTEGER NOT NULL);"
      "PRAGMA application_id=" +
      std::to_string(kApplicationId) + ";PRAGMA user_version=" + std::to_string(kVersion) + ";COMMIT");
}

// After a failed sync the log holds frames that the page cache has and the disk has not. They count as clean, so no
// later sync writes them, and a loss of power would cut the log before whatever is appended behind them. Copying the
// log into the database writes the pages anew, and the next commit begins an empty log. Where the process that is being
// replaced uses the log at this moment, it is left to that one.
core::Result<void> Database::empty_log() {
  auto statement = prepare("PRAGMA wal_checkpoint(TRUNCATE)");
  if (!statement) return std::unexpected(statement.error());
  return statement->step() == SQLITE_ROW ? core::Result<void>{} : failed();
}

core::Result<void> Database::begin() {
  return run("BEGIN IMMEDIATE");
}

core::Result<void> Database::commit() {
  return run("COMMIT");
}

void Database::rollback() {
  // Fails where the failure itself has rolled back; either way no transaction is left.
  sqlite3_exec(handle_, "ROLLBACK", nullptr, nullptr, nullptr);
}

core::Result<void> Database::put_key(const KeyRow& row) {
  auto old = prepare("DELETE FROM answers WHERE key=?1");
  if (!old) return std::unexpected(old.error());
  old->blob(1, text_of(row.key));
  if (auto done = finish(*old); !done) return done;
  auto statement = prepare("INSERT OR REPLACE INTO keys VALUES (?1,?2,?3,?4,?5,?6,?7)");
  if (!statement) return std::unexpected(statement.error());
  statement->blob(1, text_of(row.key)).blob(2, text_of(row.request)).number(3, static_cast<std::int64_t>(row.state));
  statement->text(4, row.request_id).number(5, static_cast<std::int64_t>(row.ledger_sequence));
  statement->number(6, row.expires_ms).number(7, static_cast<std::int64_t>(row.body_bytes));
  return finish(*statement);
}

core::Result<void> Database::put_answer(const Digest& key, const StoredAnswer& answer) {
  auto statement = prepare("INSERT OR REPLACE INTO answers (key,status,content_type,body) VALUES (?1,?2,?3,?4)");
  if (!statement) return std::unexpected(statement.error());
  statement->blob(1, text_of(key)).number(2, answer.status).text(3, answer.content_type).blob(4, answer.body);
  if (auto done = finish(*statement); !done) return done;
  auto state = prepare("UPDATE keys SET state=?2, body_bytes=?3 WHERE key=?1");
  if (!state) return std::unexpected(state.error());
  state->blob(1, text_of(key)).number(2, static_cast<std::int64_t>(KeyState::answered));
  state->number(3, static_cast<std::int64_t>(answer.body.size()));
  return finish(*state);
}

core::Result<void> Database::set_state(const Digest& key, KeyState state) {
  auto statement = prepare(state == KeyState::lost ? "UPDATE keys SET state=?2, body_bytes=0 WHERE key=?1"
                                                   : "UPDATE keys SET state=?2 WHERE key=?1");
  if (!statement) return std::unexpected(statement.error());
  statement->blob(1, text_of(key)).number(2, static_cast<std::int64_t>(state));
  if (auto done = finish(*statement); !done || state != KeyState::lost) return done;
  auto answer = prepare("DELETE FROM answers WHERE key=?1");
  if (!answer) return std::unexpected(answer.error());
  answer->blob(1, text_of(key));
  return finish(*answer);
}

core::Result<void> Database::remove(const Digest& key) {
  for (const std::string_view sql : {"DELETE FROM keys WHERE key=?1", "DELETE FROM answers WHERE key=?1"}) {
    auto statement = prepare(sql);
    if (!statement) return std::unexpected(statement.error());
    statement->blob(1, text_of(key));
    if (auto done = finish(*statement); !done) return done;
  }
  return {};
}

core::Result<std::optional<StoredAnswer>> Database::answer(const Digest& key) {
  auto statement = prepare("SELECT status,content_type,body FROM answers WHERE key=?1");
  if (!statement) return std::unexpected(statement.error());
  statement->blob(1, text_of(key));
  const int result = statement->step();
  if (result == SQLITE_DONE) return std::optional<StoredAnswer>{};
  if (result != SQLITE_ROW) return failed();
  return StoredAnswer{.status = static_cast<int>(statement->number_at(0)),
                      .content_type = std::string{statement->bytes_at(1)},
                      .body = std::string{statement->bytes_at(2)}};
}

core::Result<std::vector<KeyRow>> Database::keys() {
  auto statement = prepare(
      "SELECT key,request,state,request_id,ledger_sequence,expires_ms,body_bytes FROM keys ORDER BY expires_ms");
  if (!statement) return std::unexpected(statement.error());
  std::vector<KeyRow> out;
  int result = SQLITE_ROW;
  while ((result = statement->step()) == SQLITE_ROW) {
    KeyRow row;
    const std::int64_t state = statement->number_at(2);
    if (!statement->digest_at(0, row.key) || !statement->digest_at(1, row.request) || state < 0 ||
        state > static_cast<std::int64_t>(KeyState::lost)) {
      return core::fail(core::ErrorKind::ledger_unavailable, "the store of idempotency keys is damaged");
    }
    row.state = static_cast<KeyState>(state);
    row.request_id = statement->bytes_at(3);
    row.ledger_sequence = static_cast<std::uint64_t>(statement->number_at(4));
    row.expires_ms = statement->number_at(5);
    row.body_bytes = static_cast<std::uint64_t>(statement->number_at(6));
    out.push_back(std::move(row));
  }
  if (result != SQLITE_DONE) return failed();
  return out;
}

core::Result<bool> Database::has(const Digest& key) {
  auto statement = prepare("SELECT 1 FROM keys WHERE key=?1");
  if (!statement) return std::unexpected(statement.error());
  statement->blob(1, text_of(key));
  const int result = statement->step();
  if (result != SQLITE_ROW && result != SQLITE_DONE) return failed();
  return result == SQLITE_ROW;
}

// Asked without a write but the first time: while one process takes another's place, the other may be writing.
core::Result<std::int64_t> Database::complete_from(std::int64_t if_new) {
  const auto table = first_number("SELECT 1 FROM sqlite_schema WHERE name='about'");
  if (!table) return std::unexpected(table.error());
  if (!*table) return 0;  // made before this was asked for
  const auto known = first_number("SELECT complete_from_ms FROM about");
  if (!known) return std::unexpected(known.error());
  if (*known) return **known;
  auto added = prepare("INSERT INTO about VALUES (?1)");
  if (!added) return std::unexpected(added.error());
  added->number(1, if_new);
  if (auto done = finish(*added); !done) return std::unexpected(done.error());
  return if_new;
}

// Of the first row; nothing where there is none. The statement, and what it holds of the database, is gone afterwards.
core::Result<std::optional<std::int64_t>> Database::first_number(std::string_view sql) {
  auto statement = prepare(sql);
  if (!statement) return std::unexpected(statement.error());
  const int result = statement->step();
  if (result == SQLITE_DONE) return std::optional<std::int64_t>{};
  if (result != SQLITE_ROW) return failed();
  return statement->number_at(0);
}

void Database::shrink() {
  sqlite3_exec(handle_, "PRAGMA incremental_vacuum(4096)", nullptr, nullptr, nullptr);
}

std::uint64_t Database::file_bytes() const {
  std::error_code error;
  const auto bytes = std::filesystem::file_size(path_, error);
  return error ? 0 : bytes;
}

}  // namespace ganglion::idempotency
