// Oniguruma (Ruby syntax) to PCRE2. Differences that matter: what \s, \w, \d, \h and \v mean, classes within
// classes, flags, and {n,m}+. Everything that is not known to mean the same is refused.

#include <cctype>

#include "backends/local/tokenizer/regex.hpp"

namespace ganglion::local::tok {
namespace {

// Insides of a character class. PCRE2's own \s has U+180E besides, its \w lacks marks.
constexpr std::string_view kSpaceSet =
    R"(\x09-\x0d\x20\x85\xa0\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kWordSet = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";
// Oniguruma's \w outside a class takes Latin-1's superscripts and fractions too.
constexpr std::string_view kWordAlone = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\xb2\xb3\xb9\xbc-\xbe)";

class Translator {
 public:
  explicit Translator(const Spec& pattern) : spec_(pattern), in_(pattern.text()) {}

  std::string run() {
    while (at_ < in_.size()) {
      const char c = in_[at_];
      if (c == '\\') {
        escape();
      } else if (in_class_) {
        class_character(c);
      } else {
        plain_character(c);
      }
    }
    return std::move(out_);
  }

 private:
  char peek(std::size_t ahead) const { return at_ + ahead < in_.size() ? in_[at_ + ahead] : '\0'; }

  [[noreturn]] void refuse(const std::string& construct) const {
    spec_.unsupported("the construct " + construct + " of the regex \"" + in_ + "\"");
  }

  void copy(std::size_t n) {
    out_.append(in_, at_, n);
    at_ += n;
  }

  void set(std::string_view members, bool negated) {
    if (!in_class_) {
      out_ += negated ? "[^" : "[";
      out_ += members;
      out_ += ']';
    } else if (!negated) {
      out_ += members;
    } else if (members == kSpaceSet) {
      out_ += R"(\S\x{180e})";
    } else {
      refuse("\\W inside a class");
    }
    at_ += 2;
  }

  void braced() {  // \p{...}, \x{...}: copied up to the brace
    const std::size_t close = in_.find('}', at_);
    if (close == std::string::npos) refuse(in_.substr(at_, 2));
    copy(close + 1 - at_);
  }

  void escape() {
    const char c = peek(1);
    class_empty_ = false;
    switch (c) {
      case 's':
        return set(kSpaceSet, false);
      case 'S':
        return set(kSpaceSet, true);
      case 'w':
        return set(in_class_ ? kWordSet : kWordAlone, false);
      case 'W':
        return set(kWordAlone, true);
      case 'd':
        out_ += R"(\p{Nd})";
        at_ += 2;
        return;
      case 'D':
        out_ += R"(\P{Nd})";
        at_ += 2;
        return;
      case 'v':
        out_ += R"(\x0b)";
        at_ += 2;
        return;
      case 'p':
      case 'P':
        if (peek(2) != '{') refuse(in_.substr(at_, 3));
        return braced();
      case 'x':
        if (peek(2) == '{') return braced();
        if (std::isxdigit(static_cast<unsigned char>(peek(2))) == 0 ||
            std::isxdigit(static_cast<unsigned char>(peek(3))) == 0) {
          refuse(in_.substr(at_, 4));
        }
        return copy(4);
      case 'u':
        return unicode_escape();
      case 'r':
      case 'n':
      case 't':
      case 'f':
      case 'a':
      case 'e':
        return copy(2);
      case 'A':
      case 'z':
        if (!in_class_) return copy(2);
        break;
      case '\0':
        refuse("a trailing backslash");
      default:
        if (std::isalnum(static_cast<unsigned char>(c)) == 0) return copy(2);
    }
    refuse(in_.substr(at_, 2));
  }

  void unicode_escape() {
    for (std::size_t i = 2; i < 6; ++i) {
      if (std::isxdigit(static_cast<unsigned char>(peek(i))) == 0) refuse(in_.substr(at_, 6));
    }
    out_ += "\\x{" + in_.substr(at_ + 2, 4) + "}";
    at_ += 6;
  }

  void class_character(char c) {
    if (c == '[') refuse(peek(1) == ':' ? "[: :]" : "a class inside a class");
    if (c == '&' && peek(1) == '&') refuse("&& in a class");
    if (c == ']' && !class_empty_) in_class_ = false;
    class_empty_ = false;
    copy(1);
  }

  void plain_character(char c) {
    if (c == '[') {
      in_class_ = class_empty_ = true;
      copy(peek(1) == '^' ? 2 : 1);
    } else if (c == '(' && peek(1) == '?') {
      group();
    } else if (c == '(' && peek(1) == '*') {
      refuse("(*");  // PCRE2 would read a verb
    } else if (c == '{' && peek(1) == ',') {
      out_ += "{0";
      ++at_;
    } else if (c == '}' && peek(1) == '+') {
      refuse("{}+");  // possessive in PCRE2, a repeated repeat in Ruby's syntax
    } else if (c == '}' && peek(1) == '?' && in_.find(',', in_.rfind('{', at_)) > at_) {
      refuse("{n}?");  // reluctant in PCRE2, optional in Ruby's syntax
    } else {
      copy(1);
    }
  }

  void group() {
    const char kind = peek(2);
    if (kind == ':' || kind == '=' || kind == '!' || kind == '>') return copy(3);
    if (kind == '<' && (peek(3) == '=' || peek(3) == '!')) return copy(4);
    // Flags: i means the same in both, m and x do not.
    std::size_t n = 2;
    while (peek(n) == 'i' || peek(n) == '-') ++n;
    if (n > 2 && (peek(n) == ':' || peek(n) == ')')) return copy(n + 1);
    refuse("(?" + std::string(1, kind));
  }

  const Spec& spec_;
  std::string in_;
  std::string out_;
  std::size_t at_ = 0;
  bool in_class_ = false;
  bool class_empty_ = false;
};

}  // namespace

std::string translate_regex(const Spec& pattern) {
  return Translator(pattern).run();
}

}  // namespace ganglion::local::tok
