#pragma once
// What a template can call, and the state of a running for loop. Used inside the interpreter only.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "backends/local/chat/value.hpp"

namespace ganglion::local::jinja {

struct Macro;
struct Scope;
struct MethodInfo;
struct GlobalInfo;

struct LoopState {
  std::vector<Value> items;
  std::size_t index0 = 0;
  int depth = 1;               // of nested loops
  std::vector<Value> changed;  // what loop.changed() saw last
  bool changed_called = false;
};

// Exactly one of method (with its receiver), global and macro is set. The scope is weak: a scope holds its macros.
struct Callable {
  const MethodInfo* method = nullptr;
  Value receiver;
  const GlobalInfo* global = nullptr;
  const Macro* macro = nullptr;
  std::weak_ptr<Scope> scope;
};

}  // namespace ganglion::local::jinja
