#pragma once
// What the cache needs of a store that several gateways share: values with a lifetime, leases, and the installation's
// purges. cache/redis_store.hpp is it over Redis; tests have one in memory. One object a thread; all calls from its
// thread. Nothing throws, nothing takes longer than its deadline, and a store that is lost says so at once.

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cache/store_key.hpp"
#include "core/deadline.hpp"

namespace ganglion::cache {

class SharedStore {
 public:
  virtual ~SharedStore() = default;

  // False while it is known to be lost: then ask nothing.
  virtual bool up(const StoreKey& key) const = 0;

  enum class Got : std::uint8_t {
    hit,     // `value`
    leased,  // nothing there, and the lease is the caller's now
    busy,    // nothing there, and another has the lease
    miss,    // nothing there; no lease was asked for
    failed,
  };
  struct Answer {
    Got got = Got::failed;
    std::string value;
    std::uint64_t generation = 0;  // of the newest purge that the store knows; 0: none
  };
  // A value whose stamp (cache/codec.hpp) is `known` counts as nothing. `token` names the caller's lease, "" asks for
  // none.
  virtual boost::asio::awaitable<Answer> get(const StoreKey& key, std::string_view token, std::string_view known,
                                             core::Deadline until) = 0;

  // False: the lease is not the caller's any more, or the store is lost.
  virtual boost::asio::awaitable<bool> renew(const StoreKey& key, std::string_view token) = 0;
  virtual boost::asio::awaitable<void> release(const StoreKey& key, std::string_view token) = 0;

  enum class Put : std::uint8_t { stored, fenced, failed };
  // With a token: only while the lease is the caller's, or nobody's and nothing is there; ends the lease. `fenced`:
  // another has taken over, and its answer is the one that counts.
  virtual boost::asio::awaitable<Put> put(const StoreKey& key, std::string_view token, std::string_view value,
                                          std::chrono::milliseconds lifetime) = 0;

  // Writes a purge down for all gateways, and wakes them. Its generation; nullopt: not known to be written.
  virtual boost::asio::awaitable<std::optional<std::uint64_t>> purge(std::string_view scope) = 0;

  struct Told {
    std::uint64_t generation = 0;                               // the newest; 0: the store has forgotten all of them
    std::vector<std::pair<std::uint64_t, std::string>> purges;  // those after the generation asked for, oldest first
    bool complete = true;                                       // false: older ones after it are forgotten
  };
  virtual boost::asio::awaitable<std::optional<Told>> told_since(std::uint64_t generation,
                                                                 core::Deadline until = {}) = 0;
  // Purges that the store has lost. Writing one twice does nothing.
  virtual boost::asio::awaitable<bool> tell_again(const std::vector<std::pair<std::uint64_t, std::string>>& purges) = 0;

  // `wake` is called when a purge was made somewhere, or one may have been missed.
  virtual void listen(std::function<void()> wake) = 0;
};

}  // namespace ganglion::cache
