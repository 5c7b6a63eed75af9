// inotify on the folder, then a look at the file's stamp; a change is loaded once its stamp has stood still.

#include "config/watcher.hpp"

#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>

#include "config/in_force.hpp"

namespace ganglion::config {

// What tells one state of the file from another. stat() follows symlinks, so a swapped link shows as another inode.
struct Reloader::Stamp {
  ino_t inode = 0;
  off_t size = -1;  // -1: the file is not there
  std::int64_t modified_ns = 0;
  friend bool operator==(const Stamp&, const Stamp&) = default;

  static Stamp of(const std::filesystem::path& path) {
    struct stat info{};
    if (::stat(path.c_str(), &info) != 0) return {};
    return {.inode = info.st_ino,
            .size = info.st_size,
            .modified_ns = info.st_mtim.tv_sec * 1'000'000'000LL + info.st_mtim.tv_nsec};
  }
};

Reloader::Reloader(std::filesystem::path path, std::shared_ptr<const Config> current, const core::Clock& clock,
                   LoadOptions options)
    : path_(std::move(path)),
      options_(std::move(options)),
      clock_(clock),
      started_(std::move(current)),
      current_(started_),
      stamp_(std::make_unique<Stamp>(Stamp::of(path_))) {
  fd_ = ::inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  if (fd_ < 0) return;
  const std::filesystem::path folder = std::filesystem::absolute(path_).parent_path();
  constexpr std::uint32_t kEvents = IN_CLOSE_WRITE | IN_MODIFY | IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_ATTRIB;
  if (::inotify_add_watch(fd_, folder.c_str(), kEvents) >= 0) return;
  ::close(fd_);
  fd_ = -1;
}

Reloader::~Reloader() {
  if (fd_ >= 0) ::close(fd_);
}

// True when something in the folder changed. Which file does not matter: a link's target may be what was swapped.
bool Reloader::drain_events() {
  if (fd_ < 0) return false;
  alignas(inotify_event) std::array<char, 4096> buffer;
  bool any = false;
  while (::read(fd_, buffer.data(), buffer.size()) > 0) any = true;
  return any;
}

std::optional<std::chrono::milliseconds> Reloader::wait_hint() const {
  if (!changed_at_) return std::nullopt;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(*changed_at_ + kSettle - clock_.steady());
  return std::max(left, std::chrono::milliseconds{0});
}

Reload Reloader::check() {
  const bool event = drain_events();
  const Stamp now = Stamp::of(path_);
  if (now != *stamp_) {
    *stamp_ = now;
    changed_at_ = clock_.steady();
  } else if (event && changed_at_) {
    changed_at_ = clock_.steady();  // still being written within the clock's grain
  }
  // While the file is away (between a delete and a rename) there is nothing to judge; its return is a change again.
  if (now.size < 0) changed_at_.reset();
  const bool settled = changed_at_ && clock_.steady() - *changed_at_ >= kSettle;
  if (!settled) return {.kind = Reload::Kind::unchanged, .snapshot = current_};
  return load_now();
}

Reload Reloader::reload() {
  drain_events();
  *stamp_ = Stamp::of(path_);
  return load_now();
}

Reload Reloader::load_now() {
  changed_at_.reset();
  const Stamp before = *stamp_;
  LoadResult loaded = load_file(path_, options_);
  if (const Stamp after = Stamp::of(path_); after != before) {
    // Written while it was read: look again once it stands still.
    *stamp_ = after;
    changed_at_ = clock_.steady();
    return {.kind = Reload::Kind::unchanged, .snapshot = current_};
  }
  if (!loaded) return {.kind = Reload::Kind::rejected, .snapshot = current_, .errors = std::move(loaded.error())};
  const auto time = std::chrono::duration_cast<std::chrono::microseconds>(clock_.wall().time_since_epoch());
  auto taken = in_force(*started_, *current_, *loaded, time);
  if (!taken) {
    return {.kind = Reload::Kind::rejected, .snapshot = current_, .errors = {std::move(taken.error())}};
  }
  current_ = std::make_shared<const Config>(std::move(taken->config));
  return {.kind = Reload::Kind::applied,
          .snapshot = current_,
          .file = std::make_shared<const Config>(*std::move(loaded)),
          .needs_restart = std::move(taken->needs_restart),
          .until_restart = std::move(taken->until_restart)};
}

}  // namespace ganglion::config
