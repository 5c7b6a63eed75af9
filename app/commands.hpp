#pragma once
// The subcommands of `ganglion`. Each takes the words after its name and returns the exit code: 0 done, 1 failed,
// 2 wrong usage or configuration.

#include <string>
#include <vector>

namespace ganglion::app {

using Words = std::vector<std::string>;

int serve_command(const Words& words);
int check_command(const Words& words);
int config_command(const Words& words);
int keys_command(const Words& words);
int ledger_command(const Words& words);
int usage_command(const Words& words);
int invoice_command(const Words& words);
int metrics_command(const Words& words);
int calibrate_command(const Words& words);
int upgrade_command(const Words& words);
int bench_command(const Words& words);

}  // namespace ganglion::app
