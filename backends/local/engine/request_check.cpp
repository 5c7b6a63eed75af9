// Ranges are OpenAI's where OpenAI has the field.

#include "backends/local/engine/request_check.hpp"

#include <cmath>
#include <string>

namespace ganglion::local {
namespace {

using core::ErrorKind;
using core::Result;

Result<void> in_range(float value, float low, float high, const char* name) {
  if (value >= low && value <= high) return {};  // false for NaN
  return core::fail(ErrorKind::invalid_value,
                    std::string(name) + " must be between " + std::to_string(low) + " and " + std::to_string(high),
                    name);
}

Result<void> check_sampling(const SamplingParams& p, std::int64_t vocab_size) {
  Result<void> ok = in_range(p.temperature, 0.0f, 100.0f, "temperature");
  if (ok) ok = in_range(p.top_p, 0.0f, 1.0f, "top_p");
  if (ok) ok = in_range(p.min_p, 0.0f, 1.0f, "min_p");
  if (ok) ok = in_range(p.frequency_penalty, -2.0f, 2.0f, "frequency_penalty");
  if (ok) ok = in_range(p.presence_penalty, -2.0f, 2.0f, "presence_penalty");
  if (ok) ok = in_range(p.repetition_penalty, 0.01f, 100.0f, "repetition_penalty");
  if (!ok) return ok;
  if (p.top_k < 0) return core::fail(ErrorKind::invalid_value, "top_k must not be negative; 0 turns it off", "top_k");
  if (p.top_logprobs < 0 || p.top_logprobs > kTopLogprobsMax) {
    return core::fail(ErrorKind::invalid_value, "top_logprobs must be between 0 and " + std::to_string(kTopLogprobsMax),
                      "top_logprobs");
  }
  if (p.top_logprobs > 0 && !p.logprobs) {
    return core::fail(ErrorKind::invalid_value, "top_logprobs needs logprobs to be true", "top_logprobs");
  }
  for (const auto& [id, bias] : p.logit_bias) {
    if (id < 0 || id >= vocab_size) {
      return core::fail(
          ErrorKind::invalid_value,
          "logit_bias names token " + std::to_string(id) + "; tokens are 0 to " + std::to_string(vocab_size - 1),
          "logit_bias");
    }
    if (!(bias >= -100.0f && bias <= 100.0f)) {
      return core::fail(ErrorKind::invalid_value, "logit_bias values must be between -100 and 100", "logit_bias");
    }
  }
  return {};
}

Result<void> check_stops(const GenerateRequest& request) {
  if (request.stop.size() > static_cast<std::size_t>(kStopStringsMax)) {
    return core::fail(ErrorKind::invalid_value, "stop holds more than " + std::to_string(kStopStringsMax) + " strings",
                      "stop");
  }
  for (const std::string& stop : request.stop) {
    if (stop.empty() || stop.size() > static_cast<std::size_t>(kStopStringBytesMax)) {
      return core::fail(ErrorKind::invalid_value,
                        "stop strings must have 1 to " + std::to_string(kStopStringBytesMax) + " bytes", "stop");
    }
  }
  return {};
}

}  // namespace

Result<void> check_request(const GenerateRequest& request, std::int64_t vocab_size, int context_max) {
  if (request.prompt.empty()) return core::fail(ErrorKind::invalid_value, "the prompt has no tokens", "prompt");
  for (std::int32_t id : request.prompt) {
    if (id < 0 || id >= vocab_size) {
      return core::fail(
          ErrorKind::invalid_value,
          "the prompt holds token " + std::to_string(id) + "; tokens are 0 to " + std::to_string(vocab_size - 1),
          "prompt");
    }
  }
  const auto prompt = static_cast<std::int64_t>(request.prompt.size());
  const std::int64_t completion = request.max_tokens > 0 ? request.max_tokens : 1;
  if (prompt + completion > context_max) {
    std::string message =
        "this model's context is " + std::to_string(context_max) + " tokens; the prompt has " + std::to_string(prompt);
    if (request.max_tokens > 0) message += " and the completion may have " + std::to_string(completion);
    return core::fail(ErrorKind::context_length, std::move(message), prompt >= context_max ? "prompt" : "max_tokens");
  }
  if (auto ok = check_sampling(request.sampling, vocab_size); !ok) return ok;
  return check_stops(request);
}

}  // namespace ganglion::local
