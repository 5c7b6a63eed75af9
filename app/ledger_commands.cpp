// `ganglion ledger verify|export` and `ganglion usage`: read-only, also beside a running gateway.

#include <iostream>

#include "app/args.hpp"
#include "app/commands.hpp"
#include "config/loader.hpp"
#include "metering/ledger_reader.hpp"

namespace ganglion::app {
namespace {

int failed(std::string_view command, std::string_view problem, int code) {
  std::cerr << "ganglion " << command << ": " << problem << "\n";
  return code;
}

// --dir, else the directory of --config FILE, else the embedded default's; with the free allocation in force there.
struct Source {
  std::string directory;
  std::uint64_t daily_free_neurons = 0;
};

std::expected<Source, std::string> source_of(const Args& args) {
  const auto loaded = args.has("config") ? config::load_file(args.get("config"), {.check_files = false})
                                         : config::embedded_default({.check_files = false});
  if (!loaded) return std::unexpected("\n" + config::format(loaded.error()));
  return Source{.directory = args.get("dir", loaded->ledger.directory),
                .daily_free_neurons = loaded->pricing.daily_free_neurons};
}

std::expected<metering::TimeRange, std::string> range_of(const Args& args) {
  metering::TimeRange range;
  for (const auto& [name, field] : {std::pair{"from", &range.from}, std::pair{"to", &range.to}}) {
    if (!args.has(name)) continue;
    const auto time = metering::parse_time(args.get(name));
    if (!time) return std::unexpected("--" + std::string{name} + ": " + time.error().message);
    *field = *time;
  }
  return range;
}

int verify(const Source& source) {
  const auto report = metering::verify(source.directory);
  if (!report) return failed("ledger verify", report.error().message, 1);
  if (!report->ok) {
    std::cout << source.directory << ": BAD at " << report->bad_segment << " offset " << report->bad_offset << ": "
              << report->problem << "\n";
    return 1;
  }
  std::cout << source.directory << ": ok, " << report->records << " records in " << report->segments << " segments, "
            << report->terminals << " requests, " << report->open_intents << " open\n";
  return 0;
}

}  // namespace

int ledger_command(const Words& words) {
  if (words.empty() || (words.front() != "verify" && words.front() != "export")) {
    return failed("ledger", "say `ledger verify` or `ledger export`", 2);
  }
  const auto args = Args::parse({words.begin() + 1, words.end()}, {.with_value = {"dir", "config", "from", "to"}});
  if (!args) return failed("ledger", args.error(), 2);
  const auto source = source_of(*args);
  if (!source) return failed("ledger", source.error(), 2);
  if (words.front() == "verify") return verify(*source);
  const auto range = range_of(*args);
  if (!range) return failed("ledger export", range.error(), 2);
  const auto done = metering::export_records(source->directory, *range, std::cout);
  return done ? 0 : failed("ledger export", done.error().message, 1);
}

int usage_command(const Words& words) {
  const auto args = Args::parse(words, {.with_value = {"dir", "config", "by", "from", "to", "format"}});
  if (!args) return failed("usage", args.error(), 2);
  const auto source = source_of(*args);
  if (!source) return failed("usage", source.error(), 2);
  const auto range = range_of(*args);
  if (!range) return failed("usage", range.error(), 2);
  const auto by = metering::parse_usage_keys(args->get("by", "key,model,tier"));
  if (!by) return failed("usage", "--by: " + by.error().message, 2);
  const std::string format = args->get("format", "table");
  if (format != "table" && format != "json") return failed("usage", "--format is table or json", 2);
  const auto report = metering::usage(source->directory,
                                      {.by = *by, .range = *range, .daily_free_neurons = source->daily_free_neurons});
  if (!report) return failed("usage", report.error().message, 1);
  std::cout << (format == "json" ? metering::format_json(*report) : metering::format_table(*report));
  return 0;
}

}  // namespace ganglion::app
