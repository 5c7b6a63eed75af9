// See backends/remote/remote_backend.hpp.

#include "backends/remote/remote_backend.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <ctime>

namespace ganglion::backends {
namespace {

constexpr std::size_t kRejectionBytesMax = 64 * 1024;

std::string_view path_of(api::Endpoint endpoint) {
  switch (endpoint) {
    case api::Endpoint::completions:
      return "/completions";
    case api::Endpoint::embeddings:
      return "/embeddings";
    default:
      return "/chat/completions";
  }
}

// Of the provider's headers, those that tell the client something and nothing of our account there.
constexpr std::array<std::string_view, 3> kPassedHeaders{"openai-model", "openai-processing-ms", "openai-version"};

bool is_event_stream(std::string_view content_type) {
  return net::iequals(content_type.substr(0, content_type.find(';')), "text/event-stream");
}

class RemoteAnswer final : public Answer {
 public:
  explicit RemoteAnswer(std::unique_ptr<net::UpstreamResponse> response) : response_(std::move(response)) {
    head_.status = response_->status();
    head_.content_type = response_->header("content-type");
    head_.event_stream = is_event_stream(head_.content_type);
    for (const std::string_view name : kPassedHeaders) {
      const std::string_view value = response_->header(name);
      if (!value.empty()) head_.headers.emplace_back(name, value);
    }
  }
  const AnswerHead& head() const override { return head_; }
  boost::asio::awaitable<core::Result<std::string_view>> next() override { return response_->next(); }
  bool ended() const override { return response_->ended(); }
  void expect_end() override { response_->expect_end(); }

 private:
  std::unique_ptr<net::UpstreamResponse> response_;
  AnswerHead head_;
};

void scrub(std::string& text, std::string_view secret) {
  if (secret.size() < 8) return;
  for (std::size_t at = text.find(secret); at != std::string::npos; at = text.find(secret, at)) {
    text.replace(at, secret.size(), "[redacted]");
  }
}

bool retryable_status(int status) {
  return status == 408 || status == 409 || status == 429 || status >= 500;
}

}  // namespace

std::optional<std::chrono::milliseconds> parse_retry_after(std::string_view retry_after,
                                                           std::string_view retry_after_ms,
                                                           std::chrono::system_clock::time_point now) {
  constexpr std::int64_t kSecondsMax = 24 * 3600;
  const auto number = [](std::string_view text) -> std::optional<std::int64_t> {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || value < 0 || (end != text.data() + text.size() && *end != '.')) return std::nullopt;
    return value;
  };
  if (const auto ms = number(retry_after_ms)) return std::chrono::milliseconds{std::min(*ms, kSecondsMax * 1000)};
  if (retry_after.empty()) return std::nullopt;
  if (const auto seconds = number(retry_after)) return std::chrono::seconds{std::min(*seconds, kSecondsMax)};
  std::tm date{};
  if (::strptime(std::string{retry_after}.c_str(), "%a, %d %b %Y %H:%M:%S GMT", &date) == nullptr) return std::nullopt;
  const auto left = std::chrono::system_clock::from_time_t(::timegm(&date)) - now;
  return std::clamp(std::chrono::duration_cast<std::chrono::milliseconds>(left), std::chrono::milliseconds{0},
                    std::chrono::milliseconds{kSecondsMax * 1000});
}

RemoteBackend::RemoteBackend(boost::asio::any_io_executor executor, const RemoteOptions& options,
                             net::UpstreamHooks& hooks)
    : name_(options.name), api_key_(options.api_key), client_(std::move(executor), options.upstream, hooks) {
  if (!api_key_.empty()) authorization_ = "Bearer " + std::string{api_key_.reveal()};
}

boost::asio::awaitable<core::Result<std::unique_ptr<Answer>>> RemoteBackend::start(const Call& call,
                                                                                   Rejection* rejection) {
  std::array<net::Header, 6> headers{{{"content-type", "application/json"},
                                      {"accept-encoding", "identity"},
                                      {"accept", call.stream ? "text/event-stream" : "application/json"},
                                      {"user-agent", "ganglion"},
                                      {"x-request-id", call.request_id},
                                      {"authorization", authorization_}}};
  const net::UpstreamRequest request{.method = net::Method::post,
                                     .path = path_of(call.endpoint),
                                     .headers = std::span{headers}.first(authorization_.empty() ? 5 : 6),
                                     .body = call.body,
                                     .urgent = call.tier == api::Tier::fast,
                                     .whole = !call.stream && call.endpoint != api::Endpoint::embeddings,
                                     .slot_wait = call.capacity_wait,
                                     .before_resend = call.before_resend};
  auto response = co_await client_.send(request, call.deadline, *call.cancel);
  if (!response) co_return std::unexpected(std::move(response.error()));
  const int status = (*response)->status();
  // Usage and events are read on the way through: bytes in a coding can be neither billed nor framed anew.
  const std::string_view coding = (*response)->header("content-encoding");
  if (!coding.empty() && !net::iequals(coding, "identity")) {
    co_return core::fail(core::ErrorKind::upstream_protocol,
                         "the provider '" + name_ + "' encoded its answer, which it was asked not to");
  }
  if (status >= 200 && status < 300) co_return std::make_unique<RemoteAnswer>(std::move(*response));

  core::Error error =
      core::make_error(core::ErrorKind::upstream_rejected,
                       "the provider '" + name_ + "' answered with HTTP status " + std::to_string(status));
  error.retryable = retryable_status(status);
  const auto retry_after = parse_retry_after((*response)->header("retry-after"), (*response)->header("retry-after-ms"),
                                             std::chrono::system_clock::now());
  error.retry_after = retry_after.value_or(std::chrono::milliseconds{0});
  if (rejection != nullptr) {
    rejection->status = status;
    rejection->content_type = (*response)->header("content-type");
    rejection->retry_after = retry_after;
    // An error body that is too large or broken off is not worth an error of its own.
    if (auto body = co_await (*response)->read_all(kRejectionBytesMax)) {
      rejection->body = *body;
      scrub(rejection->body, api_key_.reveal());
    }
  }
  co_return std::unexpected(std::move(error));
}

}  // namespace ganglion::backends
