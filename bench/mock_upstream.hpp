#pragma once
// An OpenAI-compatible upstream for benchmarks and fault tests: one thread, epoll, canned answers. Instant, after a
// fixed delay, or as paced server-sent events whose deltas carry the time they were sent. With a journal every request
// leaves one line (request id, tokens emitted, whether it was finished), written before the answer's last byte.

#include <cstddef>
#include <cstdint>
#include <string>

namespace ganglion::bench {

struct MockOptions {
  int port = 0;  // on loopback; 0: any that is free
  std::int64_t delay_ms = 0;
  std::size_t answer_bytes = 500;
  int deltas = 64;  // of a streamed answer
  std::int64_t gap_ms = 20;
  std::string journal;  // file; empty: none
  bool until_stdin_closes = false;
};

// Prints "port N" once it listens, and serves until the process ends or stdin closes.
void run_mock(const MockOptions& options);

}  // namespace ganglion::bench
