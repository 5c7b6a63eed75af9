// See timer_wheel.hpp.

#include "net/timer_wheel.hpp"

#include <algorithm>

namespace ganglion::net {

namespace asio = boost::asio;

asio::execution_context::id TimerWheel::id;

TimerWheel& TimerWheel::of(const asio::any_io_executor& executor) {
  return asio::use_service<TimerWheel>(asio::query(executor, asio::execution::context));
}

TimerWheel::TimerWheel(asio::execution_context& context)
    : asio::execution_context::service(context),
      epoch_(std::chrono::steady_clock::now()),
      timer_(std::in_place, static_cast<asio::io_context&>(context)) {}

void TimerWheel::shutdown() {
  timer_.reset();
}

TimerWheel::Entry::~Entry() {
  if (alone()) return;
  unlink();
  --wheel_.linked_;
}

void TimerWheel::Entry::arm(core::SteadyTime at) {
  at_ = at;
  if (at == core::SteadyTime::max()) return;
  if (!alone()) {
    // Linked to a tick that is not later: that tick will move it on.
    if (linked_tick_ <= wheel_.tick_of(at)) return;
    unlink();
    --wheel_.linked_;
  }
  wheel_.link(*this);
}

// The first tick at which `at` has passed.
std::int64_t TimerWheel::tick_of(core::SteadyTime at) const {
  const auto since = at - epoch_;
  return since.count() <= 0 ? 0 : (since + kTick - std::chrono::nanoseconds{1}) / kTick;
}

void TimerWheel::link(Entry& entry) {
  if (linked_ == 0 && !ticking_) {
    tick_ = std::max(tick_, (std::chrono::steady_clock::now() - epoch_) / kTick);
  }
  // A far deadline is looked at once a round; its slot is that of the round's end.
  const std::int64_t wanted = std::max(tick_of(entry.at_), tick_ + 1);
  entry.linked_tick_ = std::min(wanted, tick_ + static_cast<std::int64_t>(kSlots) - 1);
  slots_[static_cast<std::size_t>(entry.linked_tick_) % kSlots].append(entry);
  ++linked_;
  if (!ticking_) schedule();
}

void TimerWheel::advance(core::SteadyTime now) {
  const std::int64_t until = now < epoch_ ? 0 : (now - epoch_) / kTick;
  if (until - tick_ > static_cast<std::int64_t>(kSlots)) tick_ = until - static_cast<std::int64_t>(kSlots);
  while (tick_ < until) {
    ++tick_;
    Link& slot = slots_[static_cast<std::size_t>(tick_) % kSlots];
    if (slot.alone()) continue;
    // Moved to a list of its own: callbacks may link to this slot again and may destroy entries of this very list.
    Link due;
    due.next = slot.next;
    due.previous = slot.previous;
    due.next->previous = due.previous->next = &due;
    slot.next = slot.previous = &slot;
    while (!due.alone()) {
      auto& entry = static_cast<Entry&>(*due.next);
      entry.unlink();
      --linked_;
      if (!entry.armed()) continue;
      if (entry.at_ > now) {
        link(entry);
        continue;
      }
      entry.disarm();
      entry.expired_();
    }
  }
}

void TimerWheel::schedule() {
  if (!timer_) return;
  ticking_ = true;
  timer_->expires_at(epoch_ + kTick * (tick_ + 1));
  timer_->async_wait([this](boost::system::error_code error) {
    ticking_ = false;
    if (error) return;
    advance(std::chrono::steady_clock::now());
    if (linked_ > 0 && !ticking_) schedule();
  });
}

}  // namespace ganglion::net
