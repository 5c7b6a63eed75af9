#pragma once
// A ledger record as the JSON that all sinks send: what `ganglion ledger export` writes, with the ledger's id in front.
// Names and meanings are docs/sinks.md's; fields are added, never changed.

#include <string>
#include <string_view>

#include "metering/record.hpp"

namespace ganglion::sinks {

// Appends {"ledger":"<uuid>","sequence":N,...}; without line feeds, valid UTF-8, without NUL characters.
void append_record_json(std::string& out, std::string_view ledger_id, const metering::LedgerRecord& record);

}  // namespace ganglion::sinks
