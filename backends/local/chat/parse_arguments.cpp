// Arguments, and the filters that take them: unknown names are refused here.

#include <algorithm>

#include "backends/local/chat/builtins.hpp"
#include "backends/local/chat/parse_nodes.hpp"

namespace ganglion::local::jinja {

namespace {

void check_named(ParseState& in, const Expr& expr, std::string_view what,
                 const std::vector<std::string_view>& parameters) {
  const std::size_t positional = expr.children.size() - 1;
  if (positional > parameters.size()) {
    return in.fail(expr.line, std::string{what} + " takes at most " + std::to_string(parameters.size()) + " arguments");
  }
  for (const auto& named : expr.named) {
    if (std::ranges::find(parameters, named.first) == parameters.end()) {
      in.unsupported(expr.line, std::string{what} + " with argument '" + named.first + "'");
    }
  }
}

}  // namespace

void parse_arguments(ParseState& in, Expr& expr) {
  in.expect_op("(");
  bool first = true;
  while (!in.failed() && !in.at_op(")")) {
    if (!first) {
      in.expect_op(",");
      if (in.at_op(")")) break;
    }
    first = false;
    if (in.at_op("*") || in.at_op("**")) return in.unsupported(in.peek().line, "unpacking arguments with '*'");
    const int line = in.peek().line;
    if (in.at(TokenType::name) && in.at_op("=", 1)) {
      std::string name = in.next().text;
      in.next();
      expr.named.emplace_back(std::move(name), parse_expression(in));
      deepen(in, expr, *expr.named.back().second);
    } else {
      if (!expr.named.empty()) return in.fail(line, "a positional argument follows a keyword argument");
      expr.children.push_back(parse_expression(in));
      deepen(in, expr, *expr.children.back());
    }
  }
  in.expect_op(")");
}

ExprPtr parse_filter_chain(ParseState& in, ExprPtr input, bool first_without_pipe) {
  while (!in.failed() && (first_without_pipe || in.at_op("|"))) {
    if (!first_without_pipe) in.next();
    first_without_pipe = false;
    const int line = in.peek().line;
    const std::string name = in.expect_name();
    ExprPtr expr = make_of(in, ExprKind::filter, line, std::move(input));
    expr->filter = find_filter(name);
    if (!in.failed() && expr->filter == nullptr) in.unsupported(line, "filter '" + name + "'");
    if (in.at_op("(")) parse_arguments(in, *expr);
    if (!in.failed() && expr->filter->raw == nullptr) {
      check_named(in, *expr, "filter '" + name + "'", expr->filter->parameters);
    }
    input = std::move(expr);
  }
  return input;
}

}  // namespace ganglion::local::jinja
