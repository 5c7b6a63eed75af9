#pragma once
// What the Redis client tells the outside as it happens, for metrics and logs. Called on the clients' threads, several
// at once: implementations are thread-safe, quick, and do not throw. They outlive every client that holds them.

#include <chrono>
#include <cstdint>
#include <string_view>

#include "net/redis_types.hpp"

namespace ganglion::net {

enum class RedisState : std::uint8_t {
  connecting,  // no verdict yet: commands wait for it, within their deadlines
  up,          // circuit closed
  down,        // circuit open: commands fail at once; a probe is under way or due within options.retry_max
  kCount
};
std::string_view name(RedisState state);

// Why a circuit opened.
enum class RedisDown : std::uint8_t {
  none,
  refused,    // no TCP connection, or the name does not resolve
  hung,       // commands or a PING went unanswered
  closed,     // the connection was lost
  tls,        // handshake failed or certificate not trusted
  denied,     // wrong password, unknown user, or a user that may not even PING
  loading,    // LOADING, MASTERDOWN, CLUSTERDOWN
  read_only,  // a replica, or a master that refuses to write
  protocol,   // it does not speak RESP, or an answer was over reply_bytes_max
  kCount
};
std::string_view name(RedisDown why);

class RedisHooks {
 public:
  virtual ~RedisHooks() = default;
  struct Was {
    RedisState state = RedisState::kCount;  // kCount: the node is new
    RedisDown why = RedisDown::none;
  };
  // Of one node (host:port). A client reports each of its nodes; changes only.
  virtual void node_state(std::string_view /*node*/, const Was& /*was*/, RedisState /*to*/, RedisDown /*why*/,
                          std::string_view /*detail*/) {}
  virtual void node_forgotten(const Was& /*was*/) {}              // left the cluster, or the client is being destroyed
  virtual void answered(std::chrono::nanoseconds /*latency*/) {}  // sent to answered, error replies included
  virtual void failed(RedisFailure /*failure*/) {}
  virtual void redirected(bool /*ask*/) {}
  virtual void script_loaded() {}  // NOSCRIPT was answered: the text was sent
  virtual void slots_refreshed(bool /*ok*/) {}
};

}  // namespace ganglion::net
