// Statements and scopes. As in Jinja, `if` opens no scope; each round of a loop, each macro call, `with` and
// generation blocks do, and what is set inside them is gone after them.

#include "backends/local/chat/evaluator.hpp"

#include <algorithm>

namespace ganglion::local::jinja {

const Value* Scope::find(std::string_view name) const {
  for (const Scope* scope = this; scope != nullptr; scope = scope->parent.get()) {
    for (const auto& [n, v] : scope->names) {
      if (n == name) return &v;
    }
  }
  return nullptr;
}

void Scope::set(std::string_view name, Value value) {
  for (auto& [n, v] : names) {
    if (n == name) {
      v = std::move(value);
      return;
    }
  }
  names.emplace_back(name, std::move(value));
}

// One level of recursion, undone at the end of the block.
class Evaluator::Depth {
 public:
  explicit Depth(Evaluator& run) : run_(run) {
    if (++run_.depth_ > kEvalDepthMax) run_.fail("recursion too deep");
  }
  ~Depth() { --run_.depth_; }
  Depth(const Depth&) = delete;
  Depth& operator=(const Depth&) = delete;

 private:
  Evaluator& run_;
};

namespace {

// Puts a member back to what it was.
template <class T>
class Swapped {
 public:
  Swapped(T& place, T value) : place_(place), saved_(std::exchange(place, std::move(value))) {}
  ~Swapped() { place_ = std::move(saved_); }
  Swapped(const Swapped&) = delete;
  Swapped& operator=(const Swapped&) = delete;

 private:
  T& place_;
  T saved_;
};

}  // namespace

Evaluator::Evaluator(const Template& compiled, const RenderInput& input)
    : template_(compiled), input_(input), scope_(std::make_shared<Scope>()) {
  scope_->set("messages", input.messages);
  scope_->set("tools", input.tools);
  scope_->set("documents", Value::none());
  scope_->set("add_generation_prompt", Value::boolean(input.add_generation_prompt));
  if (!input.bos_token.empty()) scope_->set("bos_token", Value::string(input.bos_token));
  if (!input.eos_token.empty()) scope_->set("eos_token", Value::string(input.eos_token));
  for (const auto& [name, value] : input.extra) scope_->set(name, value);
}

core::Result<std::string> Evaluator::run() {
  std::string out;
  out_ = &out;
  // Assignments at the top go to a scope of their own, above which the input's names stay as they are.
  auto top = std::make_shared<Scope>();
  top->parent = scope_;
  scope_ = top;
  run_body(template_.body);
  if (failed_) return std::unexpected(error_);
  return out;
}

Value Evaluator::fail(std::string_view message) {
  if (!failed_) {
    error_ = core::make_error(core::ErrorKind::invalid_value,
                              "chat template, line " + std::to_string(line_) + ": " + std::string{message}, "messages");
  }
  failed_ = true;
  return {};
}

Value Evaluator::raise_exception(std::string message) {
  if (!failed_) error_ = core::make_error(core::ErrorKind::invalid_value, std::move(message), "messages");
  failed_ = true;
  return {};
}

Value Evaluator::fail_undefined(const Value& undefined) {
  return fail(undefined.why().empty() ? "a value is undefined" : undefined.why());
}

bool Evaluator::step(int line) {
  if (failed_) return false;
  line_ = line;
  if (++steps_ > input_.limits.steps_max) fail("the template runs for too long");
  return !failed_;
}

bool Evaluator::charge(std::size_t bytes) {
  work_bytes_ += bytes;
  if (work_bytes_ > input_.limits.work_bytes_max) fail("the template uses too much memory");
  return !failed_;
}

void Evaluator::print(std::string_view s) {
  if (!charge(s.size())) return;
  if (out_->size() + s.size() > input_.limits.output_bytes_max) {
    fail("the prompt is too large");
    return;
  }
  out_->append(s);
}

Value Evaluator::text(std::string s) {
  if (!charge(s.size() + sizeof(std::string))) return {};
  if (s.size() > input_.limits.output_bytes_max) return fail("a string is too large");
  return Value::string(std::move(s));
}

Value Evaluator::list(std::vector<Value> items, Sequence sequence) {
  if (!charge(items.size() * sizeof(Value))) return {};
  Value out = Value::list(std::move(items), sequence);
  return out.depth() > kDepthMax ? fail("lists nest too deeply") : out;
}

Value Evaluator::dict(std::vector<Value::Entry> entries) {
  if (!charge(entries.size() * sizeof(Value::Entry))) return {};
  Value out = Value::dict(std::move(entries));
  return out.depth() > kDepthMax ? fail("dicts nest too deeply") : out;
}

Evaluator::Flow Evaluator::run_body(const Body& body) {
  const Depth depth(*this);
  for (const Stmt& stmt : body) {
    if (!step(stmt.line)) break;
    const Flow flow = run_statement(stmt);
    if (flow != Flow::next) return flow;
  }
  return Flow::next;
}

Evaluator::Flow Evaluator::run_statement(const Stmt& stmt) {
  switch (stmt.kind) {
    case StmtKind::text:
      print(stmt.text);
      return Flow::next;
    case StmtKind::output:
      for (const ExprPtr& expr : stmt.exprs) {
        const Value v = eval(*expr);
        if (failed_) break;
        v.is(Kind::string) ? print(v.as_string()) : print(to_text(v));
      }
      return Flow::next;
    case StmtKind::if_:
      return run_if(stmt);
    case StmtKind::for_:
      return run_for(stmt);
    case StmtKind::set:
      if (const Value v = eval(*stmt.exprs[0]); !failed_) assign(stmt.targets[0], v);
      return Flow::next;
    case StmtKind::set_block:
      run_set_block(stmt);
      return Flow::next;
    case StmtKind::macro:
      scope_->set(stmt.macro->name, make_macro(stmt.macro));
      return Flow::next;
    case StmtKind::call_block:
      run_call_block(stmt);
      return Flow::next;
    case StmtKind::filter_block:
      if (const Value v = filtered(*stmt.exprs[0], capture(stmt.bodies[0])); !failed_) print(to_text(v));
      return Flow::next;
    case StmtKind::with:
      run_with(stmt);
      return Flow::next;
    case StmtKind::scoped:
      return run_scoped(stmt.bodies[0]);
    case StmtKind::break_:
      return Flow::break_;
    case StmtKind::continue_:
      return Flow::continue_;
  }
  return Flow::next;
}

Evaluator::Flow Evaluator::run_if(const Stmt& stmt) {
  for (std::size_t i = 0; i < stmt.exprs.size(); ++i) {
    const bool taken = truthy(eval(*stmt.exprs[i]));
    if (failed_) return Flow::next;
    if (taken) return run_body(stmt.bodies[i]);
  }
  return stmt.bodies.size() > stmt.exprs.size() ? run_body(stmt.bodies.back()) : Flow::next;
}

Evaluator::Flow Evaluator::run_scoped(const Body& body) {
  auto inner = std::make_shared<Scope>();
  inner->parent = scope_;
  const Swapped<std::shared_ptr<Scope>> swapped(scope_, std::move(inner));
  return run_body(body);
}

Evaluator::Flow Evaluator::run_for(const Stmt& stmt) {
  const std::shared_ptr<Scope> outer = scope_;
  const Swapped<std::shared_ptr<Scope>> restore(scope_, outer);
  auto loop = std::make_shared<LoopState>();
  loop->items = iterate(eval(*stmt.exprs[0]));
  const auto enter = [&](const Value& item) {
    scope_ = std::make_shared<Scope>();
    scope_->parent = outer;
    assign(stmt.targets[0], item);
  };
  if (stmt.exprs.size() > 1) {
    std::vector<Value> kept;
    for (const Value& item : loop->items) {
      enter(item);
      const bool keep = !failed_ && truthy(eval(*stmt.exprs[1]));
      if (failed_) return Flow::next;
      if (keep) kept.push_back(item);
    }
    loop->items = std::move(kept);
  }
  if (failed_) return Flow::next;
  for (; loop->index0 < loop->items.size(); ++loop->index0) {
    enter(loop->items[loop->index0]);
    scope_->set("loop", Value::object(loop));
    if (!step(stmt.line)) return Flow::next;
    if (run_body(stmt.bodies[0]) == Flow::break_) return Flow::next;
  }
  scope_ = outer;
  // As in Jinja, else runs when there was nothing to iterate over.
  if (loop->items.empty() && stmt.bodies.size() > 1) return run_body(stmt.bodies[1]);
  return Flow::next;
}

void Evaluator::run_with(const Stmt& stmt) {
  auto inner = std::make_shared<Scope>();
  inner->parent = scope_;
  for (std::size_t i = 0; i < stmt.targets.size(); ++i) inner->set(stmt.targets[i].name, eval(*stmt.exprs[i]));
  const Swapped<std::shared_ptr<Scope>> swapped(scope_, std::move(inner));
  run_body(stmt.bodies[0]);
}

std::string Evaluator::capture(const Body& body) {
  std::string text;
  const Swapped<std::string*> swapped(out_, &text);
  run_scoped(body);
  return text;
}

Value Evaluator::filtered(const Expr& chain, std::string captured) {
  auto inner = std::make_shared<Scope>();
  inner->parent = scope_;
  inner->set(kFilterInput, text(std::move(captured)));
  const Swapped<std::shared_ptr<Scope>> swapped(scope_, std::move(inner));
  return eval(chain);
}

void Evaluator::run_set_block(const Stmt& stmt) {
  std::string captured = capture(stmt.bodies[0]);
  const Value v = stmt.exprs.empty() ? text(std::move(captured)) : filtered(*stmt.exprs[0], std::move(captured));
  if (!failed_) assign(stmt.targets[0], v);
}

void Evaluator::run_call_block(const Stmt& stmt) {
  const Value caller = make_macro(stmt.macro);
  const Expr& call_expr = *stmt.exprs[0];
  const Value callee = eval(*call_expr.children[0]);
  Arguments arguments = eval_arguments(call_expr);
  if (failed_) return;
  arguments.named.emplace_back("caller", caller);
  const Value result = call(callee, std::move(arguments));
  if (!failed_) print(to_text(result));
}

void Evaluator::assign(const Target& target, const Value& value) {
  if (!target.attribute.empty()) return assign_attribute(target, value);
  if (target.parts.empty()) return scope_->set(target.name, value);
  const std::vector<Value> parts = iterate(value);
  if (failed_) return;
  if (parts.size() != target.parts.size()) {
    fail("cannot unpack " + std::to_string(parts.size()) + " values into " + std::to_string(target.parts.size()));
    return;
  }
  for (std::size_t i = 0; i < parts.size(); ++i) assign(target.parts[i], parts[i]);
}

void Evaluator::assign_attribute(const Target& target, const Value& value) {
  const Value* object = scope_->find(target.name);
  if (object == nullptr || !object->is(Kind::name_space)) {
    fail("cannot assign attribute '" + target.attribute + "': '" + target.name + "' is not a namespace");
    return;
  }
  if (value.holds_mutable()) {
    fail("a namespace cannot hold a namespace or a loop");
    return;
  }
  object->as_namespace().set(target.attribute, value);
}

Value Evaluator::make_macro(const std::shared_ptr<const Macro>& macro) {
  auto callable = std::make_shared<Callable>();
  callable->macro = macro.get();
  callable->scope = scope_;
  return Value::object(std::shared_ptr<const Callable>(std::move(callable)));
}

Value Evaluator::call_macro(const Callable& callable, Arguments arguments) {
  const Macro& macro = *callable.macro;
  auto scope = std::make_shared<Scope>();
  scope->parent = callable.scope.lock();
  if (!scope->parent) return fail("macro '" + macro.name + "' is called outside of the block that made it");
  const std::size_t count = macro.parameters.size();
  if (arguments.positional.size() > count) {
    return fail("macro '" + macro.name + "' takes not more than " + std::to_string(count) + " argument(s)");
  }
  std::vector<bool> given(count, false);
  for (std::size_t i = 0; i < arguments.positional.size(); ++i) {
    scope->set(macro.parameters[i], std::move(arguments.positional[i]));
    given[i] = true;
  }
  for (auto& [name, value] : arguments.named) {
    if (name == "caller" && macro.uses_caller) {
      scope->set("caller", std::move(value));
      continue;
    }
    const auto found = std::ranges::find(macro.parameters, name);
    const auto at = static_cast<std::size_t>(found - macro.parameters.begin());
    if (found == macro.parameters.end()) return fail("macro '" + macro.name + "' has no parameter '" + name + "'");
    if (given[at]) return fail("macro '" + macro.name + "' got '" + name + "' twice");
    scope->set(*found, std::move(value));
    given[at] = true;
  }
  const Swapped<std::shared_ptr<Scope>> swapped(scope_, scope);
  const std::size_t first_default = count - macro.defaults.size();
  for (std::size_t i = 0; i < count; ++i) {
    if (given[i]) continue;
    scope->set(macro.parameters[i], i >= first_default
                                        ? eval(*macro.defaults[i - first_default])
                                        : Value::undefined("parameter '" + macro.parameters[i] + "' was not provided"));
  }
  std::string captured;
  {
    const Swapped<std::string*> output(out_, &captured);
    run_body(macro.body);
  }
  return failed_ ? Value{} : text(std::move(captured));
}

}  // namespace ganglion::local::jinja
