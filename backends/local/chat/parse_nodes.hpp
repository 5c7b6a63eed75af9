#pragma once
// How both expression parser files make nodes: each knows the depth below it, and a node too deep ends the parse.

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "backends/local/chat/parse_state.hpp"

namespace ganglion::local::jinja {

inline ExprPtr make(ParseState& in, ExprKind kind, int line, std::vector<ExprPtr> children = {}) {
  auto expr = std::make_unique<Expr>();
  expr->kind = kind;
  expr->line = line;
  for (const ExprPtr& child : children) {
    if (child) expr->depth = std::max(expr->depth, child->depth + 1);
  }
  expr->children = std::move(children);
  if (expr->depth > kExpressionDepthMax) in.fail(line, "expression too deep");
  return expr;
}

template <class... Children>
ExprPtr make_of(ParseState& in, ExprKind kind, int line, Children... children) {
  std::vector<ExprPtr> all;
  (all.push_back(std::move(children)), ...);
  return make(in, kind, line, std::move(all));
}

inline void deepen(ParseState& in, Expr& expr, const Expr& child) {
  expr.depth = std::max(expr.depth, child.depth + 1);
  if (expr.depth > kExpressionDepthMax) in.fail(expr.line, "expression too deep");
}

// parse_arguments.cpp: arguments of a call, filter or test, brackets included, appended to children and named.
void parse_arguments(ParseState& in, Expr& expr);

}  // namespace ganglion::local::jinja
