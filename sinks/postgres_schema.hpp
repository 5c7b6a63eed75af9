#pragma once
// The tables that the PostgreSQL sink writes, as numbered migrations: each is applied once, in order, all in one
// transaction. A database of a newer version than this program knows is refused.

#include <string>
#include <string_view>

#include "core/error.hpp"

namespace pqxx {
class dbtransaction;
}

namespace ganglion::sinks {

// Brings `schema` (an identifier, quoted here) up to date inside `transaction`. Concurrent callers wait for each other.
// Throws pqxx errors; Error: internal (a newer version).
core::Result<void> migrate(pqxx::dbtransaction& transaction, std::string_view schema);

int schema_version();

}  // namespace ganglion::sinks
