#pragma once
// The headers that the gateway adds to an answer, with the storage behind their values. Lives until the head is sent.

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "api/types.hpp"
#include "backends/backend.hpp"
#include "core/error.hpp"
#include "net/http_types.hpp"
#include "ratelimit/limiter.hpp"

namespace ganglion::gateway {

class AnswerHeaders {
 public:
  explicit AnswerHeaders(net::ResponseHead& head) : head_(head) {}
  AnswerHeaders(const AnswerHeaders&) = delete;
  AnswerHeaders& operator=(const AnswerHeaders&) = delete;

  void text(std::string_view name, std::string_view value) { head_.headers.add(name, value); }
  void number(std::string_view name, std::int64_t value);
  void semantic(double score);                        // x-ganglion-cache: semantic; score=0.9731
  void neurons(api::NanoNeurons nano);                // x-neurons
  void rate_limits(const ratelimit::RateLimitView&);  // x-ratelimit-{limit,remaining,reset}-{requests,tokens}
  void retry_after(std::chrono::milliseconds wait);   // Retry-After in whole seconds, rounded up, and retry-after-ms

 private:
  std::string_view store(std::string_view text);
  void rate(std::string_view limit, std::string_view remaining, std::string_view reset,
            const ratelimit::RateView& view);

  net::ResponseHead& head_;
  std::array<char, 512> storage_;
  std::size_t used_ = 0;
};

}  // namespace ganglion::gateway
