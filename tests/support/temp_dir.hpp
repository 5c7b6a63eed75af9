#pragma once
// A folder of a test's own that goes with it.

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>

namespace ganglion::test {

class TempDir {
 public:
  // `in_memory`: where thousands of small files are written or synced and none is asked to survive power loss.
  explicit TempDir(bool in_memory = false) {
    const bool shm = in_memory && ::access("/dev/shm", W_OK) == 0;
    path_ = (shm ? std::string{"/dev/shm"} : std::filesystem::temp_directory_path().string()) + "/ganglion_test_XXXXXX";
    if (::mkdtemp(path_.data()) == nullptr) throw std::runtime_error("mkdtemp");
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(std::string_view name) const { return path_ + "/" + std::string{name}; }

 private:
  std::string path_;
};

}  // namespace ganglion::test
