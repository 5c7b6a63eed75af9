#pragma once
// SharedStore over Redis, standalone or cluster. Keys, after the client's prefix:
//   cache:{<store key in hex>}:v   the value, with its lifetime
//   cache:{<store key in hex>}:l   the lease's token, with its length
//   cache:{purges}:g               the newest purge's generation: milliseconds of Redis's clock, always increasing
//   cache:{purges}:log             sorted set of "<generation> <scope>", the newest 1024
// and the channel cache:purges, on which a purge wakes all gateways. One object and one client a thread.

#include <memory>
#include <string>

#include "cache/options.hpp"
#include "cache/shared_store.hpp"
#include "net/redis_client.hpp"

namespace ganglion::cache {

class RedisStore final : public SharedStore {
 public:
  RedisStore(std::shared_ptr<net::RedisClient> client, const RedisCacheOptions& options);

  bool up(const StoreKey& key) const override;
  boost::asio::awaitable<Answer> get(const StoreKey& key, std::string_view token, std::string_view known,
                                     core::Deadline until) override;
  boost::asio::awaitable<bool> renew(const StoreKey& key, std::string_view token) override;
  boost::asio::awaitable<void> release(const StoreKey& key, std::string_view token) override;
  boost::asio::awaitable<Put> put(const StoreKey& key, std::string_view token, std::string_view value,
                                  std::chrono::milliseconds lifetime) override;
  boost::asio::awaitable<std::optional<std::uint64_t>> purge(std::string_view scope) override;
  boost::asio::awaitable<std::optional<Told>> told_since(std::uint64_t generation, core::Deadline until) override;
  boost::asio::awaitable<bool> tell_again(const std::vector<std::pair<std::uint64_t, std::string>>& purges) override;
  void listen(std::function<void()> wake) override;

 private:
  std::string key_of(const StoreKey& key, char what) const;

  std::shared_ptr<net::RedisClient> client_;
  const std::string lease_ms_;
  const std::string generation_key_, log_key_, channel_;
  net::RedisSubscription subscription_;
};

}  // namespace ganglion::cache
