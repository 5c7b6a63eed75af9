#pragma once
// Coroutines that somebody needs for as long as he is there, such as the one that keeps a connection to Redis. One that
// ended by an exception would be gone without a word; so would one for whose next wait there is no memory, whose frames
// Asio destroys without calling anybody. Both begin again.

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <functional>
#include <string>

namespace ganglion::net {

struct Kept {
  std::string name;              // for the log
  std::function<bool()> wanted;  // asked before each beginning; false: never again
  // Gives the coroutine, which keeps what it needs itself. What one before has left, where it did not come to its end,
  // is its to put right.
  std::function<boost::asio::awaitable<void>()> begin;
};

// Begins it on `executor`, and again a moment after it ended in another way than by returning.
void keep_running(const boost::asio::any_io_executor& executor, const Kept& kept);

}  // namespace ganglion::net
