#pragma once
// Hears of a peer's FIN or RST while nobody reads its socket: a second epoll set per io_context in which a connection
// is registered once for hang-ups alone, edge-triggered. A request costs nothing here, pipelined data does not wake it,
// and a hang-up is heard at once. An Asio service; its thread only.

#include <sys/epoll.h>

#include <array>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cstddef>
#include <optional>

namespace ganglion::net {

class PeerWatch final : public boost::asio::execution_context::service {
 public:
  static boost::asio::execution_context::id id;

  class Listener {
   public:
    // Called once per watch, from the loop; may destroy the listener or any other.
    virtual void on_hangup() = 0;

   protected:
    ~Listener() = default;
  };

  static PeerWatch& of(const boost::asio::any_io_executor& executor);
  explicit PeerWatch(boost::asio::execution_context& context);
  ~PeerWatch() override = default;

  // False where the kernel refuses (out of memory or watches). After true, remove() is called once, before the
  // descriptor is closed.
  bool add(int fd, Listener& listener);
  void remove(int fd, Listener& listener);

 private:
  void shutdown() override;
  void wait();
  void dispatch();

  std::optional<boost::asio::posix::stream_descriptor> epoll_;
  std::size_t watched_ = 0;
  bool waiting_ = false;
  std::array<epoll_event, 64> batch_{};
  int batch_size_ = 0;
};

}  // namespace ganglion::net
