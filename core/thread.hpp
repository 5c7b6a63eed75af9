#pragma once
// Threads that have a name where an operator looks for one: `top -H`, `perf`, a debugger, /proc/PID/task/*/comm.

#include <pthread.h>

#include <string>
#include <thread>
#include <utility>

namespace ganglion::core {

// Linux keeps 15 characters of a name; what does not fit is cut.
inline void name_this_thread(std::string name) {
  constexpr std::size_t kRoom = 15;
  if (name.size() > kRoom) name.resize(kRoom);
  ::pthread_setname_np(::pthread_self(), name.c_str());
}

// Throws std::system_error where no thread can be begun.
template <class Body>
std::thread start_thread(std::string name, Body body) {
  return std::thread([name = std::move(name), body = std::move(body)]() mutable {
    name_this_thread(std::move(name));
    body();
  });
}

}  // namespace ganglion::core
