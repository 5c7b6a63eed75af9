// See metering/damage.hpp.
//
// CRC32C is linear: the difference between the stored and the computed value depends on the wrong bits alone. A wrong
// byte with n bytes behind it leaves the table's entry for its bits, advanced over n zero bytes; so the difference is
// taken back byte by byte until it is such an entry.

#include "metering/damage.hpp"

#include <array>
#include <cstdint>
#include <string>

#include "core/digest.hpp"

namespace ganglion::metering {
namespace {

constexpr std::uint32_t kPolynomial = 0x82F63B78;  // CRC32C, reflected
constexpr std::size_t kCrcAt = 4;
constexpr std::size_t kChainAt = 8;

constexpr auto kTable = [] {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value & 1) != 0 ? value >> 1 ^ kPolynomial : value >> 1;
    table[i] = value;
  }
  return table;
}();

// Entries differ in their top byte, so a step can be taken back.
constexpr auto kByTopByte = [] {
  std::array<std::uint8_t, 256> index{};
  for (std::uint32_t i = 0; i < 256; ++i) index[kTable[i] >> 24] = static_cast<std::uint8_t>(i);
  return index;
}();

constexpr std::uint32_t step_back(std::uint32_t value) {
  const std::uint8_t index = kByTopByte[value >> 24];
  return (value ^ kTable[index]) << 8 | index;
}

std::uint32_t number_at(std::string_view bytes, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = 4; i-- > 0;) value = value << 8 | static_cast<std::uint8_t>(bytes[at + i]);
  return value;
}

// Whether `bytes` are the record that follows `before`.
bool is_right(std::string_view bytes, const ChainState& before) {
  Frame frame;
  ChainHasher hasher;
  return parse_frame(bytes, frame) == FrameStatus::ok && frame.sequence == before.next_sequence &&
         chain_of(bytes, frame, before.chain, hasher) == frame.chain;
}

bool right_with(std::string_view bytes, std::size_t at, std::uint8_t flip, const ChainState& before) {
  std::string mended{bytes};
  mended[at] = static_cast<char>(static_cast<std::uint8_t>(mended[at]) ^ flip);
  return is_right(mended, before);
}

// A wrong byte of the length field gives the record another end.
std::optional<std::size_t> in_length(std::string_view bytes, const ChainState& before) {
  const std::uint32_t length = number_at(bytes, 0);
  for (std::size_t at = 0; at < kCrcAt; ++at) {
    for (std::uint32_t flip = 1; flip < 256; ++flip) {
      const std::uint32_t other = length ^ flip << (8 * at);
      if (other > kPayloadBytesMax || other > bytes.size() - kFrameHeaderBytes) continue;
      if (right_with(bytes.substr(0, kFrameHeaderBytes + other), at, static_cast<std::uint8_t>(flip), before))
        return at;
    }
  }
  return std::nullopt;
}

std::optional<std::size_t> behind_length(std::string_view frame, const ChainState& before) {
  const std::uint32_t computed = core::crc32c(frame.substr(kChainAt), core::crc32c(frame.substr(0, kCrcAt)));
  std::uint32_t difference = number_at(frame, kCrcAt) ^ computed;
  for (std::size_t at = 0; at < 4; ++at) {
    const auto flip = static_cast<std::uint8_t>(difference >> (8 * at));
    if (difference == std::uint32_t{flip} << (8 * at) && flip != 0 && right_with(frame, kCrcAt + at, flip, before))
      return kCrcAt + at;
  }
  for (std::size_t at = frame.size(); at-- > kChainAt; difference = step_back(difference)) {
    const std::uint8_t flip = kByTopByte[difference >> 24];
    if (kTable[flip] == difference && flip != 0 && right_with(frame, at, flip, before)) return at;
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::size_t> find_wrong_byte(std::string_view bytes, const ChainState& before) {
  if (bytes.size() < kFrameHeaderBytes) return std::nullopt;
  if (const std::uint32_t length = number_at(bytes, 0);
      length <= kPayloadBytesMax && length <= bytes.size() - kFrameHeaderBytes) {
    if (const auto found = behind_length(bytes.substr(0, kFrameHeaderBytes + length), before)) return found;
  }
  return in_length(bytes, before);
}

}  // namespace ganglion::metering
