// The byte alphabet: printable Latin-1 stands for itself, the other 68 bytes are numbered from U+0100 on.

#include "backends/local/tokenizer/byte_alphabet.hpp"

#include <array>

#include "backends/local/tokenizer/utf8.hpp"

namespace ganglion::local::tok {
namespace {

constexpr bool stands_for_itself(int b) {
  return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
}

struct Alphabet {
  std::array<char32_t, 256> of_byte{};
  std::array<int, 0x144> of_char{};
  consteval Alphabet() {
    of_char.fill(-1);
    char32_t next = 0x100;
    for (int b = 0; b < 256; ++b) {
      const char32_t c = stands_for_itself(b) ? static_cast<char32_t>(b) : next++;
      of_byte[static_cast<std::size_t>(b)] = c;
      of_char[c] = b;
    }
  }
};

constexpr Alphabet kAlphabet;

}  // namespace

char32_t byte_to_char(unsigned char byte) {
  return kAlphabet.of_byte[byte];
}

std::optional<unsigned char> char_to_byte(char32_t c) {
  if (c >= kAlphabet.of_char.size() || kAlphabet.of_char[c] < 0) return std::nullopt;
  return static_cast<unsigned char>(kAlphabet.of_char[c]);
}

std::string to_byte_alphabet(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() + bytes.size() / 4);
  for (char b : bytes) append_utf8(out, byte_to_char(static_cast<unsigned char>(b)));
  return out;
}

std::optional<std::string> from_byte_alphabet(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const CodePoint c = decode_at(text.data() + i);
    const auto byte = char_to_byte(c.value);
    if (!byte) return std::nullopt;
    out += static_cast<char>(*byte);
    i += c.size;
  }
  return out;
}

}  // namespace ganglion::local::tok
