#pragma once
// How many connections are open from each client address, where that is limited. IPv6 addresses count by their /64: one
// host commonly has all of it. Thread-safe; one short critical section a connection, none where nothing is limited.

#include <array>
#include <boost/asio/ip/address.hpp>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <utility>

namespace ganglion::net {

class AddressCount {
 public:
  // One connection's place; given back when it dies, before the AddressCount. An empty one counts nothing.
  class Place {
   public:
    Place() = default;
    Place(Place&& other) noexcept : of_(std::exchange(other.of_, nullptr)), key_(other.key_) {}
    Place& operator=(Place&& other) noexcept {
      std::swap(of_, other.of_);
      std::swap(key_, other.key_);
      return *this;
    }
    ~Place() {
      if (of_ != nullptr) of_->leave(key_);
    }

   private:
    friend class AddressCount;
    Place(AddressCount& of, const std::array<std::uint8_t, 8>& key) : of_(&of), key_(key) {}
    AddressCount* of_ = nullptr;
    std::array<std::uint8_t, 8> key_{};
  };

  // nullopt: `most` are open from there. 0: as many as they like.
  std::optional<Place> enter(const boost::asio::ip::address& address, std::size_t most);
  std::size_t addresses() const;  // with an open connection

 private:
  using Key = std::array<std::uint8_t, 8>;
  void leave(const Key& key);

  mutable std::mutex mutex_;
  std::map<Key, std::size_t> open_;
};

}  // namespace ganglion::net
