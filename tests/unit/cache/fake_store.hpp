#pragma once
// A SharedStore in memory, for many gateways in one process: made ill on request, its leases ended on request.

#include <atomic>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <map>
#include <mutex>

#include "cache/codec.hpp"
#include "cache/shared_store.hpp"

namespace ganglion::cache {

// What all gateways see. Thread-safe.
struct FakeServer {
  enum class Mood { well, lost, hanging };
  std::atomic<Mood> mood{Mood::well};
  std::atomic<bool> loses_messages{false};
  std::atomic<int> renewals{0}, gets{0};

  std::mutex lock;
  std::map<std::string, std::string> values, leases;
  std::vector<std::pair<std::uint64_t, std::string>> purges;
  std::uint64_t generation = 0;
  std::vector<std::function<void()>> listeners;

  void end_leases() {
    const std::lock_guard guard{lock};
    leases.clear();
  }
  void forget_everything() {
    const std::lock_guard guard{lock};
    values.clear();
    leases.clear();
    purges.clear();
    generation = 0;
  }
  template <class F>
  auto with(F f) {
    const std::lock_guard guard{lock};
    return f();
  }
};

class FakeStore final : public SharedStore {
 public:
  FakeStore(std::shared_ptr<FakeServer> server, boost::asio::any_io_executor executor)
      : server_(std::move(server)), executor_(std::move(executor)) {}

  bool up(const StoreKey&) const override { return server_->mood != FakeServer::Mood::lost; }

  boost::asio::awaitable<Answer> get(const StoreKey& key, std::string_view token, std::string_view known,
                                     core::Deadline until) override {
    const std::string name = key.hex();
    const std::string mine{token};
    const std::string old{known};
    ++server_->gets;
    if (!co_await answers(until)) co_return Answer{};
    co_return server_->with([&] {
      Answer out{.got = Got::miss, .generation = server_->generation};
      const auto value = server_->values.find(name);
      if (value != server_->values.end() && (old.empty() || stamp_of(value->second) != old)) {
        out.got = Got::hit;
        out.value = value->second;
      } else if (!mine.empty()) {
        out.got = server_->leases.try_emplace(name, mine).first->second == mine ? Got::leased : Got::busy;
      }
      return out;
    });
  }
  boost::asio::awaitable<bool> renew(const StoreKey& key, std::string_view token) override {
    const std::string name = key.hex();
    const std::string mine{token};
    if (!co_await answers()) co_return false;
    ++server_->renewals;
    co_return server_->with([&] {
      const auto it = server_->leases.find(name);
      return it != server_->leases.end() && it->second == mine;
    });
  }
  boost::asio::awaitable<void> release(const StoreKey& key, std::string_view token) override {
    const std::string name = key.hex();
    const std::string mine{token};
    if (!co_await answers()) co_return;
    server_->with([&] {
      const auto it = server_->leases.find(name);
      if (it != server_->leases.end() && it->second == mine) server_->leases.erase(it);
    });
  }
  boost::asio::awaitable<Put> put(const StoreKey& key, std::string_view token, std::string_view value,
                                  std::chrono::milliseconds) override {
    const std::string name = key.hex();
    if (!co_await answers()) co_return Put::failed;
    co_return server_->with([&] {
      const auto it = server_->leases.find(name);
      const bool mine = it != server_->leases.end() && it->second == token;
      if (!token.empty() && !mine && (it != server_->leases.end() || server_->values.contains(name)))
        return Put::fenced;
      server_->values[name] = value;
      if (mine) server_->leases.erase(it);
      return Put::stored;
    });
  }
  boost::asio::awaitable<std::optional<std::uint64_t>> purge(std::string_view scope) override {
    const std::string text{scope};
    if (!co_await answers()) co_return std::nullopt;
    const auto generation = server_->with([&] {
      server_->generation = std::max<std::uint64_t>(server_->generation + 1, 1000);
      server_->purges.emplace_back(server_->generation, text);
      return server_->generation;
    });
    if (!server_->loses_messages) {
      for (const auto& listener : server_->with([&] { return server_->listeners; })) listener();
    }
    co_return generation;
  }
  boost::asio::awaitable<std::optional<Told>> told_since(std::uint64_t after, core::Deadline) override {
    if (!co_await answers()) co_return std::nullopt;
    co_return server_->with([&] {
      Told out{.generation = server_->generation};
      for (const auto& purge : server_->purges) {
        if (purge.first > after) out.purges.push_back(purge);
      }
      return std::optional{out};
    });
  }
  boost::asio::awaitable<bool> tell_again(const std::vector<std::pair<std::uint64_t, std::string>>& purges) override {
    if (!co_await answers()) co_return false;
    server_->with([&] {
      for (const auto& purge : purges) {
        server_->purges.push_back(purge);
        server_->generation = std::max(server_->generation, purge.first);
      }
    });
    co_return true;
  }
  void listen(std::function<void()> wake) override {
    server_->with([&] {
      server_->listeners.push_back([wake, executor = executor_] { boost::asio::post(executor, [wake] { wake(); }); });
    });
  }

 private:
  boost::asio::awaitable<bool> answers(core::Deadline until = core::Deadline::after(std::chrono::milliseconds{25})) {
    if (server_->mood == FakeServer::Mood::hanging) {
      boost::asio::steady_timer timer(co_await boost::asio::this_coro::executor);
      timer.expires_at(until.at());
      co_await timer.async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
      co_return false;
    }
    co_return server_->mood == FakeServer::Mood::well;
  }

  std::shared_ptr<FakeServer> server_;
  boost::asio::any_io_executor executor_;
};

}  // namespace ganglion::cache
