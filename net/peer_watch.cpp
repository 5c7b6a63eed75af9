// See peer_watch.hpp.

#include "net/peer_watch.hpp"

#include <system_error>

namespace ganglion::net {

namespace asio = boost::asio;

asio::execution_context::id PeerWatch::id;

PeerWatch& PeerWatch::of(const asio::any_io_executor& executor) {
  return asio::use_service<PeerWatch>(asio::query(executor, asio::execution::context));
}

PeerWatch::PeerWatch(asio::execution_context& context) : asio::execution_context::service(context) {
  const int fd = epoll_create1(EPOLL_CLOEXEC);
  if (fd < 0) throw std::system_error(errno, std::generic_category(), "epoll_create1");
  epoll_.emplace(static_cast<asio::io_context&>(context), fd);
}

void PeerWatch::shutdown() {
  epoll_.reset();
}

bool PeerWatch::add(int fd, Listener& listener) {
  if (!epoll_) return false;
  epoll_event event{};
  event.events = EPOLLRDHUP | EPOLLET;
  event.data.ptr = &listener;
  if (epoll_ctl(epoll_->native_handle(), EPOLL_CTL_ADD, fd, &event) != 0) return false;
  ++watched_;
  if (!waiting_) wait();
  return true;
}

void PeerWatch::remove(int fd, Listener& listener) {
  if (!epoll_) return;
  epoll_event event{};
  epoll_ctl(epoll_->native_handle(), EPOLL_CTL_DEL, fd, &event);
  for (int i = 0; i < batch_size_; ++i) {
    epoll_event& pending = batch_[static_cast<std::size_t>(i)];  // packed: no reference to its members
    if (pending.data.ptr == &listener) pending.data.ptr = nullptr;
  }
  // An io_context with nothing else to do must be able to finish.
  if (--watched_ == 0 && waiting_) epoll_->cancel();
}

void PeerWatch::wait() {
  waiting_ = true;
  epoll_->async_wait(asio::posix::stream_descriptor::wait_read, [this](boost::system::error_code error) {
    waiting_ = false;
    if (!error) dispatch();
    if (watched_ > 0 && !waiting_) wait();
  });
}

void PeerWatch::dispatch() {
  do {
    batch_size_ = epoll_wait(epoll_->native_handle(), batch_.data(), static_cast<int>(batch_.size()), 0);
    for (int i = 0; i < batch_size_; ++i) {
      if (auto* listener = static_cast<Listener*>(batch_[static_cast<std::size_t>(i)].data.ptr)) listener->on_hangup();
    }
  } while (batch_size_ == static_cast<int>(batch_.size()));
  batch_size_ = 0;
}

}  // namespace ganglion::net
