#pragma once
// A ledger record as JSON: the one list of names and meanings that `ganglion ledger export` and the sinks write
// (docs/ledger.md, docs/sinks.md). Fields are added, never changed.

#include <string>
#include <string_view>

#include "metering/record.hpp"

namespace ganglion::metering {

struct RecordJsonStyle {
  bool nul_replaced = false;      // by '?', in every text: not all readers take one
  bool attempts_numbered = true;  // {"attempt":1,"backend":...
};

// Appends ,"<key>":<value>.
void append_json_field(std::string& out, std::string_view key, std::string_view value,
                       const RecordJsonStyle& style = {});
void append_json_field(std::string& out, std::string_view key, std::uint64_t value);

// Appends all fields from ,"time" to "attempts":[...]; what goes before (the id and the sequence, in an order of its
// own) and the braces are the caller's.
void append_record_fields(std::string& out, const LedgerRecord& record, const RecordJsonStyle& style);

}  // namespace ganglion::metering
