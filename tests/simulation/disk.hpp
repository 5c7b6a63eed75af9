#pragma once
// The simulated machine's disk: one folder of the real file system (in memory, best), of which is known what would be
// there after a loss of power. A write reaches the disk with a sync of its file, a new, renamed or removed name with a
// sync of its folder: the strictest reading of POSIX.

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "tests/simulation/machine.hpp"

namespace ganglion::sim {

// What goes wrong, in percent of calls on the disk, while `active`.
struct DiskFaults {
  bool active = false;
  unsigned write_eio = 0;
  unsigned short_write = 0;  // a part is written; the caller must go on
  unsigned sync_eio = 0;     // the pages count as clean from then on, and are lost
  unsigned slow_sync = 0;
  bool full = false;   // ENOSPC for whatever makes a file longer, and for writes into holes
  bool lying = false;  // syncs do nothing and say that they did: only to see that this is found
};

class Disk {
 public:
  Disk(Machine& machine, std::string root);
  ~Disk();
  Disk(const Disk&) = delete;
  Disk& operator=(const Disk&) = delete;

  DiskFaults faults;
  const std::string& root() const { return root_; }

  // The process has died. With `power` lost, what was not synced survives by sectors, or not; of what happened to
  // names, a part from some instant on is undone. Files are new ones afterwards, whoever still had them open.
  void after_crash(bool power);

  // For the C library's functions.
  bool holds(const char* path) const;
  void opened(int fd, const char* path, bool created, bool truncated);
  bool knows(int fd) const { return open_.contains(fd); }
  bool locks(int fd) const { return open_.contains(fd) || volatile_.contains(fd); }
  void closed(int fd) {
    open_.erase(fd);
    volatile_.erase(fd);
  }
  bool there(const char* path) const { return names_.contains(path); }
  long write(int fd, const void* data, std::size_t size, std::int64_t offset);  // as pwrite
  int sync(int fd, bool directory);
  int truncate(int fd, std::int64_t size);
  int allocate(int fd, std::int64_t size);
  void renamed(const char* from, const char* to);
  void before_rename(const char* to);
  void before_unlink(const char* path);
  void made_folder(const char* path);
  bool short_of_space() const { return faults.active && faults.full; }

 private:
  struct Change {
    std::uint64_t offset = 0;
    std::string bytes;
    bool resize = false;  // to `offset`
  };
  struct File {
    std::string held;             // on the disk
    std::vector<Change> changes;  // since
    bool mapped = false;          // written by stores that nobody sees
  };
  // What happened to names and is not on the disk.
  struct NameChange {
    enum class Kind : std::uint8_t { created, replaced, removed, folder } kind;
    std::string path;
    std::string from;              // replaced: the name that went
    std::shared_ptr<File> before;  // what had the name
    std::shared_ptr<File> moved;   // replaced: what has it now
  };
  using FilePtr = std::shared_ptr<File>;

  FilePtr file_of(int fd);
  static void put(std::string& to, const Change& change);
  std::string surviving(const File& file);
  std::string surviving_pages(std::string bytes);
  std::string seen(const std::string& path) const;
  void change(File& file, Change change);
  static void write_new(const std::string& path, std::string_view bytes);
  void write_out(const std::map<std::string, std::string>& files);

  Machine& machine_;
  std::string root_;
  std::map<int, FilePtr> open_;           // fd to file; folders: null
  std::map<int, std::string> folders_;    // fd to path
  std::set<int> volatile_;                // fds
  std::map<std::string, FilePtr> names_;  // as processes see it
  std::vector<NameChange> name_changes_;  // in order, not synced
  FilePtr pending_;                       // what before_rename() found
};

Disk* disk();
extern Disk* g_disk;

}  // namespace ganglion::sim
