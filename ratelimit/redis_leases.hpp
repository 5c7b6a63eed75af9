#pragma once
// Shared buckets in Redis: one hash a holder, changed by one script a call, by Redis's own clock. docs/limits.md says
// what is kept there and for how long.

#include <string>
#include <vector>

#include "net/redis_client.hpp"
#include "ratelimit/lease_store.hpp"

namespace ganglion::ratelimit {

// The script, for tests: ARGV[1] is 0 for Redis's own clock, else the time in microseconds.
const net::RedisScript& lease_script();

class RedisLeases final : public LeaseStore {
 public:
  explicit RedisLeases(net::RedisClient& client) : client_(client) {}
  void exchange(const LeaseAsk& ask, std::move_only_function<void(LeaseResult)> done) override;
  bool available(std::string_view key) const override;
  void report(std::string_view gateway, std::move_only_function<void(std::uint32_t)> done) override;
  void leave(std::string_view gateway, std::move_only_function<void()> done) override;

 private:
  net::RedisClient& client_;
};

// What the script is given and what it says, apart from the connection.
std::vector<std::string> lease_arguments(const LeaseAsk& ask, std::uint64_t now_us = 0);
LeaseResult read_grant(const LeaseAsk& ask, const net::RedisResult& answer);

}  // namespace ganglion::ratelimit
