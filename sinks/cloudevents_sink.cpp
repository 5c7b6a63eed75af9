// See sinks/cloudevents_sink.hpp.

#include "sinks/cloudevents_sink.hpp"

#include <array>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <charconv>
#include <exception>
#include <utility>

#include "core/log.hpp"
#include "metering/calendar.hpp"
#include "sinks/record_json.hpp"

namespace ganglion::sinks {
namespace {

constexpr std::size_t kAnswerBytesMax = 64 * 1024;
constexpr std::size_t kAnswerTextMax = 200;
constexpr std::int64_t kRetryAfterMaxS = 3600;

net::UpstreamOptions upstream_options(const SinkOptions& options) {
  // The last segment is the request's path, what is before it the client's base.
  const std::size_t scheme = options.url.find("://");
  const std::size_t host = scheme == std::string::npos ? 0 : scheme + 3;
  const std::size_t slash = options.url.rfind('/');
  net::UpstreamOptions out{
      .base_url = slash != std::string::npos && slash >= host ? options.url.substr(0, slash) : options.url,
      .connections_max = 1};
  out.first_byte_timeout = out.idle_timeout = options.timeout;
  out.tls = options.tls;
  return out;
}

std::string path_of(const std::string& url) {
  const std::size_t scheme = url.find("://");
  const std::size_t slash = url.rfind('/');
  if (slash == std::string::npos || (scheme != std::string::npos && slash < scheme + 3)) return "/";
  return url.substr(slash);
}

}  // namespace

CloudEventsSink::CloudEventsSink(const SinkOptions& options, std::string ledger_id, PositionFile position)
    : ledger_id_(std::move(ledger_id)),
      source_(options.source.empty() ? "urn:uuid:" + ledger_id_ : options.source),
      event_type_(options.event_type),
      batch_(options.format == "batch"),
      timeout_(options.timeout),
      authorization_(options.token.empty() ? std::string{} : "Bearer " + std::string{options.token.reveal()}),
      position_(std::move(position)),
      path_(path_of(options.url)),
      client_(std::make_unique<net::UpstreamClient>(io_.get_executor(), upstream_options(options), hooks_)) {}

CloudEventsSink::~CloudEventsSink() = default;

core::Result<std::uint64_t> CloudEventsSink::open() {
  return position_.read();
}

void CloudEventsSink::append_event(std::string& out, const metering::LedgerRecord& record) const {
  out.append(R"({"specversion":"1.0","id":")").append(ledger_id_).append("/").append(std::to_string(record.sequence));
  out.append(R"(","source":)");
  core::append_json_string(out, source_);
  out.append(R"(,"type":)");
  core::append_json_string(out, event_type_);
  out.append(R"(,"subject":)");
  core::append_json_string(out, record.tenant);
  out.append(R"(,"time":")").append(metering::format_time(record.time));
  out.append(R"(","datacontenttype":"application/json","data":)");
  append_record_json(out, ledger_id_, record);
  out.push_back('}');
}

core::Result<CloudEventsSink::Answer> CloudEventsSink::post(std::string_view body) {
  const std::array<net::Header, 3> headers{
      {{"content-type", batch_ ? "application/cloudevents-batch+json" : "application/x-ndjson"},
       {"user-agent", "ganglion"},
       {"authorization", authorization_.reveal()}}};
  const net::UpstreamRequest request{.method = net::Method::post,
                                     .path = path_,
                                     .headers = std::span{headers}.first(authorization_.empty() ? 2 : 3),
                                     .body = body};
  core::Result<Answer> out = core::fail(core::ErrorKind::internal, "the request was not made");
  const auto exchange = [&]() -> boost::asio::awaitable<void> {
    const core::Deadline deadline = core::Deadline::after(timeout_);
    auto response = co_await client_->send(request, deadline, stop_);
    if (!response) {
      out = std::unexpected(std::move(response.error()));
      co_return;
    }
    Answer answer{.status = (*response)->status()};
    const std::string_view wait = (*response)->header("retry-after");
    std::int64_t seconds = 0;
    if (std::from_chars(wait.data(), wait.data() + wait.size(), seconds).ec == std::errc{} && seconds > 0) {
      answer.retry_after = std::chrono::seconds{std::min(seconds, kRetryAfterMaxS)};
    }
    // A 2xx counts once its head is here; a body that breaks off changes nothing.
    if (auto text = co_await (*response)->read_all(kAnswerBytesMax)) answer.text = text->substr(0, kAnswerTextMax);
    out = std::move(answer);
  };
  std::exception_ptr thrown;
  io_.restart();
  boost::asio::co_spawn(io_, exchange, [&](std::exception_ptr error) {
    thrown = error;
    io_.stop();
  });
  io_.run();
  if (thrown) std::rethrow_exception(thrown);
  return out;
}

core::Result<void> CloudEventsSink::deliver(std::span<const metering::LedgerRecord> records, std::uint64_t upto) {
  body_.clear();
  if (batch_) body_.push_back('[');
  for (const metering::LedgerRecord& record : records) {
    if (batch_ && &record != records.data()) body_.push_back(',');
    append_event(body_, record);
    if (!batch_) body_.push_back('\n');
  }
  if (batch_) body_.push_back(']');
  auto answer = post(body_);
  if (!answer) {
    if (answer.error().message.empty()) answer.error().message = core::face(answer.error().kind).name;
    return std::unexpected(std::move(answer.error()));
  }
  if (answer->status == 413 && records.size() > 1) {
    const std::size_t half = records.size() / 2;
    if (auto done = deliver(records.first(half), records[half - 1].sequence); !done) return done;
    return deliver(records.subspan(half), upto);
  }
  if (answer->status < 200 || answer->status > 299) {
    core::Error error = core::make_error(core::ErrorKind::upstream_rejected,
                                         "the receiver answered with HTTP status " + std::to_string(answer->status) +
                                             (answer->text.empty() ? "" : ": " + answer->text));
    error.retry_after = answer->retry_after;
    return std::unexpected(std::move(error));
  }
  return position_.write(upto);
}

void CloudEventsSink::interrupt() {
  boost::asio::post(io_, [this] { stop_.cancel(core::CancelReason::shutdown); });
}

}  // namespace ganglion::sinks
