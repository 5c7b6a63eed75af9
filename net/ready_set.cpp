// See ready_set.hpp.

#include "net/ready_set.hpp"

#include <exception>
#include <new>
#include <system_error>
#include <thread>

#include "core/log.hpp"

namespace ganglion::net {

namespace asio = boost::asio;

asio::execution_context::id ReadySet::id;

ReadySet& ReadySet::of(const asio::any_io_executor& executor) {
  return asio::use_service<ReadySet>(asio::query(executor, asio::execution::context));
}

ReadySet::ReadySet(asio::execution_context& context) : asio::execution_context::service(context) {
  const int fd = epoll_create1(EPOLL_CLOEXEC);
  if (fd < 0) throw std::system_error(errno, std::generic_category(), "epoll_create1");
  epoll_.emplace(static_cast<asio::io_context&>(context), fd);
}

void ReadySet::shutdown() {
  epoll_.reset();
  batch_size_ = 0;
  while (!members_.empty()) {
    Member* const member = members_.back();
    members_.pop_back();
    member->on_shutdown();
  }
}

bool ReadySet::add(int fd, Member& member) {
  if (!epoll_) return false;
  members_.push_back(&member);
  member.place_ = members_.size() - 1;
  epoll_event event{};
  event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
  event.data.ptr = &member;
  if (epoll_ctl(epoll_->native_handle(), EPOLL_CTL_ADD, fd, &event) != 0) {
    members_.pop_back();
    return false;
  }
  if (!waiting_) wait();
  return true;
}

void ReadySet::remove(int fd, Member& member) {
  members_.back()->place_ = member.place_;
  members_[member.place_] = members_.back();
  members_.pop_back();
  if (!epoll_) return;
  epoll_event event{};
  epoll_ctl(epoll_->native_handle(), EPOLL_CTL_DEL, fd, &event);
  for (int i = 0; i < batch_size_; ++i) {
    epoll_event& pending = batch_[static_cast<std::size_t>(i)];  // packed: no reference to its members
    if (pending.data.ptr == &member) pending.data.ptr = nullptr;
  }
  // An io_context with nothing else to do must be able to finish.
  if (members_.empty() && waiting_) epoll_->cancel();
}

void ReadySet::wait() {
  // Without this wait every connection of the thread would stand still: where there is no memory for it there is soon.
  for (;;) {
    try {
      epoll_->async_wait(asio::posix::stream_descriptor::wait_read, [this](boost::system::error_code error) {
        waiting_ = false;
        if (!error) dispatch();
        if (epoll_ && !members_.empty() && !waiting_) wait();
      });
      waiting_ = true;
      return;
    } catch (const std::bad_alloc&) {
      std::this_thread::yield();
    }
  }
}

void ReadySet::dispatch() {
  do {
    batch_size_ = epoll_wait(epoll_->native_handle(), batch_.data(), static_cast<int>(batch_.size()), 0);
    // First all are marked: whoever is called below may look at the connection of another.
    for (int i = 0; i < batch_size_; ++i) {
      const epoll_event event = batch_[static_cast<std::size_t>(i)];
      static_cast<Member*>(event.data.ptr)->told_ = true;
    }
    if (batch_size_ < static_cast<int>(batch_.size())) ++turn_;
    for (int i = 0; i < batch_size_; ++i) {
      const epoll_event event = batch_[static_cast<std::size_t>(i)];
      if (event.data.ptr == nullptr) continue;
      auto* const member = static_cast<Member*>(event.data.ptr);
      member->told_ = false;
      try {
        member->on_ready(event.events);
      } catch (const std::exception& error) {  // the others of the batch must hear of theirs
        core::log(core::LogLevel::error, "connection_threw", {{"what", error.what()}});
      }
    }
  } while (batch_size_ == static_cast<int>(batch_.size()));
  batch_size_ = 0;
}

}  // namespace ganglion::net
