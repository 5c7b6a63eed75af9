#pragma once
// One answer as it is being received, shared by everyone who waits for it: the pump on the leader's worker appends, any
// number of readers on any worker read, each at its own pace, from the same bytes. Use through cache/single_flight.hpp.
//
// Memory: all bytes are kept up to `keep_bytes_max`, so that a late joiner can replay from the start. Past it the
// answer is not cacheable, nobody may join any more, and what all readers have taken is freed; a reader that lags more
// than keep_bytes_max behind the end is cut off. The pump runs at most core::kStreamBufferBytesMax ahead of the fastest
// reader, so a lone client slows its upstream and a slow follower slows nobody.

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "api/json_cursor.hpp"
#include "core/cancel.hpp"
#include "core/deadline.hpp"
#include "core/error.hpp"

namespace ganglion::cache {

struct Entry;
struct PaceMark;

struct RecordedHead {
  int status = 200;
  std::string content_type;
  bool event_stream = false;
  std::vector<std::pair<std::string, std::string>> headers;
  // Set: the answer was found stored after all and is to be served from there; no pieces follow.
  std::shared_ptr<const Entry> entry;
  bool after_error = false;  // with a stale entry: the upstream was asked and failed
};

// A stretch of the answer. Empty bytes: the clean end.
struct Piece {
  std::string_view bytes;
  bool usage_event = false;  // exactly one event, which a client that did not ask for usage must not see
};

class Recording;
struct Seat;    // a reader's place in the recording
struct Waiter;  // what a coroutine of ours sleeps on

// One client's view of a flight. Lives and dies on its executor's thread. Destroying it leaves the flight; the last one
// to leave an unfinished flight cancels it (CancelReason::superseded on the pump's source).
class Reader {
 public:
  // Takes a seat that the recording has given.
  Reader(std::shared_ptr<Recording> recording, std::list<Seat>::iterator seat, std::shared_ptr<Waiter> waiter);
  ~Reader();
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  // The head of the answer, as soon as it is known.
  // Errors of head() and next(): the flight's error (upstream_closed where the pump went away without one); overloaded
  // where this reader lagged too far behind; cancelled (`cancel` fired); deadline_exceeded.
  boost::asio::awaitable<core::Result<std::shared_ptr<const RecordedHead>>> head(core::CancelSource& cancel,
                                                                                 core::Deadline deadline = {});
  // Bytes that follow those returned before, as many as lie together (at most core::kStreamBufferBytesMax, except for
  // one larger usage event); valid until the next call. Bytes that came before a failure are returned before its error.
  boost::asio::awaitable<core::Result<Piece>> next(core::CancelSource& cancel, core::Deadline deadline = {});

  // Nothing was returned by next() yet: after an error the caller may join again, and may then lead.
  bool untouched() const { return position_ == 0; }
  std::uint64_t position() const { return position_; }

 private:
  boost::asio::awaitable<core::Result<void>> sleep(core::CancelSource& cancel, core::Deadline deadline);

  std::shared_ptr<Recording> recording_;
  std::list<Seat>::iterator seat_;
  std::shared_ptr<Waiter> waiter_;
  std::shared_ptr<const char[]> block_;  // keeps the last piece alive
  std::uint64_t position_ = 0;
};

struct LeaderSide;

// The writing end, owned by the pump coroutine on the leader's worker. Destroying it unfinished fails the flight.
class Recorder {
 public:
  Recorder(std::shared_ptr<Recording> recording, boost::asio::any_io_executor executor);
  ~Recorder();
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  // From now on the call goes on with or without readers, at its own pace.
  void detach();
  // The answer is this entry: readers are sent there, and the flight ends.
  void redirect(std::shared_ptr<const Entry> entry, bool after_error);

  // Fires `superseded` when no reader is left. Hand it to the backend as Call::cancel; lives as long as the Recorder.
  core::CancelSource& cancel();

  void set_head(RecordedHead head);
  // Copies the bytes to the readers. For streams append whole events, so that no reader is left inside one.
  void append(std::string_view bytes);
  void append_usage_event(std::string_view event);
  // Waits until the fastest reader is near enough for more. Error: cancelled (no reader is left).
  boost::asio::awaitable<core::Result<void>> writable();
  void finish();                 // the answer is whole; to store it use SingleFlight::finish
  void fail(core::Error error);  // it broke; readers get what is there, then the error

  bool whole() const;  // every byte appended is still held: cacheable
  std::uint64_t size() const;
  std::string bytes() const;  // all of it; "" if not whole
  api::Span usage_event() const;
  std::vector<PaceMark> pace() const;  // when the bytes came
  std::shared_ptr<const RecordedHead> head() const;

 private:
  std::shared_ptr<Recording> recording_;
  std::shared_ptr<LeaderSide> side_;
};

}  // namespace ganglion::cache
