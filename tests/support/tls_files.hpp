#pragma once
// Self-signed certificates for tests, and a blocking TLS client.

#include <openssl/ssl.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "tests/support/raw_socket.hpp"

namespace ganglion::test {

// A directory with cert.pem and key.pem for "localhost", 127.0.0.1 and ::1; removed with the object.
class TlsFiles {
 public:
  explicit TlsFiles(const std::string& common_name = "localhost");
  ~TlsFiles();
  TlsFiles(const TlsFiles&) = delete;
  TlsFiles& operator=(const TlsFiles&) = delete;
  std::string cert() const { return directory_ + "/cert.pem"; }
  std::string key() const { return directory_ + "/key.pem"; }
  void issue(const std::string& common_name);  // writes both anew
  // One server context for all of a test's connections, so that sessions can be resumed. Not thread-safe.
  SSL_CTX* server_context() const;

 private:
  std::string directory_;
  mutable SSL_CTX* server_context_ = nullptr;
};

// One side of a TLS connection over a RawSocket, blocking.
class TlsSocket {
 public:
  // Client side. Takes any certificate; max_version 0 is the newest.
  explicit TlsSocket(RawSocket socket, int max_version = 0);
  // Client side, which shows the files' certificate where the server asks for one; resumes `session` where given.
  static TlsSocket as(const TlsFiles& identity, RawSocket socket, int max_version = 0, SSL_SESSION* session = nullptr);
  TlsSocket(TlsSocket&& other) noexcept;
  // Server side, with the files' certificate.
  TlsSocket(RawSocket socket, const TlsFiles& files);
  ~TlsSocket();
  TlsSocket(const TlsSocket&) = delete;
  TlsSocket& operator=(const TlsSocket&) = delete;

  bool connected() const { return connected_; }
  bool resumed() const { return SSL_session_reused(ssl_) == 1; }
  std::string peer_common_name() const;
  bool send(std::string_view bytes);
  std::string read_until(std::string_view marker);
  std::string read_some();
  SSL_SESSION* session() const { return SSL_get1_session(ssl_); }  // the caller frees it
  void send_close_notify();                                        // TCP stays open
  RawSocket& socket() { return socket_; }

 private:
  struct Made {};
  TlsSocket(Made, RawSocket socket) : socket_(std::move(socket)) {}
  void start(bool server, SSL_SESSION* session = nullptr);
  RawSocket socket_;
  SSL_CTX* context_ = nullptr;
  SSL* ssl_ = nullptr;
  bool connected_ = false;
  std::string pending_;
};

}  // namespace ganglion::test
