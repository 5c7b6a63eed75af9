#pragma once
// The simulated machine's network and event queues: TCP between the product and the world's endpoints, epoll and
// eventfd, behind the C library's functions. Bytes take time, come in pieces, stay in order; connections are refused,
// reset, cut or fall silent as the world says. Descriptors are real numbers (of /dev/null), so that limits hold.

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tests/simulation/machine.hpp"

namespace ganglion::sim {

class Net;
struct Watch;

// What a descriptor stands for.
struct Object {
  virtual ~Object() = default;
  virtual std::uint32_t ready() const = 0;  // EPOLL*
  std::vector<Watch*> watches;
};
using ObjectPtr = std::shared_ptr<Object>;

class Endpoint;

struct Socket final : Object {
  std::uint32_t ready() const override;
  // Of the product's side.
  std::string in;
  bool connected = false, connecting = false, fin_in = false, reset = false, sent_fin = false, closed = false;
  bool linger_reset = false;
  int error = 0;
  std::size_t in_flight = 0;  // sent, not yet taken by the peer
  std::size_t window = 64 * 1024;
  std::uint16_t local_port = 0, remote_port = 0;
  // listening
  bool listening = false;
  std::vector<std::shared_ptr<Socket>> backlog;
  std::shared_ptr<Endpoint> peer;
  Nanos to_product = 0, to_world = 0;  // when the last byte of each direction arrives
};

// The world's side of one connection. Its functions are called as events, never on a product's thread's behalf.
class Endpoint {
 public:
  virtual ~Endpoint() = default;
  virtual void on_open() {}
  virtual void on_refused() {}
  virtual void on_data(std::string_view bytes) = 0;
  virtual void on_end(bool reset) = 0;  // the product closed or shut down its side

  void send(std::string bytes, Nanos delay = 0);
  void finish(Nanos delay = 0);  // FIN
  void reset(Nanos delay = 0);   // RST
  void pause();                  // takes no more bytes
  void resume();
  bool open() const { return socket_ != nullptr && !socket_->closed && !gone_; }

 private:
  friend class Net;
  void arrived(std::string bytes);
  Net* net_ = nullptr;
  std::shared_ptr<Socket> socket_;
  bool gone_ = false;  // we reset it
  bool paused_ = false;
  std::string held_;
};

enum class Dial : std::uint8_t { accepted, refused, silent };

class Net {
 public:
  explicit Net(Machine& machine);
  ~Net();
  Net(const Net&) = delete;
  Net& operator=(const Net&) = delete;

  // Who answers at a port of the world. Called when the product connects; nullptr: as `dial` says.
  using Host = std::function<std::shared_ptr<Endpoint>(Dial& dial)>;
  void serve(std::uint16_t port, Host host) { hosts_[port] = std::move(host); }
  // Connects to a port on which the product listens.
  void connect(std::uint16_t port, const std::shared_ptr<Endpoint>& endpoint);
  std::size_t open_sockets() const;
  Nanos latency();
  bool quick = false;  // no message takes long
  Machine& machine() { return machine_; }
  void after_crash();  // every descriptor is gone

  // For the C library's functions; results as theirs, errno set.
  bool knows(int fd) const;
  bool close(int fd);
  long read(int fd, void* to, std::size_t size);
  long write(int fd, const void* data, std::size_t size);
  int make_socket();
  int make_event(unsigned count);
  int make_epoll();
  int bind(int fd, std::uint16_t port);
  int listen(int fd);
  int accept(int fd, sockaddr* address, socklen_t* size);
  int connect_to(int fd, std::uint16_t port);
  long receive(int fd, const iovec* pieces, std::size_t count, int flags);
  long send(int fd, const iovec* pieces, std::size_t count);
  int shut(int fd);
  int name(int fd, bool own, sockaddr* address, socklen_t* size);
  int option(int fd, int level, int name, const void* value);
  int get_option(int fd, int level, int name, void* value, socklen_t* size);
  int control(int epoll, int op, int fd, epoll_event* event);
  int wait(int epoll, epoll_event* out, int max, int timeout_ms);
  std::uint32_t ready(int fd) const;
  void notify(Object& object);

 private:
  friend class Endpoint;
  struct Epoll;
  int give(ObjectPtr object);
  Socket* socket(int fd) const;
  void drop(Socket& socket);

  Machine& machine_;
  std::map<int, ObjectPtr> open_;
  std::map<std::uint16_t, Host> hosts_;
  std::map<std::uint16_t, std::weak_ptr<Socket>> listeners_;
  std::uint16_t next_port_ = 20'000;
};

Net* net();
extern Net* g_net;

}  // namespace ganglion::sim
