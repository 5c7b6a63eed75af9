// See cache/recording.hpp and cache/recording_state.hpp.

#include "cache/recording.hpp"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstring>

#include "cache/recording_state.hpp"
#include "core/assert.hpp"
#include "core/limits.hpp"

namespace ganglion::cache {
namespace {

namespace asio = boost::asio;
using core::ErrorKind;

constexpr std::size_t kBlockBytesMin = 4 * 1024;
constexpr std::size_t kBlockBytesMax = core::kStreamBufferBytesMax;
constexpr std::size_t kPaceMarksMax = 8192;  // later bytes count as having come with the last mark
constexpr std::size_t kUsageEventsMax = 64;  // an upstream that reports usage more often is relayed as it is

// Ends the sleep of whoever waits there, on its own thread; at once if that is this one.
void send_wake(const asio::any_io_executor& executor, std::weak_ptr<Waiter> waiter) {
  asio::dispatch(executor, [waiter = std::move(waiter)] {
    if (const auto alive = waiter.lock()) alive->timer.cancel();
  });
}

}  // namespace

asio::awaitable<core::Result<void>> sleep_on(std::shared_ptr<Waiter> waiter, core::CancelSource& cancel,
                                             core::Deadline deadline) {
  if (cancel.cancelled()) co_return core::fail(ErrorKind::cancelled);
  waiter->timer.expires_at(deadline.at());
  {
    Waiter* const raw = waiter.get();
    core::CancelRegistration registration{cancel, [raw](core::CancelReason) { raw->timer.cancel(); }};
    co_await waiter->timer.async_wait(asio::as_tuple(asio::use_awaitable));
  }
  if (cancel.cancelled()) co_return core::fail(ErrorKind::cancelled);
  if (deadline.passed()) co_return core::fail(ErrorKind::deadline_exceeded);
  co_return core::Result<void>{};
}

// --- Recording -------------------------------------------------------------------------------------------------------

std::unique_ptr<Reader> Recording::attach(const std::shared_ptr<Recording>& recording,
                                          const asio::any_io_executor& executor) {
  auto waiter = std::make_shared<Waiter>(executor);
  const std::lock_guard guard{recording->lock_};
  if (recording->truncated_ || recording->superseded_ || recording->error_) return nullptr;
  recording->seats_.push_back({.executor = executor, .waiter = waiter});
  return std::make_unique<Reader>(recording, std::prev(recording->seats_.end()), std::move(waiter));
}

std::optional<core::Result<std::shared_ptr<const RecordedHead>>> Recording::try_head(Seat& seat) {
  const std::lock_guard guard{lock_};
  seat.sleeping = false;
  if (head_) return head_;
  if (error_) return std::unexpected(*error_);
  if (ended_) return core::fail(ErrorKind::internal, "an answer ended without a head");
  seat.sleeping = true;
  return std::nullopt;
}

std::optional<core::Result<Recording::Taken>> Recording::try_take(Seat& seat) {
  const std::lock_guard guard{lock_};
  seat.sleeping = false;
  if (seat.position == size_) {
    if (error_) return std::unexpected(*error_);
    if (ended_) return Taken{};
    seat.sleeping = true;
    return std::nullopt;
  }
  if (blocks_.empty() || seat.position < blocks_.front().offset) {
    return core::fail(ErrorKind::overloaded, "the answer was read too slowly to be followed");
  }
  const auto block = std::prev(
      std::upper_bound(blocks_.begin(), blocks_.end(), seat.position,
                       [](std::uint64_t position, const Block& candidate) { return position < candidate.offset; }));
  std::uint64_t end = block->end();
  bool usage = false;
  for (const api::Span& event : usage_events_) {
    if (event.offset == seat.position) {
      usage = true;
      end = event.end();
      break;
    }
    if (event.offset > seat.position) {
      end = std::min<std::uint64_t>(end, event.offset);
      break;
    }
  }
  Taken taken{.piece = {.bytes = {block->bytes.get() + (seat.position - block->offset),
                                  static_cast<std::size_t>(end - seat.position)},
                        .usage_event = usage},
              .block = block->bytes};
  seat.position = end;
  if (truncated_) trim();
  wake_pump();
  return taken;
}

void Recording::leave(std::list<Seat>::iterator seat) {
  bool unlink = false;
  {
    const std::lock_guard guard{lock_};
    seats_.erase(seat);
    if (truncated_) trim();
    if (seats_.empty() && !ended_ && !superseded_ && !detached_) {
      superseded_ = true;
      unlink = true;
      if (pump_open_) {
        // Posted, never run here: the callbacks of a cancellation are others' code and must not meet our lock.
        asio::post(pump_executor_, [pump = pump_] {
          if (const auto alive = pump.lock()) alive->cancel.cancel(core::CancelReason::superseded);
        });
      }
    }
  }
  if (unlink) run_unlink();
}

void Recording::open(const asio::any_io_executor& executor, const std::shared_ptr<LeaderSide>& side) {
  const std::lock_guard guard{lock_};
  pump_executor_ = executor;
  pump_ = side;
  pump_open_ = true;
}

void Recording::set_head(RecordedHead head) {
  const std::lock_guard guard{lock_};
  if (head_ || ended_) return;
  head_ = std::make_shared<const RecordedHead>(std::move(head));
  wake_readers();
}

// A larger block the more there is already, so that small answers stay small.
void Recording::add_block(std::size_t at_least) {
  const std::size_t capacity =
      std::max(at_least, std::clamp(static_cast<std::size_t>(std::min<std::uint64_t>(size_, kBlockBytesMax)),
                                    kBlockBytesMin, kBlockBytesMax));
  blocks_.push_back(
      {.offset = size_, .size = 0, .capacity = capacity, .bytes = std::make_shared_for_overwrite<char[]>(capacity)});
}

void Recording::append(std::string_view bytes, bool usage_event) {
  if (bytes.empty()) return;
  bool unlink = false;
  {
    const std::lock_guard guard{lock_};
    if (ended_) return;
    if (superseded_) {
      incomplete_ = true;
      return;
    }
    if (usage_event && usage_events_.size() < kUsageEventsMax) {
      // In one block, so that readers get it as one piece.
      usage_events_.push_back({.offset = static_cast<std::size_t>(size_), .length = bytes.size()});
      if (blocks_.empty() || blocks_.back().capacity - blocks_.back().size < bytes.size()) add_block(bytes.size());
    }
    while (!bytes.empty()) {
      if (blocks_.empty() || blocks_.back().size == blocks_.back().capacity) add_block(0);
      Block& block = blocks_.back();
      const std::size_t size = std::min(bytes.size(), block.capacity - block.size);
      std::memcpy(block.bytes.get() + block.size, bytes.data(), size);
      block.size += size;
      size_ += size;
      bytes.remove_prefix(size);
    }
    mark_pace();
    if (size_ > keep_bytes_max_) {
      unlink = !truncated_;
      truncated_ = true;
      trim();
    }
    wake_readers();
  }
  if (unlink) run_unlink();
}

void Recording::mark_pace() {
  const core::SteadyTime now = std::chrono::steady_clock::now();
  if (first_at_ == core::SteadyTime{}) first_at_ = now;
  const auto at =
      static_cast<std::uint32_t>(std::chrono::duration_cast<std::chrono::milliseconds>(now - first_at_).count());
  const auto end = static_cast<std::uint32_t>(std::min<std::uint64_t>(size_, UINT32_MAX));
  if (!pace_.empty() && (pace_.back().at_ms == at || pace_.size() == kPaceMarksMax)) {
    pace_.back().end = end;
  } else {
    pace_.push_back({.end = end, .at_ms = at});
  }
}

// Frees the blocks that every reader has left behind, and those that lie further back than we keep.
void Recording::trim() {
  std::uint64_t slowest = size_;
  for (const Seat& seat : seats_) slowest = std::min(slowest, seat.position);
  while (!blocks_.empty() && (blocks_.front().end() <= slowest || blocks_.front().end() + keep_bytes_max_ < size_)) {
    blocks_.pop_front();
  }
}

std::uint64_t Recording::fastest() const {
  std::uint64_t position = 0;
  for (const Seat& seat : seats_) position = std::max(position, seat.position);
  return position;
}

bool Recording::try_writable(bool& cancelled) {
  const std::lock_guard guard{lock_};
  pump_sleeping_ = false;
  cancelled = superseded_;
  if (superseded_) return false;
  if (detached_ || size_ - fastest() < core::kStreamBufferBytesMax) return true;
  pump_sleeping_ = true;
  return false;
}

void Recording::wake_pump() {
  if (!pump_sleeping_ || !pump_open_ || size_ - fastest() >= core::kStreamBufferBytesMax) return;
  pump_sleeping_ = false;
  if (const auto side = pump_.lock()) send_wake(pump_executor_, side->waiter);
}

void Recording::wake_readers() {
  for (Seat& seat : seats_) {
    if (!seat.sleeping) continue;
    seat.sleeping = false;
    send_wake(seat.executor, seat.waiter);
  }
}

void Recording::end(std::optional<core::Error> error) {
  {
    const std::lock_guard guard{lock_};
    if (ended_) return;
    ended_ = true;
    error_ = std::move(error);
    wake_readers();
  }
  run_unlink();
}

void Recording::detach() {
  const std::lock_guard guard{lock_};
  detached_ = true;
}

void Recording::close() {
  end(core::make_error(ErrorKind::upstream_closed));
  const std::lock_guard guard{lock_};
  pump_open_ = false;
}

void Recording::run_unlink() {
  std::function<void()> unlink;
  {
    const std::lock_guard guard{lock_};
    unlink.swap(unlink_);
  }
  if (unlink) unlink();
}

bool Recording::whole() const {
  const std::lock_guard guard{lock_};
  return !truncated_ && !incomplete_;
}

bool Recording::superseded() const {
  const std::lock_guard guard{lock_};
  return superseded_;
}

std::uint64_t Recording::size() const {
  const std::lock_guard guard{lock_};
  return size_;
}

std::string Recording::bytes() const {
  const std::lock_guard guard{lock_};
  std::string out;
  if (truncated_ || incomplete_) return out;
  out.reserve(static_cast<std::size_t>(size_));
  for (const Block& block : blocks_) out.append(block.bytes.get(), block.size);
  return out;
}

api::Span Recording::usage_event() const {
  const std::lock_guard guard{lock_};
  return usage_events_.empty() ? api::Span{} : usage_events_.back();
}

std::vector<PaceMark> Recording::pace() const {
  const std::lock_guard guard{lock_};
  return pace_;
}

std::shared_ptr<const RecordedHead> Recording::head() const {
  const std::lock_guard guard{lock_};
  return head_;
}

// --- Reader ----------------------------------------------------------------------------------------------------------

Reader::Reader(std::shared_ptr<Recording> recording, std::list<Seat>::iterator seat, std::shared_ptr<Waiter> waiter)
    : recording_(std::move(recording)), seat_(seat), waiter_(std::move(waiter)) {}

Reader::~Reader() {
  recording_->leave(seat_);
}

asio::awaitable<core::Result<void>> Reader::sleep(core::CancelSource& cancel, core::Deadline deadline) {
  return sleep_on(waiter_, cancel, deadline);
}

asio::awaitable<core::Result<std::shared_ptr<const RecordedHead>>> Reader::head(core::CancelSource& cancel,
                                                                                core::Deadline deadline) {
  while (true) {
    if (auto head = recording_->try_head(*seat_)) co_return *std::move(head);
    const auto slept = co_await sleep(cancel, deadline);
    if (!slept) co_return std::unexpected(slept.error());
  }
}

asio::awaitable<core::Result<Piece>> Reader::next(core::CancelSource& cancel, core::Deadline deadline) {
  while (true) {
    if (auto taken = recording_->try_take(*seat_)) {
      if (!*taken) co_return std::unexpected(taken->error());
      block_ = std::move((*taken)->block);
      position_ += (*taken)->piece.bytes.size();
      co_return (*taken)->piece;
    }
    const auto slept = co_await sleep(cancel, deadline);
    if (!slept) co_return std::unexpected(slept.error());
  }
}

// --- Recorder --------------------------------------------------------------------------------------------------------

Recorder::Recorder(std::shared_ptr<Recording> recording, asio::any_io_executor executor)
    : recording_(std::move(recording)), side_(std::make_shared<LeaderSide>(executor)) {
  recording_->open(executor, side_);
}

Recorder::~Recorder() {
  recording_->close();
}

void Recorder::detach() {
  recording_->detach();
}

void Recorder::redirect(std::shared_ptr<const Entry> entry, bool after_error) {
  RecordedHead head;
  head.status = entry->status;
  head.entry = std::move(entry);
  head.after_error = after_error;
  recording_->set_head(std::move(head));
  recording_->end(std::nullopt);
}

core::CancelSource& Recorder::cancel() {
  return side_->cancel;
}

void Recorder::set_head(RecordedHead head) {
  recording_->set_head(std::move(head));
}

void Recorder::append(std::string_view bytes) {
  recording_->append(bytes, false);
}

void Recorder::append_usage_event(std::string_view event) {
  recording_->append(event, true);
}

asio::awaitable<core::Result<void>> Recorder::writable() {
  while (true) {
    bool cancelled = false;
    if (recording_->try_writable(cancelled)) co_return core::Result<void>{};
    if (cancelled) co_return core::fail(ErrorKind::cancelled);
    const auto slept = co_await sleep_on(side_->waiter, side_->cancel, {});
    if (!slept) co_return std::unexpected(slept.error());
  }
}

void Recorder::finish() {
  GW_ASSERT(recording_->head() != nullptr);
  recording_->end(std::nullopt);
}

void Recorder::fail(core::Error error) {
  recording_->end(std::move(error));
}

bool Recorder::whole() const {
  return recording_->whole();
}

std::uint64_t Recorder::size() const {
  return recording_->size();
}

std::string Recorder::bytes() const {
  return recording_->bytes();
}

api::Span Recorder::usage_event() const {
  return recording_->usage_event();
}

std::vector<PaceMark> Recorder::pace() const {
  return recording_->pace();
}

std::shared_ptr<const RecordedHead> Recorder::head() const {
  return recording_->head();
}

}  // namespace ganglion::cache
