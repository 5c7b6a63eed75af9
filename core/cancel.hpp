#pragma once
// Cancellation of one request, single-threaded: the session owns a CancelSource on its worker; whoever waits
// registers a callback (close the upstream socket, stop the generation) for as long as it waits. Every wait ends in
// exactly one of value, Error, or the reason given here. Not thread-safe: all of it lives on the worker's thread.

#include <cstdint>
#include <functional>
#include <string_view>
#include <utility>

namespace ganglion::core {

enum class CancelReason : std::uint8_t {
  none,
  client_gone,  // the peer closed or reset its connection
  slow_client,  // the peer did not take bytes within the write limit
  deadline,     // the request's absolute deadline passed
  shutdown,     // the drain window is over
  superseded,   // the answer is no longer needed by anyone (no follower is left)
  kCount
};

constexpr std::string_view name(CancelReason reason) {
  switch (reason) {
    case CancelReason::none:
      return "none";
    case CancelReason::client_gone:
      return "client_gone";
    case CancelReason::slow_client:
      return "slow_client";
    case CancelReason::deadline:
      return "deadline";
    case CancelReason::shutdown:
      return "shutdown";
    case CancelReason::superseded:
      return "superseded";
    case CancelReason::kCount:
      break;
  }
  return "unknown";
}

class CancelSource {
 public:
  CancelSource() = default;
  CancelSource(const CancelSource&) = delete;
  CancelSource& operator=(const CancelSource&) = delete;
  ~CancelSource();

  // The first reason wins; later calls do nothing. Callbacks run here, in order of registration.
  void cancel(CancelReason reason);
  bool cancelled() const { return reason_ != CancelReason::none; }
  CancelReason reason() const { return reason_; }

 private:
  friend class CancelRegistration;
  class CancelRegistration* head_ = nullptr;
  CancelReason reason_ = CancelReason::none;
};

// Runs its callback once if the source is cancelled while this object lives (at once, if it already was).
// A source that dies first detaches its registrations.
class CancelRegistration {
 public:
  CancelRegistration() = default;
  CancelRegistration(CancelSource& source, std::function<void(CancelReason)> callback);
  CancelRegistration(const CancelRegistration&) = delete;
  CancelRegistration& operator=(const CancelRegistration&) = delete;
  ~CancelRegistration() { reset(); }
  void reset();

 private:
  friend class CancelSource;
  CancelSource* source_ = nullptr;
  CancelRegistration* previous_ = nullptr;
  CancelRegistration* next_ = nullptr;
  std::function<void(CancelReason)> callback_;
};

}  // namespace ganglion::core
