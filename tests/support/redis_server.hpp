#pragma once
// Real redis-server processes on loopback, made ill on request: killed, stopped, restarted empty, turned into replicas,
// joined to a cluster. Each has a directory of its own that goes with it.

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/raw_socket.hpp"

namespace ganglion::test {

// A port that was free a moment ago; on 127.0.0.1.
std::uint16_t free_port();

class RedisServer {
 public:
  // `config`: further lines of redis.conf. `tls`: the listener speaks TLS only (cert.pem and key.pem are in the
  // directory given). Throws if it does not come up.
  explicit RedisServer(std::string config = {}, const std::string& tls_directory = {});
  RedisServer(const RedisServer&) = delete;
  RedisServer& operator=(const RedisServer&) = delete;
  ~RedisServer();

  std::uint16_t port() const { return port_; }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  pid_t pid() const { return pid_; }

  void kill();     // SIGKILL, waited for
  void stop();     // SIGSTOP: the kernel still accepts connections, nothing answers
  void resume();   // SIGCONT
  void restart();  // after kill(): same port, whatever the directory holds (nothing, unless the test saved)
  // Waits for PING to be answered; false after 60 s.
  bool wait_ready(const std::string& answer = "+PONG");

  // One command over a connection of its own; the raw answer. AUTH first if a password is given.
  std::string say(const std::vector<std::string>& words, const std::string& password = {}) const;

 private:
  void launch();

  std::string directory_;
  std::uint16_t port_ = 0;
  int held_ = -1;  // keeps the port ours while the server is down
  bool tls_ = false;
  pid_t pid_ = -1;
};

// Masters that share the slots evenly; no replicas.
class RedisClusterServers {
 public:
  explicit RedisClusterServers(std::size_t masters = 3);
  RedisServer& node(std::size_t i) { return *nodes_.at(i); }
  std::size_t size() const { return nodes_.size(); }
  std::string id(std::size_t i) const { return ids_.at(i); }
  std::size_t owner_of(unsigned slot) const;  // as made at the start
  // A slot on its way from one node to another: both know, keys are not moved yet.
  void begin_migration(unsigned slot, std::size_t from, std::size_t to);
  void move_keys(unsigned slot, std::size_t from, std::size_t to);
  void end_migration(unsigned slot, std::size_t to);

 private:
  std::vector<std::unique_ptr<RedisServer>> nodes_;
  std::vector<std::string> ids_;
};

}  // namespace ganglion::test
