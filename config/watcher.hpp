#pragma once
// Watches one configuration file and makes validated snapshots of it. Sans Asio: the owner waits on fd() and on
// wait_hint(), and calls check(); SIGHUP calls reload(). One thread at a time. The folder is watched rather than the
// file, so that editors that rename a new file over the old one, and Kubernetes' symlink swaps, are seen.

#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "config/config.hpp"
#include "config/loader.hpp"
#include "core/clock.hpp"

namespace ganglion::config {

// What one look at the file gave.
struct Reload {
  enum class Kind : std::uint8_t {
    unchanged,  // nothing new, or a change that has not settled yet
    applied,    // `snapshot` is in force from now on
    rejected,   // `errors` say why; the old snapshot stays in force
  };
  Kind kind = Kind::unchanged;
  std::shared_ptr<const Config> snapshot;  // the one in force, always set
  std::shared_ptr<const Config> file;      // applied: as the file says it, in force after a restart
  std::vector<Diagnostic> errors;          // rejected only
  std::vector<std::string> needs_restart;  // applied: key paths that keep the start's value until a restart
  std::vector<std::string> until_restart;  // applied: what else that means, for the operator
};

class Reloader {
 public:
  // A change is taken once the file has not changed for this long: a half-written file is not looked at.
  static constexpr std::chrono::milliseconds kSettle{100};

  // `current` is in force since the start: what is restart-only in it stays. Watching starts here; when inotify is not
  // available fd() is -1 and only reload() works.
  Reloader(std::filesystem::path path, std::shared_ptr<const Config> current, const core::Clock& clock,
           LoadOptions options = {});
  ~Reloader();
  Reloader(const Reloader&) = delete;
  Reloader& operator=(const Reloader&) = delete;

  // Readable when the folder changed. Non-blocking; owned by this object.
  int fd() const { return fd_; }
  // How long to wait before the next check() even if fd() stays silent; nullopt: until fd() is readable.
  std::optional<std::chrono::milliseconds> wait_hint() const;

  // Call when fd() is readable or the hint has passed. Never blocks beyond reading the file.
  Reload check();
  // Reads the file now (SIGHUP), settled or not.
  Reload reload();
  // The owner could not use what it was given: `config` is in force still.
  void put_back(std::shared_ptr<const Config> config) { current_ = std::move(config); }

  const std::shared_ptr<const Config>& current() const { return current_; }

 private:
  struct Stamp;
  bool drain_events();
  Reload load_now();

  std::filesystem::path path_;
  LoadOptions options_;
  const core::Clock& clock_;
  const std::shared_ptr<const Config> started_;
  std::shared_ptr<const Config> current_;
  int fd_ = -1;
  std::unique_ptr<Stamp> stamp_;                // size, inode and time of the file as last seen
  std::optional<core::SteadyTime> changed_at_;  // a change that has not settled
};

}  // namespace ganglion::config
