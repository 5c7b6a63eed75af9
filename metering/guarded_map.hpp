#pragma once
// A small file mapped for writing whose faults are values: where the kernel cannot give a page (the disk is sick, the
// file was cut, a copying file system is full) the store lands in memory of the process instead of ending it with
// SIGBUS, and lost() says so from then on. One writer at a time; lost() may be asked on the writer's thread.

#include <atomic>
#include <cstddef>
#include <memory>
#include <string>

#include "core/error.hpp"

namespace ganglion::metering {

class GuardedMap {
 public:
  // Makes the file, or takes the one that is there, and fills it with written zeros: storing needs no space later.
  static core::Result<std::unique_ptr<GuardedMap>> open(const std::string& path, std::size_t bytes);
  ~GuardedMap();
  GuardedMap(const GuardedMap&) = delete;
  GuardedMap& operator=(const GuardedMap&) = delete;

  char* data() const { return data_; }
  std::size_t size() const { return bytes_; }
  bool lost() const;

 private:
  GuardedMap(char* data, std::size_t bytes, std::size_t guard) : data_(data), bytes_(bytes), guard_(guard) {}

  char* data_;
  std::size_t bytes_;
  std::size_t guard_;  // place in the handler's table
};

}  // namespace ganglion::metering
