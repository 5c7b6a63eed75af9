// See net.hpp.

#include "tests/simulation/net.hpp"

#include <fcntl.h>
#include <netinet/in.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace ganglion::sim {

Net* g_net = nullptr;

Net* net() {
  return machine() != nullptr ? g_net : nullptr;
}

struct Watch {
  Object* object = nullptr;
  Object* epoll = nullptr;
  int fd = -1;
  epoll_event event{};
  bool pending = false;
};

struct Net::Epoll final : Object {
  std::map<int, std::unique_ptr<Watch>> watched;
  std::uint32_t ready() const override {
    const bool any = std::ranges::any_of(watched, [](const auto& each) {
      const Watch& watch = *each.second;
      return watch.pending && (watch.object->ready() & (watch.event.events | EPOLLERR | EPOLLHUP)) != 0;
    });
    return any ? static_cast<std::uint32_t>(EPOLLIN) : 0;
  }
};

namespace {

constexpr int kFirst = 2'000;

struct Counter final : Object {
  std::uint64_t count = 0;
  std::uint32_t ready() const override { return (count > 0 ? EPOLLIN : 0U) | EPOLLOUT; }
};

int fail(int error) {
  errno = error;
  return -1;
}

void put_address(std::uint16_t port, sockaddr* address, socklen_t* size) {
  if (address == nullptr || size == nullptr) return;
  sockaddr_in in{};
  in.sin_family = AF_INET;
  in.sin_port = htons(port);
  in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::memcpy(address, &in, std::min<std::size_t>(*size, sizeof in));
  *size = sizeof in;
}

}  // namespace

std::uint32_t Socket::ready() const {
  if (listening) return backlog.empty() ? 0U : static_cast<std::uint32_t>(EPOLLIN);
  if (reset) return EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLERR | EPOLLHUP;
  if (!connected) return 0;
  std::uint32_t out = 0;
  if (!in.empty() || fin_in) out |= EPOLLIN;
  if (fin_in) out |= EPOLLRDHUP;
  if (fin_in && sent_fin) out |= EPOLLHUP;
  if (in_flight < window) out |= EPOLLOUT;
  return out;
}

Net::Net(Machine& machine) : machine_(machine) {
  g_net = this;
}

Net::~Net() {
  after_crash();
  g_net = nullptr;
}

Nanos Net::latency() {
  return quick || machine_.random.percent(90) ? machine_.random.between(10, 400) * kMicro
                                              : machine_.random.between(1, 30) * kMilli;
}

int Net::give(ObjectPtr object) {
  static const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  // From a number that nothing else reaches: the order among them, and so of events, is the seed's alone.
  const int fd = ::fcntl(null, F_DUPFD_CLOEXEC, kFirst);
  if (fd >= 0) open_[fd] = std::move(object);
  return fd;
}

bool Net::knows(int fd) const {
  return open_.contains(fd);
}

Socket* Net::socket(int fd) const {
  const auto found = open_.find(fd);
  return found == open_.end() ? nullptr : dynamic_cast<Socket*>(found->second.get());
}

int Net::make_socket() {
  return give(std::make_shared<Socket>());
}

int Net::make_event(unsigned count) {
  auto counter = std::make_shared<Counter>();
  counter->count = count;
  return give(std::move(counter));
}

int Net::make_epoll() {
  return give(std::make_shared<Epoll>());
}

void Net::notify(Object& object) {
  for (Watch* watch : object.watches) {
    watch->pending = true;
    machine_.wake(watch->epoll);
    notify(*watch->epoll);
  }
}

// The product's side is closed: the world hears of it, in order behind what was sent.
void Net::drop(Socket& socket) {
  if (socket.closed) return;
  socket.closed = true;
  if (!socket.peer || !socket.connected) return;
  const bool reset = socket.linger_reset || !socket.in.empty();
  if (socket.sent_fin && !reset) return;
  socket.to_world = std::max(socket.to_world, machine_.now + latency());
  machine_.at(socket.to_world - machine_.now, [peer = socket.peer, reset] {
    if (!peer->gone_) peer->on_end(reset);
  });
}

bool Net::close(int fd) {
  const auto found = open_.find(fd);
  if (found == open_.end()) return false;
  const ObjectPtr object = found->second;
  open_.erase(found);
  for (Watch* watch : std::vector<Watch*>{object->watches}) static_cast<Epoll*>(watch->epoll)->watched.erase(watch->fd);
  object->watches.clear();
  if (auto* const epoll = dynamic_cast<Epoll*>(object.get()))
    for (const auto& [number, watch] : epoll->watched) std::erase(watch->object->watches, watch.get());
  if (auto* const socket = dynamic_cast<Socket*>(object.get())) {
    for (const auto& waiting : socket->backlog) drop(*waiting);
    drop(*socket);
  }
  static const auto real = reinterpret_cast<decltype(&::close)>(next_symbol("close"));
  real(fd);
  return true;
}

void Net::after_crash() {
  static const auto real = reinterpret_cast<decltype(&::close)>(next_symbol("close"));
  for (const auto& [fd, object] : open_) {
    if (auto* const socket = dynamic_cast<Socket*>(object.get())) socket->closed = true;
    real(fd);
  }
  open_.clear();
  listeners_.clear();
}

std::size_t Net::open_sockets() const {
  return static_cast<std::size_t>(std::ranges::count_if(
      open_, [](const auto& each) { return dynamic_cast<const Socket*>(each.second.get()) != nullptr; }));
}

long Net::read(int fd, void* to, std::size_t size) {
  if (auto* const counter = dynamic_cast<Counter*>(open_.at(fd).get())) {
    if (counter->count == 0) return fail(EAGAIN);
    std::memcpy(to, &counter->count, sizeof counter->count);
    counter->count = 0;
    return sizeof counter->count;
  }
  const iovec piece{.iov_base = to, .iov_len = size};
  return receive(fd, &piece, 1, 0);
}

long Net::write(int fd, const void* data, std::size_t size) {
  if (auto* const counter = dynamic_cast<Counter*>(open_.at(fd).get())) {
    std::uint64_t more = 0;
    std::memcpy(&more, data, sizeof more);
    counter->count += more;
    notify(*counter);
    return sizeof more;
  }
  const iovec piece{.iov_base = const_cast<void*>(data), .iov_len = size};
  return send(fd, &piece, 1);
}

int Net::bind(int fd, std::uint16_t port) {
  Socket* const s = socket(fd);
  if (s == nullptr) return fail(EBADF);
  s->local_port = port != 0 ? port : next_port_++;
  return 0;
}

int Net::listen(int fd) {
  Socket* const s = socket(fd);
  if (s == nullptr) return fail(EBADF);
  s->listening = true;
  listeners_[s->local_port] = std::static_pointer_cast<Socket>(open_.at(fd));
  return 0;
}

void Net::connect(std::uint16_t port, const std::shared_ptr<Endpoint>& endpoint) {
  machine_.at(latency(), [this, port, endpoint] {
    const auto found = listeners_.find(port);
    const auto listener = found == listeners_.end() ? nullptr : found->second.lock();
    if (!listener || listener->closed) return endpoint->on_refused();
    auto made = std::make_shared<Socket>();
    made->connected = true;
    made->local_port = port;
    made->remote_port = next_port_++;
    made->window = 1024U << machine_.random.below(7);
    made->peer = endpoint;
    endpoint->net_ = this;
    endpoint->socket_ = made;
    listener->backlog.push_back(made);
    notify(*listener);
    endpoint->on_open();
  });
}

int Net::accept(int fd, sockaddr* address, socklen_t* size) {
  Socket* const s = socket(fd);
  if (s == nullptr || !s->listening) return fail(EINVAL);
  if (s->backlog.empty()) return fail(EAGAIN);
  const auto made = s->backlog.front();
  s->backlog.erase(s->backlog.begin());
  put_address(made->remote_port, address, size);
  return give(made);
}

int Net::connect_to(int fd, std::uint16_t port) {
  Socket* const s = socket(fd);
  if (s == nullptr) return fail(EBADF);
  const auto self = std::static_pointer_cast<Socket>(open_.at(fd));
  s->local_port = next_port_++;
  s->remote_port = port;
  s->connecting = true;
  s->window = 1024U << machine_.random.below(7);
  machine_.at(latency(), [this, self, port] {
    if (self->closed) return;
    Dial dial = Dial::refused;
    const auto host = hosts_.find(port);
    const auto endpoint = host == hosts_.end() ? nullptr : host->second(dial);
    if (!endpoint && dial == Dial::silent) return;
    self->connecting = false;
    if (!endpoint) {
      self->error = ECONNREFUSED;
      self->reset = true;
    } else {
      self->connected = true;
      self->peer = endpoint;
      endpoint->net_ = this;
      endpoint->socket_ = self;
    }
    notify(*self);
    if (endpoint) endpoint->on_open();
  });
  return fail(EINPROGRESS);
}

long Net::receive(int fd, const iovec* pieces, std::size_t count, int flags) {
  Socket* const s = socket(fd);
  if (s == nullptr) return fail(EBADF);
  machine_.pass_time(static_cast<Nanos>(500 + machine_.schedule.below(2'000)));
  machine_.point();
  if (s->reset) return fail(ECONNRESET);
  if (s->in.empty()) return s->fin_in ? 0 : fail(s->connected ? EAGAIN : ENOTCONN);
  std::size_t got = 0;
  for (std::size_t i = 0; i < count && got < s->in.size(); ++i) {
    const std::size_t part = std::min(pieces[i].iov_len, s->in.size() - got);
    std::memcpy(pieces[i].iov_base, s->in.data() + got, part);
    got += part;
  }
  if ((flags & MSG_PEEK) == 0) s->in.erase(0, got);
  return static_cast<long>(got);
}

long Net::send(int fd, const iovec* pieces, std::size_t count) {
  Socket* const s = socket(fd);
  if (s == nullptr) return fail(EBADF);
  machine_.pass_time(static_cast<Nanos>(1'000 + machine_.schedule.below(4'000)));
  machine_.point();
  if (s->reset) return fail(ECONNRESET);
  if (!s->connected) return fail(ENOTCONN);
  if (s->sent_fin || (s->peer && s->peer->gone_)) return fail(EPIPE);
  std::size_t room = s->window - std::min(s->window, s->in_flight);
  if (room == 0) return fail(EAGAIN);
  std::string bytes;
  for (std::size_t i = 0; i < count && room > 0; ++i) {
    const std::size_t part = std::min(pieces[i].iov_len, room);
    bytes.append(static_cast<const char*>(pieces[i].iov_base), part);
    room -= part;
  }
  if (bytes.size() > 1 && machine_.random.percent(3)) bytes.resize(1 + machine_.random.below(bytes.size() - 1));
  const std::size_t took = bytes.size();
  s->in_flight += took;
  s->to_world = std::max(s->to_world, machine_.now + latency());
  machine_.at(s->to_world - machine_.now,
              [peer = s->peer, bytes = std::move(bytes)]() mutable { peer->arrived(std::move(bytes)); });
  return static_cast<long>(took);
}

int Net::shut(int fd) {
  Socket* const s = socket(fd);
  if (s == nullptr || !s->connected) return fail(ENOTCONN);
  if (s->sent_fin) return 0;
  s->sent_fin = true;
  s->to_world = std::max(s->to_world, machine_.now + latency());
  machine_.at(s->to_world - machine_.now, [peer = s->peer] {
    if (peer && !peer->gone_) peer->on_end(false);
  });
  return 0;
}

int Net::name(int fd, bool own, sockaddr* address, socklen_t* size) {
  const Socket* const s = socket(fd);
  if (s == nullptr) return fail(EBADF);
  if (!own && !s->connected) return fail(ENOTCONN);
  put_address(own ? s->local_port : s->remote_port, address, size);
  return 0;
}

int Net::option(int fd, int level, int name, const void* value) {
  Socket* const s = socket(fd);
  if (s == nullptr) return fail(EBADF);
  if (level == SOL_SOCKET && name == SO_LINGER) {
    const auto* const set = static_cast<const linger*>(value);
    s->linger_reset = set->l_onoff != 0 && set->l_linger == 0;
  }
  return 0;
}

int Net::get_option(int fd, int level, int name, void* value, socklen_t* size) {
  Socket* const s = socket(fd);
  if (s == nullptr) return fail(EBADF);
  int result = 0;
  if (level == SOL_SOCKET && name == SO_ERROR) result = std::exchange(s->error, 0);
  std::memcpy(value, &result, std::min<std::size_t>(*size, sizeof result));
  return 0;
}

int Net::control(int epoll, int op, int fd, epoll_event* event) {
  auto* const e = dynamic_cast<Epoll*>(open_.at(epoll).get());
  if (e == nullptr) return fail(EINVAL);
  const auto object = open_.find(fd);
  if (object == open_.end()) return 0;  // a real one, of signals: nothing ever comes
  const auto found = e->watched.find(fd);
  if (op == EPOLL_CTL_DEL) {
    if (found == e->watched.end()) return fail(ENOENT);
    std::erase(object->second->watches, found->second.get());
    e->watched.erase(found);
    return 0;
  }
  if (op == EPOLL_CTL_ADD && found != e->watched.end()) return fail(EEXIST);
  if (op == EPOLL_CTL_MOD && found == e->watched.end()) return fail(ENOENT);
  auto& watch = e->watched[fd];
  if (!watch) {
    watch = std::make_unique<Watch>(Watch{.object = object->second.get(), .epoll = e, .fd = fd});
    object->second->watches.push_back(watch.get());
  }
  watch->event = *event;
  watch->pending = true;
  if (watch->object->ready() != 0) {
    machine_.wake(e);
    notify(*e);
  }
  return 0;
}

int Net::wait(int epoll, epoll_event* out, int max, int timeout_ms) {
  const ObjectPtr held = open_.at(epoll);
  auto* const e = dynamic_cast<Epoll*>(held.get());
  const Nanos until = timeout_ms < 0 ? kNever : machine_.now + timeout_ms * kMilli;
  machine_.pass_time(static_cast<Nanos>(300 + machine_.schedule.below(1'000)));
  machine_.point();
  for (;;) {
    int n = 0;
    for (const auto& [fd, watch] : e->watched) {
      if (n == max) break;
      if (!watch->pending) continue;
      const std::uint32_t ready = watch->object->ready() & (watch->event.events | EPOLLERR | EPOLLHUP);
      if (ready == 0 || (watch->event.events & EPOLLET) != 0) watch->pending = false;
      if (ready != 0) out[n++] = {.events = ready, .data = watch->event.data};
    }
    if (n > 0 || timeout_ms == 0) return n;
    if (!machine_.block(e, until)) return 0;
  }
}

std::uint32_t Net::ready(int fd) const {
  const auto found = open_.find(fd);
  return found == open_.end() ? 0 : found->second->ready();
}

}  // namespace ganglion::sim
