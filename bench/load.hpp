#pragma once
// A load generator for chat completions: one thread, epoll, closed loop (each connection asks again when answered) or
// open loop (requests are due at fixed times; latency counts from when a request was due, so a slow server cannot hide
// by slowing us down).

#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <expected>
#include <string>

#include "bench/histogram.hpp"

namespace ganglion::bench {

struct LoadOptions {
  sockaddr_storage address{};
  socklen_t address_size = 0;
  std::string authority;  // the Host header
  std::string path = "/v1/chat/completions";
  std::string key = "sk-test";
  std::string header;  // one more, or several with CRLF between them
  std::string model = "gpt-4o-mini";
  std::size_t connections = 32;
  double seconds = 5;
  double rate = 0;         // requests a second; 0: closed loop
  std::int64_t count = 0;  // requests at most; 0: as many as there is time for
  std::size_t body_bytes = 1100;
  std::int64_t max_tokens = 0;  // 0: not said
  bool stream = false;
  bool unique = false;  // every prompt is another
};

struct LoadResult {
  std::int64_t answered = 0;  // with 200, whole
  std::int64_t errors = 0;
  std::int64_t hits = 0;  // of the gateway's cache, where it tells
  double seconds = 0;
  Histogram latency;     // of whole answers, from when the request was due
  Histogram first_byte;  // of the body
  Histogram token;       // of a stream with max_tokens: mean time of a token after the first, if it made them all
  Histogram chunk;       // each delta of a mock's stream: from its sending to its arrival

  double per_second() const { return seconds > 0 ? static_cast<double>(answered) / seconds : 0; }
};

// The first three refusals are shown on stderr. An error: no connection could be made.
std::expected<LoadResult, std::string> run_load(const LoadOptions& options);

}  // namespace ganglion::bench
