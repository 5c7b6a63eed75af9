#pragma once
// GPT-2's alphabet: each byte as a printable code point, so that any bytes can be spelled in a vocabulary.

#include <optional>
#include <string>
#include <string_view>

namespace ganglion::local::tok {

// The code point that stands for a byte (below U+0144).
char32_t byte_to_char(unsigned char byte);
// The byte that a code point stands for.
std::optional<unsigned char> char_to_byte(char32_t c);

// Bytes spelled in the alphabet, as UTF-8.
std::string to_byte_alphabet(std::string_view bytes);
// The bytes that `text` spells; nullopt if some code point is not of the alphabet.
std::optional<std::string> from_byte_alphabet(std::string_view text);

}  // namespace ganglion::local::tok
