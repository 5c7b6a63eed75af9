// Replacing this process by a new one of the program as it lies on the disk now: SIGUSR2, or `ganglion upgrade`, which
// sends it. No connection is refused or cut, and the ledger has one writer at every instant. docs/upgrade.md.

#include <unistd.h>

#include <boost/asio/post.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "app/application.hpp"
#include "core/log.hpp"

namespace ganglion::app {
namespace {

// For a configuration and models to load.
constexpr std::chrono::minutes kStartMax{10};
// For requests that have begun and have no intent in the ledger yet: nothing begins meanwhile, so it is short.
constexpr std::chrono::milliseconds kQuietMax{300};
constexpr std::chrono::milliseconds kQuietPoll{2};
// For the new process to open the ledger and serve.
constexpr std::chrono::seconds kTakeMax{20};
constexpr std::chrono::milliseconds kCacheFlush{50};
// For the cache's files to be closed; a disk that takes longer costs the new process misses until it has.
constexpr std::chrono::milliseconds kCacheClose{200};

}  // namespace

std::string upgrade_status_path(const std::string& ledger_directory) {
  return ledger_directory + "/upgrade-status";
}

void Application::tell_upgrade(const std::string& status) {
  const std::string path = upgrade_status_path(config_->ledger.directory);
  {
    std::ofstream out(path + ".new", std::ios::trunc);
    out << status << "\n";
  }
  std::error_code ignored;  // the log has it too
  std::filesystem::rename(path + ".new", path, ignored);
}

void Application::begin_upgrade() {
  if (draining_ || upgrade_) {
    core::log(core::LogLevel::warn, "upgrade_refused",
              {{"why", draining_ ? "this process is stopping" : "an upgrade is under way"}});
    return;
  }
  std::vector<std::string> arguments{"serve"};
  if (!config_->source.empty()) arguments.push_back(config_->source);
  auto started = Predecessor::spawn(arguments);
  if (!started) return upgrade_failed(started.error().message);
  upgrade_ = std::move(*started);
  core::log(core::LogLevel::info, "upgrade_begun", {{"pid", static_cast<std::int64_t>(upgrade_->pid())}});
  upgrade_->give_listeners(proxy_->listeners(), admin_->listeners());
  upgrade_fd_.emplace(control_, ::dup(upgrade_->channel().fd()));
  give_up_upgrade_after(kStartMax, "the new process was not ready in time");
  await_upgrade();
}

void Application::give_up_upgrade_after(std::chrono::milliseconds limit, const char* why) {
  upgrade_timer_.expires_after(limit);
  upgrade_timer_.async_wait([this, why](boost::system::error_code error) {
    if (!error && upgrade_ && !draining_) upgrade_failed(why);
  });
}

void Application::await_upgrade() {
  upgrade_fd_->async_wait(boost::asio::posix::descriptor_base::wait_read, [this](boost::system::error_code error) {
    if (error || !upgrade_ || draining_) return;
    const auto packet = upgrade_->channel().receive();
    if (!packet) return upgrade_failed("the new process ended; its log says why");
    switch (packet->type) {
      case PacketType::ready:
        upgrade_->read_ready(packet->payload);
        paused_ = true;
        proxy_->pause();
        admin_->pause();
        quiet_upgrade(clock_.steady() + kQuietMax);
        return await_upgrade();
      case PacketType::committed:
        return handed_over();
      case PacketType::failed:
        return upgrade_failed(packet->payload);
      default:
        return upgrade_failed("the new process cannot be understood; is it of another version?");
    }
  });
}

// Requests that run must have written their intents: afterwards a few may still ask the new process for one, but not
// all of them at once.
void Application::quiet_upgrade(core::SteadyTime limit) {
  const bool quiet = proxy_->exchanges() <= ledger_->stats().open_intents || clock_.steady() >= limit;
  if (quiet) return hand_over();
  upgrade_timer_.expires_after(kQuietPoll);
  upgrade_timer_.async_wait([this, limit](boost::system::error_code error) {
    if (!error && upgrade_ && !draining_) quiet_upgrade(limit);
  });
}

void Application::hand_over() {
  frozen_ = true;
  // First what only follows, then what is written: nobody may touch the directory afterwards.
  sinks_->stop();
  keeper_.reset();
  budget_watch_.mute(true);
  if (lease_keeper_) lease_keeper_->resign();
  cache_tiers_->flush(kCacheFlush);
  if (!cache_tiers_->give_up_disk(kCacheClose)) core::log(core::LogLevel::warn, "cache_disk_slow", {});
  if (!semantic_.give_up_file(kCacheClose)) {
    return upgrade_failed("the semantic cache is still reading its file: try again when it has");
  }
  idempotency_->freeze();
  const auto holds = budgets_.freeze();
  const auto taken = limiter_.taken();
  if (auto done = ledger_->freeze(); !done) return upgrade_failed("the ledger: " + done.error().message);
  give_up_upgrade_after(kTakeMax, "the new process did not take over in time");
  const HandedNumbers numbers{
      .gateways = limiter_.gateways(), .generation = generation_, .config_version = snapshot_version_};
  if (!upgrade_->give_state(taken, holds, numbers)) return upgrade_failed("the new process ended while it took over");
}

void Application::handed_over() {
  upgrade_timer_.cancel();
  const auto pid = static_cast<std::int64_t>(upgrade_->pid());
  core::log(core::LogLevel::info, "upgraded",
            {{"pid", pid}, {"requests", proxy_->exchanges()}, {"window_ms", config_->shutdown.upgrade_drain.count()}});
  upgrade_->commit([this] {
    boost::asio::post(control_, [this] {
      // Its next start closes what is open in the ledger; here nothing can be billed any more.
      cut_ = proxy_->exchanges();
      core::log(core::LogLevel::error, "successor_gone", {{"cut", cut_}});
      proxy_->cancel_all();
    });
  });
  ledger_->follow(*upgrade_);
  budgets_.follow(*upgrade_);
  idempotency_->follow(upgrade_->key_heir());
  proxy_->give([to = upgrade_.get()](int fd, std::string_view received) { to->give_connection(fd, received); });
  admin_->resume();
  admin_->stop_accepting();
  admin_->drain();
  tell_upgrade("ok " + std::to_string(pid));
  draining_ = true;
  metrics_.set_draining(true);
  poll_drain(clock_.steady() + config_->shutdown.upgrade_drain, false);
}

// The new process is ended, and this one goes on as if nothing had been.
void Application::upgrade_failed(const std::string& why) {
  upgrade_timer_.cancel();
  upgrade_fd_.reset();
  upgrade_.reset();  // its hold on the ledger ends with it
  core::log(core::LogLevel::error, "upgrade_failed", {{"why", why}});
  if (std::exchange(frozen_, false)) {
    cache_tiers_->take_disk_back();
    semantic_.take_file_back();
    if (lease_keeper_) lease_keeper_->resume();
    if (auto done = ledger_->thaw(); !done) {
      core::log(core::LogLevel::error, "ledger_lost", {{"why", done.error().message}});
      budgets_.thaw();
      idempotency_->thaw();
      if (!draining_) begin_shutdown();
      return;
    }
    budgets_.thaw();
    idempotency_->thaw();
    budget_watch_.mute(false);
    if (auto done = follow_ledger(); !done) {
      core::log(core::LogLevel::error, "ledger_not_followed", {{"why", done.error().message}});
    }
  }
  if (std::exchange(paused_, false)) {
    proxy_->resume();
    admin_->resume();
  }
  tell_upgrade("failed " + why);
  if (reloader_ && !draining_) settle_config();
}

}  // namespace ganglion::app
