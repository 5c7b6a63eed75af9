#pragma once
// The values of a chat template: Python's none, bool, int, float, str, list, tuple, dict, plus Jinja's undefined,
// namespaces, loop objects and callables. Lists and dicts never change once made, so copies share them; nesting is
// bounded at construction (kDepthMax), so that printing, comparing and freeing may recurse. One thread at a time.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "core/error.hpp"

namespace ganglion::local::jinja {

struct List;
struct Dict;
struct Namespace;
struct LoopState;
struct Callable;

inline constexpr int kDepthMax = 100;  // nesting of lists and dicts

enum class Kind : std::uint8_t {
  undefined,
  none,
  boolean,
  integer,
  real,
  string,
  list,
  dict,
  name_space,
  loop,
  callable
};

// What a sequence is to Python. A generator is true even if empty, has no length or index, and runs only once.
enum class Sequence : std::uint8_t { list, tuple, generator };

class Value {
 public:
  using Entry = std::pair<Value, Value>;

  Value() = default;  // undefined
  static Value undefined(std::string why);
  static Value none();
  static Value boolean(bool v);
  static Value integer(std::int64_t v);
  static Value real(double v);
  static Value string(std::string v);
  static Value string(std::shared_ptr<const std::string> v);
  static Value list(std::vector<Value> items, Sequence sequence = Sequence::list);
  // Keys must be distinct; their order is kept.
  static Value dict(std::vector<Entry> entries);
  static Value object(std::shared_ptr<Namespace> v);
  static Value object(std::shared_ptr<LoopState> v);
  static Value object(std::shared_ptr<const Callable> v);

  Kind kind() const { return static_cast<Kind>(v_.index()); }
  bool is(Kind k) const { return kind() == k; }
  bool is_number() const { return is(Kind::boolean) || is(Kind::integer) || is(Kind::real); }
  bool is_integral() const { return is(Kind::boolean) || is(Kind::integer); }

  // Each accessor requires the kind that it names.
  const std::string& why() const;  // undefined: what was looked for; "" for a plain one
  bool as_bool() const { return std::get<bool>(v_); }
  std::int64_t as_int() const;  // boolean or integer
  double as_real() const;       // any number
  const std::string& as_string() const { return *std::get<std::shared_ptr<const std::string>>(v_); }
  const List& as_list() const { return *std::get<std::shared_ptr<const List>>(v_); }
  const Dict& as_dict() const { return *std::get<std::shared_ptr<const Dict>>(v_); }
  Namespace& as_namespace() const { return *std::get<std::shared_ptr<Namespace>>(v_); }
  LoopState& as_loop() const { return *std::get<std::shared_ptr<LoopState>>(v_); }
  const Callable& as_callable() const { return *std::get<std::shared_ptr<const Callable>>(v_); }

  int depth() const;           // 0 for scalars
  bool holds_mutable() const;  // a namespace or loop object is in it
  const void* identity() const;

 private:
  struct Undefined {
    std::shared_ptr<const std::string> why;
  };
  std::variant<Undefined, std::monostate, bool, std::int64_t, double, std::shared_ptr<const std::string>,
               std::shared_ptr<const List>, std::shared_ptr<const Dict>, std::shared_ptr<Namespace>,
               std::shared_ptr<LoopState>, std::shared_ptr<const Callable>>
      v_;
};

struct List {
  std::vector<Value> items;
  Sequence sequence = Sequence::list;
  int depth = 1;
  bool holds_mutable = false;
  mutable bool spent = false;  // a generator that has run
};

struct Dict {
  std::vector<Value::Entry> entries;
  int depth = 1;
  bool holds_mutable = false;
  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
};

// Jinja's namespace(): the one thing a template can change after making it. It may hold neither namespaces nor loop
// objects, hence no cycles.
struct Namespace {
  std::vector<std::pair<std::string, Value>> attributes;
  const Value* find(std::string_view name) const;
  void set(std::string_view name, Value value);
};

bool truthy(const Value& v);
bool equal(const Value& a, const Value& b);
enum class Order : std::uint8_t { less, same, greater, incomparable };
Order compare(const Value& a, const Value& b);
std::string to_text(const Value& v);  // Python's str()
std::string repr(const Value& v);     // Python's repr()
std::string real_text(double v);      // Python's repr() of a float
std::string_view type_name(const Value& v);

}  // namespace ganglion::local::jinja
