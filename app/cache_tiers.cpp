// See app/cache_tiers.hpp.

#include "app/cache_tiers.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "cache/redis_store.hpp"
#include "core/log.hpp"

namespace ganglion::app {
namespace {

// Of what no request waits for: writing an answer, renewing a lease.
constexpr std::chrono::milliseconds kBackgroundTimeout{250};

// For a disk tier without a configured secret: one of its own, made once, beside the files that it is for.
std::string secret_beside(const std::string& directory) {
  const std::string file = directory + "/secret";
  std::array<char, 64> text{};
  const int found = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (found >= 0) {
    const ssize_t size = ::read(found, text.data(), text.size());
    ::close(found);
    if (size == static_cast<ssize_t>(text.size())) return {text.data(), text.size()};
  }
  const std::string made = core::random_hex(32);
  const int fd = ::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  const bool written = fd >= 0 && ::write(fd, made.data(), made.size()) == static_cast<ssize_t>(made.size());
  if (fd >= 0) ::close(fd);
  if (!written) {
    core::log(core::LogLevel::warn, "cache_secret_not_kept",
              {{"file", file}, {"why", "what the disk tier holds will not be found after a restart"}});
  }
  return made;
}

// What names and seals entries: its own secret, else the keys' pepper, which gateways of one installation share too.
cache::StoreSecret choose_secret(const config::Config& config, bool disk) {
  if (!config.cache.secret.empty()) return cache::StoreSecret{config.cache.secret.reveal()};
  if (!config.gateway.key_pepper.empty()) return cache::StoreSecret{config.gateway.key_pepper.reveal()};
  return cache::StoreSecret{disk ? secret_beside(config.cache.disk.directory) : core::random_hex(32)};
}

}  // namespace

std::unique_ptr<cache::Tiers> make_cache_tiers(const config::Config& config, const core::Clock& clock,
                                               cache::MemoryCache& memory, cache::PurgeLog& purges,
                                               metrics::Registry& registry, net::RedisHooks& redis_hooks,
                                               bool successor) {
  const cache::CacheOptions& options = config.cache;
  std::unique_ptr<cache::DiskPlace> disk;
  if (options.enabled && !options.disk.directory.empty()) {
    disk = std::make_unique<cache::DiskPlace>(options.disk, clock);
    if (auto taken = disk->take(); !taken && !successor) {
      disk.reset();
      core::log(core::LogLevel::error, "cache_disk_off", {{"why", taken.error().message}});
    }
  }
  cache::Tiers::MakeStore make_store;
  // Names that others can find need a secret that others know.
  const bool has_secret = !options.secret.empty() || !config.gateway.key_pepper.empty();
  const bool wanted = options.enabled && options.redis.enabled && config.redis.enabled();
  if (wanted && !has_secret) {
    core::log(core::LogLevel::warn, "cache_redis_off",
              {{"why", "answers in Redis need cache.secret or key_pepper, the same for all gateways"}});
  }
  if (wanted && has_secret) {
    // Connections of its own: a large answer must not hold up the limits.
    net::RedisOptions redis = config.redis;
    redis.command_timeout = std::max({redis.command_timeout, options.redis.timeout, kBackgroundTimeout});
    make_store = [redis, &redis_hooks, cache_options = options.redis](boost::asio::any_io_executor executor) {
      auto client = std::make_shared<net::RedisClient>(std::move(executor), redis, redis_hooks);
      client->start();
      return std::make_shared<cache::RedisStore>(std::move(client), cache_options);
    };
  }
  const cache::TierHistograms histograms{
      .redis = registry.shared().histogram(metrics::Family::cache_tier_lookup_seconds, {"redis"}),
      .disk = registry.shared().histogram(metrics::Family::cache_tier_lookup_seconds, {"disk"})};
  cache::StoreSecret secret = choose_secret(config, disk != nullptr);
  return std::make_unique<cache::Tiers>(options, clock, memory, purges, std::move(secret), std::move(disk),
                                        std::move(make_store), histograms);
}

}  // namespace ganglion::app
