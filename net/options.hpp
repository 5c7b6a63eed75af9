#pragma once
// Settings of the HTTP server and of upstream connections. Plain values; config fills them.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

namespace ganglion::net {

struct TlsServerOptions {
  std::string cert_file;       // PEM chain; empty: plain HTTP
  std::string key_file;        // PEM
  std::string client_ca_file;  // PEM authorities; with it, a client needs a certificate of theirs
};

struct ServerOptions {
  std::string host = "127.0.0.1";  // IPv4 or IPv6 literal
  std::uint16_t port = 8080;       // 0: any free port
  unsigned workers = 0;            // 0: one per core
  TlsServerOptions tls;
  std::size_t connections_max = 10'000;                  // whole process; past it a connection gets 503 and is closed
  std::chrono::milliseconds header_timeout{10'000};      // wall clock for one header block
  std::chrono::milliseconds keep_alive_timeout{75'000};  // idle between requests
  std::chrono::milliseconds write_timeout{30'000};       // no byte taken by the client for so long: it is cut off
  std::size_t body_rate_min = 1024;                      // bytes/s of a request body after the grace
  std::chrono::milliseconds body_grace{10'000};
};

struct TlsClientOptions {
  bool verify = true;
  std::string ca_file;  // empty: the system's store
};

struct UpstreamOptions {
  std::string base_url;                // http(s)://host[:port][/prefix]
  std::size_t connections_max = 256;   // per worker
  std::size_t connections_urgent = 0;  // of them, kept for urgent requests
  std::chrono::milliseconds connect_timeout{5'000};
  std::chrono::milliseconds first_byte_timeout{60'000};
  std::chrono::milliseconds whole_timeout{300'000};     // in place of it where the answer comes in one piece
  std::chrono::milliseconds idle_timeout{60'000};       // between chunks of an answer
  std::chrono::milliseconds pool_idle_timeout{55'000};  // an idle pooled connection is closed after this
  std::chrono::milliseconds dns_ttl{30'000};
  TlsClientOptions tls;
  bool public_only = false;  // only addresses of the public Internet are connected to
};

}  // namespace ganglion::net
