// See app/handover_channel.hpp. A packet is type (1 byte), call (8 bytes), payload.

#include "app/handover_channel.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace ganglion::app {
namespace {

constexpr std::size_t kHeadBytes = 9;
constexpr std::size_t kPacketBytesMax = 128UL * 1024;
constexpr std::size_t kFdsMax = 250;  // the system's own limit is 253

// After a failed call; waits where the descriptor does not (an event loop looks at it too).
bool again(int fd, short events) {
  if (errno == EINTR) return true;
  if (errno != EAGAIN) return false;
  pollfd one{.fd = fd, .events = events, .revents = 0};
  return ::poll(&one, 1, -1) >= 0 || errno == EINTR;
}

}  // namespace

std::pair<int, int> HandoverChannel::make() {
  int fds[2] = {-1, -1};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) != 0) return {-1, -1};
  return {fds[0], fds[1]};
}

HandoverChannel::~HandoverChannel() {
  ::close(fd_);
}

void HandoverChannel::shut() {
  ::shutdown(fd_, SHUT_RDWR);
}

bool HandoverChannel::send(PacketType type, std::uint64_t call, std::string_view payload, std::span<const int> fds) {
  if (payload.size() + kHeadBytes > kPacketBytesMax || fds.size() > kFdsMax) return false;
  std::array<char, kHeadBytes> head{static_cast<char>(type)};
  std::memcpy(head.data() + 1, &call, sizeof call);
  iovec pieces[2] = {{head.data(), head.size()}, {const_cast<char*>(payload.data()), payload.size()}};
  msghdr message{};
  message.msg_iov = pieces;
  message.msg_iovlen = 2;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kFdsMax)> control{};
  if (!fds.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* const rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(rights), fds.data(), fds.size_bytes());
  }
  const std::lock_guard lock(sending_);
  ssize_t sent = 0;
  do {
    sent = ::sendmsg(fd_, &message, MSG_NOSIGNAL);
  } while (sent < 0 && again(fd_, POLLOUT));
  return sent >= 0;
}

std::optional<Packet> HandoverChannel::receive() {
  std::string bytes(kPacketBytesMax, '\0');
  iovec piece{bytes.data(), bytes.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kFdsMax)> control{};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t got = 0;
  do {
    got = ::recvmsg(fd_, &message, MSG_CMSG_CLOEXEC);
  } while (got < 0 && again(fd_, POLLIN));
  if (got <= 0) return std::nullopt;
  Packet packet;
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr; part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    packet.fds.resize((part->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    std::memcpy(packet.fds.data(), CMSG_DATA(part), packet.fds.size() * sizeof(int));
  }
  if (static_cast<std::size_t>(got) < kHeadBytes || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
    for (const int fd : packet.fds) ::close(fd);
    return std::nullopt;
  }
  packet.type = static_cast<PacketType>(bytes[0]);
  std::memcpy(&packet.call, bytes.data() + 1, sizeof packet.call);
  packet.payload = bytes.substr(kHeadBytes, static_cast<std::size_t>(got) - kHeadBytes);
  return packet;
}

PacketWriter& PacketWriter::number(std::uint64_t value) {
  out_.append(reinterpret_cast<const char*>(&value), sizeof value);
  return *this;
}

PacketWriter& PacketWriter::text(std::string_view value) {
  number(value.size());
  out_.append(value);
  return *this;
}

PacketWriter& PacketWriter::wide(unsigned __int128 value) {
  return number(static_cast<std::uint64_t>(value)).number(static_cast<std::uint64_t>(value >> 64));
}

std::string_view PacketReader::take(std::size_t bytes) {
  ok_ = ok_ && bytes <= in_.size();
  if (!ok_) return {};
  const std::string_view out = in_.substr(0, bytes);
  in_.remove_prefix(bytes);
  return out;
}

std::uint64_t PacketReader::number() {
  std::uint64_t out = 0;
  const std::string_view bytes = take(sizeof out);
  if (ok_) std::memcpy(&out, bytes.data(), sizeof out);
  return out;
}

std::string_view PacketReader::text() {
  return take(number());
}

unsigned __int128 PacketReader::wide() {
  const unsigned __int128 low = number();
  return low | static_cast<unsigned __int128>(number()) << 64;
}

}  // namespace ganglion::app
