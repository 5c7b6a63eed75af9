// See tls.hpp.

#include "net/tls.hpp"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdint>

namespace ganglion::net {
namespace {

int socket_of(BIO* bio) {
  return static_cast<int>(reinterpret_cast<std::intptr_t>(BIO_get_data(bio)));
}

int bio_write(BIO* bio, const char* data, int size) {
  BIO_clear_retry_flags(bio);
  const auto n = ::send(socket_of(bio), data, static_cast<std::size_t>(size), MSG_NOSIGNAL);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) BIO_set_retry_write(bio);
  return static_cast<int>(n);
}

int bio_read(BIO* bio, char* data, int size) {
  BIO_clear_retry_flags(bio);
  const auto n = ::recv(socket_of(bio), data, static_cast<std::size_t>(size), 0);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) BIO_set_retry_read(bio);
  return static_cast<int>(n);
}

long bio_control(BIO* /*bio*/, int command, long /*number*/, void* /*pointer*/) {
  return command == BIO_CTRL_FLUSH ? 1 : 0;
}

const BIO_METHOD* bio_method() {
  static const BIO_METHOD* const method = [] {
    BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "socket without SIGPIPE");
    BIO_meth_set_write(made, bio_write);
    BIO_meth_set_read(made, bio_read);
    BIO_meth_set_ctrl(made, bio_control);
    return made;
  }();
  return method;
}

constexpr unsigned char kAlpn[] = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};

int choose_alpn(SSL* /*ssl*/, const unsigned char** out, unsigned char* out_size, const unsigned char* offered,
                unsigned int offered_size, void* /*context*/) {
  unsigned char* chosen = nullptr;
  if (SSL_select_next_proto(&chosen, out_size, kAlpn, sizeof kAlpn, offered, offered_size) != OPENSSL_NPN_NEGOTIATED) {
    return SSL_TLSEXT_ERR_NOACK;
  }
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

SslContextPtr make_context(const SSL_METHOD* method) {
  SslContextPtr context{SSL_CTX_new(method)};
  if (!context) return context;
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  SSL_CTX_set_options(context.get(), SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_mode(context.get(),
                   SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
  return context;
}

bool is_ip_literal(const std::string& host) {
  unsigned char address[16];
  return inet_pton(AF_INET, host.c_str(), address) == 1 || inet_pton(AF_INET6, host.c_str(), address) == 1;
}

}  // namespace

std::string take_ssl_error() {
  char text[160] = "unknown TLS error";
  if (const unsigned long code = ERR_peek_last_error(); code != 0) ERR_error_string_n(code, text, sizeof text);
  ERR_clear_error();
  return text;
}

void attach_socket(SSL* ssl, int fd) {
  BIO* bio = BIO_new(bio_method());
  BIO_set_data(bio, reinterpret_cast<void*>(static_cast<std::intptr_t>(fd)));
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl, bio, bio);
}

core::Result<SslContextPtr> make_server_context(const TlsServerOptions& options) {
  const auto bad = [&](const std::string& what) {
    return core::fail(core::ErrorKind::internal, what + ": " + take_ssl_error());
  };
  ERR_clear_error();
  SslContextPtr context = make_context(TLS_server_method());
  if (!context) return bad("TLS");
  if (SSL_CTX_use_certificate_chain_file(context.get(), options.cert_file.c_str()) != 1) {
    return bad("certificate " + options.cert_file);
  }
  if (SSL_CTX_use_PrivateKey_file(context.get(), options.key_file.c_str(), SSL_FILETYPE_PEM) != 1) {
    return bad("private key " + options.key_file);
  }
  if (SSL_CTX_check_private_key(context.get()) != 1) return bad("certificate and private key do not match");
  // TLS 1.2 with forward secrecy and AEAD alone (1.3 has nothing else), in our order.
  if (SSL_CTX_set_cipher_list(context.get(), "ECDHE+AESGCM:ECDHE+CHACHA20") != 1) return bad("TLS ciphers");
  SSL_CTX_set_options(context.get(), SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
  SSL_CTX_set_alpn_select_cb(context.get(), choose_alpn, nullptr);
  static constexpr unsigned char kSessionContext[] = "ganglion";
  SSL_CTX_set_session_id_context(context.get(), kSessionContext, sizeof kSessionContext - 1);
  if (!options.client_ca_file.empty()) {
    if (SSL_CTX_load_verify_file(context.get(), options.client_ca_file.c_str()) != 1) {
      return bad("client authorities " + options.client_ca_file);
    }
    // Tells clients whose certificate to send.
    SSL_CTX_set_client_CA_list(context.get(), SSL_load_client_CA_file(options.client_ca_file.c_str()));
    SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  }
  return context;
}

core::Result<SslContextPtr> make_client_context(const TlsClientOptions& options) {
  ERR_clear_error();
  SslContextPtr context = make_context(TLS_client_method());
  if (!context) return core::fail(core::ErrorKind::internal, "TLS: " + take_ssl_error());
  if (options.verify) {
    const int loaded = options.ca_file.empty() ? SSL_CTX_set_default_verify_paths(context.get())
                                               : SSL_CTX_load_verify_file(context.get(), options.ca_file.c_str());
    if (loaded != 1)
      return core::fail(core::ErrorKind::internal, "CA file " + options.ca_file + ": " + take_ssl_error());
    SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
  }
  SSL_CTX_set_alpn_protos(context.get(), kAlpn, sizeof kAlpn);
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  return context;
}

SslPtr make_client_ssl(SSL_CTX* context, const std::string& host, bool verify) {
  SslPtr ssl{SSL_new(context)};
  if (!ssl) return ssl;
  SSL_set_connect_state(ssl.get());
  const bool literal = is_ip_literal(host);
  if (!literal) SSL_set_tlsext_host_name(ssl.get(), host.c_str());
  if (verify) {
    const bool set = literal ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl.get()), host.c_str()) == 1
                             : SSL_set1_host(ssl.get(), host.c_str()) == 1;
    if (!set) return nullptr;
  }
  return ssl;
}

ServerCertificate::Stamp ServerCertificate::stamp(const TlsServerOptions& options) {
  std::error_code ignored;  // a file that is away for a moment has the minimum time
  return {std::filesystem::last_write_time(options.cert_file, ignored),
          std::filesystem::last_write_time(options.key_file, ignored),
          options.client_ca_file.empty() ? std::filesystem::file_time_type{}
                                         : std::filesystem::last_write_time(options.client_ca_file, ignored)};
}

core::Result<void> ServerCertificate::load() {
  std::unique_lock lock(mutex_);
  const TlsServerOptions options = options_;
  lock.unlock();
  return load(options);
}

core::Result<void> ServerCertificate::load(const TlsServerOptions& options) {
  if (options.cert_file.empty() == enabled_) {
    return core::fail(core::ErrorKind::internal, "TLS of a listener is turned on or off by a restart");
  }
  if (!enabled_) return {};
  const Stamp now = stamp(options);
  auto context = make_server_context(options);
  const std::scoped_lock lock(mutex_);
  options_ = options;
  loaded_ = now;  // a failed load is not tried again until a file changes again
  if (!context) return std::unexpected(context.error());
  context_ = std::move(*context);
  return {};
}

bool ServerCertificate::files_changed() {
  const std::scoped_lock lock(mutex_);
  return stamp(options_) != loaded_;
}

SslPtr ServerCertificate::make_ssl() {
  const std::scoped_lock lock(mutex_);
  SslPtr ssl{context_ ? SSL_new(context_.get()) : nullptr};
  if (ssl) SSL_set_accept_state(ssl.get());
  return ssl;
}

}  // namespace ganglion::net
