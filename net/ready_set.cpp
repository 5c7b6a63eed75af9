// See ready_set.hpp.

#include "net/ready_set.hpp"

#include <exception>
#include <new>

#include "core/log.hpp"
#include "net/ready_source.hpp"
#include "net/retry_for_memory.hpp"

namespace ganglion::net {

namespace asio = boost::asio;

asio::execution_context::id ReadySet::id;

ReadySet& ReadySet::of(const asio::any_io_executor& executor) {
  return asio::use_service<ReadySet>(asio::query(executor, asio::execution::context));
}

ReadySet::ReadySet(asio::execution_context& context)
    : asio::execution_context::service(context),
      source_(make_ready_source()),
      batch_(std::make_unique<ReadyEvent[]>(kBatch)) {
  descriptor_.emplace(static_cast<asio::io_context&>(context), source_->descriptor());
}

ReadySet::~ReadySet() {
  if (descriptor_) descriptor_->release();
}

void ReadySet::shutdown() {
  if (descriptor_) descriptor_->release();  // the source closes it
  descriptor_.reset();
  batch_size_ = 0;
  while (!members_.empty()) {
    Member* const member = members_.back();
    members_.pop_back();
    member->on_shutdown();
  }
  source_.reset();
}

bool ReadySet::add(int fd, Member& member) {
  if (!descriptor_) return false;
  members_.push_back(&member);
  member.place_ = members_.size() - 1;
  bool added = false;
  try {
    added = source_->add(fd, member, member.key_);
  } catch (const std::bad_alloc&) {  // as where the system has no memory for it
  }
  if (!added) {
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
  if (!descriptor_) return;
  source_->remove(fd, member.key_);
  for (int i = 0; i < batch_size_; ++i)
    if (batch_[static_cast<std::size_t>(i)].member == &member) batch_[static_cast<std::size_t>(i)].member = nullptr;
  // An io_context with nothing else to do must be able to finish.
  if (members_.empty() && waiting_) descriptor_->cancel();
}

void ReadySet::wait() {
  retry_for_memory([this] {  // without this wait every connection of the thread would stand still
    descriptor_->async_wait(asio::posix::stream_descriptor::wait_read, [this](boost::system::error_code error) {
      waiting_ = false;
      if (!error) dispatch();
      if (descriptor_ && !members_.empty() && !waiting_) wait();
    });
    waiting_ = true;
  });
}

void ReadySet::dispatch() {
  do {
    batch_size_ = source_->take({batch_.get(), kBatch});
    // First all are marked: whoever is called below may look at the connection of another.
    for (int i = 0; i < batch_size_; ++i) batch_[static_cast<std::size_t>(i)].member->told_ = true;
    if (batch_size_ < kBatch && source_->asks()) ++turn_;
    for (int i = 0; i < batch_size_; ++i) {
      const ReadyEvent event = batch_[static_cast<std::size_t>(i)];
      if (event.member == nullptr) continue;
      event.member->told_ = false;
      try {
        event.member->on_ready(event.events);
      } catch (const std::exception& error) {  // the others of the batch must hear of theirs
        core::log(core::LogLevel::error, "connection_threw", {{"what", error.what()}});
      }
    }
  } while (batch_size_ == kBatch);
  batch_size_ = 0;
}

}  // namespace ganglion::net
