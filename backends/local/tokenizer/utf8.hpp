#pragma once
// UTF-8 in and out. Text inside the tokenizer is always valid; what comes from outside is repaired once at the door,
// and bytes that come from tokens are repaired on the way out, both like Rust's from_utf8_lossy: one U+FFFD for each
// maximal prefix of a sequence that cannot be completed.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace ganglion::local::tok {

inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

struct CodePoint {
  char32_t value;
  std::uint32_t size;  // bytes
};

// The code point at `p`, which must begin a valid sequence.
inline CodePoint decode_at(const char* p) {
  const auto b = [p](int i) { return static_cast<char32_t>(static_cast<unsigned char>(p[i])); };
  const char32_t b0 = b(0);
  if (b0 < 0x80) return {b0, 1};
  if (b0 < 0xE0) return {(b0 & 0x1F) << 6 | (b(1) & 0x3F), 2};
  if (b0 < 0xF0) return {(b0 & 0x0F) << 12 | (b(1) & 0x3F) << 6 | (b(2) & 0x3F), 3};
  return {(b0 & 0x07) << 18 | (b(1) & 0x3F) << 12 | (b(2) & 0x3F) << 6 | (b(3) & 0x3F), 4};
}

// Bytes of the sequence that `lead` begins.
inline std::uint32_t sequence_size(char lead) {
  const auto b = static_cast<unsigned char>(lead);
  return b < 0x80 ? 1 : b < 0xE0 ? 2 : b < 0xF0 ? 3 : 4;
}

void append_utf8(std::string& out, char32_t c);
bool valid_utf8(std::string_view bytes);
bool is_ascii(std::string_view bytes);
std::size_t count_code_points(std::string_view text);

// Repairs a stream of bytes. Complete code points come out at once; a sequence still open is held (at most 3 bytes).
class Utf8Repair {
 public:
  void push(std::string_view bytes, std::string& out);
  void finish(std::string& out);

 private:
  void push_byte(unsigned char b, std::string& out);
  char held_[4] = {};
  std::uint32_t held_size_ = 0;
  std::uint32_t wanted_ = 0;
};

// `bytes` itself when valid, else its repair in `storage`.
std::string_view repaired(std::string_view bytes, std::string& storage);

}  // namespace ganglion::local::tok
