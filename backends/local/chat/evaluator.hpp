#pragma once
// Runs one template once. After the first failure every step returns undefined at once, so builtins need not check
// each call; results are only used when nothing failed. Work and output are bounded by RenderLimits, recursion by
// kEvalDepthMax. One thread.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backends/local/chat/ast.hpp"
#include "backends/local/chat/builtins.hpp"
#include "backends/local/chat/callable.hpp"
#include "backends/local/chat/chat_template.hpp"

namespace ganglion::local::jinja {

// Expressions, blocks and macro calls under way at once; 1 to 2 KiB of stack each, several times that when sanitized.
inline constexpr int kEvalDepthMax = 500;
inline constexpr std::int64_t kRangeMax = 100'000;

// Names are views of the template's or the input's own strings; both outlive the render.
struct Scope {
  std::shared_ptr<Scope> parent;
  std::vector<std::pair<std::string_view, Value>> names;

  const Value* find(std::string_view name) const;
  void set(std::string_view name, Value value);
};

class Evaluator {
 public:
  Evaluator(const Template& compiled, const RenderInput& input);
  core::Result<std::string> run();

  // For builtins.
  Value fail(std::string_view message);        // with the line in front; returns undefined
  Value raise_exception(std::string message);  // the template's own words
  Value fail_undefined(const Value& undefined);
  bool failed() const { return failed_; }
  bool charge(std::size_t bytes);  // false, and failed, once the budget is spent
  const RenderInput& input() const { return input_; }

  Value text(std::string s);  // charged and bounded
  Value list(std::vector<Value> items, Sequence sequence = Sequence::list);
  Value dict(std::vector<Value::Entry> entries);

  Value attribute(const Value& object, std::string_view name);
  Value item(const Value& object, const Value& key);
  // "a.b.0": item by item, as filters' attribute arguments mean it; an integer is one index.
  Value path(const Value& object, const Value& attribute);
  // What a for loop would see; fails on what cannot be iterated. A generator is spent by it.
  std::vector<Value> iterate(const Value& v);
  std::optional<std::size_t> length(const Value& v);  // nullopt: has none
  bool contains(const Value& container, const Value& wanted);
  Value arithmetic(Op op, const Value& a, const Value& b);
  Value percent_format(const std::string& format, const Arguments& arguments);

  Value call(const Value& callee, Arguments arguments);
  Value filter(const FilterInfo& info, const Value& input, const Arguments& arguments);
  Bound bind(std::string_view what, const std::vector<std::string_view>& parameters, const Arguments& arguments);

 private:
  enum class Flow : std::uint8_t { next, break_, continue_ };
  class Depth;

  bool step(int line);
  void print(std::string_view s);

  // evaluator.cpp
  Flow run_body(const Body& body);
  Flow run_statement(const Stmt& stmt);
  Flow run_if(const Stmt& stmt);
  Flow run_for(const Stmt& stmt);
  Flow run_scoped(const Body& body);
  void run_with(const Stmt& stmt);
  void run_set_block(const Stmt& stmt);
  void run_call_block(const Stmt& stmt);
  std::string capture(const Body& body);
  Value filtered(const Expr& chain, std::string text);
  void assign(const Target& target, const Value& value);
  void assign_attribute(const Target& target, const Value& value);
  Value make_macro(const std::shared_ptr<const Macro>& macro);
  Value call_macro(const Callable& callable, Arguments arguments);

  // eval_expression.cpp
  Value eval(const Expr& e);
  Value eval_logical(const Expr& e);
  Value eval_name(const Expr& e);
  Value eval_call(const Expr& e);
  Value eval_compare(const Expr& e);
  Value eval_slice(const Expr& e);
  Value eval_concat(const Expr& e);
  Value eval_dict(const Expr& e);
  Value eval_sign(const Expr& e);
  Arguments eval_arguments(const Expr& e);
  std::vector<Value> eval_all(const std::vector<ExprPtr>& exprs, std::size_t from);

  const Template& template_;
  const RenderInput& input_;
  std::shared_ptr<Scope> scope_;
  std::string* out_ = nullptr;
  int line_ = 1;
  int depth_ = 0;
  std::size_t steps_ = 0;
  std::size_t work_bytes_ = 0;
  bool failed_ = false;
  core::Error error_;
};

// operators.cpp
bool ordered(Evaluator& run, Op op, const Value& a, const Value& b);
Value slice(Evaluator& run, const Value& object, const Value& start, const Value& stop, const Value& step);

}  // namespace ganglion::local::jinja
