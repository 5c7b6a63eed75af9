#pragma once
// A whole file mapped read-only, unmapped when destroyed. The file must not be truncated while mapped (a checkpoint
// directory is replaced by rename, never edited in place).

#include <cstddef>
#include <filesystem>
#include <span>

#include "core/error.hpp"

namespace ganglion::local {

class MappedFile {
 public:
  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  // not_found when it cannot be opened; invalid_value when it is not a regular file. An empty file maps to no bytes.
  static core::Result<MappedFile> open(const std::filesystem::path& path);

  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace ganglion::local
