// See redis_server.hpp.

#include "tests/support/redis_server.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <thread>

namespace ganglion::test {

using namespace std::chrono_literals;

namespace {

struct HeldPort {
  int fd;
  std::uint16_t number;
};

// Of 127.0.0.1, bound and never listening: the kernel gives it to nobody who asks for any, and a server may still bind
// to it by number, since both allow the address to be used again.
HeldPort hold_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int yes = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ::bind(fd, reinterpret_cast<sockaddr*>(&address), size);
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  return {fd, ntohs(address.sin_port)};
}

}  // namespace

std::uint16_t free_port() {
  const HeldPort port = hold_port();
  ::close(port.fd);
  return port.number;
}

RedisServer::RedisServer(std::string config, const std::string& tls_directory) : tls_(!tls_directory.empty()) {
  char name[] = "/tmp/ganglion-redis-XXXXXX";
  directory_ = ::mkdtemp(name);
  for (int attempt = 0; attempt < 5; ++attempt) {
    // A cluster's bus listens 10,000 above, which must be a port too.
    do {
      ::close(held_);
      const HeldPort port = hold_port();
      held_ = port.fd, port_ = port.number;
    } while (port_ > 55'000);
    std::ofstream file(directory_ + "/redis.conf");
    file << "bind 127.0.0.1\nprotected-mode no\nsave \"\"\nappendonly no\ndaemonize no\nlogfile \"\"\ndir "
         << directory_ << "\n";
    if (tls_) {
      file << "port 0\ntls-port " << port_ << "\ntls-cert-file " << tls_directory << "/cert.pem\ntls-key-file "
           << tls_directory << "/key.pem\ntls-ca-cert-file " << tls_directory << "/cert.pem\n";
    } else {
      file << "port " << port_ << "\n";
    }
    file << config << "\n";
    file.close();
    launch();
    if (wait_ready({})) return;
    kill();
  }
  ::close(held_);
  throw std::runtime_error("redis-server does not start");
}

RedisServer::~RedisServer() {
  kill();
  ::close(held_);
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

void RedisServer::launch() {
  const std::string config = directory_ + "/redis.conf";
  pid_ = ::fork();
  if (pid_ != 0) return;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int null = ::open("/dev/null", O_RDWR);
  ::dup2(null, 0);
  ::dup2(null, 1);
  ::dup2(null, 2);
  ::execlp("redis-server", "redis-server", config.c_str(), nullptr);
  ::_exit(127);
}

void RedisServer::kill() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

void RedisServer::stop() {
  ::kill(pid_, SIGSTOP);
}

void RedisServer::resume() {
  ::kill(pid_, SIGCONT);
}

void RedisServer::restart() {
  kill();
  launch();
}

bool RedisServer::wait_ready(const std::string& answer) {
  const auto until = std::chrono::steady_clock::now() + 60s;
  while (std::chrono::steady_clock::now() < until) {
    if (::waitpid(pid_, nullptr, WNOHANG) != 0) {
      pid_ = -1;
      return false;
    }
    if (tls_) {
      if (RawSocket::connect(port_).valid()) return true;
    } else if (const std::string said = say({"PING"}); !said.empty() && said.starts_with(answer)) {
      return true;
    }
    std::this_thread::sleep_for(5ms);
  }
  return false;
}

std::string RedisServer::say(const std::vector<std::string>& words, const std::string& password) const {
  RawSocket socket = RawSocket::connect(port_);
  if (!socket.valid()) return {};
  const auto wire = [](const std::vector<std::string>& all) {
    std::string out = "*" + std::to_string(all.size()) + "\r\n";
    for (const std::string& word : all) out += "$" + std::to_string(word.size()) + "\r\n" + word + "\r\n";
    return out;
  };
  if (!password.empty()) {
    socket.send(wire({"AUTH", password}));
    socket.read_until("\r\n");
  }
  socket.send(wire(words));
  std::string answer = socket.read_until("\r\n");
  if (answer.starts_with("$") && !answer.starts_with("$-1")) {
    answer += socket.read_exactly(std::stoul(answer.substr(1)) + 2);
  } else if (answer.starts_with("*")) {
    socket.half_close();
    answer += socket.read_to_end();
  }
  return answer;
}

RedisClusterServers::RedisClusterServers(std::size_t masters) {
  for (std::size_t i = 0; i < masters; ++i) {
    nodes_.push_back(std::make_unique<RedisServer>(
        "cluster-enabled yes\ncluster-node-timeout 2000\ncluster-config-file nodes.conf\ncluster-require-full-coverage "
        "no"));
    if (!nodes_.back()->wait_ready()) throw std::runtime_error("a cluster node does not start");
    const std::string id = nodes_.back()->say({"CLUSTER", "MYID"});
    ids_.push_back(id.substr(id.find('\n') + 1, 40));
    const std::string first = std::to_string(16384 * i / masters);
    const std::string last = std::to_string(16384 * (i + 1) / masters - 1);
    nodes_.back()->say({"CLUSTER", "ADDSLOTSRANGE", first, last});
    nodes_.back()->say({"CLUSTER", "SET-CONFIG-EPOCH", std::to_string(i + 1)});
  }
  for (std::size_t i = 1; i < masters; ++i) {
    node(0).say({"CLUSTER", "MEET", "127.0.0.1", std::to_string(node(i).port())});
  }
  const auto until = std::chrono::steady_clock::now() + 60s;
  for (std::size_t i = 0; i < masters;) {
    if (std::chrono::steady_clock::now() > until) throw std::runtime_error("the cluster does not form");
    const std::string info = node(i).say({"CLUSTER", "INFO"});
    const bool whole = info.find("cluster_slots_assigned:16384") != std::string::npos &&
                       info.find("cluster_state:ok") != std::string::npos;
    if (whole) ++i;
    if (!whole) std::this_thread::sleep_for(20ms);
  }
}

std::size_t RedisClusterServers::owner_of(unsigned slot) const {
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    if (slot < 16384 * (i + 1) / nodes_.size()) return i;
  }
  return nodes_.size() - 1;
}

void RedisClusterServers::begin_migration(unsigned slot, std::size_t from, std::size_t to) {
  node(to).say({"CLUSTER", "SETSLOT", std::to_string(slot), "IMPORTING", ids_[from]});
  node(from).say({"CLUSTER", "SETSLOT", std::to_string(slot), "MIGRATING", ids_[to]});
}

void RedisClusterServers::move_keys(unsigned slot, std::size_t from, std::size_t to) {
  for (;;) {
    const std::string keys = node(from).say({"CLUSTER", "GETKEYSINSLOT", std::to_string(slot), "1"});
    const auto bulk = keys.find('$');
    if (bulk == std::string::npos) return;
    const auto begin = keys.find('\n', bulk) + 1;
    const std::string key = keys.substr(begin, std::stoul(keys.substr(bulk + 1)));
    node(from).say({"MIGRATE", "127.0.0.1", std::to_string(node(to).port()), key, "0", "2000"});
  }
}

void RedisClusterServers::end_migration(unsigned slot, std::size_t to) {
  node(to).say({"CLUSTER", "SETSLOT", std::to_string(slot), "NODE", ids_[to]});
  for (const auto& other : nodes_) other->say({"CLUSTER", "SETSLOT", std::to_string(slot), "NODE", ids_[to]});
}

}  // namespace ganglion::test
