// Frames and primitive values of metering/record_codec.hpp.
//
//   0  u32 payload bytes   4  u32 CRC32C over bytes [0,4) and [8,end)   8  chain[16]
//  24  u64 sequence       32  u32 sequence - durable sequence          36  u8 type, u8 version, u16 zero   40 payload

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/digest.hpp"
#include "core/sha256.hpp"
#include "metering/record_codec.hpp"

namespace ganglion::metering {
namespace {

constexpr std::size_t kCrcAt = 4;
constexpr std::size_t kChainAt = 8;
constexpr std::size_t kSequenceAt = 24;
constexpr std::size_t kGapAt = 32;
constexpr std::size_t kTypeAt = 36;

template <class Int>
void put(char* at, Int value) {
  if constexpr (std::endian::native == std::endian::big) value = std::byteswap(value);
  std::memcpy(at, &value, sizeof value);
}

template <class Int>
Int get(const char* at) {
  Int value{};
  std::memcpy(&value, at, sizeof value);
  if constexpr (std::endian::native == std::endian::big) value = std::byteswap(value);
  return value;
}

std::uint32_t frame_crc(std::string_view frame) {
  return core::crc32c(frame.substr(kChainAt), core::crc32c(frame.substr(0, kCrcAt)));
}

}  // namespace

Chain ChainHasher::next(const Chain& previous, std::string_view rest) const {  // NOLINT(*-static)
  core::Sha256State state;
  state.update({reinterpret_cast<const char*>(previous.data()), previous.size()});
  state.update(rest);
  const core::Sha256 full = state.finish();
  Chain out;
  std::copy_n(full.begin(), out.size(), out.begin());
  return out;
}

std::size_t begin_frame(std::string& out) {
  const std::size_t start = out.size();
  out.append(kFrameHeaderBytes, '\0');
  return start;
}

void finish_frame(std::string& out, std::size_t start, RecordType type, std::uint64_t durable_sequence,
                  ChainState& state, ChainHasher& hasher) {
  char* const at = out.data() + start;
  const std::size_t bytes = out.size() - start;
  const std::uint64_t gap = state.next_sequence - std::min(durable_sequence, state.next_sequence);
  put<std::uint32_t>(at, static_cast<std::uint32_t>(bytes - kFrameHeaderBytes));
  put<std::uint64_t>(at + kSequenceAt, state.next_sequence);
  put<std::uint32_t>(at + kGapAt, static_cast<std::uint32_t>(std::min<std::uint64_t>(gap, 0xFFFF'FFFF)));
  at[kTypeAt] = static_cast<char>(type);
  at[kTypeAt + 1] = static_cast<char>(kFormatVersion);
  state.chain = hasher.next(state.chain, {at + kSequenceAt, bytes - kSequenceAt});
  std::memcpy(at + kChainAt, state.chain.data(), kChainBytes);
  put<std::uint32_t>(at + kCrcAt, frame_crc({at, bytes}));
  ++state.next_sequence;
}

FrameStatus parse_frame(std::string_view bytes, Frame& out) {
  const std::string_view head = bytes.substr(0, kFrameHeaderBytes);
  static constexpr char kEnd[kFrameHeaderBytes]{};
  if (head.empty() || std::memcmp(head.data(), kEnd, head.size()) == 0) return FrameStatus::end;
  if (head.size() < kFrameHeaderBytes) return FrameStatus::bad;
  const auto length = get<std::uint32_t>(head.data());
  if (length > kPayloadBytesMax || length > bytes.size() - kFrameHeaderBytes) return FrameStatus::bad;
  const auto type = static_cast<std::uint8_t>(head[kTypeAt]);
  const auto version = static_cast<std::uint8_t>(head[kTypeAt + 1]);
  const std::string_view frame = bytes.substr(0, kFrameHeaderBytes + length);
  if (get<std::uint32_t>(head.data() + kCrcAt) != frame_crc(frame)) return FrameStatus::bad;
  if (version > kFormatVersion) return FrameStatus::newer;
  if (version == 0 || head[kTypeAt + 2] != 0 || head[kTypeAt + 3] != 0 ||
      type < static_cast<std::uint8_t>(RecordType::segment) || type > static_cast<std::uint8_t>(RecordType::close))
    return FrameStatus::bad;
  out.type = static_cast<RecordType>(type);
  out.version = version;
  out.sequence = get<std::uint64_t>(head.data() + kSequenceAt);
  out.durable_sequence = out.sequence - std::min<std::uint64_t>(get<std::uint32_t>(head.data() + kGapAt), out.sequence);
  std::memcpy(out.chain.data(), head.data() + kChainAt, kChainBytes);
  out.payload = frame.substr(kFrameHeaderBytes);
  out.bytes = frame.size();
  return FrameStatus::ok;
}

Chain chain_of(std::string_view bytes, const Frame& frame, const Chain& previous, ChainHasher& hasher) {
  return hasher.next(previous, bytes.substr(kSequenceAt, frame.bytes - kSequenceAt));
}

void Encoder::number(std::uint64_t value) {
  char bytes[10];
  std::size_t size = 0;
  for (; value >= 0x80; value >>= 7) bytes[size++] = static_cast<char>(value | 0x80);
  bytes[size++] = static_cast<char>(value);
  out_.append(bytes, size);
}

void Encoder::wide(NeuronParts value) {
  number(static_cast<std::uint64_t>(value));
  number(static_cast<std::uint64_t>(value >> 64));
}

void Encoder::text(std::string_view value) {
  value = value.substr(0, kNameBytesMax);
  out_.push_back(static_cast<char>(value.size()));
  out_.append(value);
}

std::uint64_t Decoder::number() {
  std::uint64_t value = 0;
  for (unsigned shift = 0; ok_ && shift < 64; shift += 7) {
    if (in_.empty()) break;
    const auto byte = static_cast<std::uint8_t>(in_.front());
    in_.remove_prefix(1);
    if (shift == 63 && byte > 1) break;
    value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
    if ((byte & 0x80) != 0) continue;
    if (byte == 0 && shift != 0) break;  // one spelling per number
    return value;
  }
  ok_ = false;
  in_ = {};
  return 0;
}

NeuronParts Decoder::wide() {
  const std::uint64_t low = number();
  return static_cast<NeuronParts>(number()) << 64 | low;
}

std::string_view Decoder::raw(std::size_t bytes) {
  if (!ok_ || bytes > in_.size()) {
    ok_ = false;
    in_ = {};
    return {};
  }
  const std::string_view out = in_.substr(0, bytes);
  in_.remove_prefix(bytes);
  return out;
}

std::string_view Decoder::text() {
  const std::string_view size = raw(1);
  return size.empty() ? std::string_view{} : raw(static_cast<std::uint8_t>(size.front()));
}

}  // namespace ganglion::metering
