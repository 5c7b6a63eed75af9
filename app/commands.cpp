// Subcommands about the configuration and keys; those about the ledger are in app/ledger_commands.cpp.

#include "app/commands.hpp"

#include <sys/resource.h>

#include <cstdlib>
#include <iostream>
#include <utility>

#include "app/application.hpp"
#include "app/args.hpp"
#include "app/preflight.hpp"
#include "config/describe.hpp"
#include "config/field.hpp"
#include "config/loader.hpp"
#include "core/digest.hpp"
#include "core/log.hpp"
#include "metrics/catalog.hpp"
#include "net/descriptors.hpp"

namespace ganglion::app {
namespace {

int usage_error(std::string_view command, std::string_view problem) {
  std::cerr << "ganglion " << command << ": " << problem << "\n";
  return 2;
}

config::LoadResult load(const Args& args) {
  return args.positionals().empty() ? config::embedded_default() : config::load_file(args.positionals().front());
}

// Keys and prompts are in memory; where a crash would write it is nothing that a configuration knows.
void forbid_core_dumps() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_CORE, &limit) != 0) return;
  limit.rlim_cur = 0;
  static_cast<void>(::setrlimit(RLIMIT_CORE, &limit));
}

}  // namespace

int serve_command(const Words& words) {
  const auto args = Args::parse(words, {.flags = {"core-dumps"}, .positionals_max = 1});
  if (!args) return usage_error("serve", args.error() + " (ganglion serve [--core-dumps] [FILE])");
  if (!args->has("core-dumps")) forbid_core_dumps();
  auto loaded = load(*args);
  if (!loaded) {
    std::cerr << config::format(loaded.error());
    return 2;
  }
  net::raise_descriptor_limit();
  remember_program();
  try {
    Application application(std::make_shared<const config::Config>(std::move(*loaded)));
    if (const auto started = application.start(); !started) {
      core::log(core::LogLevel::error, "start_failed", {{"problem", started.error().message}});
      return 1;
    }
    return application.run();
  } catch (const std::exception& error) {  // start-up constructors may throw; nothing on the request path does
    core::log(core::LogLevel::error, "start_failed", {{"problem", error.what()}});
    return 1;
  }
}

int check_command(const Words& words) {
  const auto args = Args::parse(words, {.positionals_max = 1});
  if (!args || args->positionals().empty()) return usage_error("check", args ? "name the file to check" : args.error());
  const auto loaded = load(*args);
  if (!loaded) {
    std::cerr << config::format(loaded.error());
    return 2;
  }
  std::cerr << config::format(loaded->warnings);
  if (const auto usable = preflight(*loaded); !usable) {
    std::cerr << args->positionals().front() << ": " << usable.error().message << "\n";
    return 2;
  }
  std::cout << args->positionals().front() << ": ok\n";
  return 0;
}

int config_command(const Words& words) {
  const auto args = Args::parse(words, {.flags = {"print-default", "print-schema", "print-docs"}});
  if (!args) return usage_error("config", args.error());
  if (args->has("print-schema")) {
    std::cout << config::json_schema();
  } else if (args->has("print-docs")) {
    std::cout << config::reference_markdown();
  } else if (args->has("print-default")) {
    std::cout << config::default_yaml();
  } else {
    return usage_error("config", "say --print-default, --print-schema or --print-docs");
  }
  return 0;
}

int metrics_command(const Words& words) {
  const auto args = Args::parse(words, {.flags = {"print-docs"}});
  if (!args || !args->has("print-docs")) return usage_error("metrics", args ? "say --print-docs" : args.error());
  std::cout << metrics::catalog_markdown();
  return 0;
}

int keys_command(const Words& words) {
  if (words.empty() || words.front() != "create") return usage_error("keys", "the only subcommand is `create`");
  const auto args = Args::parse({words.begin() + 1, words.end()}, {.with_value = {"id", "tenant", "pepper-env"}});
  if (!args) return usage_error("keys create", args.error());
  const std::string id = args->get("id", "key-" + core::random_hex(4));
  const std::string tenant = args->get("tenant", "default");
  for (const auto& [option, name] : {std::pair{"--id", &id}, std::pair{"--tenant", &tenant}}) {
    if (config::is_identifier(*name)) continue;
    return usage_error("keys create",
                       std::string{option} + ": a name is 1 to 64 letters, digits, . _ -, not '" + *name + "'");
  }
  const std::string variable = args->get("pepper-env", "GANGLION_KEY_PEPPER");
  const char* pepper = std::getenv(variable.c_str());
  std::string made;
  if (pepper == nullptr || *pepper == '\0') {
    made = core::random_hex(32);
    std::cerr << "No pepper in $" << variable
              << ", so here is a new one. Keep it secret and set it wherever the gateway runs:\n  export " << variable
              << "=" << made << "\n\n";
    pepper = made.c_str();
  }
  const std::string key = "sk-gl-" + core::random_hex(24);
  std::cerr << "The key itself, shown this once:\n";
  std::cout << key << "\n";
  std::cerr << "\nFor the configuration file:\nkey_pepper: ${" << variable << "}\n";
  if (tenant != "default") std::cerr << "tenants:\n  - name: " << tenant << "\n";  // that one is always there
  std::cerr << "keys:\n  - id: " << id << "\n    hash: " << core::hex(gateway::key_digest(core::Secret{pepper}, key))
            << "\n    tenant: " << tenant << "\n";
  return 0;
}

}  // namespace ganglion::app
