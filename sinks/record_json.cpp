// See sinks/record_json.hpp.

#include "sinks/record_json.hpp"

#include <algorithm>

#include "core/log.hpp"
#include "metering/calendar.hpp"
#include "metering/decimal.hpp"

namespace ganglion::sinks {
namespace {

// PostgreSQL takes no NUL in text, and nobody has use for one.
void append_text(std::string& out, std::string_view value) {
  if (value.find('\0') == std::string_view::npos) return core::append_json_string(out, value);
  std::string clean{value};
  std::ranges::replace(clean, '\0', '?');
  core::append_json_string(out, clean);
}

void field(std::string& out, std::string_view key, std::string_view value) {
  out.append(",\"").append(key).append("\":");
  append_text(out, value);
}

void field(std::string& out, std::string_view key, std::uint64_t value) {
  out.append(",\"").append(key).append("\":").append(std::to_string(value));
}

void append_tags(std::string& out, const api::Tags& tags) {
  out.append(",\"tags\":{");
  for (const api::Tag& tag : tags) {
    if (&tag != &tags.front()) out.push_back(',');
    append_text(out, tag.name);
    out.push_back(':');
    if (tag.type == api::TagType::text) {
      append_text(out, tag.value);
    } else {
      out.append(tag.value);
    }
  }
  out.push_back('}');
}

void append_attempts(std::string& out, const std::vector<metering::LedgerRecord::Try>& attempts) {
  out.append(",\"attempts\":[");
  for (const auto& attempt : attempts) {
    out.append(&attempt == &attempts.front() ? "{\"backend\":" : ",{\"backend\":");
    append_text(out, attempt.backend);
    field(out, "http_status", static_cast<std::uint64_t>(attempt.http_status));
    field(out, "reason", attempt.reason);
    out.push_back('}');
  }
  out.push_back(']');
}

}  // namespace

void append_record_json(std::string& out, std::string_view ledger_id, const metering::LedgerRecord& record) {
  out.append("{\"ledger\":\"").append(ledger_id).append("\"");
  field(out, "sequence", record.sequence);
  field(out, "id", record.request_id);
  field(out, "time", metering::format_time(record.time));
  field(out, "tenant", record.tenant);
  field(out, "key", record.key_id);
  field(out, "gateway", record.gateway);
  field(out, "model", record.model);
  field(out, "endpoint", api::name(record.endpoint));
  field(out, "tier", api::name(record.tier));
  append_tags(out, record.tags);
  field(out, "outcome", metering::name(record.outcome));
  field(out, "reason", record.reason);
  field(out, "http_status", static_cast<std::uint64_t>(record.http_status));
  field(out, "latency_us", static_cast<std::uint64_t>(record.latency.count()));
  field(out, "input_tokens", record.units.input_tokens);
  field(out, "cached_input_tokens", record.units.cached_input_tokens);
  field(out, "output_tokens", record.units.output_tokens);
  field(out, "requests", record.units.requests);
  field(out, "gpu_us", record.units.gpu_us);
  field(out, "llm_responses", record.units.llm_responses);
  field(out, "image_classifications", record.units.image_classifications);
  field(out, "embeddings", record.units.embeddings);
  out.append(",\"estimated\":").append(record.estimated ? "true" : "false");
  // Text, because JSON readers turn long numbers into doubles.
  field(out, "neurons", metering::format_decimal(static_cast<std::uint64_t>(record.nano_neurons), 9));
  field(out, "neuron_parts", metering::format_decimal(record.exact, 0));
  field(out, "usd_per_1000_neurons", metering::format_decimal(record.usd_pico_per_neuron, 9));
  field(out, "schedule", record.schedule);
  field(out, "price_source", metering::name(record.price_source));
  append_attempts(out, record.attempts);
  out.push_back('}');
}

}  // namespace ganglion::sinks
