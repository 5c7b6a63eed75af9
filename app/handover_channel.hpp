#pragma once
// The connection between a process and the one that takes its place: packets over a Unix socket, descriptors with them.
// Both run on one machine and may be of different versions, so whatever cannot be read ends the handover.

#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ganglion::app {

enum class PacketType : std::uint8_t {
  listeners = 1,      // old: the listening sockets; payload: how many of them are the proxy's
  ready = 2,          // new: configuration and models are loaded; payload: 1, it answers key_claim (older: nothing)
  limits = 3,         // old: units taken from rate limits
  budgets = 4,        // old: what running requests hold of budgets
  take = 5,           // old: the ledger is free; payload: HandedNumbers; of older versions: nothing
  committed = 6,      // new: it serves
  failed = 7,         // new: it does not; payload: why
  intent = 8,         // old, from here on: what its running requests need
  attempt = 9,        //
  terminal = 10,      //
  budget_raise = 11,  //
  budget_settle = 12,
  key_ended = 13,
  key_claim = 16,
  connection = 14,  // a client without a running request; payload: what was read of it
  reply = 15,       // new: to the call of the same number; 0, value and "", or kind + 1, whether to ask again, message
};

// Of the old process.
struct HandedNumbers {
  std::uint64_t gateways = 0;        // that share the limits; 0: not known
  std::uint64_t generation = 0;      // of the process; 1: it was started
  std::uint64_t config_version = 0;  // in force
};

struct Packet {
  PacketType type{};
  std::uint64_t call = 0;  // 0: no answer is wanted
  std::string payload;
  std::vector<int> fds;
};

class HandoverChannel {
 public:
  static std::pair<int, int> make();  // {-1, -1}: the system refused
  explicit HandoverChannel(int fd) : fd_(fd) {}
  ~HandoverChannel();
  HandoverChannel(const HandoverChannel&) = delete;
  HandoverChannel& operator=(const HandoverChannel&) = delete;

  // Any thread; waits while the other side does not keep up. False: it is gone. The descriptors stay the caller's.
  bool send(PacketType type, std::uint64_t call, std::string_view payload, std::span<const int> fds = {});
  // One thread; waits. Nothing: the other side is gone, or sent what is no packet.
  std::optional<Packet> receive();
  void shut();  // both sides find the other gone
  int fd() const { return fd_; }

 private:
  const int fd_;
  std::mutex sending_;
};

// Payloads: numbers, and texts of any length.
class PacketWriter {
 public:
  PacketWriter& number(std::uint64_t value);
  PacketWriter& text(std::string_view value);
  PacketWriter& wide(unsigned __int128 value);
  const std::string& str() const { return out_; }

 private:
  std::string out_;
};

class PacketReader {
 public:
  explicit PacketReader(std::string_view in) : in_(in) {}
  std::uint64_t number();
  std::string_view text();
  unsigned __int128 wide();
  bool more() const { return ok_ && !in_.empty(); }
  bool ok() const { return ok_; }

 private:
  std::string_view take(std::size_t bytes);
  std::string_view in_;
  bool ok_ = true;
};

}  // namespace ganglion::app
