// See metering/price_book.hpp.

#include "metering/price_book.hpp"

#include <algorithm>

#include "metering/decimal.hpp"
#include "metering/schedules/schedules.hpp"

namespace ganglion::metering {
namespace {

constexpr unsigned kNanoDecimals = 9;
constexpr NeuronParts kPartsPerNanoPerMillion = kPartsPerNanoNeuron / 1'000'000;  // a price is per 1M, a rate per 1
constexpr std::uint64_t kPriceMax = 1'000'000'000'000'000'000;                    // nano; keeps sums in 128 bits

// Turns an amount as written (neurons or USD) into parts times `per_nano`: parts for each nano-neuron of the price.
class Amounts {
 public:
  Amounts(bool usd, std::uint64_t usd_pico_per_neuron) : usd_(usd), usd_pico_per_neuron_(usd_pico_per_neuron) {}

  core::Result<NeuronParts> parts(const std::string& text, NeuronParts per_nano, const std::string& param) const {
    if (text.empty()) return NeuronParts{0};
    const auto value = parse_decimal(text, kNanoDecimals);
    if (!value) return core::fail(core::ErrorKind::invalid_value, param + ": " + value.error().message, param);
    if (*value > kPriceMax) return core::fail(core::ErrorKind::invalid_value, param + ": price is too large", param);
    if (!usd_) return *value * per_nano;
    // nano-USD / (pico-USD per neuron) = 1e12 nano-neurons per unit of the quotient. At USD 0.011 and 0.01 per 1,000
    // per_nano * 1e12 is a multiple of the rate, so nothing is rounded; other rates round at 1e-19 neurons.
    const NeuronParts rate = usd_pico_per_neuron_;
    const NeuronParts factor = per_nano * 1'000'000'000'000ULL;
    NeuronParts scaled = 0;
    if (__builtin_mul_overflow(NeuronParts{*value}, factor, &scaled))
      return core::fail(core::ErrorKind::invalid_value, param + ": price is too large", param);
    return (scaled + rate / 2) / rate;
  }

 private:
  bool usd_;
  std::uint64_t usd_pico_per_neuron_;
};

core::Result<Rates> operator_rates(const ModelPrice& price, std::uint64_t usd_pico_per_neuron) {
  const std::string param = "pricing.models[" + price.model + "]";
  if (price.unit != "neurons" && price.unit != "usd")
    return core::fail(core::ErrorKind::invalid_value, param + ".unit must be neurons or usd", param + ".unit");
  const Amounts amounts{price.unit == "usd", usd_pico_per_neuron};
  Rates rates;
  const auto set = [&](NeuronParts& rate, const std::string& text, NeuronParts per_nano,
                       const char* field) -> core::Result<void> {
    const auto parts = amounts.parts(text, per_nano, param + "." + field);
    if (!parts) return std::unexpected(parts.error());
    rate = *parts;
    return {};
  };
  const std::string& cached =
      price.per_1m_cached_input_tokens.empty() ? price.per_1m_input_tokens : price.per_1m_cached_input_tokens;
  for (const auto& result :
       {set(rates.input_token, price.per_1m_input_tokens, kPartsPerNanoPerMillion, "per_1m_input_tokens"),
        set(rates.cached_input_token, cached, kPartsPerNanoPerMillion, "per_1m_cached_input_tokens"),
        set(rates.output_token, price.per_1m_output_tokens, kPartsPerNanoPerMillion, "per_1m_output_tokens"),
        set(rates.request, price.per_request, kPartsPerNanoNeuron, "per_request"),
        set(rates.gpu_us, price.per_gpu_second, kPartsPerNanoPerMillion, "per_gpu_second")})
    if (!result) return std::unexpected(result.error());
  return rates;
}

// The built-in tables are decimals that parse; a bad one is a bug that the first test run shows.
NeuronParts table_rate(std::string_view text) {
  return text.empty() ? 0 : NeuronParts{parse_decimal(text, kNanoDecimals).value()} * kPartsPerNanoPerMillion;
}

Rates schedule_rates(const ScheduleRow& row) {
  return {.input_token = table_rate(row.input),
          .cached_input_token = table_rate(row.cached_input.empty() ? row.input : row.cached_input),
          .output_token = table_rate(row.output),
          .image_classification = table_rate(row.images)};
}

Rates operation_rates(const OperationRates& operations) {
  const auto rate = [](unsigned per_1000) {
    return per_1000 == 0 ? NeuronParts{0} : NeuronParts{kPartsPerNeuron} * 1000 / per_1000;
  };
  return {.llm_response = rate(operations.llm_responses_per_1000),
          .image_classification = rate(operations.image_classifications_per_1000),
          .embedding = rate(operations.embeddings_per_1000)};
}

core::Result<std::uint64_t> usd_rate(const std::optional<std::string>& own, std::string_view builtin,
                                     const std::string& param) {
  const auto value = parse_decimal(own ? *own : std::string{builtin}, kNanoDecimals);
  if (!value) return core::fail(core::ErrorKind::invalid_value, param + ": " + value.error().message, param);
  if (*value > 1'000'000'000'000'000ULL)
    return core::fail(core::ErrorKind::invalid_value, param + ": more than USD 1,000,000 per 1,000 neurons", param);
  return *value;
}

}  // namespace

core::Result<std::shared_ptr<const PriceBook>> PriceBook::make(const PricingOptions& options) {
  const auto all = schedules();
  const auto schedule = std::ranges::find(all, std::string_view{options.schedule}, &Schedule::option);
  if (schedule == all.end())
    return core::fail(core::ErrorKind::invalid_value,
                      "pricing.schedule \"" + options.schedule + "\" is unknown; use launch-2023 or cloudflare-2026",
                      "pricing.schedule");
  std::shared_ptr<PriceBook> book{new PriceBook};
  book->schedule_ = schedule->id;
  book->daily_free_neurons_ = options.daily_free_neurons;
  const auto regular = usd_rate(options.usd_per_1000_neurons_regular, schedule->usd_per_1000_regular,
                                "pricing.usd_per_1000_neurons_regular");
  if (!regular) return std::unexpected(regular.error());
  const auto fast =
      usd_rate(options.usd_per_1000_neurons_fast, schedule->usd_per_1000_fast, "pricing.usd_per_1000_neurons_fast");
  if (!fast) return std::unexpected(fast.error());
  book->usd_pico_per_neuron_[0] = *regular;
  book->usd_pico_per_neuron_[1] = *fast;

  book->any_ = {.rates = operation_rates(schedule->operations), .source = PriceSource::schedule};
  for (const ScheduleRow& row : schedule->rows) {
    if (row.model == "*")
      book->any_ = {.rates = schedule_rates(row), .source = PriceSource::fallback};
    else
      book->rows_[std::string{row.model}] = {.rates = schedule_rates(row), .source = PriceSource::schedule};
  }
  // The operator's "*" is stronger than the schedule's rows: it says what every other model costs here.
  if (std::ranges::find(options.models, "*", &ModelPrice::model) != options.models.end()) book->rows_.clear();
  std::unordered_map<std::string, bool> seen;
  for (const ModelPrice& price : options.models) {
    const std::string param = "pricing.models[" + price.model + "]";
    if (!seen.emplace(price.model, true).second)
      return core::fail(core::ErrorKind::invalid_value, param + " is given twice", param);
    if (price.unit == "usd" && *regular == 0)
      return core::fail(core::ErrorKind::invalid_value, param + ": a USD price needs usd_per_1000_neurons_regular > 0",
                        param);
    const auto rates = operator_rates(price, *regular);
    if (!rates) return std::unexpected(rates.error());
    const Row row{.rates = *rates, .source = PriceSource::operator_price};
    if (price.model == "*")
      book->any_ = row;
    else
      book->rows_[price.model] = row;
  }
  return std::shared_ptr<const PriceBook>{std::move(book)};
}

FreeAllocation free_allocation(const PricingOptions& options) {
  FreeAllocation out{options.daily_free_neurons};
  for (const PriceChange& change : options.changes)
    if (change.daily_free_neurons) out.change(change.from, *change.daily_free_neurons);
  return out;
}

core::Result<std::shared_ptr<const PriceTimeline>> PriceTimeline::make(const PricingOptions& options) {
  std::shared_ptr<PriceTimeline> out{new PriceTimeline};
  PricingOptions now = options;
  now.changes.clear();
  auto first = PriceBook::make(now);
  if (!first) return std::unexpected(first.error());
  out->books_.emplace_back(core::WallTime::min(), std::move(*first));
  for (std::size_t i = 0; i < options.changes.size(); ++i) {
    const PriceChange& change = options.changes[i];
    const std::string param = "pricing.changes[" + std::to_string(i) + "]";
    const core::WallTime from{std::chrono::duration_cast<core::WallTime::duration>(change.from)};
    if (from <= out->books_.back().first)
      return core::fail(core::ErrorKind::invalid_value, param + ".from must be later than the change before it",
                        param + ".from");
    if (change.schedule) now.schedule = *change.schedule;
    if (change.usd_per_1000_neurons_regular) now.usd_per_1000_neurons_regular = change.usd_per_1000_neurons_regular;
    if (change.usd_per_1000_neurons_fast) now.usd_per_1000_neurons_fast = change.usd_per_1000_neurons_fast;
    if (change.daily_free_neurons) now.daily_free_neurons = *change.daily_free_neurons;
    if (!change.models.empty()) now.models = change.models;
    auto book = PriceBook::make(now);
    if (!book) {
      book.error().message = param + ": " + book.error().message;
      return std::unexpected(book.error());
    }
    out->books_.emplace_back(from, std::move(*book));
  }
  return out;
}

const PriceBook& PriceTimeline::at(core::WallTime time) const {
  const auto later = std::ranges::upper_bound(books_, time, {}, &decltype(books_)::value_type::first);
  return *std::prev(later)->second;
}

const PriceBook::Row& PriceBook::row(std::string_view model) const {
  const auto found = rows_.find(model);
  return found == rows_.end() ? any_ : found->second;
}

Charge PriceBook::free(api::Tier tier) const {
  return {.usd_pico_per_neuron = usd_pico_per_neuron(tier), .schedule = schedule_, .source = PriceSource::free};
}

Charge PriceBook::price(std::string_view model, api::Tier tier, const Units& units) const {
  const Row& priced = row(model);
  const Rates& rates = priced.rates;
  // A rate is at most 1e18 nano x 11,869 parts (1.2e22), or 1e18 x 1.2e10 (1.2e28) for a request; 1e12 units of it stay
  // far below 2^128 for tokens, and requests are one each.
  const auto times = [](NeuronParts rate, std::uint64_t count) {
    NeuronParts product = 0;
    if (__builtin_mul_overflow(rate, NeuronParts{std::min(count, kUnitsPerRequestMax)}, &product))
      product = ~NeuronParts{0} / 16;  // saturates; eight such terms still fit
    return std::min(product, ~NeuronParts{0} / 16);
  };
  const std::uint64_t cached = std::min(units.cached_input_tokens, units.input_tokens);
  Charge charge{.usd_pico_per_neuron = usd_pico_per_neuron(tier), .schedule = schedule_, .source = priced.source};
  charge.exact = times(rates.input_token, units.input_tokens - cached) + times(rates.cached_input_token, cached) +
                 times(rates.output_token, units.output_tokens) + times(rates.request, units.requests) +
                 times(rates.gpu_us, units.gpu_us) + times(rates.llm_response, units.llm_responses) +
                 times(rates.image_classification, units.image_classifications) +
                 times(rates.embedding, units.embeddings);
  charge.nano_neurons = round_to_nano(charge.exact);
  return charge;
}

}  // namespace ganglion::metering
