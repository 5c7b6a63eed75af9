#pragma once
// Runs an event loop so that an exception costs the handler that threw it (mostly for want of memory) and what it
// worked for, never the thread.

#include <boost/asio/io_context.hpp>
#include <exception>

#include "core/log.hpp"

namespace ganglion::core {

// Until `io` is stopped or out of work.
inline void run_loop(boost::asio::io_context& io) {
  for (;;) {
    try {
      io.run();
      return;
    } catch (const std::exception& error) {
      core::log(LogLevel::error, "handler_threw", {{"what", error.what()}});
    }
  }
}

}  // namespace ganglion::core
