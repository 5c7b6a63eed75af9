// See gateway/answer_headers.hpp.

#include "gateway/answer_headers.hpp"

#include <charconv>
#include <cstring>
#include <string>

#include "core/assert.hpp"
#include "gateway/access_log.hpp"

namespace ganglion::gateway {
namespace {

// As OpenAI writes resets: "17ms", "1.5s", "6m0s".
std::string reset_text(std::chrono::nanoseconds time) {
  const std::int64_t ms = (time.count() + 999'999) / 1'000'000;
  if (ms < 1000) return std::to_string(ms) + "ms";
  std::string out;
  if (ms >= 60'000) out = std::to_string(ms / 60'000) + "m";
  out += std::to_string(ms % 60'000 / 1000);
  if (ms < 60'000 && ms % 1000 != 0) {
    std::string fraction = std::to_string(1000 + ms % 1000).substr(1);
    while (fraction.back() == '0') fraction.pop_back();
    out += "." + fraction;
  }
  return out + "s";
}

}  // namespace

std::string_view AnswerHeaders::store(std::string_view text) {
  GW_ASSERT(used_ + text.size() <= storage_.size());
  char* at = storage_.data() + used_;
  std::memcpy(at, text.data(), text.size());
  used_ += text.size();
  return {at, text.size()};
}

void AnswerHeaders::number(std::string_view name, std::int64_t value) {
  char digits[24];
  const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  text(name, store({digits, static_cast<std::size_t>(end - digits)}));
}

void AnswerHeaders::semantic(double score) {
  char value[40];
  const int length = std::snprintf(value, sizeof value, "semantic; score=%.4f", score);
  text("x-ganglion-cache", store({value, static_cast<std::size_t>(length)}));
}

void AnswerHeaders::neurons(api::NanoNeurons nano) {
  text("x-neurons", store(neurons_text(nano)));
}

void AnswerHeaders::rate(std::string_view limit, std::string_view remaining, std::string_view reset,
                         const ratelimit::RateView& view) {
  if (!view.limited) return;
  number(limit, static_cast<std::int64_t>(view.limit));
  number(remaining, static_cast<std::int64_t>(view.remaining));
  text(reset, store(reset_text(view.reset)));
}

void AnswerHeaders::rate_limits(const ratelimit::RateLimitView& view) {
  rate("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests", view.requests);
  rate("x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens", view.tokens);
}

void AnswerHeaders::retry_after(std::chrono::milliseconds wait) {
  if (wait.count() <= 0) return;
  number("retry-after", (wait.count() + 999) / 1000);
  number("retry-after-ms", wait.count());
}

}  // namespace ganglion::gateway
