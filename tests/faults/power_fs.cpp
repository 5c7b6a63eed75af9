// A file system that loses power on command, for tests of the ledger. Everything lives in memory twice: as processes
// see it, and as a disk would hold it. A write reaches the disk with fsync or fdatasync of its file, a new, renamed or
// removed name with fsync of its directory; that is the strictest reading of POSIX, stricter than ext4 in its usual
// mode.
//
//   power_fs MOUNTPOINT          (runs in the foreground until it is unmounted)
//   echo "lose 0"   > MOUNTPOINT/.power     what was not synced is gone
//   echo "torn 42"  > MOUNTPOINT/.power     of what was not synced, every 512-byte sector survives or not, by seed 42
//   echo "full 100" > MOUNTPOINT/.power     from now on at most 100 MiB of file contents ("full 0": no limit)
//   echo "eio 3"    > MOUNTPOINT/.power     the next 3 syncs fail with EIO, and what they should have written is lost
//
// Cut the power only after the process under test has been killed: open files do not survive it.

#define FUSE_USE_VERSION 31
#include <fuse3/fuse.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace {

constexpr std::size_t kSector = 512;
constexpr std::string_view kControl = "/.power";

// Files that were unlinked while open have no path.
bool is_control(const char* path) {
  return path != nullptr && path == kControl;
}

struct Change {
  std::uint64_t offset = 0;
  std::string bytes;    // written there
  bool resize = false;  // or: the size became `offset`
};

struct Node {
  bool directory = false;
  mode_t mode = 0600;
  std::string seen;                                    // files: contents
  std::string held;                                    // on the disk
  std::vector<Change> changes;                         // between the two, in order
  std::map<std::string, std::shared_ptr<Node>> names;  // directories
  std::map<std::string, std::shared_ptr<Node>> held_names;
  timespec modified{};
};
using NodePtr = std::shared_ptr<Node>;

NodePtr g_root;
std::uint64_t g_bytes_max = 0;  // 0: no limit
std::uint64_t g_bytes = 0;      // of contents seen
int g_failing_syncs = 0;

void put(std::string& to, const Change& change) {
  if (change.resize) {
    to.resize(change.offset);
    return;
  }
  if (to.size() < change.offset + change.bytes.size()) to.resize(change.offset + change.bytes.size());
  std::memcpy(to.data() + change.offset, change.bytes.data(), change.bytes.size());
}

NodePtr find(std::string_view path) {
  NodePtr at = g_root;
  while (!path.empty()) {
    path.remove_prefix(1);  // '/'
    const std::size_t end = std::min(path.find('/'), path.size());
    const std::string name{path.substr(0, end)};
    path.remove_prefix(end);
    if (name.empty()) continue;
    if (!at->directory) return nullptr;
    const auto it = at->names.find(name);
    if (it == at->names.end()) return nullptr;
    at = it->second;
  }
  return at;
}

struct Place {
  NodePtr parent;
  std::string name;
};

Place split(std::string_view path) {
  const std::size_t slash = path.rfind('/');
  return {find(path.substr(0, slash)), std::string{path.substr(slash + 1)}};
}

void touch(Node& node) {
  ::clock_gettime(CLOCK_REALTIME, &node.modified);
}

bool grow_allowed(const Node& node, std::uint64_t size) {
  const std::uint64_t more = size > node.seen.size() ? size - node.seen.size() : 0;
  return g_bytes_max == 0 || more == 0 || g_bytes + more <= g_bytes_max;
}

void change(Node& node, Change change) {
  g_bytes -= node.seen.size();
  put(node.seen, change);
  g_bytes += node.seen.size();
  node.changes.push_back(std::move(change));
  touch(node);
}

int sync(Node& node) {
  if (g_failing_syncs > 0) {
    --g_failing_syncs;
    node.changes.clear();  // as Linux: the pages are clean now, and lost
    return -EIO;
  }
  for (const Change& each : node.changes) put(node.held, each);
  node.changes.clear();
  if (node.directory) node.held_names = node.names;
  return 0;
}

// What a disk holds after the power went: sectors of unsynced writes survive by coin toss, or not at all.
void cut(Node& node, std::mt19937_64* coin, bool names_survive) {
  if (node.directory) {
    if (names_survive)
      node.held_names = node.names;
    else
      node.names = node.held_names;
    for (auto& [name, child] : node.names) cut(*child, coin, names_survive);
    return;
  }
  if (coin != nullptr) {
    for (const Change& each : node.changes) {
      if (each.resize) {
        if ((*coin)() % 2 == 0) put(node.held, each);
        continue;
      }
      for (std::size_t at = 0; at < each.bytes.size();) {
        const std::size_t size = std::min(kSector - (each.offset + at) % kSector, each.bytes.size() - at);
        if ((*coin)() % 2 == 0) put(node.held, {.offset = each.offset + at, .bytes = each.bytes.substr(at, size)});
        at += size;
      }
    }
  }
  node.changes.clear();
  node.seen = node.held;
}

std::uint64_t count(const Node& node) {
  std::uint64_t sum = node.seen.size();
  for (const auto& [name, child] : node.names) sum += count(*child);
  return sum;
}

int command(std::string_view text) {
  char word[8] = {};
  unsigned long long number = 0;
  if (std::sscanf(std::string{text}.c_str(), "%7s %llu", word, &number) != 2) return -EINVAL;
  const std::string_view what = word;
  if (what == "full") {
    g_bytes_max = number * 1024 * 1024;
  } else if (what == "eio") {
    g_failing_syncs = static_cast<int>(number);
  } else if (what == "lose") {
    cut(*g_root, nullptr, false);
  } else if (what == "torn") {
    std::mt19937_64 coin{number};
    const bool names_survive = coin() % 2 == 0;
    cut(*g_root, &coin, names_survive);
  } else {
    return -EINVAL;
  }
  g_bytes = count(*g_root);
  return 0;
}

int fs_getattr(const char* path, struct stat* out, fuse_file_info* info) {
  *out = {};
  if (is_control(path)) {
    out->st_mode = S_IFREG | 0200;
    out->st_nlink = 1;
    return 0;
  }
  const NodePtr node = path != nullptr ? find(path) : *reinterpret_cast<NodePtr*>(info->fh);
  if (!node) return -ENOENT;
  out->st_mode = (node->directory ? S_IFDIR : S_IFREG) | node->mode;
  out->st_nlink = 1;
  out->st_size = static_cast<off_t>(node->seen.size());
  out->st_blocks = static_cast<blkcnt_t>((node->seen.size() + kSector - 1) / kSector);
  out->st_uid = ::getuid();
  out->st_gid = ::getgid();
  out->st_mtim = node->modified;
  return 0;
}

int fs_readdir(const char* path, void* buffer, fuse_fill_dir_t fill, off_t, fuse_file_info*, fuse_readdir_flags) {
  const NodePtr node = find(path);
  if (!node || !node->directory) return -ENOTDIR;
  fill(buffer, ".", nullptr, 0, {});
  fill(buffer, "..", nullptr, 0, {});
  for (const auto& [name, child] : node->names) fill(buffer, name.c_str(), nullptr, 0, {});
  return 0;
}

int add(const char* path, bool directory, mode_t mode) {
  const Place place = split(path);
  if (!place.parent || !place.parent->directory) return -ENOENT;
  if (place.parent->names.contains(place.name)) return -EEXIST;
  auto node = std::make_shared<Node>();
  node->directory = directory;
  node->mode = mode & 07777;
  touch(*node);
  place.parent->names[place.name] = std::move(node);
  touch(*place.parent);
  return 0;
}

// An open file keeps its node: unlinked files live on, as they should.
int keep(const NodePtr& node, fuse_file_info* info) {
  info->fh = reinterpret_cast<std::uint64_t>(new NodePtr(node));
  return 0;
}

Node& opened(const fuse_file_info* info) {
  return **reinterpret_cast<NodePtr*>(info->fh);
}

int fs_create(const char* path, mode_t mode, fuse_file_info* info) {
  if (const int error = add(path, false, mode); error != 0) return error;
  return keep(find(path), info);
}

int fs_open(const char* path, fuse_file_info* info) {
  if (is_control(path)) return 0;
  const NodePtr node = find(path);
  if (!node) return -ENOENT;
  if ((info->flags & O_TRUNC) != 0) change(*node, {.offset = 0, .bytes = {}, .resize = true});
  return keep(node, info);
}

int fs_release(const char*, fuse_file_info* info) {
  delete reinterpret_cast<NodePtr*>(info->fh);
  return 0;
}

int fs_read(const char* path, char* to, std::size_t size, off_t offset, fuse_file_info* info) {
  if (is_control(path)) return 0;
  const std::string& from = opened(info).seen;
  const auto at = static_cast<std::size_t>(offset);
  if (at >= from.size()) return 0;
  const std::size_t got = std::min(size, from.size() - at);
  std::memcpy(to, from.data() + at, got);
  return static_cast<int>(got);
}

int fs_write(const char* path, const char* from, std::size_t size, off_t offset, fuse_file_info* info) {
  if (is_control(path)) {
    const int error = command({from, size});
    return error != 0 ? error : static_cast<int>(size);
  }
  Node& node = opened(info);
  const auto at = static_cast<std::uint64_t>(offset);
  if (!grow_allowed(node, at + size)) return -ENOSPC;
  change(node, {.offset = at, .bytes = std::string{from, size}});
  return static_cast<int>(size);
}

int fs_truncate(const char* path, off_t size, fuse_file_info* info) {
  if (is_control(path)) return 0;
  const NodePtr found = info != nullptr ? nullptr : find(path);
  if (info == nullptr && !found) return -ENOENT;
  Node& node = info != nullptr ? opened(info) : *found;
  if (!grow_allowed(node, static_cast<std::uint64_t>(size))) return -ENOSPC;
  change(node, {.offset = static_cast<std::uint64_t>(size), .bytes = {}, .resize = true});
  return 0;
}

int fs_fallocate(const char*, int mode, off_t offset, off_t length, fuse_file_info* info) {
  if (mode != 0) return -EOPNOTSUPP;
  Node& node = opened(info);
  const auto size = static_cast<std::uint64_t>(offset + length);
  if (size <= node.seen.size()) return 0;
  if (!grow_allowed(node, size)) return -ENOSPC;
  change(node, {.offset = size, .bytes = {}, .resize = true});
  return 0;
}

int fs_fsync(const char*, int, fuse_file_info* info) {
  return sync(opened(info));
}

int fs_fsyncdir(const char* path, int, fuse_file_info*) {
  if (path == nullptr) return 0;
  const NodePtr node = find(path);
  return node ? sync(*node) : -ENOENT;
}

int fs_mkdir(const char* path, mode_t mode) {
  return add(path, true, mode);
}

int fs_unlink(const char* path) {
  const Place place = split(path);
  if (!place.parent) return -ENOENT;
  const auto it = place.parent->names.find(place.name);
  if (it == place.parent->names.end()) return -ENOENT;
  g_bytes -= it->second->seen.size();
  place.parent->names.erase(it);
  return 0;
}

int fs_rmdir(const char* path) {
  const NodePtr node = find(path);
  if (!node || !node->directory) return -ENOTDIR;
  return node->names.empty() ? fs_unlink(path) : -ENOTEMPTY;
}

int fs_rename(const char* from, const char* to, unsigned flags) {
  if (flags != 0) return -EINVAL;
  const Place source = split(from);
  const Place target = split(to);
  if (!source.parent || !target.parent) return -ENOENT;
  const auto it = source.parent->names.find(source.name);
  if (it == source.parent->names.end()) return -ENOENT;
  const NodePtr node = it->second;
  source.parent->names.erase(it);
  if (const auto old = target.parent->names.find(target.name); old != target.parent->names.end())
    g_bytes -= old->second->seen.size();
  target.parent->names[target.name] = node;
  return 0;
}

int fs_chmod(const char* path, mode_t mode, fuse_file_info*) {
  const NodePtr node = path != nullptr ? find(path) : nullptr;
  if (!node) return -ENOENT;
  node->mode = mode & 07777;
  return 0;
}

int fs_chown(const char*, uid_t, gid_t, fuse_file_info*) {
  return 0;
}

int fs_utimens(const char* path, const timespec times[2], fuse_file_info*) {
  const NodePtr node = path != nullptr ? find(path) : nullptr;
  if (!node) return -ENOENT;
  node->modified = times[1];
  return 0;
}

int fs_statfs(const char*, struct statvfs* out) {
  *out = {};
  out->f_bsize = out->f_frsize = 4096;
  const std::uint64_t most = g_bytes_max != 0 ? g_bytes_max : 1ULL << 32U;
  out->f_blocks = most / 4096;
  out->f_bfree = out->f_bavail = most > g_bytes ? (most - g_bytes) / 4096 : 0;
  out->f_namemax = 255;
  return 0;
}

void* fs_init(fuse_conn_info*, fuse_config* config) {
  // Nothing is remembered by the kernel across a cut.
  config->attr_timeout = 0;
  config->entry_timeout = 0;
  config->negative_timeout = 0;
  config->kernel_cache = 0;
  config->hard_remove = 1;
  return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: power_fs MOUNTPOINT\n");
    return 2;
  }
  g_root = std::make_shared<Node>();
  g_root->directory = true;
  g_root->mode = 0700;
  fuse_operations operations{};
  operations.init = fs_init;
  operations.getattr = fs_getattr;
  operations.readdir = fs_readdir;
  operations.create = fs_create;
  operations.open = fs_open;
  operations.release = fs_release;
  operations.read = fs_read;
  operations.write = fs_write;
  operations.truncate = fs_truncate;
  operations.fallocate = fs_fallocate;
  operations.fsync = fs_fsync;
  operations.fsyncdir = fs_fsyncdir;
  operations.mkdir = fs_mkdir;
  operations.unlink = fs_unlink;
  operations.rmdir = fs_rmdir;
  operations.rename = fs_rename;
  operations.chmod = fs_chmod;
  operations.chown = fs_chown;
  operations.utimens = fs_utimens;
  operations.statfs = fs_statfs;
  char foreground[] = "-f";
  char single[] = "-s";
  char* arguments[] = {argv[0], foreground, single, argv[1], nullptr};
  return fuse_main(4, arguments, &operations, nullptr);
}
