#pragma once
// The name of a ledger for life: a random UUID, made once per ledger directory (file `ledger.id`). With a record's
// sequence it names that record everywhere, so that whoever receives records twice can tell.

#include <string>
#include <string_view>

#include "core/error.hpp"
#include "metering/record_codec.hpp"

namespace ganglion::metering {

// Reads the id, or makes it (durably) where there is none. The caller holds the directory's lock. Error:
// ledger_unavailable (cannot be read or written, or the file holds no UUID).
core::Result<std::string> ensure_ledger_id(const std::string& directory);
// The same where the segments name their ledger: a lost file is written anew, another id is an error.
core::Result<std::string> adopt_ledger_id(const std::string& directory, const LedgerId& of_segments);
LedgerId ledger_id_bytes(std::string_view uuid);
// Reads it; ledger_unavailable where there is none yet.
core::Result<std::string> read_ledger_id(const std::string& directory);

}  // namespace ganglion::metering
