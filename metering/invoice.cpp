// See metering/invoice.hpp.

#include "metering/invoice.hpp"

#include <array>
#include <cstdio>

#include "core/log.hpp"
#include "metering/decimal.hpp"
#include "metering/ledger_id.hpp"
#include "metering/usage.hpp"

namespace ganglion::metering {
namespace {

using std::chrono::months;
using std::chrono::sys_days;

std::string month_text(std::chrono::year_month month) {
  std::array<char, 24> out{};
  const int size = std::snprintf(out.data(), out.size(), "%04d-%02u", static_cast<int>(month.year()),
                                 static_cast<unsigned>(month.month()));
  return {out.data(), static_cast<std::size_t>(size)};
}

std::int64_t hours_to(std::chrono::year_month month) {
  return sys_days{month / 1}.time_since_epoch() / std::chrono::hours{1};
}

std::string per_1000(const Bill::Price& price) {
  return format_decimal(price.usd_pico_per_neuron, 9);  // pico-USD a neuron are nano-USD a thousand
}

using Cells = std::vector<std::string>;

Cells cells(const Bill::Item& item) {
  const UsageCounts& counts = item.counts;
  return {item.price.schedule,
          std::string{api::name(item.price.tier)},
          per_1000(item.price),
          std::to_string(counts.records),
          std::to_string(counts.units.input_tokens),
          std::to_string(counts.units.output_tokens),
          neurons_text(counts.exact),
          neurons_text(item.free),
          neurons_text(counts.exact - item.free),
          item.usd.text()};
}

void field(std::string& out, std::string_view key, std::string_view value) {
  core::append_json_string(out, key);
  out.push_back(':');
  core::append_json_string(out, value);
}

// Members that items and the total share; texts, because JSON readers turn long numbers into doubles.
void amounts(std::string& out, const UsageCounts& counts, NeuronParts free, const ExactUsd& usd) {
  out += "\"requests\":" + std::to_string(counts.records) +
         ",\"input_tokens\":" + std::to_string(counts.units.input_tokens) +
         ",\"cached_input_tokens\":" + std::to_string(counts.units.cached_input_tokens) +
         ",\"output_tokens\":" + std::to_string(counts.units.output_tokens) + ",";
  field(out, "neurons", neurons_text(counts.exact));
  out.push_back(',');
  field(out, "free_neurons", neurons_text(free));
  out.push_back(',');
  field(out, "billable_neurons", neurons_text(counts.exact - free));
  out.push_back(',');
  field(out, "neuron_parts", format_decimal(counts.exact, 0));
  out.push_back(',');
  field(out, "usd", usd.text());
}

}  // namespace

core::Result<std::chrono::year_month> parse_month(std::string_view text) {
  const auto first = parse_time(std::string{text} + "-01");
  if (text.size() != 7 || !first)
    return core::fail(core::ErrorKind::invalid_value,
                      "\"" + std::string{text.substr(0, 40)} + "\" is no month such as 2026-11");
  const std::chrono::year_month_day day{sys_days{std::chrono::duration_cast<std::chrono::days>(*first)}};
  return day.year() / day.month();
}

core::Result<Invoice> make_invoice(const std::string& directory, const std::string& tenant,
                                   std::chrono::year_month month, const FreeAllocation& free,
                                   std::chrono::system_clock::time_point now) {
  Invoice out{.tenant = tenant, .month = month, .ledger_id = {}, .final = false, .bill = {}, .note = {}};
  out.final = now >= std::chrono::system_clock::time_point{sys_days{(month + months{1}) / 1}};
  if (auto id = read_ledger_id(directory)) out.ledger_id = std::move(*id);
  Bill bill;
  bool fits = true;
  auto note = for_each_slice(directory, {.hour_from = hours_to(month), .hour_to = hours_to(month + months{1})},
                             [&](std::int64_t hour, const UsageDimensions& of, const UsageCounts& counts) {
                               if (of.tenant == tenant) fits = bill.add(hour / kHoursPerDay, of, counts) && fits;
                             });
  if (!note) return std::unexpected(note.error());
  if (!fits) return core::fail(core::ErrorKind::internal, "the sum of neurons does not fit 128 bits");
  out.note = std::move(*note);
  out.bill = bill.settle(free);
  return out;
}

std::string format_text(const Invoice& invoice) {
  std::string out = "Invoice  " + invoice.tenant + "  " + month_text(invoice.month) + " (UTC)" +
                    (invoice.final ? "" : "  PROVISIONAL: the month is not over") + "\n";
  if (!invoice.ledger_id.empty()) out += "Ledger   " + invoice.ledger_id + "\n";
  out += "\n";
  std::vector<Cells> lines{
      {"schedule", "tier", "usd/1000", "requests", "input", "output", "neurons", "free", "billable", "usd"}};
  for (const Bill::Item& item : invoice.bill.items) lines.push_back(cells(item));
  const Bill::Settled& bill = invoice.bill;
  lines.push_back({"total", "", "", std::to_string(bill.counts.records), std::to_string(bill.counts.units.input_tokens),
                   std::to_string(bill.counts.units.output_tokens), neurons_text(bill.counts.exact),
                   neurons_text(bill.free), neurons_text(bill.counts.exact - bill.free), bill.usd.text()});
  out += align_columns(lines, 2);
  out += "\nDue: USD " + bill.usd.cents() + "\n";
  if (!invoice.note.empty()) out += "\nNote: " + invoice.note + ".\n";
  return out;
}

std::string format_csv(const Invoice& invoice) {
  std::string out = csv_line({"tenant", "month", "schedule", "tier", "usd_per_1000_neurons", "requests", "input_tokens",
                              "output_tokens", "neurons", "free_neurons", "billable_neurons", "usd"});
  for (const Bill::Item& item : invoice.bill.items) {
    Cells line = cells(item);
    line.insert(line.begin(), {invoice.tenant, month_text(invoice.month)});
    out += csv_line(line);
  }
  return out;
}

std::string format_json(const Invoice& invoice) {
  std::string out = "{";
  field(out, "tenant", invoice.tenant);
  out.push_back(',');
  field(out, "month", month_text(invoice.month));
  out.push_back(',');
  field(out, "ledger", invoice.ledger_id);
  out += std::string{",\"final\":"} + (invoice.final ? "true" : "false") + ",\"items\":[";
  for (std::size_t i = 0; i < invoice.bill.items.size(); ++i) {
    const Bill::Item& item = invoice.bill.items[i];
    out += i == 0 ? "{" : ",{";
    field(out, "schedule", item.price.schedule);
    out.push_back(',');
    field(out, "tier", api::name(item.price.tier));
    out.push_back(',');
    field(out, "usd_per_1000_neurons", per_1000(item.price));
    out.push_back(',');
    amounts(out, item.counts, item.free, item.usd);
    out.push_back('}');
  }
  out += "],\"total\":{";
  amounts(out, invoice.bill.counts, invoice.bill.free, invoice.bill.usd);
  out += "},";
  field(out, "due_usd", invoice.bill.usd.cents());
  if (!invoice.note.empty()) {
    out.push_back(',');
    field(out, "note", invoice.note);
  }
  return out + "}\n";
}

}  // namespace ganglion::metering
