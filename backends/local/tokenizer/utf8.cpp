// UTF-8 checks and repair.

#include "backends/local/tokenizer/utf8.hpp"

#include <cstring>

namespace ganglion::local::tok {
namespace {

// How many bytes `lead` announces; 0: it begins nothing.
std::uint32_t announced(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return 2;
  if (lead >= 0xE0 && lead <= 0xEF) return 3;
  if (lead >= 0xF0 && lead <= 0xF4) return 4;
  return 0;
}

// Whether `b` may follow: the second byte rules out overlong forms, surrogates and values past U+10FFFF.
bool may_follow(unsigned char lead, std::uint32_t position, unsigned char b) {
  if (position > 1) return b >= 0x80 && b <= 0xBF;
  const unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  return b >= low && b <= high;
}

// The number of leading ASCII bytes, eight at a time.
std::size_t ascii_prefix(std::string_view bytes) {
  std::size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    std::uint64_t word;
    std::memcpy(&word, bytes.data() + i, 8);
    if ((word & 0x8080808080808080u) != 0) break;
  }
  while (i < bytes.size() && static_cast<unsigned char>(bytes[i]) < 0x80) ++i;
  return i;
}

}  // namespace

void append_utf8(std::string& out, char32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | c >> 6);
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | c >> 12);
    out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | c >> 18);
    out += static_cast<char>(0x80 | (c >> 12 & 0x3F));
    out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  }
}

bool valid_utf8(std::string_view bytes) {
  std::size_t i = 0;
  while (true) {
    i += ascii_prefix(bytes.substr(i));
    if (i == bytes.size()) return true;
    const auto lead = static_cast<unsigned char>(bytes[i]);
    const std::uint32_t size = announced(lead);
    if (size == 0 || size > bytes.size() - i) return false;
    for (std::uint32_t k = 1; k < size; ++k) {
      if (!may_follow(lead, k, static_cast<unsigned char>(bytes[i + k]))) return false;
    }
    i += size;
  }
}

bool is_ascii(std::string_view bytes) {
  return ascii_prefix(bytes) == bytes.size();
}

std::size_t count_code_points(std::string_view text) {
  std::size_t n = 0;
  for (char c : text) n += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return n;
}

void Utf8Repair::push_byte(unsigned char b, std::string& out) {
  if (held_size_ > 0) {
    if (may_follow(static_cast<unsigned char>(held_[0]), held_size_, b)) {
      held_[held_size_++] = static_cast<char>(b);
      if (held_size_ == wanted_) {
        out.append(held_, held_size_);
        held_size_ = 0;
      }
      return;
    }
    out += kReplacement;  // the sequence so far leads nowhere; b is looked at afresh
    held_size_ = 0;
  }
  wanted_ = announced(b);
  if (wanted_ == 0) {
    out += kReplacement;
  } else if (wanted_ == 1) {
    out += static_cast<char>(b);
  } else {
    held_[0] = static_cast<char>(b);
    held_size_ = 1;
  }
}

void Utf8Repair::push(std::string_view bytes, std::string& out) {
  while (!bytes.empty()) {
    if (held_size_ == 0) {
      const std::size_t plain = ascii_prefix(bytes);
      out.append(bytes.substr(0, plain));
      bytes.remove_prefix(plain);
      if (bytes.empty()) return;
    }
    push_byte(static_cast<unsigned char>(bytes.front()), out);
    bytes.remove_prefix(1);
  }
}

void Utf8Repair::finish(std::string& out) {
  if (held_size_ > 0) out += kReplacement;
  held_size_ = 0;
}

std::string_view repaired(std::string_view bytes, std::string& storage) {
  if (valid_utf8(bytes)) return bytes;
  storage.clear();
  Utf8Repair repair;
  repair.push(bytes, storage);
  repair.finish(storage);
  return storage;
}

}  // namespace ganglion::local::tok
