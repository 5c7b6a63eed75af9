// `ganglion ledger`, `ganglion usage` and `ganglion invoice`: read-only, also beside a running gateway.

#include <iostream>

#include "app/args.hpp"
#include "app/commands.hpp"
#include "config/loader.hpp"
#include "metering/invoice.hpp"
#include "metering/ledger_reader.hpp"
#include "metering/price_book.hpp"
#include "metering/repair_report.hpp"
#include "metering/usage.hpp"

namespace ganglion::app {
namespace {

int failed(std::string_view command, std::string_view problem, int code) {
  std::cerr << "ganglion " << command << ": " << problem << "\n";
  return code;
}

// --dir, else the directory of --config FILE, else the embedded default's; with the free allocation in force there.
struct Source {
  std::string directory;
  metering::FreeAllocation daily_free_neurons;
};

std::expected<Source, std::string> source_of(const Args& args) {
  const auto loaded = args.has("config") ? config::load_file(args.get("config"), {.check_files = false})
                                         : config::embedded_default({.check_files = false});
  if (!loaded) return std::unexpected("\n" + config::format(loaded.error()));
  return Source{.directory = args.get("dir", loaded->ledger.directory),
                .daily_free_neurons = metering::free_allocation(loaded->pricing)};
}

std::expected<metering::TimeRange, std::string> range_of(const Args& args) {
  metering::TimeRange range;
  for (const auto& [name, field] : {std::pair{"from", &range.from}, std::pair{"to", &range.to}}) {
    if (!args.has(name)) continue;
    const auto time = metering::parse_time(args.get(name));
    if (!time) return std::unexpected("--" + std::string{name} + ": " + time.error().message);
    *field = *time;
  }
  if (range.empty()) return std::unexpected("--from, --to: " + std::string{metering::kEmptyRange});
  return range;
}

int verify(const Source& source) {
  const auto report = metering::verify(source.directory);
  if (!report) return failed("ledger verify", report.error().message, 1);
  if (!report->ok) {
    std::cout << source.directory << ": BAD at " << metering::describe(*report) << "\n";
    return 1;
  }
  std::cout << source.directory << ": ok, " << report->records << " records in " << report->segments << " segments, "
            << report->terminals << " requests, " << report->open_intents << " open\n";
  return 0;
}

int repair(const Source& source, const std::string& format) {
  if (format != "text" && format != "json") return failed("ledger repair-report", "--format is text or json", 2);
  const auto report = metering::repair_report(source.directory);
  if (!report) return failed("ledger repair-report", report.error().message, 1);
  std::cout << (format == "json" ? metering::format_json(*report) : metering::format_text(*report));
  return report->verify.ok ? 0 : 1;
}

// A sum that lacks something says so where nobody parses it.
void warn(std::string_view command, const std::string& note) {
  if (!note.empty()) std::cerr << "ganglion " << command << ": note: " << note << "\n";
}

}  // namespace

int ledger_command(const Words& words) {
  const std::string what = words.empty() ? "" : words.front();
  if (what != "verify" && what != "export" && what != "repair-report")
    return failed("ledger", "say `ledger verify`, `ledger export` or `ledger repair-report`", 2);
  const auto args =
      Args::parse({words.begin() + 1, words.end()}, {.with_value = {"dir", "config", "from", "to", "format"}});
  if (!args) return failed("ledger", args.error(), 2);
  const auto source = source_of(*args);
  if (!source) return failed("ledger", source.error(), 2);
  if (what == "verify") return verify(*source);
  if (what == "repair-report") return repair(*source, args->get("format", "text"));
  const auto range = range_of(*args);
  if (!range) return failed("ledger export", range.error(), 2);
  const auto done = metering::export_records(source->directory, *range, std::cout);
  return done ? 0 : failed("ledger export", done.error().message, 1);
}

int usage_command(const Words& words) {
  const auto args = Args::parse(words, {.with_value = {"dir", "config", "by", "from", "to", "format", "key", "tenant",
                                                       "gateway", "model", "tier", "tag"}});
  if (!args) return failed("usage", args.error(), 2);
  const auto source = source_of(*args);
  if (!source) return failed("usage", source.error(), 2);
  metering::UsageQuery query{.by = {metering::UsageKey::key, metering::UsageKey::model, metering::UsageKey::tier},
                             .daily_free_neurons = source->daily_free_neurons};
  for (const char* name : {"by", "from", "to", "key", "tenant", "gateway", "model", "tier", "tag"}) {
    if (!args->has(name)) continue;
    if (const auto set = metering::set_usage_option(query, name, args->get(name)); !set)
      return failed("usage", "--" + std::string{name} + ": " + set.error().message, 2);
  }
  if (query.range.empty()) return failed("usage", "--from, --to: " + std::string{metering::kEmptyRange}, 2);
  const std::string format = args->get("format", "table");
  if (format != "table" && format != "json" && format != "csv")
    return failed("usage", "--format is table, json or csv", 2);
  const auto report = metering::usage(source->directory, query);
  if (!report) return failed("usage", report.error().message, 1);
  warn("usage", report->note);
  std::cout << (format == "json"  ? metering::format_json(*report)
                : format == "csv" ? metering::format_csv(*report)
                                  : metering::format_table(*report));
  return 0;
}

int invoice_command(const Words& words) {
  const auto args = Args::parse(words, {.with_value = {"dir", "config", "tenant", "month", "format"}});
  if (!args) return failed("invoice", args.error(), 2);
  if (!args->has("tenant") || !args->has("month"))
    return failed("invoice", "say whose and which: --tenant T --month 2026-11", 2);
  const auto month = metering::parse_month(args->get("month"));
  if (!month) return failed("invoice", "--month: " + month.error().message, 2);
  const std::string format = args->get("format", "text");
  if (format != "text" && format != "json" && format != "csv")
    return failed("invoice", "--format is text, csv or json", 2);
  const auto source = source_of(*args);
  if (!source) return failed("invoice", source.error(), 2);
  const auto invoice = metering::make_invoice(source->directory, args->get("tenant"), *month,
                                              source->daily_free_neurons, std::chrono::system_clock::now());
  if (!invoice) return failed("invoice", invoice.error().message, 1);
  warn("invoice", invoice->note);
  if (invoice->bill.counts.records == 0) {  // a name that was mistyped, perhaps
    warn("invoice", "no usage of the tenant '" + args->get("tenant") + "' is on record in " + args->get("month"));
  }
  std::cout << (format == "json"  ? metering::format_json(*invoice)
                : format == "csv" ? metering::format_csv(*invoice)
                                  : metering::format_text(*invoice));
  return 0;
}

}  // namespace ganglion::app
