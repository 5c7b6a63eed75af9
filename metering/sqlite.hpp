#pragma once
// The few words of SQLite that the rollups need, with owners and errors as values. One connection, one thread.

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "core/error.hpp"

namespace ganglion::metering {

class Statement {
 public:
  Statement() = default;
  explicit Statement(sqlite3_stmt* statement) : statement_(statement, &sqlite3_finalize) {}

  // Positions from 1. Text and blobs must live until step() has returned.
  void bind(int at, std::int64_t value) { sqlite3_bind_int64(statement_.get(), at, value); }
  void bind(int at, std::string_view text) {
    sqlite3_bind_text(statement_.get(), at, text.data(), static_cast<int>(text.size()), SQLITE_STATIC);
  }
  void bind_blob(int at, std::span<const std::uint8_t> bytes) {
    sqlite3_bind_blob(statement_.get(), at, bytes.data(), static_cast<int>(bytes.size()), SQLITE_STATIC);
  }
  int step() { return sqlite3_step(statement_.get()); }  // SQLITE_ROW, SQLITE_DONE, or an error
  void reset() { sqlite3_reset(statement_.get()); }

  // Columns from 0.
  std::int64_t integer(int at) const { return sqlite3_column_int64(statement_.get(), at); }
  std::string_view text(int at) const {
    const auto* const bytes = reinterpret_cast<const char*>(sqlite3_column_text(statement_.get(), at));
    return bytes == nullptr
               ? std::string_view{}
               : std::string_view{bytes, static_cast<std::size_t>(sqlite3_column_bytes(statement_.get(), at))};
  }
  std::span<const std::uint8_t> blob(int at) const {
    const auto* const bytes = static_cast<const std::uint8_t*>(sqlite3_column_blob(statement_.get(), at));
    return {bytes, static_cast<std::size_t>(sqlite3_column_bytes(statement_.get(), at))};
  }

 private:
  std::unique_ptr<sqlite3_stmt, int (*)(sqlite3_stmt*)> statement_{nullptr, &sqlite3_finalize};
};

class Database {
 public:
  // `flags` of sqlite3_open_v2; `uri` may be a file: URI with SQLITE_OPEN_URI.
  static core::Result<Database> open(const std::string& uri, int flags);

  core::Result<void> run(const char* sql);
  core::Result<Statement> prepare(std::string_view sql);
  core::Result<std::int64_t> integer(std::string_view sql);  // the first column of the first row
  // What SQLite says of the last error; ledger_unavailable.
  std::unexpected<core::Error> error(std::string_view what) const;
  sqlite3* raw() { return database_.get(); }

 private:
  std::unique_ptr<sqlite3, int (*)(sqlite3*)> database_{nullptr, &sqlite3_close_v2};
  std::string path_;
};

}  // namespace ganglion::metering
