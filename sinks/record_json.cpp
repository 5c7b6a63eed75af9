// See sinks/record_json.hpp.

#include "sinks/record_json.hpp"

#include "metering/record_json.hpp"

namespace ganglion::sinks {

void append_record_json(std::string& out, std::string_view ledger_id, const metering::LedgerRecord& record) {
  // PostgreSQL takes no NUL in text, and nobody has use for one.
  constexpr metering::RecordJsonStyle kStyle{.nul_replaced = true, .attempts_numbered = false};
  out.append("{\"ledger\":\"").append(ledger_id).append("\"");
  metering::append_json_field(out, "sequence", record.sequence);
  metering::append_json_field(out, "id", record.request_id, kStyle);
  metering::append_record_fields(out, record, kStyle);
  out.push_back('}');
}

}  // namespace ganglion::sinks
