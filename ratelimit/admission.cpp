// See ratelimit/admission.hpp.

#include "ratelimit/admission.hpp"

#include <utility>

namespace ganglion::ratelimit {
namespace {

// Long enough that a crowd does not hammer, short enough that a burst passes: a request in flight takes about a second.
constexpr std::chrono::seconds kRetryAfter{1};

std::unexpected<core::Error> refuse(const char* message) {
  core::Error error = core::make_error(core::ErrorKind::overloaded, message);
  error.retry_after = kRetryAfter;
  return std::unexpected(std::move(error));
}

}  // namespace

Ticket::Ticket(Ticket&& other) noexcept
    : owner_(std::exchange(other.owner_, nullptr)), body_bytes_(std::exchange(other.body_bytes_, 0)) {}

Ticket& Ticket::operator=(Ticket&& other) noexcept {
  if (this == &other) return *this;
  Ticket gone{std::move(*this)};
  owner_ = std::exchange(other.owner_, nullptr);
  body_bytes_ = std::exchange(other.body_bytes_, 0);
  return *this;
}

Ticket::~Ticket() {
  if (owner_ == nullptr) return;
  release_body();
  owner_->in_flight_.fetch_sub(1, std::memory_order_relaxed);
}

core::Result<void> Ticket::reserve_body(std::uint64_t bytes) {
  if (owner_ == nullptr) return core::fail(core::ErrorKind::internal, "empty ticket");
  if (!owner_->take_body(bytes)) return refuse("The gateway holds too many request bodies. Try again.");
  body_bytes_ += bytes;
  return {};
}

void Ticket::release_body() {
  if (owner_ != nullptr && body_bytes_ != 0) owner_->body_bytes_.fetch_sub(body_bytes_, std::memory_order_relaxed);
  body_bytes_ = 0;
}

core::Result<Ticket> Admission::enter(std::uint64_t body_bytes) {
  if (in_flight_.fetch_add(1, std::memory_order_relaxed) >= options_.in_flight_max) {
    in_flight_.fetch_sub(1, std::memory_order_relaxed);
    return refuse("The gateway is serving as many requests as it may. Try again.");
  }
  Ticket ticket;
  ticket.owner_ = this;
  if (body_bytes != 0) {
    const auto reserved = ticket.reserve_body(body_bytes);
    if (!reserved) return std::unexpected(reserved.error());
  }
  return ticket;
}

bool Admission::take_body(std::uint64_t bytes) {
  std::uint64_t held = body_bytes_.load(std::memory_order_relaxed);
  do {
    if (bytes > options_.body_memory_bytes_max || held > options_.body_memory_bytes_max - bytes) return false;
  } while (!body_bytes_.compare_exchange_weak(held, held + bytes, std::memory_order_relaxed));
  return true;
}

}  // namespace ganglion::ratelimit
