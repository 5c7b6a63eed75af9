#pragma once
// One worker: an io_context run by one thread, and the pipeline that lives on it.

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <memory>
#include <string>
#include <thread>

#include "core/run_loop.hpp"
#include "core/thread.hpp"
#include "gateway/pipeline.hpp"
#include "net/redis_client.hpp"

namespace ganglion::app {

class WorkerThread {
 public:
  // Throws if the TLS files for Redis cannot be used.
  WorkerThread(gateway::Services& services, int access_fd, const net::RedisOptions& redis, net::RedisHooks& redis_hooks)
      : redis_(redis.enabled() ? std::make_unique<net::RedisClient>(io_.get_executor(), redis, redis_hooks) : nullptr),
        worker_(io_, load_, services, access_fd, redis_.get()),
        work_(io_.get_executor()) {}
  ~WorkerThread() { stop(); }

  boost::asio::io_context& io() { return io_; }
  gateway::Worker& worker() { return worker_; }

  void start(std::size_t number) {
    if (redis_) redis_->start();
    thread_ = core::start_thread("worker " + std::to_string(number), [this] { core::run_loop(io_); });
  }
  // Running handlers are dropped where they wait.
  void stop() {
    io_.stop();
    if (thread_.joinable()) thread_.join();
  }

 private:
  gateway::WorkerLoad load_;  // first: what the context destroys is counted in it
  boost::asio::io_context io_{1};
  std::unique_ptr<net::RedisClient> redis_;  // null: none is configured
  gateway::Worker worker_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  std::thread thread_;
};

}  // namespace ganglion::app
