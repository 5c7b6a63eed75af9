// `ganglion calibrate`: measures a local model on this machine and writes its prices for the configuration.

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <fstream>
#include <iostream>

#include "app/args.hpp"
#include "app/calibrate.hpp"
#include "app/commands.hpp"
#include "backends/local/local_backend.hpp"
#include "config/loader.hpp"
#include "metering/price_book.hpp"

namespace ganglion::app {
namespace {

int failed(std::string_view problem, int code) {
  std::cerr << "ganglion calibrate: " << problem << "\n";
  return code;
}

// A positive number, or nothing.
std::optional<double> positive(const std::string& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || !(value > 0) || value > 1e12) return std::nullopt;
  return value;
}

// With as many digits as a measurement is worth, at most nine after the point.
std::string decimal(double value) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", value >= 100 ? 0 : value >= 1 ? 2 : 6, value);
  return text;
}

std::expected<double, std::string> neurons_per_second(const Args& args, const config::Config& config) {
  if (args.has("neurons-per-second") == args.has("usd-per-hour")) {
    return std::unexpected("say what the device costs: either --usd-per-hour or --neurons-per-second");
  }
  const auto value = positive(args.get(args.has("usd-per-hour") ? "usd-per-hour" : "neurons-per-second"));
  if (!value) return std::unexpected("the cost must be a number over 0");
  if (args.has("neurons-per-second")) return *value;
  const auto book = metering::PriceBook::make(config.pricing);
  if (!book) return std::unexpected(book.error().message);
  const double usd_per_neuron = 1e-12 * static_cast<double>((*book)->usd_pico_per_neuron(api::Tier::regular));
  if (usd_per_neuron <= 0) return std::unexpected("a neuron costs nothing here; use --neurons-per-second");
  return *value / 3'600 / usd_per_neuron;
}

std::expected<backends::CalibrateOptions, std::string> measurement_of(const Args& args,
                                                                      const backends::LocalModelOptions& model) {
  backends::CalibrateOptions out{.batch = static_cast<int>(std::min<std::uint32_t>(model.batch_max, 8))};
  for (const auto& [name, field, most] :
       {std::tuple{"batch", &out.batch, static_cast<int>(model.batch_max)},
        std::tuple{"prompt-tokens", &out.prompt_tokens, 1'000'000},
        std::tuple{"output-tokens", &out.output_tokens, 1'000'000}, std::tuple{"rounds", &out.rounds, 1'000}}) {
    if (!args.has(name)) continue;
    const auto value = positive(args.get(name));
    if (!value || *value != static_cast<int>(*value) || *value > most) {
      return std::unexpected("--" + std::string{name} + " is a number from 1 to " + std::to_string(most));
    }
    *field = static_cast<int>(*value);
  }
  return out;
}

}  // namespace

std::string price_rows(const std::string& model, const std::string& device, const backends::TokenCost& cost,
                       double neurons_per_second) {
  // A microsecond a token is a second a million tokens.
  const auto price = [&](double us) { return decimal(us * neurons_per_second); };
  std::string out = "# Measured on " + device + ": " + std::to_string(cost.batch) + " requests at once, prompts of " +
                    std::to_string(cost.prompt_tokens) + " tokens, " + decimal(neurons_per_second) +
                    " neurons a second.\npricing:\n  models:\n    - model: \"" + model +
                    "\"\n      input_per_1m: " + price(cost.input_us) +
                    "\n      cached_input_per_1m: " + price(std::min(cost.cached_us, cost.input_us)) + "\n";
  if (cost.output_us > 0) out += "      output_per_1m: " + price(cost.output_us) + "\n";
  return out;
}

int calibrate_command(const Words& words) {
  const auto args = Args::parse(words, {.with_value = {"model", "neurons-per-second", "usd-per-hour", "batch",
                                                       "prompt-tokens", "output-tokens", "rounds", "write"},
                                        .positionals_max = 1});
  if (!args) return failed(args.error() + " (ganglion calibrate [FILE] --model M --usd-per-hour X)", 2);
  const auto config = args->positionals().empty() ? config::embedded_default({.check_files = false})
                                                  : config::load_file(args->positionals().front());
  if (!config) return failed("\n" + config::format(config.error()), 2);
  const auto& models = config->local_models;
  const auto options = std::ranges::find(models, args->get("model"), &backends::LocalModelOptions::name);
  if (options == models.end()) {
    std::string known;
    for (const auto& model : models) known += " " + model.name;
    return failed("--model names a model of `local`; there " + (known.empty() ? "is none" : "are:" + known), 2);
  }
  const auto second = neurons_per_second(*args, *config);
  if (!second) return failed(second.error(), 2);
  const auto measurement = measurement_of(*args, *options);
  if (!measurement) return failed(measurement.error(), 2);
  const auto model = backends::load_local_model(*options);
  if (!model) return failed(model.error().message, 1);
  const auto cost = backends::measure_token_cost(**model, *measurement);
  if (!cost) return failed(cost.error().message, 1);
  std::cerr << options->name << " on " << (*model)->device() << ", microseconds a token: input "
            << decimal(cost->input_us) << ", cached input " << decimal(cost->cached_us) << ", output "
            << decimal(cost->output_us) << "\n";
  const std::string rows = price_rows(options->name, (*model)->device(), *cost, *second);
  if (!args->has("write")) {
    std::cout << rows;
    return 0;
  }
  std::ofstream file(args->get("write"));
  file << rows;
  if (!file.flush()) return failed("cannot write " + args->get("write"), 1);
  return 0;
}

}  // namespace ganglion::app
