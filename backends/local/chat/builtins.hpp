#pragma once
// The filters, tests, functions and methods that templates may use. One table each, known to the parser so that an
// unknown name, or an unknown keyword argument, is a load-time error.

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backends/local/chat/value.hpp"

namespace ganglion::local::jinja {

class Evaluator;

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

// Arguments bound to a builtin's parameters; an absent one is undefined and not `given`.
class Bound {
 public:
  Bound(std::vector<Value> slots, std::vector<bool> given) : slots_(std::move(slots)), given_(std::move(given)) {}
  const Value& operator[](std::size_t i) const { return slots_[i]; }
  bool given(std::size_t i) const { return given_[i]; }

 private:
  std::vector<Value> slots_;
  std::vector<bool> given_;
};

// A builtin returns its value, or Evaluator::fail(...).
struct FilterInfo {
  std::string_view name;
  std::vector<std::string_view> parameters;  // after the input; ignored when raw is set
  Value (*run)(Evaluator&, const Value& input, const Bound& arguments) = nullptr;
  Value (*raw)(Evaluator&, const Value& input, const Arguments& arguments) = nullptr;
};

struct TestInfo {
  std::string_view name;
  std::size_t arguments;
  bool (*run)(Evaluator&, const Value& input, const Value& argument);
};

struct GlobalInfo {
  std::string_view name;
  Value (*run)(Evaluator&, const Arguments& arguments);
};

enum class Receiver : std::uint8_t { string, list, dict, loop };

struct MethodInfo {
  Receiver receiver;
  std::string_view name;
  std::vector<std::string_view> parameters;
  Value (*run)(Evaluator&, const Value& self, const Bound& arguments) = nullptr;
  Value (*raw)(Evaluator&, const Value& self, const Arguments& arguments) = nullptr;
};

const FilterInfo* find_filter(std::string_view name);
const TestInfo* find_test(std::string_view name);
const GlobalInfo* find_global(std::string_view name);
const MethodInfo* find_method(Receiver receiver, std::string_view name);
bool any_method(std::string_view name);  // of any receiver

// The tables' parts, one per file.
std::span<const FilterInfo> text_filters();
std::span<const FilterInfo> sequence_filters();
std::span<const MethodInfo> string_methods();

}  // namespace ganglion::local::jinja
