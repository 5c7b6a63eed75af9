#pragma once
// Redis for one worker: commands of many coroutines pipelined over one connection a node, standalone or cluster
// (slots learned, MOVED and ASK followed), TLS, AUTH, reconnect, and a circuit breaker for each node. hiredis parses;
// the sockets are ours.
//
// One io_context, its thread only. Nothing here ever makes a caller wait past its deadline: a command ends in exactly
// one of a reply, an error reply, or a RedisError. A command that is past its deadline fails alone, and its late answer
// is dropped; a connection on which nothing comes for options.hung_after while commands wait is closed, all that waits
// on it fails, and the circuit opens: until a probe (connect, AUTH, PING, a write that changes nothing) has been
// answered, commands fail at once with `unavailable`. Commands are never sent twice, except after MOVED, ASK, TRYAGAIN
// and NOSCRIPT, which all say that nothing was done. Commands for one key run in the order of their sending, scripts
// among them; but a cluster that moves the key may change it, and a server that forgets its scripts (SCRIPT FLUSH)
// may run a plain command that was on its way before a script that it has to be told again. Keys and channels are
// sent as given: put options.key_prefix before them yourself.

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "core/deadline.hpp"
#include "core/error.hpp"
#include "net/redis_hooks.hpp"
#include "net/redis_options.hpp"
#include "net/redis_types.hpp"

namespace ganglion::net {

namespace redis {
class Engine;
}

// The files that options.tls names, loaded for a look.
core::Result<void> check_redis_tls(const RedisOptions& options);

// Ends its subscription when it dies. Its client's thread only; may outlive the client.
class RedisSubscription {
 public:
  RedisSubscription() = default;
  RedisSubscription(RedisSubscription&&) noexcept;
  RedisSubscription& operator=(RedisSubscription&&) noexcept;
  ~RedisSubscription();

 private:
  friend class RedisClient;
  struct Entry;
  explicit RedisSubscription(std::shared_ptr<Entry> entry);
  std::shared_ptr<Entry> entry_;
};

class RedisClient {
 public:
  using Handler = std::move_only_function<void(RedisResult)>;

  // `executor` is that of an io_context run by one thread. Throws only if TLS files cannot be used. Connects on its own
  // from start() on; `hooks` outlives it.
  RedisClient(boost::asio::any_io_executor executor, RedisOptions options, RedisHooks& hooks);
  // Commands that wait end with `closed`, by a post to the executor.
  ~RedisClient();
  RedisClient(const RedisClient&) = delete;
  RedisClient& operator=(const RedisClient&) = delete;

  // The first connection is tried now instead of with the first command. Any number of times.
  void start();

  // A reply of type error comes as RedisError (error replies inside an array stay in the array). The command fails at
  // `until`, or options.command_timeout from now, whichever comes first.
  boost::asio::awaitable<RedisResult> command(RedisCommand command, core::Deadline until = {});
  // EVAL the first time on a connection and where the server forgot the script, else EVALSHA. Keys must share a slot;
  // `keys` is not empty.
  boost::asio::awaitable<RedisResult> eval(const RedisScript& script, std::span<const std::string_view> keys,
                                           std::span<const std::string_view> args, core::Deadline until = {});

  // The same without a coroutine: `done` is called once, from the executor, never before this returns. `script` must
  // live until then.
  void send(RedisCommand command, core::Deadline until, Handler done);
  void send_eval(const RedisScript& script, std::span<const std::string_view> keys,
                 std::span<const std::string_view> args, core::Deadline until, Handler done);

  // `message` is called for every message of the channel, `gap` whenever messages may have
  // been missed: at each (re)connect of the subscription, the first one included. A connection of its own; it is made
  // anew after a loss, and pinged.
  RedisSubscription subscribe(std::string channel, std::function<void(std::string_view message)> message,
                              std::function<void()> gap);

  // May a command for this key be worth trying: its node is up, or there is no verdict yet.
  bool available(std::string_view key) const;
  // The worst of the nodes that own slots; standalone: of the server.
  RedisState state() const;
  RedisDown why() const;
  bool cluster() const;  // known to be one
  const RedisOptions& options() const;

 private:
  std::shared_ptr<redis::Engine> engine_;
};

}  // namespace ganglion::net
