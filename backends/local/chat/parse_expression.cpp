// Expressions by recursive descent, one function per level of Jinja's precedence, weakest first:
// conditional, or, and, not, comparison, + -, ~, * / // %, **, unary, postfix, filters and tests.

#include <algorithm>
#include <array>

#include "backends/local/chat/builtins.hpp"
#include "backends/local/chat/parse_nodes.hpp"

namespace ganglion::local::jinja {

namespace {

// A bracket costs three levels, so some fifty brackets may nest.
constexpr int kNestingMax = 150;

// Counts one level of recursion for as long as it lives.
class Nested {
 public:
  explicit Nested(ParseState& in) : in_(in) {
    if (++in_.nesting > kNestingMax) {
      in_.fail(in_.peek().line, "expressions nest deeper than " + std::to_string(kNestingMax) + " levels");
    }
  }
  ~Nested() { --in_.nesting; }
  Nested(const Nested&) = delete;
  Nested& operator=(const Nested&) = delete;

 private:
  ParseState& in_;
};

ExprPtr parse_unary(ParseState& in, bool with_filters);
ExprPtr parse_primary(ParseState& in);
ExprPtr parse_postfix(ParseState& in, ExprPtr expr);

ExprPtr parse_call(ParseState& in, ExprPtr callee) {
  const int line = in.peek().line;
  const Expr& target = *callee;
  if (target.kind == ExprKind::name) {
    in.called.emplace_back(target.text, line);
  } else if (target.kind == ExprKind::attribute) {
    if (!any_method(target.text)) in.unsupported(line, "method '" + target.text + "'");
  } else {
    in.unsupported(line, "calling the result of an expression");
  }
  ExprPtr expr = make_of(in, ExprKind::call, line, std::move(callee));
  parse_arguments(in, *expr);
  return expr;
}

ExprPtr parse_test(ParseState& in, ExprPtr value) {
  const int line = in.next().line;  // "is"
  const bool negated = in.skip_name("not");
  const std::string name = in.expect_name();
  ExprPtr expr = make_of(in, ExprKind::test, line, std::move(value));
  expr->test = find_test(name);
  if (!in.failed() && expr->test == nullptr) in.unsupported(line, "test '" + name + "'");
  const TokenType type = in.peek().type;
  if (in.at_op("(")) {
    parse_arguments(in, *expr);
  } else if (type == TokenType::string || type == TokenType::integer || type == TokenType::real || in.at_op("[") ||
             in.at_op("{") ||
             (type == TokenType::name && !in.at_name("else") && !in.at_name("or") && !in.at_name("and"))) {
    if (in.at_name("is")) in.fail(line, "tests cannot be chained with 'is'");
    // Words that continue the expression around the test are not its argument.
    if (!in.at_name("if") && !in.at_name("in") && !in.at_name("not")) {
      expr->children.push_back(parse_postfix(in, parse_primary(in)));
      deepen(in, *expr, *expr->children.back());
    }
  }
  if (!in.failed() && (expr->children.size() - 1 != expr->test->arguments || !expr->named.empty())) {
    in.fail(line, "test '" + name + "' takes " + std::to_string(expr->test->arguments) + " arguments");
  }
  return negated ? make_of(in, ExprKind::logical_not, line, std::move(expr)) : std::move(expr);
}

ExprPtr parse_subscript(ParseState& in, ExprPtr object) {
  const int line = in.next().line;  // "["
  std::vector<ExprPtr> parts;       // start, stop, step
  parts.push_back(std::move(object));
  bool slice = false;
  ExprPtr part = in.at_op(":") ? nullptr : parse_expression(in);
  parts.push_back(std::move(part));
  while (parts.size() < 4 && in.skip_op(":")) {
    slice = true;
    parts.push_back(in.at_op(":") || in.at_op("]") ? nullptr : parse_expression(in));
  }
  if (in.at_op(",")) in.unsupported(line, "indexing with several values");
  in.expect_op("]");
  if (slice) parts.resize(4);
  return make(in, slice ? ExprKind::slice : ExprKind::item, line, std::move(parts));
}

ExprPtr parse_postfix(ParseState& in, ExprPtr expr) {
  while (!in.failed()) {
    if (in.at_op(".")) {
      const int line = in.next().line;
      if (in.at(TokenType::integer)) {
        ExprPtr index = make(in, ExprKind::literal, line);
        index->value = Value::integer(in.next().integer);
        expr = make_of(in, ExprKind::item, line, std::move(expr), std::move(index));
      } else {
        std::string name = in.expect_name();
        expr = make_of(in, ExprKind::attribute, line, std::move(expr));
        expr->text = std::move(name);
      }
    } else if (in.at_op("[")) {
      Nested nested(in);
      expr = parse_subscript(in, std::move(expr));
    } else if (in.at_op("(")) {
      Nested nested(in);
      expr = parse_call(in, std::move(expr));
    } else {
      break;
    }
  }
  return expr;
}

ExprPtr parse_bracketed(ParseState& in) {
  Nested nested(in);
  const Token open = in.next();
  const ExprKind kind = open.text == "[" ? ExprKind::list : open.text == "{" ? ExprKind::dict : ExprKind::tuple;
  const std::string_view close = open.text == "[" ? "]" : open.text == "{" ? "}" : ")";
  ExprPtr expr = make(in, kind, open.line);
  bool comma = false;
  while (!in.failed() && !in.at_op(close)) {
    expr->children.push_back(parse_expression(in));
    deepen(in, *expr, *expr->children.back());
    if (kind == ExprKind::dict) {
      in.expect_op(":");
      expr->children.push_back(parse_expression(in));
      deepen(in, *expr, *expr->children.back());
    }
    if (in.at_op(close)) break;
    in.expect_op(",");
    comma = true;
  }
  in.expect_op(close);
  // (x) is x itself; (x,) is a tuple.
  if (kind == ExprKind::tuple && expr->children.size() == 1 && !comma) return std::move(expr->children[0]);
  return expr;
}

ExprPtr parse_name(ParseState& in) {
  const Token token = in.next();
  ExprPtr expr = make(in, ExprKind::literal, token.line);
  if (token.text == "true" || token.text == "True" || token.text == "false" || token.text == "False") {
    expr->value = Value::boolean(token.text == "true" || token.text == "True");
  } else if (token.text == "none" || token.text == "None") {
    expr->value = Value::none();
  } else {
    if (in.macro_depth > 0 && (token.text == "varargs" || token.text == "kwargs")) {
      in.unsupported(token.line, "'" + token.text + "' in a macro");
    }
    if (token.text == "self" || token.text == "super") in.unsupported(token.line, "'" + token.text + "'");
    if (token.text == "caller") in.caller_used = true;
    expr->kind = ExprKind::name;
    expr->text = token.text;
    in.read.push_back(token.text);
  }
  return expr;
}

ExprPtr parse_primary(ParseState& in) {
  const Token& token = in.peek();
  switch (token.type) {
    case TokenType::name:
      return parse_name(in);
    case TokenType::string: {
      const int line = token.line;
      std::string text;
      while (in.at(TokenType::string)) text += in.next().text;
      ExprPtr expr = make(in, ExprKind::literal, line);
      expr->value = Value::string(std::move(text));
      return expr;
    }
    case TokenType::integer:
    case TokenType::real: {
      ExprPtr expr = make(in, ExprKind::literal, token.line);
      expr->value = token.type == TokenType::real ? Value::real(token.real) : Value::integer(token.integer);
      in.next();
      return expr;
    }
    default:
      break;
  }
  if (in.at_op("(") || in.at_op("[") || in.at_op("{")) return parse_bracketed(in);
  in.fail_token("expected an expression");
  return make(in, ExprKind::literal, token.line);
}

ExprPtr parse_unary(ParseState& in, bool with_filters) {
  Nested nested(in);
  ExprPtr expr;
  if (in.at_op("-") || in.at_op("+")) {
    const Token sign = in.next();
    ExprPtr operand = parse_unary(in, false);
    expr = make_of(in, sign.text == "-" ? ExprKind::negate : ExprKind::plus, sign.line, std::move(operand));
  } else {
    expr = parse_primary(in);
  }
  expr = parse_postfix(in, std::move(expr));
  while (with_filters && !in.failed()) {
    if (in.at_op("|")) {
      expr = parse_filter_chain(in, std::move(expr), false);
    } else if (in.at_name("is")) {
      expr = parse_test(in, std::move(expr));
    } else if (in.at_op("(")) {
      expr = parse_call(in, std::move(expr));
    } else {
      break;
    }
  }
  return expr;
}

struct OpName {
  std::string_view text;
  Op op;
};

const OpName* match(const ParseState& in, std::span<const OpName> ops) {
  const auto found = std::ranges::find_if(ops, [&](const OpName& o) { return in.at_op(o.text); });
  return found == ops.end() ? nullptr : &*found;
}

// One level of left-associative binary operators.
template <class Next>
ExprPtr parse_binary(ParseState& in, std::span<const OpName> ops, Next operand) {
  ExprPtr left = operand(in);
  while (!in.failed()) {
    const OpName* found = match(in, ops);
    if (found == nullptr) break;
    const int line = in.next().line;
    ExprPtr right = operand(in);
    left = make_of(in, ExprKind::arithmetic, line, std::move(left), std::move(right));
    left->ops.push_back(found->op);
  }
  return left;
}

ExprPtr parse_power(ParseState& in) {
  static constexpr std::array<OpName, 1> kOps = {{{"**", Op::pow}}};
  return parse_binary(in, kOps, [](ParseState& p) { return parse_unary(p, true); });
}

ExprPtr parse_product(ParseState& in) {
  static constexpr std::array<OpName, 4> kOps = {
      {{"*", Op::mul}, {"/", Op::div}, {"//", Op::floor_div}, {"%", Op::mod}}};
  return parse_binary(in, kOps, parse_power);
}

ExprPtr parse_concat(ParseState& in) {
  ExprPtr first = parse_product(in);
  if (!in.at_op("~")) return first;
  ExprPtr expr = make_of(in, ExprKind::concat, first->line, std::move(first));
  while (in.skip_op("~")) {
    expr->children.push_back(parse_product(in));
    deepen(in, *expr, *expr->children.back());
  }
  return expr;
}

ExprPtr parse_sum(ParseState& in) {
  static constexpr std::array<OpName, 2> kOps = {{{"+", Op::add}, {"-", Op::sub}}};
  return parse_binary(in, kOps, parse_concat);
}

ExprPtr parse_compare(ParseState& in) {
  static constexpr std::array<OpName, 6> kOps = {
      {{"==", Op::eq}, {"!=", Op::ne}, {"<", Op::lt}, {"<=", Op::le}, {">", Op::gt}, {">=", Op::ge}}};
  ExprPtr expr = parse_sum(in);
  bool chained = false;
  while (!in.failed()) {
    Op op = Op::in;
    if (const OpName* found = match(in, kOps)) {
      op = found->op;
      in.next();
    } else if (in.at_name("not") && in.at_name("in", 1)) {
      op = Op::not_in;
      in.next();
      in.next();
    } else if (!in.skip_name("in")) {
      break;
    }
    if (!chained) expr = make_of(in, ExprKind::compare, expr->line, std::move(expr));
    chained = true;
    expr->ops.push_back(op);
    expr->children.push_back(parse_sum(in));
    deepen(in, *expr, *expr->children.back());
  }
  return expr;
}

ExprPtr parse_not(ParseState& in) {
  if (!in.at_name("not")) return parse_compare(in);
  Nested nested(in);
  const int line = in.next().line;
  return make_of(in, ExprKind::logical_not, line, parse_not(in));
}

template <class Next>
ExprPtr parse_logical(ParseState& in, std::string_view word, ExprKind kind, Next operand) {
  ExprPtr left = operand(in);
  while (in.at_name(word)) {
    const int line = in.next().line;
    ExprPtr right = operand(in);
    left = make_of(in, kind, line, std::move(left), std::move(right));
  }
  return left;
}

}  // namespace

ExprPtr parse_or_expression(ParseState& in) {
  return parse_logical(in, "or", ExprKind::logical_or,
                       [](ParseState& p) { return parse_logical(p, "and", ExprKind::logical_and, parse_not); });
}

ExprPtr parse_expression(ParseState& in) {
  Nested nested(in);
  ExprPtr expr = parse_or_expression(in);
  while (in.at_name("if")) {
    const int line = in.next().line;
    ExprPtr condition = parse_or_expression(in);
    ExprPtr otherwise = in.skip_name("else") ? parse_expression(in) : nullptr;
    expr = make_of(in, ExprKind::conditional, line, std::move(condition), std::move(expr), std::move(otherwise));
  }
  return expr;
}

ExprPtr parse_tuple_expression(ParseState& in) {
  ExprPtr first = parse_expression(in);
  if (!in.at_op(",")) return first;
  ExprPtr tuple = make_of(in, ExprKind::tuple, first->line, std::move(first));
  while (in.skip_op(",")) {
    if (in.at(TokenType::variable_end) || in.at(TokenType::block_end)) break;
    tuple->children.push_back(parse_expression(in));
    deepen(in, *tuple, *tuple->children.back());
  }
  return tuple;
}

}  // namespace ganglion::local::jinja
