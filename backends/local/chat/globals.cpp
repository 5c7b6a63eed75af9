// Functions that every template can call.

#include <algorithm>
#include <array>
#include <ctime>

#include "backends/local/chat/builtins.hpp"
#include "backends/local/chat/evaluator.hpp"

namespace ganglion::local::jinja {

namespace {

Value raise_exception(Evaluator& run, const Arguments& a) {
  if (a.positional.size() != 1 || !a.named.empty()) return run.fail("raise_exception takes one message");
  return run.raise_exception(to_text(a.positional[0]));
}

Value strftime_now(Evaluator& run, const Arguments& a) {
  if (a.positional.size() != 1 || !a.positional[0].is(Kind::string)) return run.fail("strftime_now takes one format");
  const std::string& format = a.positional[0].as_string();
  if (format.empty()) return run.text({});
  const std::time_t now = std::chrono::system_clock::to_time_t(run.input().now);
  std::tm parts{};
  gmtime_r(&now, &parts);
  std::array<char, 1024> text{};
  const std::size_t n = std::strftime(text.data(), text.size(), format.c_str(), &parts);
  return n == 0 ? run.fail("strftime_now: the format gives nothing, or too much") : run.text({text.data(), n});
}

Value range(Evaluator& run, const Arguments& a) {
  const std::size_t n = a.positional.size();
  const bool integers = std::ranges::all_of(a.positional, &Value::is_integral);
  if (n < 1 || n > 3 || !a.named.empty() || !integers) return run.fail("range takes one to three integers");
  const std::int64_t start = n == 1 ? 0 : a.positional[0].as_int();
  const std::int64_t stop = a.positional[n == 1 ? 0 : 1].as_int();
  const std::int64_t step = n == 3 ? a.positional[2].as_int() : 1;
  if (step == 0) return run.fail("range: the step must not be zero");
  std::vector<Value> out;
  for (std::int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (static_cast<std::int64_t>(out.size()) >= kRangeMax) return run.fail("range too big");
    out.push_back(Value::integer(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return run.list(std::move(out));
}

// dict(mapping_or_pairs, key=value ...), as entries.
std::vector<Value::Entry> entries_of(Evaluator& run, const Arguments& a) {
  std::vector<Value::Entry> out;
  const auto put = [&](const Value& key, const Value& value) {
    const auto found = std::ranges::find_if(out, [&](const Value::Entry& e) { return equal(e.first, key); });
    if (found == out.end()) {
      out.emplace_back(key, value);
    } else {
      found->second = value;
    }
  };
  if (a.positional.size() > 1) run.fail("at most one positional argument is taken");
  if (!a.positional.empty() && a.positional[0].is(Kind::dict)) {
    out = a.positional[0].as_dict().entries;
  } else if (!a.positional.empty()) {
    for (const Value& pair : run.iterate(a.positional[0])) {
      const std::vector<Value> parts = run.iterate(pair);
      if (parts.size() != 2) run.fail("pairs of key and value are needed");
      if (run.failed()) break;
      put(parts[0], parts[1]);
    }
  }
  for (const auto& [name, value] : a.named) put(Value::string(name), value);
  return out;
}

Value dict_global(Evaluator& run, const Arguments& a) {
  return run.dict(entries_of(run, a));
}

Value namespace_global(Evaluator& run, const Arguments& a) {
  auto out = std::make_shared<Namespace>();
  for (auto& [key, value] : entries_of(run, a)) {
    if (value.holds_mutable()) return run.fail("a namespace cannot hold a namespace or a loop");
    out->set(to_text(key), std::move(value));
  }
  return run.charge(sizeof(Namespace)) ? Value::object(std::move(out)) : Value{};
}

}  // namespace

const GlobalInfo* find_global(std::string_view name) {
  static constexpr std::array<GlobalInfo, 5> kGlobals = {{
      {"dict", dict_global},
      {"namespace", namespace_global},
      {"raise_exception", raise_exception},
      {"range", range},
      {"strftime_now", strftime_now},
  }};
  const auto found = std::ranges::find(kGlobals, name, &GlobalInfo::name);
  return found == kGlobals.end() ? nullptr : &*found;
}

}  // namespace ganglion::local::jinja
