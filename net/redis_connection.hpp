#pragma once
// One connection to one Redis server: opens, pipelines commands, matches answers in order, keeps each command's
// deadline, makes scripts known, and notices when the server stops answering. Knows nothing of clusters or
// reconnecting. Internal to net.

#include <array>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/clock.hpp"
#include "net/redis_client.hpp"
#include "net/redis_resp.hpp"
#include "net/stream.hpp"
#include "net/tls.hpp"

namespace ganglion::net::redis {

inline constexpr std::string_view kAsking = "*1\r\n$6\r\nASKING\r\n";

// Why a node cannot be used.
struct Fault {
  RedisDown why = RedisDown::none;
  std::string detail;
};
using Opened = std::expected<void, Fault>;
Fault fault_of(const RedisError& error);  // of a greeting that failed

// One command on its way. `done` empty: its caller was answered already, what comes is dropped.
struct Command {
  std::string wire;
  RedisClient::Handler done;
  core::SteadyTime deadline = core::SteadyTime::max();
  core::SteadyTime sent{};
  unsigned slot = RedisCommand::kAnywhere;
  unsigned redirects = 0;
  bool asking = false;                  // the wire begins with ASKING, which is answered too
  bool asked = false;                   // it came here by ASK: what is sent again needs ASKING again
  bool internal = false;                // a handshake, a PING: answered by the connection itself
  const RedisScript* script = nullptr;  // of an EVALSHA or EVAL; not looked at once `done` was called
  std::uint64_t script_id = 0;          // its own, as long as the process lives
  std::size_t script_tail = 0;          // where what follows the SHA begins
  std::size_t words = 0;
  bool by_text = false;  // an EVAL
  bool again = false;    // it was answered NOSCRIPT before
};
using CommandPtr = std::unique_ptr<Command>;

CommandPtr make_command(const RedisCommand& command, core::SteadyTime until, RedisClient::Handler done);
RedisResult to_result(RedisReply reply);

// What all parts of one client share. `hooks` is null once the client is gone.
struct Context {
  boost::asio::any_io_executor executor;
  RedisOptions options;
  RedisHooks* hooks;
  SslContextPtr tls;

  // Ends a command: its handler runs from the executor, whatever memory there is now. Nothing if it was ended before.
  void finish(Command& command, RedisResult result);
  void fail(Command& command, RedisFailure failure, std::string_view message, bool maybe_done = false);
};

class Connection final : public std::enable_shared_from_this<Connection> {
 public:
  struct Owner {
    virtual ~Owner() = default;
    virtual void answered(CommandPtr command, RedisReply reply) = 0;
    virtual void dropped(const Fault& fault) = 0;  // once, unless drop() was called by the owner after leave()
  };

  Connection(std::shared_ptr<Context> context, Owner& owner);

  // Name look-up, TCP, TLS.
  boost::asio::awaitable<Opened> open(const Address& address, core::SteadyTime until);
  // After open(). Answers are handed to the owner; a command past its deadline is finished here.
  void send(CommandPtr command);
  std::size_t waiting() const { return queue_.size(); }
  core::SteadyTime heard() const { return heard_; }  // when bytes came last
  bool closed() const { return closed_; }
  // Sends one command of our own and waits; the owner does not see it.
  boost::asio::awaitable<RedisResult> ask(RedisCommand command, core::SteadyTime until);
  // AUTH and SELECT as configured, then PING.
  boost::asio::awaitable<Opened> greet(core::SteadyTime until);
  // From now on whatever comes is a message for `push`, and raw() writes without expecting an answer.
  void subscribe_mode(std::function<void(RedisReply)> push) { push_ = std::move(push); }
  void raw(std::string_view wire);
  // Closes; all that waits is finished. The owner is told, unless it has left.
  void drop(Fault fault);
  void leave() { owner_ = nullptr; }

 private:
  struct Lookup;
  using Endpoints = std::vector<boost::asio::ip::tcp::endpoint>;
  boost::asio::awaitable<Endpoints> resolve(const Address& address, core::SteadyTime until);
  boost::asio::awaitable<bool> connect(const boost::asio::ip::tcp::endpoint& endpoint, core::SteadyTime until);
  boost::asio::awaitable<Opened> handshake(const Address& address, core::SteadyTime until);
  boost::asio::awaitable<void> read_loop();
  boost::asio::awaitable<void> wait_to_write();
  Io read_some();
  bool take_replies();
  void take(RedisReply reply);
  void answer(CommandPtr command, RedisReply reply);
  void send_again(CommandPtr command);
  void schedule_flush();
  void flush();
  Io write_queue();
  void wrote(std::size_t bytes);
  std::size_t begun() const;
  std::size_t sendable() const;
  void arm(core::SteadyTime at);
  void tick();
  core::SteadyTime sweep(core::SteadyTime now);

  std::shared_ptr<Context> context_;
  Owner* owner_;
  std::shared_ptr<boost::asio::ip::tcp::socket> connecting_;
  std::optional<Stream> stream_;
  RespReader reader_;
  std::array<char, 16 * 1024> in_;
  std::function<void(RedisReply)> push_;
  std::string raw_;

  std::deque<CommandPtr> queue_;  // the oldest first: written_ whole ones, one in part, the rest
  std::size_t written_ = 0;
  std::size_t offset_ = 0;             // of the one in part
  std::size_t pinned_ = 0;             // those before are in a TLS record that waits to be sent
  bool held_ = false;                  // nothing new is written until what is on its way has come back
  std::vector<std::uint64_t> known_;   // scripts that this server has been given here
  std::vector<std::uint64_t> coming_;  // while writing: those whose text goes out now
  bool flush_posted_ = false;
  bool write_blocked_ = false;
  bool closed_ = false;

  boost::asio::steady_timer timer_;
  core::SteadyTime armed_ = core::SteadyTime::max();
  core::SteadyTime progress_{};  // bytes came, or the first command began to wait
  core::SteadyTime heard_{};
};

}  // namespace ganglion::net::redis
