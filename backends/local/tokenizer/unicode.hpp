#pragma once
// Classes of code points, lower case and the four normal forms, as the `tokenizers` library sees them. The classes
// come from unicode_tables.inc rather than from a system library, so that ids do not depend on the distribution.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ganglion::local::tok {

using ClassMask = std::uint16_t;
inline constexpr ClassMask kLetter = 1 << 0;       // \p{L}
inline constexpr ClassMask kNumber = 1 << 1;       // \p{N}
inline constexpr ClassMask kSpace = 1 << 2;        // \s
inline constexpr ClassMask kWord = 1 << 3;         // \w
inline constexpr ClassMask kPunctuation = 1 << 4;  // BERT's and Punctuation's
inline constexpr ClassMask kNumeric = 1 << 5;      // Digits'
inline constexpr ClassMask kClean = 1 << 6;        // BertNormalizer's clean_text drops it
inline constexpr ClassMask kAccent = 1 << 7;       // BertNormalizer's strip_accents drops it
inline constexpr ClassMask kMark = 1 << 8;         // StripAccents drops it
inline constexpr ClassMask kCanonical = 1 << 9;    // changed by NFD
inline constexpr ClassMask kCompat = 1 << 10;      // changed by NFKD only
inline constexpr ClassMask kComposed = 1 << 11;    // changed by NFC

// Two-step table: a page of 256 classes per distinct block.
class CharClasses {
 public:
  static const CharClasses& get();
  ClassMask of(char32_t c) const { return pages_[page_of_[c >> 8]][c & 0xFF]; }
  bool is(char32_t c, ClassMask mask) const { return (of(c) & mask) != 0; }

 private:
  CharClasses();
  std::array<std::uint16_t, 0x1100> page_of_;
  std::vector<std::array<ClassMask, 256>> pages_;
};

inline bool is(char32_t c, ClassMask mask) {
  return CharClasses::get().is(c, mask);
}

// Appends the lower case of c (two code points for U+0130).
void append_lower(std::string& out, char32_t c);

enum class NormalForm : std::uint8_t { nfc, nfd, nfkc, nfkd };
void normalize(std::string& text, NormalForm form);

}  // namespace ganglion::local::tok
