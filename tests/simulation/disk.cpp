// See disk.hpp.

#include "tests/simulation/disk.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

namespace ganglion::sim {

Disk* g_disk = nullptr;

namespace {

constexpr std::size_t kSector = 512;

ssize_t real_pwrite(int fd, const void* data, std::size_t size, off_t offset) {
  static const auto call = reinterpret_cast<decltype(&::pwrite)>(next_symbol("pwrite"));
  return call(fd, data, size, offset);
}

int real_open(const std::string& path, int flags) {
  static const auto call = reinterpret_cast<int (*)(const char*, int, ...)>(next_symbol("open"));
  return call(path.c_str(), flags, 0600);
}

void real_close(int fd) {
  static const auto call = reinterpret_cast<decltype(&::close)>(next_symbol("close"));
  call(fd);
}

void real_rename(const std::string& from, const std::string& to) {
  static const auto call = reinterpret_cast<decltype(&::rename)>(next_symbol("rename"));
  call(from.c_str(), to.c_str());
}

void real_truncate(int fd, off_t size) {
  static const auto call = reinterpret_cast<decltype(&::ftruncate)>(next_symbol("ftruncate"));
  call(fd, size);
}

void real_unlink(const std::string& path) {
  static const auto call = reinterpret_cast<decltype(&::unlink)>(next_symbol("unlink"));
  call(path.c_str());
}

bool all_zeroes(std::string_view bytes) {
  return bytes.empty() || (bytes[0] == '\0' && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

// Zeroes that cost no memory.
ssize_t punch(int fd, std::size_t size, std::int64_t offset) {
  const int result = ::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, static_cast<off_t>(size));
  return result == 0 ? static_cast<ssize_t>(size) : -1;
}

std::string parent_of(const std::string& path) {
  return path.substr(0, path.rfind('/'));
}

}  // namespace

Disk* disk() {
  return machine() != nullptr ? g_disk : nullptr;
}

Disk::Disk(Machine& m, std::string root) : machine_(m), root_(std::move(root)) {
  std::filesystem::create_directories(root_);
  g_disk = this;
}

Disk::~Disk() {
  g_disk = nullptr;
  for (const auto& [fd, file] : open_) real_close(fd);
  std::error_code ignored;
  std::filesystem::remove_all(root_, ignored);
}

bool Disk::holds(const char* path) const {
  return path != nullptr && std::string_view{path}.starts_with(root_);
}

// Of SQLite's shared memory index nothing is kept: it is rebuilt by whoever opens the database first.
static bool volatile_file(std::string_view path) {
  return path.ends_with("-shm");
}

static bool of_sqlite(std::string_view path) {
  return path.contains(".db") || path.contains(".sqlite");
}

// Stores into this one are seen by nobody: what survives a loss of power is chosen from what stands there.
static bool mapped_file(std::string_view path) {
  return path.ends_with("/unwritten");
}

void Disk::opened(int fd, const char* path, bool created, bool truncated) {
  struct stat info{};
  if (::fstat(fd, &info) == 0 && S_ISDIR(info.st_mode)) {
    open_[fd] = nullptr;
    folders_[fd] = path;
    return;
  }
  if (volatile_file(path)) {
    volatile_.insert(fd);
    return;
  }
  FilePtr& file = names_[path];
  if (!file) file = std::make_shared<File>();
  file->mapped = mapped_file(path);
  if (created) name_changes_.push_back({.kind = NameChange::Kind::created, .path = path, .before = nullptr});
  if (truncated && !created) file->changes.push_back({.offset = 0, .resize = true});
  open_[fd] = file;
}

Disk::FilePtr Disk::file_of(int fd) {
  const auto found = open_.find(fd);
  return found == open_.end() ? nullptr : found->second;
}

void Disk::put(std::string& to, const Change& change) {
  if (change.resize) {
    to.resize(change.offset);
    return;
  }
  if (to.size() < change.offset + change.bytes.size()) to.resize(change.offset + change.bytes.size());
  std::memcpy(to.data() + change.offset, change.bytes.data(), change.bytes.size());
}

long Disk::write(int fd, const void* data, std::size_t size, std::int64_t offset) {
  const FilePtr file = file_of(fd);
  Random& random = machine_.random;
  if (faults.active) {
    struct stat info{};
    ::fstat(fd, &info);
    if (faults.full && offset + static_cast<std::int64_t>(size) > info.st_size) {
      errno = ENOSPC;
      return -1;
    }
    if (random.percent(faults.write_eio)) {
      errno = EIO;
      // What a failed write leaves is anything.
      if (size > 1 && random.percent(50)) {
        const std::size_t part = random.below(size);
        real_pwrite(fd, data, part, offset);
        if (file) file->changes.push_back({static_cast<std::uint64_t>(offset), {static_cast<const char*>(data), part}});
      }
      return -1;
    }
    if (size > 1 && random.percent(faults.short_write)) size = 1 + random.below(size - 1);
  }
  const ssize_t wrote = file && file->mapped && all_zeroes({static_cast<const char*>(data), size})
                            ? punch(fd, size, offset)
                            : real_pwrite(fd, data, size, offset);
  if (wrote > 0 && file && !file->mapped)
    file->changes.push_back(
        {static_cast<std::uint64_t>(offset), {static_cast<const char*>(data), static_cast<std::size_t>(wrote)}});
  return wrote;
}

int Disk::sync(int fd, bool) {
  Random& random = machine_.random;
  if (faults.active && random.percent(faults.slow_sync))
    machine_.block(machine_.current(), machine_.now + random.between(1, 200) * kMilli);
  else
    machine_.block(machine_.current(), machine_.now + random.between(20, 300) * kMicro);
  const auto found = open_.find(fd);
  if (found == open_.end()) return 0;
  if (faults.lying) return 0;
  if (!found->second) {  // a folder
    const std::string folder = folders_[fd];
    std::erase_if(name_changes_, [&](const NameChange& each) {
      return parent_of(each.path) == folder || folder == each.path + "/." || parent_of(each.path) + "/." == folder;
    });
    return 0;
  }
  File& file = *found->second;
  if (faults.active && random.percent(faults.sync_eio)) {
    file.changes.clear();
    errno = EIO;
    return -1;
  }
  for (const Change& each : file.changes) put(file.held, each);
  file.changes.clear();
  return 0;
}

int Disk::truncate(int fd, std::int64_t size) {
  struct stat info{};
  if (faults.active && faults.full && ::fstat(fd, &info) == 0 && size > info.st_size) {
    errno = ENOSPC;
    return -1;
  }
  static const auto call = reinterpret_cast<decltype(&::ftruncate)>(next_symbol("ftruncate"));
  const int result = call(fd, size);
  if (const FilePtr file = file_of(fd); file && result == 0)
    file->changes.push_back({.offset = static_cast<std::uint64_t>(size), .resize = true});
  return result;
}

int Disk::allocate(int fd, std::int64_t size) {
  struct stat info{};
  if (::fstat(fd, &info) != 0) return errno;
  if (faults.active && faults.full && size > info.st_size) return ENOSPC;
  if (size <= info.st_size) return 0;
  static const auto call = reinterpret_cast<decltype(&::ftruncate)>(next_symbol("ftruncate"));
  if (call(fd, size) != 0) return errno;
  if (const FilePtr file = file_of(fd))
    file->changes.push_back({.offset = static_cast<std::uint64_t>(size), .resize = true});
  return 0;
}

void Disk::before_rename(const char* to) {
  const auto found = names_.find(to);
  pending_ = found == names_.end() ? nullptr : found->second;
}

void Disk::renamed(const char* from, const char* to) {
  const auto found = names_.find(from);
  if (found == names_.end()) return;
  const FilePtr moved = found->second;
  names_.erase(found);
  names_[to] = moved;
  name_changes_.push_back(
      {.kind = NameChange::Kind::replaced, .path = to, .from = from, .before = std::move(pending_), .moved = moved});
}

void Disk::before_unlink(const char* path) {
  const auto found = names_.find(path);
  if (found == names_.end()) return;
  name_changes_.push_back({.kind = NameChange::Kind::removed, .path = path, .before = found->second});
  names_.erase(found);
}

void Disk::made_folder(const char* path) {
  name_changes_.push_back({.kind = NameChange::Kind::folder, .path = path});
}

// What processes see there, pages included that a failed sync has lost.
std::string Disk::seen(const std::string& path) const {
  std::string out;
  const int fd = real_open(path, O_RDONLY | O_CLOEXEC);
  struct stat info{};
  if (fd < 0 || ::fstat(fd, &info) != 0) return out;
  out.resize(static_cast<std::size_t>(info.st_size));
  out.resize(static_cast<std::size_t>(std::max<ssize_t>(::pread(fd, out.data(), out.size(), 0), 0)));
  real_close(fd);
  return out;
}

std::string Disk::surviving(const File& file) {
  std::string out = file.held;
  const unsigned odds = machine_.random.of(std::vector<unsigned>{0, 20, 50, 90, 100});
  for (const Change& each : file.changes) {
    if (each.resize) {
      if (machine_.random.percent(odds)) out.resize(each.offset);
      continue;
    }
    // By sectors of the disk, whatever the writes were.
    const std::uint64_t end = each.offset + each.bytes.size();
    for (std::uint64_t at = each.offset; at < end;) {
      const std::uint64_t next = std::min(end, (at / kSector + 1) * kSector);
      if (machine_.random.percent(odds)) put(out, {at, each.bytes.substr(at - each.offset, next - at)});
      at = next;
    }
  }
  return out;
}

// Of a mapped file every page is on the disk as it was at some time: now, or never.
std::string Disk::surviving_pages(std::string bytes) {
  constexpr std::size_t kPage = 4096;
  const unsigned odds = machine_.random.of(std::vector<unsigned>{0, 50, 100});
  for (std::size_t at = 0; at < bytes.size(); at += kPage)
    if (!machine_.random.percent(odds))
      std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), std::min(kPage, bytes.size() - at), '\0');
  return bytes;
}

// A new file, so that descriptors of the dead process lead nowhere. Zeroes are left out: files are reserved ahead.
void Disk::write_new(const std::string& path, std::string_view bytes) {
  constexpr std::size_t kPage = 4096;
  const int fd = real_open(path + ".new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC);
  real_truncate(fd, static_cast<off_t>(bytes.size()));
  for (std::size_t at = 0; at < bytes.size();) {
    std::size_t end = at;
    while (end < bytes.size() && !all_zeroes(bytes.substr(end, kPage))) end += kPage;
    end = std::min(end, bytes.size());
    if (end > at) real_pwrite(fd, bytes.data() + at, end - at, static_cast<off_t>(at));
    at = std::max(end, at + kPage);
  }
  real_close(fd);
  real_rename(path + ".new", path);
}

void Disk::write_out(const std::map<std::string, std::string>& files) {
  for (const auto& entry : std::filesystem::recursive_directory_iterator{root_})
    if (entry.is_regular_file() && !files.contains(entry.path().string())) real_unlink(entry.path().string());
  for (const auto& [path, bytes] : files) {
    std::error_code ignored;
    std::filesystem::create_directories(parent_of(path), ignored);
    write_new(path, bytes);
  }
}

void Disk::after_crash(bool power) {
  for (const auto& [fd, file] : open_) real_close(fd);
  open_.clear();
  folders_.clear();
  volatile_.clear();
  if (!power) {
    // All is there as it was. SQLite alone, a library of the simulation's own process, remembers the files of a life
    // that was killed.
    for (const auto& [path, file] : names_) {
      if (!of_sqlite(path)) continue;
      write_new(path, seen(path));
      real_unlink(path + "-shm");
    }
    return;
  }
  std::map<std::string, std::string> files;
  // Changes of names are lost from some instant on.
  const std::size_t kept = machine_.random.below(name_changes_.size() + 1);
  while (name_changes_.size() > kept) {
    const NameChange& last = name_changes_.back();
    switch (last.kind) {
      case NameChange::Kind::created:
        names_.erase(last.path);
        break;
      case NameChange::Kind::replaced:
        names_[last.from] = last.moved;
        if (last.before)
          names_[last.path] = last.before;
        else
          names_.erase(last.path);
        break;
      case NameChange::Kind::removed:
        names_[last.path] = last.before;
        break;
      case NameChange::Kind::folder:
        std::erase_if(names_, [&](const auto& each) { return each.first.starts_with(last.path + "/"); });
        break;
    }
    name_changes_.pop_back();
  }
  name_changes_.clear();
  for (const auto& [path, file] : names_) {
    file->held = mapped_file(path) ? surviving_pages(seen(path)) : surviving(*file);
    file->changes.clear();
    files[path] = file->held;
  }
  write_out(files);
}

}  // namespace ganglion::sim
