// See scripted_upstream.hpp.

#include "tests/support/scripted_upstream.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

namespace ganglion::test {

ScriptedUpstream::ScriptedUpstream(std::vector<Script> scripts, const std::string& address)
    : scripts_(std::move(scripts)), address_(address) {
  const bool six = address.find(':') != std::string::npos;
  listener_ = ::socket(six ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in6 at6{};
  sockaddr_in at4{};
  at6.sin6_family = AF_INET6;
  at4.sin_family = AF_INET;
  inet_pton(AF_INET6, address.c_str(), &at6.sin6_addr);
  inet_pton(AF_INET, address.c_str(), &at4.sin_addr);
  auto* at = six ? reinterpret_cast<sockaddr*>(&at6) : reinterpret_cast<sockaddr*>(&at4);
  socklen_t size = six ? sizeof at6 : sizeof at4;
  if (::bind(listener_, at, size) != 0 || ::listen(listener_, 128) != 0) return;
  ::getsockname(listener_, at, &size);
  port_ = ntohs(six ? at6.sin6_port : at4.sin_port);
  acceptor_ = std::thread([this] { accept_loop(); });
}

ScriptedUpstream::~ScriptedUpstream() {
  stopping_ = true;
  if (acceptor_.joinable()) acceptor_.join();
  {
    // Scripts that still wait for their peer end now.
    const std::scoped_lock lock(mutex_);
    for (const int fd : open_fds_) ::shutdown(fd, SHUT_RDWR);
  }
  for (std::thread& thread : threads_) thread.join();
  ::close(listener_);
}

std::string ScriptedUpstream::base_url(const std::string& prefix) const {
  const bool six = address_.find(':') != std::string::npos;
  return "http://" + (six ? "[" + address_ + "]" : address_) + ":" + std::to_string(port_) + prefix;
}

void ScriptedUpstream::accept_loop() {
  while (!stopping_) {
    pollfd entry{.fd = listener_, .events = POLLIN, .revents = 0};
    if (::poll(&entry, 1, 10) != 1) continue;
    const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) continue;
    const auto index = static_cast<std::size_t>(accepted_++);
    const Script& script = scripts_[std::min(index, scripts_.size() - 1)];
    {
      const std::scoped_lock lock(mutex_);
      open_fds_.push_back(fd);
    }
    threads_.emplace_back([this, fd, &script] {
      RawSocket connection(fd);
      script(connection);
      const std::scoped_lock lock(mutex_);
      std::erase(open_fds_, fd);
      connection.close();
    });
  }
}

std::string ScriptedUpstream::read_request(RawSocket& connection) {
  std::string request = connection.read_message();
  if (!request.empty()) {
    const std::scoped_lock lock(mutex_);
    requests_.push_back(request);
  }
  return request;
}

std::vector<std::string> ScriptedUpstream::requests() const {
  const std::scoped_lock lock(mutex_);
  return requests_;
}

ScriptedUpstream::Script ScriptedUpstream::answer_all(std::string answer) {
  return [this, answer = std::move(answer)](RawSocket& connection) {
    while (!read_request(connection).empty()) {
      if (!connection.send(answer)) return;
    }
  };
}

std::string http_ok(const std::string& body, const std::string& extra_headers) {
  return "HTTP/1.1 200 OK\r\n" + extra_headers + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

}  // namespace ganglion::test
