// Scanners equal to the published split patterns: alternatives in order, greedy, with the one place where the regex
// backtracks (\s+(?!\S) gives back its last space) worked out by hand.

#include "backends/local/tokenizer/split_scanner.hpp"

#include "backends/local/tokenizer/utf8.hpp"

namespace ganglion::local::tok {
namespace {

constexpr std::string_view kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

class Scanner {
 public:
  Scanner(const CharClasses& classes, std::string_view text) : classes_(classes), text_(text) {}

  // What stands at `at`: its class (other = no bit of letter, number, space) and where the next one begins.
  struct Seen {
    ClassMask mask;
    std::size_t next;
  };
  bool end(std::size_t at) const { return at >= text_.size(); }
  Seen see(std::size_t at) const {
    const CodePoint c = decode_at(text_.data() + at);
    return {static_cast<ClassMask>(classes_.of(c.value) & (kLetter | kNumber | kSpace)), at + c.size};
  }
  char byte(std::size_t at) const { return at < text_.size() ? text_[at] : '\0'; }

  // The end of the run of `mask` (0: other) that begins at `at`, of at most `most` code points.
  std::size_t run(std::size_t at, ClassMask mask, std::size_t most = static_cast<std::size_t>(-1)) const {
    for (; most > 0 && !end(at); --most) {
      const Seen seen = see(at);
      if (seen.mask != mask) break;
      at = seen.next;
    }
    return at;
  }

  // \s+(?!\S) or else \s+: all the spaces if nothing follows, else all but the last, else the only one.
  std::size_t spaces(std::size_t at) const {
    std::size_t last = at;
    std::size_t to = at;
    while (!end(to)) {
      const Seen seen = see(to);
      if (seen.mask != kSpace) return last > at ? last : to;
      last = to;
      to = seen.next;
    }
    return to;
  }

 private:
  const CharClasses& classes_;
  std::string_view text_;
};

// Bytes of 's, 't, 're, 've, 'm, 'll or 'd at `at`, where an apostrophe stands; 0 if none.
std::size_t contraction(const Scanner& s, std::size_t at, bool any_case) {
  const auto lower = [&](std::size_t i) {
    const char c = s.byte(at + i);
    return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  };
  switch (lower(1)) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return 2;
    case 'r':
    case 'v':
      return lower(2) == 'e' ? 3 : 0;
    case 'l':
      return lower(2) == 'l' ? 3 : 0;
    case '\xC5':
      return any_case && s.byte(at + 2) == '\xBF' ? 3 : 0;  // U+017F, the long s, folds to s
    default:
      return 0;
  }
}

std::size_t next_gpt2(const Scanner& s, std::size_t at) {
  if (s.byte(at) == '\'') {
    if (const std::size_t n = contraction(s, at, false)) return at + n;
  }
  const Scanner::Seen first = s.see(at);
  if (first.mask != kSpace) return s.run(first.next, first.mask);
  if (s.byte(at) == ' ' && !s.end(at + 1)) {
    const Scanner::Seen second = s.see(at + 1);
    if (second.mask != kSpace) return s.run(second.next, second.mask);
  }
  return s.spaces(at);
}

// The punctuation alternative's tail [\r\n]*.
std::size_t newlines(const Scanner& s, std::size_t at) {
  while (s.byte(at) == '\n' || s.byte(at) == '\r') ++at;
  return at;
}

std::size_t next_llama3(const Scanner& s, std::size_t at, std::size_t digits) {
  const char c = s.byte(at);
  if (c == '\'') {
    if (const std::size_t n = contraction(s, at, true)) return at + n;
  }
  const Scanner::Seen first = s.see(at);
  if (first.mask == kLetter) return s.run(first.next, kLetter);
  if (first.mask == kNumber) return s.run(at, kNumber, digits);
  const bool newline = c == '\n' || c == '\r';
  if (!newline && !s.end(first.next)) {
    const Scanner::Seen second = s.see(first.next);
    if (second.mask == kLetter) return s.run(second.next, kLetter);
    if (c == ' ' && second.mask == 0) return newlines(s, s.run(second.next, 0));
  }
  if (first.mask == 0) return newlines(s, s.run(first.next, 0));
  // \s*[\r\n]+: through the last newline of the run of spaces, if it has one.
  const std::size_t stop = s.run(first.next, kSpace);
  for (std::size_t i = stop; i > at; --i) {
    if (s.byte(i - 1) == '\n' || s.byte(i - 1) == '\r') return i;
  }
  return s.spaces(at);
}

}  // namespace

std::optional<SplitPattern> known_split_pattern(std::string_view regex) {
  if (regex == kGpt2) return SplitPattern::gpt2;
  if (regex == kLlama3) return SplitPattern::llama3;
  if (regex == kQwen2) return SplitPattern::qwen2;
  return std::nullopt;
}

std::size_t next_split(SplitPattern pattern, const CharClasses& classes, std::string_view text, std::size_t at) {
  const Scanner scanner(classes, text);
  switch (pattern) {
    case SplitPattern::gpt2:
      return next_gpt2(scanner, at);
    case SplitPattern::llama3:
      return next_llama3(scanner, at, 3);
    case SplitPattern::qwen2:
      return next_llama3(scanner, at, 1);
  }
  return text.size();
}

}  // namespace ganglion::local::tok
