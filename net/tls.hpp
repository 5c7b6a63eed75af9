#pragma once
// OpenSSL set up for both sides: contexts from options, a server certificate that can be replaced while running, and
// a socket BIO that never raises SIGPIPE. TLS 1.2 at least, no renegotiation, ALPN http/1.1.

#include <openssl/ssl.h>

#include <filesystem>
#include <memory>
#include <mutex>
#include <string>

#include "core/error.hpp"
#include "net/options.hpp"

namespace ganglion::net {

struct SslDeleter {
  void operator()(SSL* ssl) const { SSL_free(ssl); }
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  void operator()(SSL_SESSION* session) const { SSL_SESSION_free(session); }
};
using SslPtr = std::unique_ptr<SSL, SslDeleter>;
using SslSessionPtr = std::unique_ptr<SSL_SESSION, SslDeleter>;
using SslContextPtr = std::unique_ptr<SSL_CTX, SslDeleter>;

// The newest OpenSSL error of this thread as text; the queue is emptied.
std::string take_ssl_error();

// Connects `ssl` to a non-blocking socket that outlives it.
void attach_socket(SSL* ssl, int fd);

core::Result<SslContextPtr> make_server_context(const TlsServerOptions& options);
core::Result<SslContextPtr> make_client_context(const TlsClientOptions& options);

// A client connection to `host` (SNI and verification of that name; of the address where host is an IP literal).
SslPtr make_client_ssl(SSL_CTX* context, const std::string& host, bool verify);

// The certificate in use. Thread-safe.
class ServerCertificate {
 public:
  explicit ServerCertificate(TlsServerOptions options)
      : enabled_(!options.cert_file.empty()), options_(std::move(options)) {}
  bool enabled() const { return enabled_; }
  // Loads the files; on failure what was loaded before stays.
  core::Result<void> load();
  // The same from other files, which become the ones that are watched. Fails where it would turn TLS on or off.
  core::Result<void> load(const TlsServerOptions& options);
  // One of the files is not the one that was last looked at.
  bool files_changed();
  SslPtr make_ssl();  // with the certificate in use now

 private:
  struct Stamp {
    std::filesystem::file_time_type cert;
    std::filesystem::file_time_type key;
    std::filesystem::file_time_type client_ca;
    bool operator==(const Stamp&) const = default;
  };
  static Stamp stamp(const TlsServerOptions& options);

  const bool enabled_;
  std::mutex mutex_;  // guards what follows; taken once per handshake or load
  TlsServerOptions options_;
  SslContextPtr context_;
  Stamp loaded_;
};

}  // namespace ganglion::net
