// See tls_files.hpp.

#include "tests/support/tls_files.hpp"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <utility>

namespace ganglion::test {

TlsFiles::TlsFiles(const std::string& common_name) {
  std::string name = (std::filesystem::temp_directory_path() / "ganglion-tls-XXXXXX").string();
  directory_ = ::mkdtemp(name.data());
  issue(common_name);
}

TlsFiles::~TlsFiles() {
  SSL_CTX_free(server_context_);
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

SSL_CTX* TlsFiles::server_context() const {
  if (server_context_ == nullptr) {
    server_context_ = SSL_CTX_new(TLS_server_method());
    SSL_CTX_use_certificate_chain_file(server_context_, cert().c_str());
    SSL_CTX_use_PrivateKey_file(server_context_, key().c_str(), SSL_FILETYPE_PEM);
  }
  return server_context_;
}

void TlsFiles::issue(const std::string& common_name) {
  EVP_PKEY* pair = EVP_EC_gen("P-256");
  X509* certificate = X509_new();
  X509_set_version(certificate, 2);
  static long serial = 0;  // a renewed certificate must differ
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), ++serial);
  X509_gmtime_adj(X509_getm_notBefore(certificate), -3600);
  X509_gmtime_adj(X509_getm_notAfter(certificate), 86400);
  X509_set_pubkey(certificate, pair);
  X509_NAME* subject = X509_get_subject_name(certificate);
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>(common_name.c_str()),
                             -1, -1, 0);
  X509_set_issuer_name(certificate, subject);
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, certificate, certificate, nullptr, nullptr, 0);
  for (const auto& [id, value] : {std::pair{NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1,IP:::1"},
                                  std::pair{NID_basic_constraints, "CA:TRUE"}}) {
    X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, id, value);
    X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
  }
  X509_sign(certificate, pair, EVP_sha256());
  std::FILE* file = std::fopen(cert().c_str(), "w");
  PEM_write_X509(file, certificate);
  std::fclose(file);
  file = std::fopen(key().c_str(), "w");
  PEM_write_PrivateKey(file, pair, nullptr, nullptr, 0, nullptr, nullptr);
  std::fclose(file);
  X509_free(certificate);
  EVP_PKEY_free(pair);
}

TlsSocket::TlsSocket(RawSocket socket, int max_version) : socket_(std::move(socket)) {
  context_ = SSL_CTX_new(TLS_client_method());
  if (max_version != 0) SSL_CTX_set_max_proto_version(context_, max_version);
  if (max_version != 0 && max_version < TLS1_2_VERSION) {
    // Debian's default security level refuses old versions on the client; the test wants the server to.
    SSL_CTX_set_min_proto_version(context_, max_version);
    SSL_CTX_set_security_level(context_, 0);
  }
  start(false);
}

TlsSocket::TlsSocket(RawSocket socket, const TlsFiles& files) : socket_(std::move(socket)) {
  context_ = files.server_context();
  SSL_CTX_up_ref(context_);
  start(true);
}

TlsSocket TlsSocket::as(const TlsFiles& identity, RawSocket socket, int max_version, SSL_SESSION* session) {
  TlsSocket made(Made{}, std::move(socket));
  made.context_ = SSL_CTX_new(TLS_client_method());
  if (max_version != 0) SSL_CTX_set_max_proto_version(made.context_, max_version);
  SSL_CTX_use_certificate_chain_file(made.context_, identity.cert().c_str());
  SSL_CTX_use_PrivateKey_file(made.context_, identity.key().c_str(), SSL_FILETYPE_PEM);
  made.start(false, session);
  return made;
}

TlsSocket::TlsSocket(TlsSocket&& other) noexcept
    : socket_(std::move(other.socket_)),
      context_(std::exchange(other.context_, nullptr)),
      ssl_(std::exchange(other.ssl_, nullptr)),
      connected_(other.connected_),
      pending_(std::move(other.pending_)) {}

void TlsSocket::start(bool server, SSL_SESSION* session) {
  std::signal(SIGPIPE, SIG_IGN);  // OpenSSL's own socket writes raise it
  ssl_ = SSL_new(context_);
  SSL_set_fd(ssl_, socket_.fd());
  if (session != nullptr) SSL_set_session(ssl_, session);
  connected_ = (server ? SSL_accept(ssl_) : SSL_connect(ssl_)) == 1;
}

TlsSocket::~TlsSocket() {
  SSL_free(ssl_);
  SSL_CTX_free(context_);
}

std::string TlsSocket::peer_common_name() const {
  X509* certificate = SSL_get1_peer_certificate(ssl_);
  if (certificate == nullptr) return {};
  char name[256] = {};
  X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, name, sizeof name);
  X509_free(certificate);
  return name;
}

bool TlsSocket::send(std::string_view bytes) {
  return SSL_write(ssl_, bytes.data(), static_cast<int>(bytes.size())) == static_cast<int>(bytes.size());
}

std::string TlsSocket::read_some() {
  char buffer[16384];
  const int n = SSL_read(ssl_, buffer, sizeof buffer);
  return n > 0 ? std::string(buffer, static_cast<std::size_t>(n)) : std::string{};
}

std::string TlsSocket::read_until(std::string_view marker) {
  for (;;) {
    const std::size_t at = pending_.find(marker);
    if (at != std::string::npos) {
      const std::string out = pending_.substr(0, at + marker.size());
      pending_.erase(0, out.size());
      return out;
    }
    const std::string more = read_some();
    if (more.empty()) return std::exchange(pending_, {});
    pending_ += more;
  }
}

void TlsSocket::send_close_notify() {
  SSL_shutdown(ssl_);
}

}  // namespace ganglion::test
