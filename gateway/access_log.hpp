#pragma once
// The access log: one JSON object a line, one line a request, never a prompt, a key or an answer. One per worker; lines
// gather in a buffer that is written when it is large or 100 ms old, so that logging costs no system call a request.

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstddef>
#include <string>
#include <string_view>

#include "api/types.hpp"
#include "core/clock.hpp"
#include "metrics/registry.hpp"

namespace ganglion::gateway {

struct AccessLine {
  core::WallTime time;
  std::string_view request_id, peer, method, path, endpoint, tenant, key, gateway, model, backend, tier, cache, outcome,
      error;
  int status = 0;
  bool stream = false;
  std::uint64_t bytes_in = 0, bytes_out = 0;
  api::Usage usage;
  api::NanoNeurons nano_neurons = 0;
  std::int64_t duration_us = 0, upstream_us = -1, first_token_us = -1;
  std::size_t attempts = 0;
};

class AccessLog {
 public:
  // fd < 0: off. The descriptor stays the caller's. Lines that the descriptor does not take are dropped and counted.
  AccessLog(boost::asio::io_context& io, int fd, metrics::Counter dropped);
  ~AccessLog() { flush(); }
  AccessLog(const AccessLog&) = delete;
  AccessLog& operator=(const AccessLog&) = delete;

  bool on() const { return fd_ >= 0; }
  void write(const AccessLine& line);
  void flush();

 private:
  int fd_;
  metrics::Counter dropped_;
  boost::asio::steady_timer timer_;
  bool armed_ = false;
  std::string buffer_;
};

// "1.5" for 1,500,000,000: exact, no exponent, no trailing zeros.
void append_neurons(std::string& out, api::NanoNeurons nano);
std::string neurons_text(api::NanoNeurons nano);

}  // namespace ganglion::gateway
