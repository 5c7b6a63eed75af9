#pragma once
// Test helpers: a directory that goes away with the test, and safetensors bytes made from a header text.

#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>

#include "tests/support/temp_dir.hpp"

namespace ganglion::local::test {

class TempDir {
 public:
  std::filesystem::path path() const { return root_.path(); }
  std::filesystem::path write(std::string_view name, std::string_view bytes) const {
    const std::filesystem::path file = root_ / name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file, std::ios::binary) << bytes;
    return file;
  }

 private:
  ganglion::test::TempDir root_;
};

// Length, header, data.
inline std::string safetensors(std::string_view header, std::string_view data) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(static_cast<std::uint64_t>(header.size()) >> (8 * i));
  bytes += header;
  bytes += data;
  return bytes;
}

}  // namespace ganglion::local::test
