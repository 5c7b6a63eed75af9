#pragma once
// Folders and files for the gateway's user alone, whatever the umask: what tenants used and what they were answered.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <string>
#include <system_error>

namespace ganglion::core {

inline constexpr mode_t kPrivateFolder = 0700;
inline constexpr mode_t kPrivateFile = 0600;

// Makes `directory`, and the parents it lacks with the umask's mode: others may have their things there too. A folder
// that is there keeps its mode.
inline std::error_code make_private_folder(const std::filesystem::path& directory) {
  const std::filesystem::path folder = directory.has_filename() ? directory : directory.parent_path();  // "ledger/"
  std::error_code ignored;
  if (std::filesystem::is_directory(folder, ignored)) return {};
  if (folder.has_parent_path()) {
    std::error_code error;
    std::filesystem::create_directories(folder.parent_path(), error);
    if (error) return error;
  }
  if (::mkdir(folder.c_str(), kPrivateFolder) == 0) return {};
  const int error = errno;
  if (error == EEXIST && std::filesystem::is_directory(folder, ignored)) return {};  // somebody was quicker
  return {error, std::system_category()};
}

// Takes what others may do with a file of ours from them. Nothing is said where that fails: the file is used as it is.
inline void narrow_file(const std::string& path) {
  struct stat info{};
  if (::stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode) || info.st_uid != ::geteuid()) return;
  const mode_t mode = info.st_mode & 07777;
  if ((mode & ~kPrivateFile) != 0) static_cast<void>(::chmod(path.c_str(), mode & kPrivateFile));
}

// Before SQLite opens a database: makes the file, or narrows the one that an earlier version made. The log and the
// index that SQLite puts beside it get its mode. A file that is there is never opened here: closing it would drop the
// locks that another connection of this process has on it.
inline void make_private_database(const std::string& path) {
  if (const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, kPrivateFile); fd >= 0) ::close(fd);
  for (const char* end : {"", "-wal", "-shm", "-journal"}) narrow_file(path + end);
}

}  // namespace ganglion::core
