// See compile.hpp.

#include "backends/local/grammar/compile.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "backends/local/grammar/characters.hpp"
#include "backends/local/grammar/schema.hpp"

namespace ganglion::local::grammar {

using core::ErrorKind;
using core::Result;
using Json = nlohmann::ordered_json;

namespace {

class Whole {
 public:
  explicit Whole(const Source& source) : source_(source), json_(builder_) {}

  Result<Automaton> make() {
    auto root = builder_.declare();
    if (!root) return std::unexpected(root.error());
    RuleGraph g;
    const auto end = g.add();
    g.end(end);
    Result<void> ok;
    if (source_.json != Source::Json::none) ok = add_json(g, end);
    if (ok && (source_.calls == Source::Calls::must || source_.calls == Source::Calls::may)) {
      ok = add_calls(g, 0, end, source_.syntax.opening + source_.syntax.begin);
    }
    if (ok && source_.calls == Source::Calls::after) ok = add_text(g, end);
    if (ok) ok = builder_.define(*root, g);
    if (!ok) return std::unexpected(ok.error());
    return builder_.finish(*root);
  }

 private:
  Result<RuleId> schema(const std::string& text, bool strict) {
    if (text.size() > kSchemaBytesMax) {
      return core::fail(ErrorKind::invalid_value,
                        "the schema has more than " + std::to_string(kSchemaBytesMax) + " bytes");
    }
    // Kept: rules are known by where their schema lies.
    schemas_.push_back(std::make_unique<Json>(Json::parse(text, nullptr, false)));
    if (schemas_.back()->is_discarded()) return core::fail(ErrorKind::invalid_value, "the schema is not JSON");
    return schema_rule(builder_, json_, *schemas_.back(), {.open_objects = !strict});
  }

  // A leading space, line break, or both: many vocabularies begin a text with a space.
  Result<void> add_json(RuleGraph& g, std::uint32_t end) {
    auto value = source_.json == Source::Json::object ? json_.any_object() : schema(source_.schema, source_.strict);
    if (!value) return std::unexpected(value.error());
    const auto begin = g.add();
    g.empty(0, begin);
    const auto space = g.add();
    g.byte(0, space, ' ');
    g.empty(space, begin);
    g.byte(0, begin, '\n');
    g.byte(space, begin, '\n');
    g.call(begin, end, *value);
    return {};
  }

  // `first`: what comes before the first call's name.
  Result<void> add_calls(RuleGraph& g, std::uint32_t from, std::uint32_t to, const std::string& first) {
    const CallSyntax& s = source_.syntax;
    const auto name = g.add(), behind = g.add();
    g.text(from, name, first);
    for (const CallFunction& f : source_.functions) {
      auto arguments = f.parameters.empty() ? json_.any_object() : schema(f.parameters, f.strict);
      if (!arguments) {
        auto error = arguments.error();
        error.message = "function '" + f.name + "': " + error.message;
        return std::unexpected(std::move(error));
      }
      const auto before = g.add(), after = g.add();
      g.text(name, before, f.name + s.arguments);
      g.call(before, after, *arguments);
      g.text(after, behind, s.end);
    }
    if (source_.parallel && s.several) g.text(behind, name, s.between + s.begin);
    g.text(behind, to, s.closing);
    return {};
  }

  // Any text without the trigger; behind the trigger come calls, and then nothing. One node for each beginning of the
  // trigger that the text ends with.
  Result<void> add_text(RuleGraph& g, std::uint32_t end) {
    const std::string& t = source_.trigger;
    const std::string first = source_.syntax.opening + source_.syntax.begin;
    if (t.empty() || !first.starts_with(t)) return core::fail(ErrorKind::internal, "a call's trigger must begin it");
    const auto found = g.add();
    if (auto ok = add_calls(g, found, end, first.substr(t.size())); !ok) return ok;
    std::vector<std::uint32_t> at(t.size());
    at[0] = g.add();
    g.empty(0, at[0]);
    for (std::size_t i = 1; i < t.size(); ++i) at[i] = g.add();
    const auto follows = [&](std::size_t matched, char c) {  // the longest beginning that the text then ends with
      std::string text = t.substr(0, matched) + c;
      while (!text.empty() && !t.starts_with(text)) text.erase(0, 1);
      return text.size();
    };
    // A code of a special token is met whole or not at all.
    const bool special = t.front() == '\xff';
    for (std::size_t i = 0; i < t.size(); ++i) {
      if (special && i > 0) {
        g.byte(at[i], i + 1 == t.size() ? found : at[i + 1], t[i]);
        continue;
      }
      g.end(at[i]);
      std::string moved;  // bytes that lead elsewhere than to the start
      for (int c = 0; c < 128; ++c) {
        const std::size_t to = special ? 0 : follows(i, static_cast<char>(c));
        if (to == 0) continue;
        moved.push_back(static_cast<char>(c));
        g.byte(at[i], to == t.size() ? found : at[to], static_cast<char>(c));
      }
      add_raw_character(g, at[i], at[0], moved);
      if (special) g.byte(at[0], t.size() == 1 ? found : at[1], t[0]);
    }
    return {};
  }

  const Source& source_;
  AutomatonBuilder builder_;
  JsonRules json_;
  std::vector<std::unique_ptr<Json>> schemas_;
};

void field(std::string& out, std::string_view text) {
  out += std::to_string(text.size());
  out.push_back(':');
  out += text;
}

}  // namespace

std::string Source::key() const {
  std::string out;
  out.push_back(static_cast<char>('0' + static_cast<int>(json)));
  out.push_back(strict ? 's' : 'o');
  out.push_back(static_cast<char>('0' + static_cast<int>(calls)));
  out.push_back(parallel && syntax.several ? 'p' : '1');
  for (const std::string* text : {&schema, &syntax.opening, &syntax.begin, &syntax.arguments, &syntax.end,
                                  &syntax.between, &syntax.closing, &trigger}) {
    field(out, *text);
  }
  for (const CallFunction& f : functions) {
    field(out, f.name), field(out, f.parameters);
    out.push_back(f.strict ? 's' : 'o');
  }
  return out;
}

Result<std::shared_ptr<const Grammar>> compile(const Source& source, std::shared_ptr<const Vocabulary> vocabulary) {
  auto automaton = Whole(source).make();
  if (!automaton) return std::unexpected(automaton.error());
  return std::make_shared<const Grammar>(std::move(*automaton), std::move(vocabulary));
}

Result<std::shared_ptr<const Grammar>> GrammarStore::get(const Source& source) {
  std::string key = source.key();
  {
    const std::lock_guard lock(mutex_);
    if (const auto known = known_.find(key); known != known_.end()) {
      entries_.splice(entries_.begin(), entries_, known->second);
      return entries_.front().second;
    }
  }
  auto made = compile(source, vocabulary_);
  if (!made) return made;
  const std::lock_guard lock(mutex_);
  ++compiled_;
  if (known_.contains(key)) return made;
  entries_.emplace_front(key, *made);
  known_[std::move(key)] = entries_.begin();
  std::size_t bytes = 0;
  for (const Entry& e : entries_) bytes += e.first.size() + e.second->bytes_held();
  while (entries_.size() > 1 && (entries_.size() > limits_.grammars_max || bytes > limits_.bytes_max)) {
    bytes -= entries_.back().first.size() + entries_.back().second->bytes_held();
    known_.erase(entries_.back().first);
    entries_.pop_back();
  }
  return made;
}

std::size_t GrammarStore::size() const {
  const std::lock_guard lock(mutex_);
  return entries_.size();
}

std::uint64_t GrammarStore::compiled() const {
  const std::lock_guard lock(mutex_);
  return compiled_;
}

}  // namespace ganglion::local::grammar
