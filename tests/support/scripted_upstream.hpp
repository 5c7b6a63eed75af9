#pragma once
// A real server on a free loopback port whose every connection follows a script: expect, send, wait, close, reset.
// Each connection runs on a thread of its own; what was received is recorded.

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/raw_socket.hpp"

namespace ganglion::test {

class ScriptedUpstream {
 public:
  // Talks to one connection; it closes when the script returns.
  using Script = std::function<void(RawSocket&)>;

  // Connection i runs scripts[i]; later ones run the last script again.
  explicit ScriptedUpstream(std::vector<Script> scripts, const std::string& address = "127.0.0.1");
  ~ScriptedUpstream();
  ScriptedUpstream(const ScriptedUpstream&) = delete;
  ScriptedUpstream& operator=(const ScriptedUpstream&) = delete;

  std::uint16_t port() const { return port_; }
  std::string base_url(const std::string& prefix = "") const;
  int accepted() const { return accepted_; }

  // Reads one request (head and sized or chunked body) and records it; "" when the connection ended.
  std::string read_request(RawSocket& connection);
  std::vector<std::string> requests() const;

  // A script that answers every request of its connection with `answer`, keep-alive.
  Script answer_all(std::string answer);

 private:
  void accept_loop();

  const std::vector<Script> scripts_;
  const std::string address_;
  int listener_ = -1;
  std::uint16_t port_ = 0;
  std::atomic<int> accepted_{0};
  std::atomic<bool> stopping_{false};
  mutable std::mutex mutex_;
  std::vector<std::string> requests_;
  std::vector<int> open_fds_;
  std::vector<std::thread> threads_;
  std::thread acceptor_;
};

// "HTTP/1.1 200 OK" with Content-Length, plus extra header lines (each ending in CRLF).
std::string http_ok(const std::string& body, const std::string& extra_headers = "");

}  // namespace ganglion::test
