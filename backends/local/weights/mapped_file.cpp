// mmap behind RAII. Nothing here reads the bytes.

#include "backends/local/weights/mapped_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

namespace ganglion::local {
namespace {

std::string reason() {
  return std::generic_category().message(errno);
}

}  // namespace

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

core::Result<MappedFile> MappedFile::open(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return core::fail(core::ErrorKind::not_found, path.string() + ": cannot open: " + reason());
  MappedFile file;
  struct stat info{};
  core::Result<MappedFile> result;
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    result = core::fail(core::ErrorKind::invalid_value, path.string() + ": not a regular file");
  } else if (info.st_size > 0) {
    const auto size = static_cast<std::size_t>(info.st_size);
    void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) {
      result = core::fail(core::ErrorKind::internal, path.string() + ": cannot map: " + reason());
    } else {
      file.data_ = static_cast<const std::byte*>(data);
      file.size_ = size;
      result = std::move(file);
    }
  }
  ::close(fd);
  return result;
}

}  // namespace ganglion::local
