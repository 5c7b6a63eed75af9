#pragma once
// What the statement and the expression parser share: the token stream and the first error. After an error the
// stream stands at its end, so every loop of the parsers stops by itself.

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backends/local/chat/ast.hpp"
#include "backends/local/chat/lexer.hpp"
#include "core/error.hpp"

namespace ganglion::local::jinja {

class ParseState {
 public:
  explicit ParseState(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& peek(std::size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
  bool at(TokenType type) const { return peek().type == type; }
  bool at_op(std::string_view text, std::size_t ahead = 0) const {
    return peek(ahead).type == TokenType::op && peek(ahead).text == text;
  }
  bool at_name(std::string_view text, std::size_t ahead = 0) const {
    return peek(ahead).type == TokenType::name && peek(ahead).text == text;
  }
  Token next() {
    Token token = peek();
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  bool skip_op(std::string_view text) { return at_op(text) && (next(), true); }
  bool skip_name(std::string_view text) { return at_name(text) && (next(), true); }
  void expect_op(std::string_view text) {
    if (!skip_op(text)) fail_token("expected '" + std::string{text} + "'");
  }
  std::string expect_name() {
    if (at(TokenType::name)) return next().text;
    fail_token("expected a name");
    return {};
  }
  void expect(TokenType type, std::string_view what) {
    if (at(type)) {
      next();
    } else {
      fail_token("expected " + std::string{what});
    }
  }

  bool failed() const { return failed_; }
  const core::Error& error() const { return error_; }
  void fail(int line, std::string_view message, core::ErrorKind kind = core::ErrorKind::invalid_value) {
    if (!failed_) {
      error_ = core::make_error(kind, "chat template, line " + std::to_string(line) + ": " + std::string{message});
    }
    failed_ = true;
    at_ = tokens_.size() - 1;
  }
  void unsupported(int line, std::string_view what) {
    fail(line, std::string{what} + " is not supported", core::ErrorKind::unsupported);
  }
  void fail_token(const std::string& expected) { fail(peek().line, expected + ", got " + describe(peek())); }

  // Bookkeeping for the check of called names at the end.
  std::vector<std::string> assigned;
  std::vector<std::string> read;
  std::vector<std::pair<std::string, int>> called;
  bool caller_used = false;  // in the macro being parsed
  int macro_depth = 0;
  int nesting = 0;  // of brackets and unary operators in one expression

 private:
  static std::string describe(const Token& t) {
    switch (t.type) {
      case TokenType::data:
        return "text";
      case TokenType::variable_begin:
        return "'{{'";
      case TokenType::variable_end:
        return "'}}'";
      case TokenType::block_begin:
        return "'{%'";
      case TokenType::block_end:
        return "'%}'";
      case TokenType::end:
        return "the end of the template";
      case TokenType::string:
        return "a string";
      default:
        return "'" + t.text + "'";
    }
  }

  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  bool failed_ = false;
  core::Error error_;
};

// parse_expression.cpp. Each returns a node even after an error.
ExprPtr parse_expression(ParseState& in);
ExprPtr parse_or_expression(ParseState& in);  // without a trailing "if": what `for` iterates over
ExprPtr parse_tuple_expression(ParseState& in);
ExprPtr parse_filter_chain(ParseState& in, ExprPtr input, bool first_without_pipe);

}  // namespace ganglion::local::jinja
