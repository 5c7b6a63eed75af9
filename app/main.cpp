// ganglion: picks the subcommand.

#include <algorithm>
#include <csignal>
#include <iostream>
#include <map>

#include "app/build_info.hpp"
#include "app/commands.hpp"

namespace {

constexpr std::string_view kHelp = R"(ganglion: an AI gateway with its own local model

  ganglion serve [--core-dumps] [FILE]
                                   serve; without FILE on the embedded default (127.0.0.1:8080, admin 127.0.0.1:8081)
  ganglion upgrade [FILE | --dir LEDGER] [--timeout SECONDS]
                                   replace the gateway that runs there by this program, without a gap
  ganglion check FILE              report every problem of a configuration file; exit code 2 if there is one
  ganglion config --print-default | --print-schema | --print-docs
  ganglion keys create [--id ID] [--tenant T] [--pepper-env NAME]
  ganglion ledger verify|export|repair-report [--from TIME] [--to TIME] [--format text|json]
  ganglion usage [--by key,model,tier,tenant,gateway,day,hour,schedule,tag:NAME] [--from TIME] [--to TIME]
                 [--key K] [--tenant T] [--gateway G] [--model M] [--tier T] [--tag NAME=VALUE]
                 [--format table|json|csv]
  ganglion invoice --tenant T --month 2026-11 [--format text|csv|json]
                                   each of ledger, usage and invoice: [--dir DIR | --config FILE]
  ganglion metrics --print-docs
  ganglion calibrate [FILE] --model M (--usd-per-hour X | --neurons-per-second X) [--batch N] [--prompt-tokens N]
                 [--output-tokens N] [--rounds N] [--write OUT]
                                   measure a local model here and write its prices for `pricing.models`
  ganglion bench mock [--port P] [--delay-ms N] [--answer-bytes N] [--deltas N] [--gap-ms N] [--journal FILE]
  ganglion bench load [--url http://HOST:PORT/PATH | --port P] [--connections N] [--rate R] [--seconds S] [--count N]
                 [--stream] [--unique] [--body-bytes N] [--max-tokens N] [--model M] [--key K] [--header "NAME: VALUE"]
                 [--pid PROXY] [--name NAME] [--out FILE] [--json]
  ganglion bench report [--baseline NAME] [--svg FILE] [--out FILE] RESULT...
                                   an upstream, a load and a comparison, for any gateway (bench/README.md)
  ganglion version
)";

}  // namespace

int main(int argc, char** argv) {
  using namespace ganglion::app;
  std::signal(SIGPIPE, SIG_IGN);  // a peer that closed is an error code, not a signal
  const std::string command = argc > 1 ? argv[1] : "help";
  const Words words(argv + std::min(argc, 2), argv + argc);
  static const std::map<std::string, int (*)(const Words&)> kCommands{
      {"serve", serve_command},     {"check", check_command},     {"config", config_command},
      {"keys", keys_command},       {"ledger", ledger_command},   {"usage", usage_command},
      {"invoice", invoice_command}, {"metrics", metrics_command}, {"calibrate", calibrate_command},
      {"bench", bench_command},     {"upgrade", upgrade_command}};
  const auto is_help = [](const std::string& word) { return word == "--help" || word == "-h"; };
  if (kCommands.contains(command) && std::ranges::any_of(words, is_help)) {
    std::cout << kHelp;
    return 0;
  }
  if (const auto found = kCommands.find(command); found != kCommands.end()) return found->second(words);
  if (command == "version" || command == "--version") {
    std::cout << "ganglion " << kVersion << " (" << kCommit << ")\n";
    return 0;
  }
  if (command == "help" || command == "--help" || command == "-h") {
    std::cout << kHelp;
    return 0;
  }
  std::cerr << "ganglion: no command '" << command << "'\n\n" << kHelp;
  return 2;
}
