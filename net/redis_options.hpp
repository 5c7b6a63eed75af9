#pragma once
// Settings of the connection to Redis, standalone or cluster. Plain values; config fills them.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/secret.hpp"
#include "net/options.hpp"

namespace ganglion::net {

enum class RedisCluster : std::uint8_t {
  automatic,  // ask the first server that answers
  on,
  off,
};

struct RedisOptions {
  std::vector<std::string> addresses;  // host:port; of a cluster, any of its nodes; empty: no Redis
  RedisCluster cluster = RedisCluster::automatic;
  std::string username;  // ACL user; empty: the default user
  core::Secret password;
  unsigned database = 0;  // standalone only
  bool tls = false;
  TlsClientOptions tls_client;
  std::string tls_cert_file;  // PEM chain and key, where the server asks clients for a certificate
  std::string tls_key_file;
  std::string key_prefix = "ganglion:";           // of every key and channel; several installations may share one Redis
  std::chrono::milliseconds command_timeout{25};  // a command may wait so long at most, whatever its own deadline
  std::chrono::milliseconds connect_timeout{300};  // TCP, TLS, AUTH and the first PING together
  std::chrono::milliseconds hung_after{60};        // commands wait and no byte came for so long: circuit opens
  std::chrono::milliseconds retry_max{300};        // longest pause between two probes of a store that is down
  std::chrono::milliseconds ping_interval{1'000};  // of an idle connection
  std::size_t waiting_max = 8'192;                 // commands on one connection; past it `busy`
  std::size_t reply_bytes_max = 64UL * 1024 * 1024;

  bool enabled() const { return !addresses.empty(); }
};

}  // namespace ganglion::net
