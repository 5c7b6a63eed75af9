// See sinks/position_file.hpp.

#include "sinks/position_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <system_error>
#include <utility>

#include "core/private_files.hpp"

namespace ganglion::sinks {
namespace {

std::unexpected<core::Error> io_error(const std::string& what, const std::string& path, int error) {
  return core::fail(core::ErrorKind::internal, what + " " + path + ": " + std::system_category().message(error));
}

}  // namespace

PositionFile::PositionFile(std::string directory, std::string sink, std::string ledger_id)
    : directory_(std::move(directory)),
      path_(directory_ + "/" + sink + ".position"),
      ledger_id_(std::move(ledger_id)) {}

core::Result<std::uint64_t> PositionFile::read() const {
  const int fd = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT) return 0;
  if (fd < 0) return io_error("cannot open", path_, errno);
  std::array<char, 128> text{};
  const ssize_t got = ::pread(fd, text.data(), text.size(), 0);
  const int error = errno;
  ::close(fd);
  if (got < 0) return io_error("cannot read", path_, error);
  const std::string_view line{text.data(), static_cast<std::size_t>(got)};
  const auto space = line.find(' ');
  std::uint64_t sequence = 0;
  if (space != std::string_view::npos && line.ends_with('\n')) {
    const char* const end = line.data() + line.size() - 1;
    const auto [at, failed] = std::from_chars(line.data() + space + 1, end, sequence);
    if (failed == std::errc{} && at == end && line.substr(0, space) == ledger_id_) return sequence;
    if (failed == std::errc{} && at == end) {
      return core::fail(
          core::ErrorKind::internal,
          path_ + " belongs to the ledger " + std::string{line.substr(0, space)} + ", this one is " + ledger_id_);
    }
  }
  return core::fail(core::ErrorKind::internal, path_ + " is damaged; without it, everything is sent again");
}

core::Result<void> PositionFile::write(std::uint64_t sequence) {
  // Where this fails, the file's own error says more.
  static_cast<void>(core::make_private_folder(directory_));
  const std::string fresh = path_ + ".new";
  const int fd = ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return io_error("cannot create", fresh, errno);
  const std::string line = ledger_id_ + " " + std::to_string(sequence) + "\n";
  int error = 0;
  const ssize_t wrote = ::write(fd, line.data(), line.size());
  if (wrote != static_cast<ssize_t>(line.size())) error = wrote < 0 ? errno : ENOSPC;
  if (error == 0 && ::fdatasync(fd) != 0) error = errno;
  ::close(fd);
  if (error == 0 && std::rename(fresh.c_str(), path_.c_str()) != 0) error = errno;
  if (error != 0) return io_error("cannot write", path_, error);
  const int directory = ::open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return io_error("cannot open", directory_, errno);
  error = ::fsync(directory) == 0 ? 0 : errno;
  ::close(directory);
  if (error != 0) return io_error("cannot sync", directory_, error);
  return {};
}

}  // namespace ganglion::sinks
