#pragma once
// A blocking TCP socket for tests: says exactly these bytes, hears exactly what comes, closes or resets when told.
// Reads give up after 20 s, so that a test fails instead of hanging.

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace ganglion::test {

class RawSocket {
 public:
  RawSocket() = default;
  explicit RawSocket(int fd);
  RawSocket(RawSocket&& other) noexcept;
  RawSocket& operator=(RawSocket&& other) noexcept;
  ~RawSocket();

  // Connects to a loopback address ("127.0.0.1" or "::1"); receive_buffer_bytes > 0 sets SO_RCVBUF before.
  static RawSocket connect(std::uint16_t port, const std::string& address = "127.0.0.1", int receive_buffer_bytes = 0);

  bool valid() const { return fd_ >= 0; }
  int fd() const { return fd_; }
  bool send(std::string_view bytes);  // false: the peer is gone
  // What is there, waiting for at least a byte; "" at the end, on an error or after the limit.
  std::string read_some(std::size_t bytes_max = 65536);
  std::string read_until(std::string_view marker);  // up to and including it, or what came before the end
  std::string read_exactly(std::size_t bytes);      // or less, at the end
  std::string read_to_end();
  // One HTTP message by its Content-Length or chunked framing, head included, framing kept as sent.
  std::string read_message(bool head_only = false);
  bool ended();  // the peer closed or reset: waits for it
  bool was_reset() const { return reset_; }
  // The peer's FIN or reset arrives within the limit.
  bool wait_closed(std::chrono::milliseconds limit);
  void half_close();
  void close();
  void reset();  // RST

 private:
  bool fill();

  int fd_ = -1;
  bool reset_ = false;
  std::string pending_;
};

// The body of a message as read_message() returns it; chunked coding removed.
std::string body_of(const std::string& message);
int status_of(const std::string& message);
// Value of the first header of that (case-sensitive) name, "" if none.
std::string header_of(const std::string& message, const std::string& name);

}  // namespace ganglion::test
