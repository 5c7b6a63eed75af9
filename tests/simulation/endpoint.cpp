// The world's side of a simulated connection. See net.hpp.

#include <algorithm>
#include <cerrno>
#include <utility>

#include "tests/simulation/net.hpp"

namespace ganglion::sim {

void Endpoint::send(std::string bytes, Nanos delay) {
  if (!open() || bytes.empty()) return;
  Machine& m = net_->machine();
  const auto socket = socket_;
  // In one piece or in several, as networks do.
  while (!bytes.empty()) {
    const std::size_t part = m.random.percent(70) ? bytes.size() : 1 + m.random.below(bytes.size());
    socket->to_product = std::max(socket->to_product, m.now + delay + net_->latency());
    m.at(socket->to_product - m.now, [net = net_, socket, piece = bytes.substr(0, part)] {
      if (socket->closed || socket->reset) return;
      socket->in += piece;
      net->notify(*socket);
    });
    bytes.erase(0, part);
  }
}

void Endpoint::finish(Nanos delay) {
  if (!open()) return;
  Machine& m = net_->machine();
  const auto socket = socket_;
  socket->to_product = std::max(socket->to_product, m.now + delay + net_->latency());
  m.at(socket->to_product - m.now, [net = net_, socket] {
    if (socket->closed || socket->reset) return;
    socket->fin_in = true;
    net->notify(*socket);
  });
}

void Endpoint::reset(Nanos delay) {
  if (!open()) return;
  gone_ = true;
  Machine& m = net_->machine();
  const auto socket = socket_;
  socket->to_product = std::max(socket->to_product, m.now + delay + net_->latency());
  m.at(socket->to_product - m.now, [net = net_, socket] {
    if (socket->closed) return;
    socket->reset = true;
    socket->error = ECONNRESET;
    socket->in.clear();
    net->notify(*socket);
  });
}

void Endpoint::arrived(std::string bytes) {
  if (paused_) {
    held_ += bytes;
    return;
  }
  socket_->in_flight -= std::min(socket_->in_flight, bytes.size());
  if (!socket_->closed) net_->notify(*socket_);
  if (!gone_) on_data(bytes);
}

void Endpoint::pause() {
  paused_ = true;
}

void Endpoint::resume() {
  paused_ = false;
  if (!held_.empty()) arrived(std::exchange(held_, {}));
}

}  // namespace ganglion::sim
