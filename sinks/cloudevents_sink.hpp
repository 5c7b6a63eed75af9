#pragma once
// Records as CloudEvents 1.0 over HTTP, as OpenMeter takes them: a JSON array of structured events a request
// (application/cloudevents-batch+json), or one event a line (application/x-ndjson) for collectors that like that
// better. The id of an event is "<ledger id>/<sequence>": what is sent twice after a doubtful answer is one event to
// whoever deduplicates by (source, id). The position is kept here, after a 2xx.

#include <boost/asio/io_context.hpp>
#include <memory>
#include <mutex>
#include <string>

#include "core/cancel.hpp"
#include "net/http_client.hpp"
#include "sinks/options.hpp"
#include "sinks/position_file.hpp"
#include "sinks/sink.hpp"

namespace ganglion::sinks {

class CloudEventsSink final : public Sink {
 public:
  // Throws std::invalid_argument for a URL or CA file that cannot be used.
  CloudEventsSink(const SinkOptions& options, std::string ledger_id, PositionFile position);
  ~CloudEventsSink() override;

  core::Result<std::uint64_t> open() override;
  // A 413 halves the batch. Every other answer than 2xx is an error and comes again: nothing is left out.
  core::Result<void> deliver(std::span<const metering::LedgerRecord> records, std::uint64_t upto) override;
  void interrupt() override;

 private:
  struct Answer {
    int status = 0;
    std::chrono::milliseconds retry_after{0};
    std::string text;  // the beginning of its body, for the operator
  };
  void append_event(std::string& out, const metering::LedgerRecord& record) const;
  core::Result<Answer> post(std::string_view body);

  const std::string ledger_id_;
  const std::string source_;
  const std::string event_type_;
  const bool batch_;
  const std::chrono::milliseconds timeout_;
  const core::Secret authorization_;
  PositionFile position_;
  std::string path_;
  std::string body_;
  net::UpstreamHooks hooks_;
  boost::asio::io_context io_{1};  // runs while a request does
  std::unique_ptr<net::UpstreamClient> client_;
  core::CancelSource stop_;  // on io_
};

}  // namespace ganglion::sinks
