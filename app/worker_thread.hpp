#pragma once
// One worker: an io_context run by one thread, and the pipeline that lives on it.

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <thread>

#include "core/run_loop.hpp"
#include "gateway/pipeline.hpp"

namespace ganglion::app {

class WorkerThread {
 public:
  WorkerThread(gateway::Services& services, int access_fd)
      : worker_(io_, services, access_fd), work_(io_.get_executor()) {}
  ~WorkerThread() { stop(); }

  boost::asio::io_context& io() { return io_; }
  gateway::Worker& worker() { return worker_; }

  void start() {
    thread_ = std::thread([this] { core::run_loop(io_); });
  }
  // Running handlers are dropped where they wait.
  void stop() {
    io_.stop();
    if (thread_.joinable()) thread_.join();
  }

 private:
  boost::asio::io_context io_{1};
  gateway::Worker worker_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  std::thread thread_;
};

}  // namespace ganglion::app
