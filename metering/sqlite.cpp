// See metering/sqlite.hpp.

#include "metering/sqlite.hpp"

namespace ganglion::metering {

core::Result<Database> Database::open(const std::string& uri, int flags) {
  Database out;
  out.path_ = uri;
  sqlite3* raw = nullptr;
  const int code = sqlite3_open_v2(uri.c_str(), &raw, flags | SQLITE_OPEN_NOMUTEX, nullptr);
  out.database_.reset(raw);
  if (code != SQLITE_OK) return out.error("cannot open");
  sqlite3_extended_result_codes(raw, 1);
  sqlite3_busy_timeout(raw, 5000);
  return out;
}

std::unexpected<core::Error> Database::error(std::string_view what) const {
  return core::fail(
      core::ErrorKind::ledger_unavailable,
      std::string{what} + " " + path_ + ": " + (database_ ? sqlite3_errmsg(database_.get()) : "out of memory"));
}

core::Result<void> Database::run(const char* sql) {
  if (sqlite3_exec(database_.get(), sql, nullptr, nullptr, nullptr) != SQLITE_OK) return error("cannot use");
  return {};
}

core::Result<Statement> Database::prepare(std::string_view sql) {
  sqlite3_stmt* raw = nullptr;
  if (sqlite3_prepare_v2(database_.get(), sql.data(), static_cast<int>(sql.size()), &raw, nullptr) != SQLITE_OK)
    return error("cannot use");
  return Statement{raw};
}

core::Result<std::int64_t> Database::integer(std::string_view sql) {
  auto statement = prepare(sql);
  if (!statement) return std::unexpected(statement.error());
  if (statement->step() != SQLITE_ROW) return error("cannot read");
  return statement->integer(0);
}

}  // namespace ganglion::metering
