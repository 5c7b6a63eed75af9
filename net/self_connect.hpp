#pragma once
// Connections of a socket to itself. The kernel may choose as a connection's own end the very port that it asks for, if
// that is among those it chooses from and nobody listens there (TCP's simultaneous open): whoever tries again and again
// to reach a server that is down would talk to itself in the end, and hold the port when the server comes back.

#include <boost/asio/ip/tcp.hpp>

namespace ganglion::net {

// Whether `socket`, connected to `peer`, was its own peer: as good as refused. It is closed then, and at once, since a
// port in TIME_WAIT would keep the server away too.
inline bool was_connected_to_itself(boost::asio::ip::tcp::socket& socket, const boost::asio::ip::tcp::endpoint& peer) {
  boost::system::error_code ignored;
  if (socket.local_endpoint(ignored) != peer) return false;
  socket.set_option(boost::asio::socket_base::linger(true, 0), ignored);
  socket.close(ignored);  // not left to its destructor, which takes the option back
  return true;
}

}  // namespace ganglion::net
