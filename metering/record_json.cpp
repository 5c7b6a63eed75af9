// See metering/record_json.hpp.

#include "metering/record_json.hpp"

#include <algorithm>

#include "api/json_text.hpp"
#include "core/log.hpp"
#include "metering/calendar.hpp"
#include "metering/decimal.hpp"

namespace ganglion::metering {
namespace {

void append_text(std::string& out, std::string_view value, const RecordJsonStyle& style) {
  if (!style.nul_replaced || value.find('\0') == std::string_view::npos) return core::append_json_string(out, value);
  std::string clean{value};
  std::ranges::replace(clean, '\0', '?');
  core::append_json_string(out, clean);
}

void append_tags(std::string& out, const api::Tags& tags, const RecordJsonStyle& style) {
  out.append(",\"tags\":{");
  for (const api::Tag& tag : tags) {
    if (&tag != &tags.front()) out.push_back(',');
    append_text(out, tag.name, style);
    out.push_back(':');
    // Records of before such numbers were refused (api/tags.cpp) hold some that no double does: as text all can read
    // them.
    const bool text =
        tag.type == api::TagType::text || (tag.type == api::TagType::number && !api::to_double(tag.value));
    if (text) {
      append_text(out, tag.value, style);
    } else {
      out.append(tag.value);
    }
  }
  out.push_back('}');
}

void append_attempts(std::string& out, const std::vector<LedgerRecord::Try>& attempts, const RecordJsonStyle& style) {
  out.append(",\"attempts\":[");
  for (std::size_t i = 0; i < attempts.size(); ++i) {
    out.append(i == 0 ? "{" : ",{");
    if (style.attempts_numbered) out.append("\"attempt\":").append(std::to_string(i + 1)).append(",");
    out.append("\"backend\":");
    append_text(out, attempts[i].backend, style);
    append_json_field(out, "http_status", static_cast<std::uint64_t>(attempts[i].http_status));
    append_json_field(out, "reason", attempts[i].reason, style);
    out.push_back('}');
  }
  out.push_back(']');
}

}  // namespace

void append_json_field(std::string& out, std::string_view key, std::string_view value, const RecordJsonStyle& style) {
  out.append(",\"").append(key).append("\":");
  append_text(out, value, style);
}

void append_json_field(std::string& out, std::string_view key, std::uint64_t value) {
  out.append(",\"").append(key).append("\":").append(std::to_string(value));
}

void append_record_fields(std::string& out, const LedgerRecord& record, const RecordJsonStyle& style) {
  const auto text = [&](std::string_view key, std::string_view value) { append_json_field(out, key, value, style); };
  const auto number = [&](std::string_view key, std::uint64_t value) { append_json_field(out, key, value); };
  text("time", format_time(record.time));
  text("tenant", record.tenant);
  text("key", record.key_id);
  text("gateway", record.gateway);
  text("model", record.model);
  text("endpoint", api::name(record.endpoint));
  text("tier", api::name(record.tier));
  append_tags(out, record.tags, style);
  text("outcome", name(record.outcome));
  text("reason", record.reason);
  number("http_status", static_cast<std::uint64_t>(record.http_status));
  number("latency_us", static_cast<std::uint64_t>(record.latency.count()));
  number("input_tokens", record.units.input_tokens);
  number("cached_input_tokens", record.units.cached_input_tokens);
  number("output_tokens", record.units.output_tokens);
  number("requests", record.units.requests);
  number("gpu_us", record.units.gpu_us);
  number("llm_responses", record.units.llm_responses);
  number("image_classifications", record.units.image_classifications);
  number("embeddings", record.units.embeddings);
  out.append(",\"estimated\":").append(record.estimated ? "true" : "false");
  // Text, because JSON readers turn long numbers into doubles.
  text("neurons", format_decimal(static_cast<std::uint64_t>(record.nano_neurons), 9));
  text("neuron_parts", format_decimal(record.exact, 0));
  text("usd_per_1000_neurons", format_decimal(record.usd_pico_per_neuron, 9));
  text("schedule", record.schedule);
  text("price_source", name(record.price_source));
  append_attempts(out, record.attempts, style);
}

}  // namespace ganglion::metering
