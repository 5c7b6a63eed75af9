// See sinks/file_sink.hpp. Names are usage-<first sequence, 20 digits>-<day>.jsonl, so that they sort by content.

#include "sinks/file_sink.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>
#include <vector>

#include "metering/calendar.hpp"
#include "sinks/record_json.hpp"

namespace ganglion::sinks {
namespace {

constexpr std::string_view kPrefix = "usage-";
constexpr std::string_view kSuffix = ".jsonl";
constexpr std::size_t kSequenceDigits = 20;
constexpr std::size_t kFlushBytes = 1024 * 1024;

std::unexpected<core::Error> io_error(const std::string& what, const std::string& path, int error) {
  return core::fail(core::ErrorKind::internal, what + " " + path + ": " + std::system_category().message(error));
}

std::vector<std::string> files_in(const std::string& directory, std::error_code& error) {
  std::vector<std::string> out;
  for (std::filesystem::directory_iterator it{directory, error}, end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name.starts_with(kPrefix) && name.ends_with(kSuffix)) out.push_back(it->path().string());
  }
  std::ranges::sort(out);
  return out;
}

std::string day_of(const metering::LedgerRecord& record) {
  return metering::format_day(static_cast<std::uint64_t>(record.time.count()) / 86'400'000'000ULL);
}

int write_all(int fd, std::string_view data, std::uint64_t offset) {
  while (!data.empty()) {
    const ssize_t wrote = ::pwrite(fd, data.data(), data.size(), static_cast<off_t>(offset));
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return wrote < 0 ? errno : ENOSPC;
    data.remove_prefix(static_cast<std::size_t>(wrote));
    offset += static_cast<std::uint64_t>(wrote);
  }
  return 0;
}

int sync_directory(const std::string& directory) {
  const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return errno;
  const int error = ::fsync(fd) == 0 ? 0 : errno;
  ::close(fd);
  return error;
}

}  // namespace

FileSink::FileSink(const SinkOptions& options, std::string ledger_id)
    : directory_(options.directory),
      rotate_bytes_(options.rotate_bytes),
      rotate_daily_(options.rotate_daily),
      ledger_id_(std::move(ledger_id)) {}

FileSink::~FileSink() {
  FileSink::release();
}

void FileSink::release() {
  close();
  if (lock_fd_ >= 0) ::close(lock_fd_);
  lock_fd_ = -1;
}

void FileSink::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
  pending_.clear();
}

core::Result<void> FileSink::lock_directory() {
  if (lock_fd_ >= 0) return {};
  std::error_code error;
  std::filesystem::create_directories(directory_, error);  // as the umask says: the files are for others to read
  if (error) return io_error("cannot create", directory_, error.value());
  const std::string path = directory_ + "/.lock";
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return io_error("cannot open", path, errno);
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    ::close(fd);
    return core::fail(core::ErrorKind::internal, "another process writes usage files into " + directory_);
  }
  lock_fd_ = fd;
  return {};
}

// The last sequence of a file, which is left open for more after its last whole line; 0: it has none.
core::Result<std::uint64_t> FileSink::take_tail(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string head = "{\"ledger\":\"" + ledger_id_ + "\",\"sequence\":";
  std::string line;
  std::uint64_t last = 0;
  std::uint64_t good = 0;
  while (std::getline(in, line) && !in.eof()) {  // at the end: no line feed, so a torn line
    if (line.starts_with("{\"ledger\":\"") && line.size() > head.size() && !line.starts_with(head)) {
      return core::fail(core::ErrorKind::internal, path + " holds records of another ledger than " + ledger_id_ +
                                                       "; give each gateway a directory of its own");
    }
    std::uint64_t sequence = 0;
    if (!line.starts_with(head) || !line.ends_with('}') || line.find('\0') != std::string::npos ||
        std::from_chars(line.data() + head.size(), line.data() + line.size(), sequence).ec != std::errc{} ||
        sequence <= last) {
      break;  // what a power loss has left of a batch that was never acknowledged
    }
    last = sequence;
    good += line.size() + 1;
  }
  if (in.bad()) return io_error("cannot read", path, EIO);
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) return io_error("cannot open", path, errno);
  close();
  fd_ = fd;
  path_ = path;
  bytes_ = good;
  const std::string name = std::filesystem::path{path}.stem().string();
  day_ = name.substr(std::min(name.size(), kPrefix.size() + kSequenceDigits + 1));
  if (::ftruncate(fd_, static_cast<off_t>(good)) != 0 || ::fdatasync(fd_) != 0) {
    return io_error("cannot cut", path, errno);
  }
  return last;
}

core::Result<std::uint64_t> FileSink::open() {
  if (auto locked = lock_directory(); !locked) return std::unexpected(locked.error());
  close();
  std::error_code error;
  std::vector<std::string> files = files_in(directory_, error);
  if (error) return io_error("cannot list", directory_, error.value());
  while (!files.empty()) {
    const auto last = take_tail(files.back());
    if (!last) {
      close();
      return last;
    }
    if (*last != 0) return last;
    // Begun and nothing written: as if it had not been.
    close();
    if (::unlink(files.back().c_str()) != 0) return io_error("cannot remove", files.back(), errno);
    files.pop_back();
  }
  return 0;
}

core::Result<void> FileSink::begin_file(const metering::LedgerRecord& first, const std::string& day) {
  if (auto flushed = flush(); !flushed) return flushed;
  close();
  std::string digits = std::to_string(first.sequence);
  digits.insert(0, kSequenceDigits - digits.size(), '0');
  const std::string path = directory_ + "/" + std::string{kPrefix} + digits + "-" + day + std::string{kSuffix};
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
  if (fd < 0) return io_error("cannot create", path, errno);
  fd_ = fd;
  path_ = path;
  day_ = day;
  bytes_ = 0;
  if (const int failed = sync_directory(directory_); failed != 0) return io_error("cannot sync", directory_, failed);
  return {};
}

core::Result<void> FileSink::flush() {
  if (pending_.empty()) return {};
  int error = write_all(fd_, pending_, bytes_);
  if (error == 0 && ::fdatasync(fd_) != 0) error = errno;
  if (error != 0) return io_error("cannot write", path_, error);
  bytes_ += pending_.size();
  pending_.clear();
  return {};
}

core::Result<void> FileSink::deliver(std::span<const metering::LedgerRecord> records, std::uint64_t /*upto*/) {
  std::string line;
  for (const metering::LedgerRecord& record : records) {
    line.clear();
    append_record_json(line, ledger_id_, record);
    line.push_back('\n');
    const std::string day = day_of(record);
    const std::uint64_t used = bytes_ + pending_.size();
    // A clock that was set back does not reopen an old day.
    const bool full = used > 0 && used + line.size() > rotate_bytes_;
    if (fd_ < 0 || full || (rotate_daily_ && day > day_)) {
      if (auto begun = begin_file(record, day); !begun) return begun;
    }
    pending_ += line;
    if (pending_.size() < kFlushBytes) continue;
    if (auto flushed = flush(); !flushed) return flushed;
  }
  return flush();
}

}  // namespace ganglion::sinks
