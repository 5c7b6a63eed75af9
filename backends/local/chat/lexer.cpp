// One pass over the source: data until the next tag, then the tag's tokens until its end.

#include "backends/local/chat/lexer.hpp"

#include <algorithm>
#include <array>
#include <charconv>

#include "backends/local/chat/text.hpp"

namespace ganglion::local::jinja {

namespace {

std::string unify_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();  // Jinja drops one newline at the end of a template
  return out;
}

bool name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || static_cast<unsigned char>(c) >= 0x80;
}
bool digit(char c) {
  return c >= '0' && c <= '9';
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(unify_newlines(source)) {}

  core::Result<std::vector<Token>> run() {
    while (error_.empty() && position_ < source_.size()) data_and_tag();
    if (!error_.empty()) {
      return core::fail(core::ErrorKind::invalid_value, "chat template, line " + std::to_string(line_) + ": " + error_);
    }
    add(TokenType::end);
    return std::move(tokens_);
  }

 private:
  std::string_view rest() const { return std::string_view(source_).substr(position_); }
  bool starts(std::string_view text) const { return rest().starts_with(text); }
  char peek(std::size_t ahead = 0) const {
    return position_ + ahead < source_.size() ? source_[position_ + ahead] : '\0';
  }

  void advance(std::size_t n) {
    const std::string_view passed = rest().substr(0, n);
    line_ += static_cast<int>(std::count(passed.begin(), passed.end(), '\n'));
    position_ += passed.size();
    if (!passed.empty()) line_starting_ = passed.back() == '\n';
  }
  void skip_spaces() { advance(rest().size() - strip(rest(), std::nullopt, true, false).size()); }

  Token& add(TokenType type, std::string_view text = {}) {
    tokens_.push_back({.type = type, .line = line_, .text = std::string{text}});
    return tokens_.back();
  }

  void data_and_tag() {
    std::size_t begin = position_;
    while (begin < source_.size()) {
      begin = source_.find('{', begin);
      if (begin == std::string::npos || begin + 1 >= source_.size()) {
        begin = source_.size();
        break;
      }
      const char next = source_[begin + 1];
      if (next == '{' || next == '%' || next == '#') break;
      ++begin;
    }
    const bool starts_line = line_starting_;
    std::string_view data = std::string_view(source_).substr(position_, begin - position_);
    if (begin >= source_.size()) {
      add(TokenType::data, data);
      advance(data.size());
      return;
    }
    const char kind = source_[begin + 1];
    const char marker = begin + 2 < source_.size() ? source_[begin + 2] : '\0';
    const std::size_t whole = data.size();
    if (marker == '-') {
      data = strip(data, std::nullopt, false, true);
    } else if (marker != '+' && kind != '{') {
      const std::size_t newline = data.rfind('\n');
      const std::size_t line_at = newline == std::string_view::npos ? 0 : newline + 1;
      if ((line_at > 0 || starts_line) && strip(data.substr(line_at), std::nullopt, true, false).empty()) {
        data = data.substr(0, line_at);
      }
    }
    if (!data.empty()) add(TokenType::data, data);
    advance(whole);
    advance(marker == '-' || marker == '+' ? 3 : 2);
    if (kind == '#') return comment();
    if (kind == '%' && raw_block()) return;
    add(kind == '{' ? TokenType::variable_begin : TokenType::block_begin);
    inside(kind == '{');
  }

  // What a tag's end takes with it, given what stood before its closing bracket.
  void after_tag(char marker) {
    if (marker == '-') return skip_spaces();
    if (marker != '+' && peek() == '\n') advance(1);
  }

  void comment() {
    const std::size_t end = source_.find("#}", position_);
    if (end == std::string::npos) return fail("a comment is not closed");
    const char marker = end > position_ ? source_[end - 1] : '\0';
    advance(end + 2 - position_);
    after_tag(marker);
  }

  // {% raw %} ... {% endraw %}; the position stands behind "{%" and its marker.
  bool raw_block() {
    std::string_view tag = strip(rest(), std::nullopt, true, false);
    if (!tag.starts_with("raw")) return false;
    tag = strip(tag.substr(3), std::nullopt, true, false);
    const bool strips = tag.starts_with("-%}");
    if (!strips && !tag.starts_with("%}")) return false;
    advance(rest().size() - tag.size() + (strips ? 3 : 2));
    if (strips) skip_spaces();
    const bool starts_line = line_starting_;
    for (std::size_t at = source_.find("{%", position_); at != std::string::npos; at = source_.find("{%", at + 2)) {
      const char begin_marker = at + 2 < source_.size() ? source_[at + 2] : '\0';
      const std::size_t skip = begin_marker == '-' || begin_marker == '+' ? 3 : 2;
      if (at + skip > source_.size()) break;
      std::string_view end = strip(std::string_view(source_).substr(at + skip), std::nullopt, true, false);
      if (!end.starts_with("endraw")) continue;
      end = strip(end.substr(6), std::nullopt, true, false);
      const char end_marker = end.empty() ? '\0' : end[0];
      if (end_marker == '-' || end_marker == '+') end.remove_prefix(1);
      if (!end.starts_with("%}")) continue;
      std::string_view data = std::string_view(source_).substr(position_, at - position_);
      if (begin_marker == '-') {
        data = strip(data, std::nullopt, false, true);
      } else if (begin_marker != '+') {
        const std::size_t newline = data.rfind('\n');
        const std::size_t line_at = newline == std::string_view::npos ? 0 : newline + 1;
        if ((line_at > 0 || starts_line) && strip(data.substr(line_at), std::nullopt, true, false).empty()) {
          data = data.substr(0, line_at);
        }
      }
      add(TokenType::data, data);
      advance(source_.size() - end.size() + 2 - position_);
      after_tag(end_marker);
      return true;
    }
    fail("a raw block is not closed");
    return true;
  }

  void inside(bool variable) {
    const std::string_view close = variable ? "}}" : "%}";
    std::string open;  // brackets waiting for their end; inside them "}}" is no end of a tag
    while (error_.empty()) {
      skip_spaces();
      if (position_ >= source_.size()) return fail("a tag is not closed");
      const char marker = peek();
      if (open.empty()) {
        const bool marked = (marker == '-' || (marker == '+' && !variable)) && rest().substr(1).starts_with(close);
        if (marked || starts(close)) {
          add(variable ? TokenType::variable_end : TokenType::block_end);
          advance(marked ? 3 : 2);
          if (marked) return marker == '-' ? skip_spaces() : void();
          if (!variable) after_tag('\0');
          return;
        }
      }
      if (digit(marker)) {
        number();
      } else if (name_start(marker)) {
        std::size_t n = 1;
        while (name_start(peek(n)) || digit(peek(n))) ++n;
        add(TokenType::name, rest().substr(0, n));
        advance(n);
      } else if (marker == '"' || marker == '\'') {
        quoted(marker);
      } else {
        symbol(open);
      }
    }
  }

  void symbol(std::string& open) {
    static constexpr std::array<std::string_view, 7> kLong = {"**", "//", "==", "!=", ">=", "<=", ""};
    for (const std::string_view op : kLong) {
      if (op.empty() || !starts(op)) continue;
      add(TokenType::op, op);
      return advance(2);
    }
    const char c = peek();
    if (std::string_view("+-*/%~[](){}<>=.:|,;").find(c) == std::string_view::npos || c == '\0') {
      return fail("unexpected character '" + std::string(rest().substr(0, code_point_at(rest(), 0).bytes)) + "'");
    }
    if (c == '(' || c == '[' || c == '{') open += c == '(' ? ')' : c == '[' ? ']' : '}';
    if (c == ')' || c == ']' || c == '}') {
      if (open.empty() || open.back() != c) return fail(std::string("unexpected '") + c + "'");
      open.pop_back();
    }
    add(TokenType::op, rest().substr(0, 1));
    advance(1);
  }

  void number() {
    std::string digits;
    int base = 10;
    const char second = static_cast<char>(peek(1) | 0x20);
    std::size_t n = 0;
    if (peek() == '0' && (second == 'x' || second == 'o' || second == 'b')) {
      base = second == 'x' ? 16 : second == 'o' ? 8 : 2;
      n = 2;
    }
    const auto take = [&](int radix) {
      const auto in = [&](char c) {
        return radix == 16 ? digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F') : c >= '0' && c < '0' + radix;
      };
      for (; in(peek(n)) || (peek(n) == '_' && in(peek(n + 1))); ++n) {
        if (peek(n) != '_') digits += peek(n);
      }
    };
    take(base);
    bool real = false;
    if (base == 10 && peek(n) == '.' && digit(peek(n + 1))) {
      real = true;
      digits += '.';
      ++n;
      take(10);
    }
    if (base == 10 && (peek(n) | 0x20) == 'e') {
      const std::size_t sign = peek(n + 1) == '+' || peek(n + 1) == '-' ? 1 : 0;
      if (digit(peek(n + 1 + sign))) {
        real = true;
        digits += 'e';
        if (sign == 1 && peek(n + 1) == '-') digits += '-';
        n += 1 + sign;
        take(10);
      }
    }
    Token& token = add(real ? TokenType::real : TokenType::integer, rest().substr(0, n));
    const char* end = digits.data() + digits.size();
    const std::errc error = real ? std::from_chars(digits.data(), end, token.real).ec
                                 : std::from_chars(digits.data(), end, token.integer, base).ec;
    if (error != std::errc{}) return fail("number '" + token.text + "' is out of range");
    advance(n);
  }

  void quoted(char mark) {
    std::size_t n = 1;
    while (position_ + n < source_.size() && peek(n) != mark) n += peek(n) == '\\' ? 2 : 1;
    if (position_ + n >= source_.size()) return fail("a string is not closed");
    Token& token = add(TokenType::string);
    const std::string error = unescape(rest().substr(1, n - 1), token.text);
    if (!error.empty()) return fail(error);
    advance(n + 1);
  }

  // Python's string escapes. Returns what is wrong, or "".
  static std::string unescape(std::string_view s, std::string& out) {
    static constexpr std::string_view kFrom = "\\'\"abfnrtv";
    static constexpr std::string_view kTo = "\\'\"\a\b\f\n\r\t\v";
    for (std::size_t i = 0; i < s.size(); ++i) {
      if (s[i] != '\\' || i + 1 >= s.size()) {
        out += s[i];
        continue;
      }
      const char c = s[++i];
      if (const std::size_t simple = kFrom.find(c); simple != std::string_view::npos) {
        out += kTo[simple];
      } else if (c == '\n') {
        // An escaped newline continues the line.
      } else if (c == 'x' || c == 'u' || c == 'U') {
        const std::size_t length = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        std::uint32_t code = 0;
        const std::string_view hex = s.substr(i + 1, length);
        const auto [end, error] = std::from_chars(hex.data(), hex.data() + hex.size(), code, 16);
        if (hex.size() != length || error != std::errc{} || end != hex.data() + hex.size() || code > 0x10FFFF ||
            (code >= 0xD800 && code <= 0xDFFF)) {
          return std::string("bad escape '\\") + c + std::string(hex) + "' in a string";
        }
        append_utf8(out, code);
        i += length;
      } else if (c >= '0' && c <= '7') {
        std::uint32_t code = 0;
        std::size_t n = 0;
        while (n < 3 && i + n < s.size() && s[i + n] >= '0' && s[i + n] <= '7') {
          code = code * 8 + static_cast<std::uint32_t>(s[i + n++] - '0');
        }
        append_utf8(out, code);
        i += n - 1;
      } else if (c == 'N') {
        return "named character escapes (\\N) are not supported";
      } else {
        out += '\\';
        out += c;
      }
    }
    return {};
  }

  void fail(std::string message) {
    if (error_.empty()) error_ = std::move(message);
  }

  std::string source_;
  std::size_t position_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
  std::string error_;
};

}  // namespace

core::Result<std::vector<Token>> tokenize(std::string_view source) {
  return Lexer(source).run();
}

}  // namespace ganglion::local::jinja
