// A recorded stream at the pace at which it came, for clients that ask for that.

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "gateway/free_usage.hpp"
#include "gateway/pipeline.hpp"

namespace ganglion::gateway {
namespace {

// A recording may hold a provider's long silence; a replay does not sit it out in full.
constexpr std::chrono::milliseconds kGapMax{10'000};

// False: cancelled meanwhile.
boost::asio::awaitable<bool> wait_until(boost::asio::io_context& io, core::SteadyTime at, core::CancelSource& cancel) {
  if (cancel.cancelled()) co_return false;
  boost::asio::steady_timer timer(io, at);
  const core::CancelRegistration registration{cancel, [&timer](core::CancelReason) { timer.cancel(); }};
  co_await timer.async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
  co_return !cancel.cancelled();
}

}  // namespace

boost::asio::awaitable<Worker::Done> Worker::serve_paced(Request& request, const cache::Entry& entry,
                                                         const net::ResponseHead& head) {
  net::Exchange& exchange = request.exchange;
  core::SteadyTime due = std::chrono::steady_clock::now();
  metrics::TokenGaps gaps = metrics_.token_gaps(request.model->name);
  const std::string_view body = entry.body;
  const api::Span usage = entry.usage_event;
  std::size_t begin = 0;
  std::uint32_t last_ms = 0;
  for (std::size_t i = 0; i < entry.pace.size(); ++i) {
    // Whatever follows the last mark goes with it.
    const std::size_t end = i + 1 == entry.pace.size() ? body.size() : entry.pace[i].end;
    due +=
        std::min(std::chrono::milliseconds{entry.pace[i].at_ms - std::exchange(last_ms, entry.pace[i].at_ms)}, kGapMax);
    std::string piece;
    if (!usage.empty() && usage.offset >= begin && usage.end() <= end) {
      piece = body.substr(begin, usage.offset - begin);
      if (request.view.include_usage) piece += free_usage_event(usage.of(body));
      piece += body.substr(usage.end(), end - usage.end());
    } else {
      piece = body.substr(begin, end - begin);
    }
    begin = end;
    if (piece.empty()) continue;
    if (!co_await wait_until(io_, due, exchange.cancel())) co_return core::fail(core::ErrorKind::cancelled);
    const core::SteadyTime now = std::chrono::steady_clock::now();
    if (request.first_text == core::SteadyTime{}) request.first_text = now;
    gaps.on_event(now);
    const Done sent = exchange.started() ? co_await exchange.write(piece) : co_await exchange.start_stream(head, piece);
    if (!sent) co_return sent;
  }
  if (!exchange.started()) co_return co_await exchange.respond(head, {});
  co_return co_await exchange.finish();
}

}  // namespace ganglion::gateway
