#pragma once
// The compiled form of a template. Nodes are plain data, made by the parser and read by the evaluator; expression
// and block nesting is bounded (kExpressionDepthMax, kBlockDepthMax), so that both may recurse.

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backends/local/chat/value.hpp"

namespace ganglion::local::jinja {

inline constexpr int kExpressionDepthMax = 200;
inline constexpr int kBlockDepthMax = 60;

struct FilterInfo;
struct TestInfo;

enum class ExprKind : std::uint8_t {
  literal,      // value
  name,         // text
  attribute,    // children[0].text
  item,         // children[0][children[1]]
  slice,        // children[0][children[1]:children[2]:children[3]], absent ones null
  call,         // children[0](children[1..], named)
  filter,       // children[0] | filter(children[1..], named)
  test,         // children[0] is test(children[1..])
  negate,       // -x
  plus,         // +x
  logical_not,  // not x
  logical_and,
  logical_or,
  conditional,  // children[1] if children[0] else children[2] (may be null)
  compare,      // children[0] ops[0] children[1] ops[1] children[2] ...
  arithmetic,   // children[0] ops[0] children[1]
  concat,       // all children as text
  list,
  tuple,
  dict  // key, value, key, value, ...
};

enum class Op : std::uint8_t { add, sub, mul, div, floor_div, mod, pow, eq, ne, lt, le, gt, ge, in, not_in };

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

struct Expr {
  ExprKind kind = ExprKind::literal;
  int line = 0;
  int depth = 1;
  Value value;
  std::string text;
  std::vector<ExprPtr> children;
  std::vector<std::pair<std::string, ExprPtr>> named;
  std::vector<Op> ops;
  const FilterInfo* filter = nullptr;
  const TestInfo* test = nullptr;
};

// What `set` and `for` assign to: a name, a namespace's attribute, or a tuple of those.
struct Target {
  std::string name;
  std::string attribute;      // "" unless name.attribute
  std::vector<Target> parts;  // a tuple when not empty
  int line = 0;
};

struct Macro;
struct Stmt;
using Body = std::vector<Stmt>;

enum class StmtKind : std::uint8_t {
  text,          // text
  output,        // exprs, printed one after the other
  if_,           // exprs[i] -> bodies[i]; one more body than exprs: else
  for_,          // target in exprs[0] [if exprs[1]]: bodies[0], else bodies[1]
  set,           // target = exprs[0]
  set_block,     // target = bodies[0] as text, through exprs[0] (a filter chain on filter_input) where given
  macro,         // macro
  call_block,    // exprs[0] called with macro as its caller
  filter_block,  // exprs[0] applied to bodies[0] as text
  with,          // targets = exprs, then bodies[0], in a scope of its own
  scoped,        // bodies[0] in a scope of its own (generation)
  break_,
  continue_
};

struct Stmt {
  StmtKind kind = StmtKind::text;
  int line = 0;
  std::string text;
  std::vector<ExprPtr> exprs;
  std::vector<Body> bodies;
  std::vector<Target> targets;
  std::shared_ptr<const Macro> macro;
};

struct Macro {
  std::string name;
  int line = 0;
  std::vector<std::string> parameters;
  std::vector<ExprPtr> defaults;  // of the last parameters
  Body body;
  bool uses_caller = false;
};

// The name under which a block's text reaches its filter chain; no template can spell it.
inline constexpr const char* kFilterInput = " input";

struct Template {
  Body body;
  std::vector<std::string> names;  // every name read, sorted
};

}  // namespace ganglion::local::jinja
