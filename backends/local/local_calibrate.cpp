// See local_calibrate.hpp.

#include "backends/local/local_calibrate.hpp"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "backends/local/local_parts.hpp"
#include "backends/local/weights/model_config.hpp"

namespace ganglion::backends {
namespace {

using core::Result;

// Adds up the ends of many requests.
class Ends {
 public:
  void add(std::int64_t engine_us, std::int64_t input, std::int64_t cached, std::int64_t output,
           const core::Error* error) {
    const std::lock_guard lock(mutex_);
    engine_us_ += engine_us;
    input_ += input;
    cached_ += cached;
    output_ += output;
    if (error != nullptr && !error_) error_ = *error;
    ++ended_;
    changed_.notify_all();
  }
  struct Sum {
    double engine_us = 0, input = 0, cached = 0, output = 0;
  };
  Result<Sum> wait(int count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return ended_ == count; });
    if (error_) return std::unexpected(*error_);
    return Sum{static_cast<double>(engine_us_), static_cast<double>(input_), static_cast<double>(cached_),
               static_cast<double>(output_)};
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::int64_t engine_us_ = 0, input_ = 0, cached_ = 0, output_ = 0;
  int ended_ = 0;
  std::optional<core::Error> error_;
};

struct GenerateEnd final : local::GenerateSink {
  explicit GenerateEnd(std::shared_ptr<Ends> to) : ends(std::move(to)) {}
  void on_event(local::GenerateEvent&& event) noexcept override {
    if (event.kind == local::GenerateEvent::Kind::token) return;
    const local::GenerateUsage& u = event.usage;
    ends->add(u.engine_us, u.prompt_tokens, u.cached_prompt_tokens, u.completion_tokens,
              event.kind == local::GenerateEvent::Kind::error ? &event.error : nullptr);
  }
  std::shared_ptr<Ends> ends;
};

struct EmbedEnd final : local::EmbedSink {
  explicit EmbedEnd(std::shared_ptr<Ends> to) : ends(std::move(to)) {}
  void on_result(Result<local::EmbedResult>&& result) noexcept override {
    if (result) {
      ends->add(result->engine_us, result->prompt_tokens, 0, 0, nullptr);
    } else {
      ends->add(0, 0, 0, 0, &result.error());
    }
  }
  std::shared_ptr<Ends> ends;
};

class Measurement {
 public:
  Measurement(const LocalModel::Parts& parts, const CalibrateOptions& options) : parts_(parts), options_(options) {
    const int context = parts.engine ? parts.engine->context_max() : parts.embedder->context_max();
    options_.prompt_tokens = std::clamp(options.prompt_tokens, 32, std::max(context / 4, 32));
    options_.output_tokens = std::clamp(options.output_tokens, 1, std::max(context / 4, 1));
    options_.batch = std::max(options.batch, 1);
    const auto vocabulary = parts.engine ? parts.engine->config().vocab_size : parts.embedder->config().vocab_size;
    vocabulary_ = static_cast<std::uint32_t>(vocabulary);
  }
  const CalibrateOptions& options() const { return options_; }

  Result<TokenCost> generating() {
    TokenCost cost;
    // Prompts alone; one token each comes with them.
    const auto fresh = generate({}, options_.prompt_tokens, 1, "");
    if (!fresh) return std::unexpected(fresh.error());
    cost.input_us = fresh->engine_us / fresh->input;
    const auto long_answers = generate({}, kShort, options_.output_tokens, "");
    if (!long_answers) return std::unexpected(long_answers.error());
    // The same beginning twice: what the second time costs more than its own tokens is due to those found.
    const std::string space = "calibrate-" + std::to_string(++draws_);
    const auto begins = draw(options_.prompt_tokens);
    const auto first = generate(begins, 1, 1, space);
    const auto again = first ? generate(begins, kShort, 1, space) : first;
    const auto short_ones = again ? generate({}, kShort, 1, "") : again;
    if (!short_ones) return std::unexpected(short_ones.error());
    // Prompts are as long in both, so what is left is due to the tokens made more.
    const double more = long_answers->output - short_ones->output;
    cost.output_us = more > 0 ? (long_answers->engine_us - short_ones->engine_us) / more
                              : long_answers->engine_us / long_answers->output - cost.input_us * kShort;
    const double own = short_ones->engine_us / short_ones->input * (again->input - again->cached);
    cost.cached_us = again->cached > 0 ? (again->engine_us - own) / again->cached : cost.input_us;
    return cost;
  }

  Result<TokenCost> embedding() {
    auto ends = std::make_shared<Ends>();
    for (int i = 0; i < options_.batch; ++i) {
      auto sent = parts_.embedder->submit({draw(options_.prompt_tokens)}, std::make_shared<EmbedEnd>(ends));
      if (!sent) return std::unexpected(sent.error());
    }
    const auto sum = ends->wait(options_.batch);
    if (!sum) return std::unexpected(sum.error());
    return TokenCost{.input_us = sum->engine_us / sum->input, .cached_us = sum->engine_us / sum->input};
  }

 private:
  static constexpr int kShort = 16;

  std::vector<std::int32_t> draw(int tokens) {
    std::vector<std::int32_t> out;
    for (int i = 0; i < tokens; ++i) {
      state_ = state_ * 6364136223846793005ULL + 1442695040888963407ULL;
      out.push_back(static_cast<std::int32_t>((state_ >> 33) % vocabulary_));
    }
    return out;
  }

  // A batch of requests that begin with `begins` and go on with `own` tokens of their own.
  Result<Ends::Sum> generate(const std::vector<std::int32_t>& begins, int own, int output, const std::string& space) {
    auto ends = std::make_shared<Ends>();
    for (int i = 0; i < options_.batch; ++i) {
      local::GenerateRequest request;
      request.prompt = begins;
      const auto more = draw(own);
      request.prompt.insert(request.prompt.end(), more.begin(), more.end());
      request.sampling.temperature = 0;
      request.max_tokens = output;
      request.ignore_eos = true;
      request.prefix_space = space;
      auto sent = parts_.engine->submit(std::move(request), std::make_shared<GenerateEnd>(ends));
      if (!sent) return std::unexpected(sent.error());
    }
    return ends->wait(options_.batch);
  }

  const LocalModel::Parts& parts_;
  CalibrateOptions options_;
  std::uint32_t vocabulary_ = 1;
  std::uint64_t state_ = 1;
  int draws_ = 0;
};

double median(const std::vector<TokenCost>& rounds, double TokenCost::* which) {
  std::vector<double> values;
  for (const TokenCost& each : rounds) values.push_back(each.*which);
  std::ranges::sort(values);
  return std::max(values[values.size() / 2], 0.0);
}

// After those that were asked for, while they have told nothing.
constexpr int kMoreRounds = 8;

}  // namespace

Result<TokenCost> typical_cost(const std::vector<TokenCost>& rounds, bool generates) {
  TokenCost out = rounds.front();
  for (const auto which : {&TokenCost::input_us, &TokenCost::cached_us, &TokenCost::output_us}) {
    out.*which = median(rounds, which);
  }
  if (out.input_us > 0 && (!generates || out.output_us > 0)) return out;
  return core::fail(core::ErrorKind::overloaded,
                    "a token took no time that could be measured: this machine is busy with other things; try again "
                    "when it is not, or with more --output-tokens and --rounds");
}

Result<TokenCost> measure_token_cost(const LocalModel& model, const CalibrateOptions& options) {
  Measurement measurement(model.parts(), options);
  const bool generates = model.kind() == LocalKind::generate;
  const auto measure = [&]() -> Result<TokenCost> {
    auto cost = generates ? measurement.generating() : measurement.embedding();
    if (!cost) return cost;
    cost->batch = measurement.options().batch;
    cost->prompt_tokens = measurement.options().prompt_tokens;
    return cost;
  };
  if (auto warm = measure(); !warm) return warm;  // caches and graphs are warm from here on
  std::vector<TokenCost> rounds;
  for (int left = std::max(options.rounds, 1) + kMoreRounds; left > 0; --left) {
    auto cost = measure();
    if (!cost) return cost;
    rounds.push_back(*cost);
    if (left > kMoreRounds + 1) continue;
    if (auto typical = typical_cost(rounds, generates)) return typical;
  }
  return typical_cost(rounds, generates);
}

}  // namespace ganglion::backends
