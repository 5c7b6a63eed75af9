// See redis_types.hpp, redis_hooks.hpp.

#include "net/redis_types.hpp"

#include <openssl/evp.h>

#include <charconv>
#include <cstring>

#include "core/digest.hpp"
#include "net/redis_hooks.hpp"

namespace ganglion::net {
namespace {

void append_number(std::string& out, char kind, std::uint64_t number) {
  char digits[24];
  const auto end = std::to_chars(digits, digits + sizeof digits, number).ptr;
  out.push_back(kind);
  out.append(digits, end);
  out.append("\r\n");
}

constexpr std::array<std::uint16_t, 256> kCrc16 = [] {
  std::array<std::uint16_t, 256> table{};
  for (unsigned byte = 0; byte < 256; ++byte) {
    unsigned crc = byte << 8;
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 0x8000U) != 0 ? (crc << 1) ^ 0x1021U : crc << 1;
    table[byte] = static_cast<std::uint16_t>(crc);
  }
  return table;
}();

}  // namespace

std::string_view name(RedisFailure failure) {
  static constexpr std::array<std::string_view, 12> kNames{"unavailable", "busy",       "timed_out", "closed",
                                                           "protocol",    "loading",    "read_only", "no_memory",
                                                           "denied",      "redirected", "refused",   "unknown"};
  static_assert(kNames.size() == static_cast<std::size_t>(RedisFailure::kCount) + 1);
  return kNames[static_cast<std::size_t>(failure)];
}

std::string_view name(RedisState state) {
  static constexpr std::array<std::string_view, 4> kNames{"connecting", "up", "down", "unknown"};
  return kNames[static_cast<std::size_t>(state)];
}

std::string_view name(RedisDown why) {
  static constexpr std::array<std::string_view, 10> kNames{"none",   "refused", "hung",      "closed",   "tls",
                                                           "denied", "loading", "read_only", "protocol", "unknown"};
  static_assert(kNames.size() == static_cast<std::size_t>(RedisDown::kCount) + 1);
  return kNames[static_cast<std::size_t>(why)];
}

unsigned redis_slot(std::string_view key) {
  if (const auto open = key.find('{'); open != std::string_view::npos) {
    const auto close = key.find('}', open + 1);
    if (close != std::string_view::npos && close > open + 1) key = key.substr(open + 1, close - open - 1);
  }
  unsigned crc = 0;
  for (const char c : key) crc = ((crc << 8) ^ kCrc16[((crc >> 8) ^ static_cast<unsigned char>(c)) & 0xFFU]) & 0xFFFFU;
  return crc % kRedisSlots;
}

RedisCommand::RedisCommand(std::initializer_list<std::string_view> words)
    : RedisCommand(std::span<const std::string_view>{words.begin(), words.size()}) {}

RedisCommand::RedisCommand(std::span<const std::string_view> words) {
  std::size_t bytes = 0;
  for (const std::string_view word : words) bytes += word.size() + 16;
  words_.reserve(bytes);
  for (const std::string_view word : words) *this << word;
}

RedisCommand& RedisCommand::operator<<(std::string_view word) {
  append_number(words_, '$', word.size());
  words_.append(word).append("\r\n");
  if (++count_ == 2) slot_ = redis_slot(word);
  return *this;
}

RedisCommand& RedisCommand::operator<<(std::int64_t word) {
  char digits[24];
  const auto end = std::to_chars(digits, digits + sizeof digits, word).ptr;
  return *this << std::string_view{digits, static_cast<std::size_t>(end - digits)};
}

RedisCommand&& RedisCommand::key(std::string_view key) && {
  slot_ = redis_slot(key);
  return std::move(*this);
}

RedisCommand&& RedisCommand::anywhere() && {
  slot_ = kAnywhere;
  return std::move(*this);
}

std::string RedisCommand::wire() const {
  std::string out;
  out.reserve(words_.size() + 12);
  append_number(out, '*', count_);
  out += words_;
  return out;
}

RedisScript::RedisScript(std::string text) : text_(std::move(text)) {
  std::array<std::uint8_t, 20> digest{};
  unsigned size = 0;
  EVP_Digest(text_.data(), text_.size(), digest.data(), &size, EVP_sha1(), nullptr);
  sha1_ = core::hex(digest);
  std::memcpy(&id_, digest.data(), sizeof id_);
}

}  // namespace ganglion::net
