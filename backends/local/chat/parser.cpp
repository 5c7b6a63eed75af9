// Statements. Which statements exist is decided here; expressions are in parse_expression.cpp.

#include "backends/local/chat/parser.hpp"

#include <algorithm>
#include <array>
#include <initializer_list>

#include "backends/local/chat/builtins.hpp"
#include "backends/local/chat/parse_state.hpp"

namespace ganglion::local::jinja {

namespace {

class StatementParser {
 public:
  explicit StatementParser(ParseState& in) : in_(in) {}

  // Statements until one of the `ends` (whose name stays unread) or, with no ends, the template's end.
  Body body(std::initializer_list<std::string_view> ends, std::string_view opener, int opened_at) {
    Body out;
    if (++depth_ > kBlockDepthMax) in_.fail(opened_at, "blocks nest too deeply");
    while (!in_.failed()) {
      const Token& token = in_.peek();
      if (token.type == TokenType::end) {
        if (ends.size() > 0) in_.fail(opened_at, "'" + std::string{opener} + "' is not closed");
        break;
      }
      if (token.type == TokenType::data) {
        out.push_back({.kind = StmtKind::text, .line = token.line, .text = in_.next().text});
      } else if (token.type == TokenType::variable_begin) {
        in_.next();
        Stmt stmt{.kind = StmtKind::output, .line = token.line};
        stmt.exprs.push_back(parse_tuple_expression(in_));
        in_.expect(TokenType::variable_end, "'}}'");
        out.push_back(std::move(stmt));
      } else {
        if (std::ranges::any_of(ends, [&](std::string_view end) { return in_.at_name(end, 1); })) {
          in_.next();
          break;
        }
        in_.next();
        statement(out);
      }
    }
    --depth_;
    return out;
  }

 private:
  void block_end() { in_.expect(TokenType::block_end, "'%}'"); }

  // Reads "{% end %}" after a body that stopped there.
  Body closed_body(std::string_view end, std::string_view opener, int line) {
    block_end();
    Body out = body({end}, opener, line);
    in_.skip_name(end);
    block_end();
    return out;
  }

  void statement(Body& out) {
    const int line = in_.peek().line;
    const std::string name = in_.expect_name();
    if (in_.failed()) return;
    Stmt stmt{.line = line};
    if (name == "if") {
      if_statement(stmt);
    } else if (name == "for") {
      for_statement(stmt);
    } else if (name == "set") {
      set_statement(stmt);
    } else if (name == "macro") {
      macro_statement(stmt);
    } else if (name == "call") {
      call_statement(stmt);
    } else if (name == "filter") {
      stmt.kind = StmtKind::filter_block;
      stmt.exprs.push_back(parse_filter_chain(in_, filter_input(line), true));
      stmt.bodies.push_back(closed_body("endfilter", name, line));
    } else if (name == "with") {
      with_statement(stmt);
    } else if (name == "generation") {
      stmt.kind = StmtKind::scoped;
      // Its body is the body of a call in Jinja, where the loop around it cannot be left.
      const int loops = std::exchange(loops_, 0);
      stmt.bodies.push_back(closed_body("endgeneration", name, line));
      loops_ = loops;
    } else if (name == "break" || name == "continue") {
      stmt.kind = name == "break" ? StmtKind::break_ : StmtKind::continue_;
      if (loops_ == 0) in_.fail(line, "'" + name + "' outside of a loop");
      block_end();
    } else if (name == "print") {
      stmt.kind = StmtKind::output;
      do {
        stmt.exprs.push_back(parse_expression(in_));
      } while (in_.skip_op(","));
      block_end();
    } else if (name.starts_with("end") || name == "else" || name == "elif") {
      in_.fail(line, "unexpected '" + name + "'");
    } else {
      in_.unsupported(line, "statement '" + name + "'");
    }
    out.push_back(std::move(stmt));
  }

  static ExprPtr filter_input(int line) {
    auto expr = std::make_unique<Expr>();
    expr->kind = ExprKind::name;
    expr->line = line;
    expr->text = kFilterInput;
    return expr;
  }

  void if_statement(Stmt& stmt) {
    stmt.kind = StmtKind::if_;
    while (!in_.failed()) {
      stmt.exprs.push_back(parse_or_expression(in_));
      block_end();
      stmt.bodies.push_back(body({"elif", "else", "endif"}, "if", stmt.line));
      if (in_.skip_name("elif")) continue;
      if (in_.skip_name("else")) {
        stmt.bodies.push_back(closed_body("endif", "if", stmt.line));
      } else {
        in_.skip_name("endif");
        block_end();
      }
      return;
    }
  }

  // item {"," item}, where an item is a name or a target in brackets.
  Target target(bool attributes) {
    Target first = target_item(attributes);
    if (!in_.at_op(",")) return first;
    Target out{.line = first.line};
    out.parts.push_back(std::move(first));
    while (in_.skip_op(",")) {
      if (in_.at_name("in") || in_.at_op("=") || in_.at_op(")") || in_.failed()) break;
      out.parts.push_back(target_item(attributes));
    }
    return out;
  }

  Target target_item(bool attributes) {
    if (!in_.skip_op("(")) return name_target(attributes);
    if (++depth_ > kBlockDepthMax) in_.fail(in_.peek().line, "targets nest too deeply");
    Target out = target(attributes);
    in_.expect_op(")");
    --depth_;
    return out;
  }

  Target name_target(bool attributes) {
    Target out{.line = in_.peek().line};
    out.name = in_.expect_name();
    static constexpr std::array<std::string_view, 6> kConstants = {"true", "True", "false", "False", "none", "None"};
    if (std::ranges::find(kConstants, out.name) != kConstants.end()) {
      in_.fail(out.line, "cannot assign to '" + out.name + "'");
    }
    if (attributes && in_.skip_op(".")) {
      out.attribute = in_.expect_name();
    } else {
      in_.assigned.push_back(out.name);
    }
    return out;
  }

  void for_statement(Stmt& stmt) {
    stmt.kind = StmtKind::for_;
    stmt.targets.push_back(target(false));
    if (!in_.skip_name("in")) in_.fail_token("expected 'in'");
    stmt.exprs.push_back(iterated());
    if (in_.skip_name("if")) stmt.exprs.push_back(parse_expression(in_));
    if (in_.at_name("recursive")) in_.unsupported(stmt.line, "a recursive for loop");
    block_end();
    ++loops_;
    stmt.bodies.push_back(body({"else", "endfor"}, "for", stmt.line));
    --loops_;
    if (in_.skip_name("else")) {
      stmt.bodies.push_back(closed_body("endfor", "for", stmt.line));
    } else {
      in_.skip_name("endfor");
      block_end();
    }
  }

  // `a, b` after "in" is a tuple of the two.
  ExprPtr iterated() {
    ExprPtr first = parse_or_expression(in_);
    if (!in_.at_op(",")) return first;
    auto tuple = std::make_unique<Expr>();
    tuple->kind = ExprKind::tuple;
    tuple->line = first->line;
    tuple->depth = first->depth + 1;
    tuple->children.push_back(std::move(first));
    while (in_.skip_op(",") && !in_.at(TokenType::block_end)) {
      tuple->children.push_back(parse_or_expression(in_));
      tuple->depth = std::max(tuple->depth, tuple->children.back()->depth + 1);
    }
    return tuple;
  }

  void set_statement(Stmt& stmt) {
    stmt.targets.push_back(target(true));
    if (in_.skip_op("=")) {
      stmt.kind = StmtKind::set;
      stmt.exprs.push_back(parse_tuple_expression(in_));
      block_end();
      return;
    }
    stmt.kind = StmtKind::set_block;
    if (in_.at_op("|")) stmt.exprs.push_back(parse_filter_chain(in_, filter_input(stmt.line), false));
    stmt.bodies.push_back(closed_body("endset", "set", stmt.line));
  }

  void parameters(Macro& macro) {
    in_.expect_op("(");
    while (!in_.failed() && !in_.at_op(")")) {
      if (!macro.parameters.empty()) in_.expect_op(",");
      macro.parameters.push_back(in_.expect_name());
      in_.assigned.push_back(macro.parameters.back());
      if (in_.skip_op("=")) {
        macro.defaults.push_back(parse_expression(in_));
      } else if (!macro.defaults.empty()) {
        in_.fail(macro.line, "a parameter without default follows one with a default");
      }
    }
    in_.expect_op(")");
  }

  void macro_body(Macro& macro, std::string_view end, std::string_view opener) {
    const int loops = std::exchange(loops_, 0);
    const bool caller = std::exchange(in_.caller_used, false);
    ++in_.macro_depth;
    macro.body = closed_body(end, opener, macro.line);
    --in_.macro_depth;
    macro.uses_caller = std::exchange(in_.caller_used, caller);
    loops_ = loops;
  }

  void macro_statement(Stmt& stmt) {
    stmt.kind = StmtKind::macro;
    auto macro = std::make_shared<Macro>();
    macro->line = stmt.line;
    macro->name = in_.expect_name();
    in_.assigned.push_back(macro->name);
    parameters(*macro);
    macro_body(*macro, "endmacro", "macro");
    stmt.macro = std::move(macro);
  }

  void call_statement(Stmt& stmt) {
    stmt.kind = StmtKind::call_block;
    auto macro = std::make_shared<Macro>();
    macro->line = stmt.line;
    macro->name = "caller";
    if (in_.at_op("(")) parameters(*macro);
    stmt.exprs.push_back(parse_expression(in_));
    if (!in_.failed() && stmt.exprs[0]->kind != ExprKind::call) in_.fail(stmt.line, "'call' expects a call");
    macro_body(*macro, "endcall", "call");
    stmt.macro = std::move(macro);
  }

  void with_statement(Stmt& stmt) {
    stmt.kind = StmtKind::with;
    while (!in_.failed() && !in_.at(TokenType::block_end)) {
      if (!stmt.targets.empty()) in_.expect_op(",");
      stmt.targets.push_back(name_target(false));
      in_.expect_op("=");
      stmt.exprs.push_back(parse_expression(in_));
    }
    stmt.bodies.push_back(closed_body("endwith", "with", stmt.line));
  }

  ParseState& in_;
  int depth_ = 0;
  int loops_ = 0;
};

// A call of a name that nothing can ever define would fail whenever it is reached; better said at load.
void check_called(ParseState& in) {
  for (const auto& [name, line] : in.called) {
    if (name == "caller" || find_global(name) != nullptr || std::ranges::find(in.assigned, name) != in.assigned.end()) {
      continue;
    }
    return in.unsupported(line, name == "loop" ? std::string{"a recursive for loop"} : "function '" + name + "'");
  }
}

}  // namespace

core::Result<std::unique_ptr<const Template>> parse_template(std::string_view source) {
  auto tokens = tokenize(source);
  if (!tokens) return std::unexpected(tokens.error());
  ParseState in(std::move(*tokens));
  auto out = std::make_unique<Template>();
  out->body = StatementParser(in).body({}, "", 1);
  if (!in.failed()) check_called(in);
  if (in.failed()) return std::unexpected(in.error());
  std::ranges::sort(in.read);
  const auto repeated = std::ranges::unique(in.read);
  in.read.erase(repeated.begin(), repeated.end());
  out->names = std::move(in.read);
  return out;
}

}  // namespace ganglion::local::jinja
