#pragma once
// The rules that all JSON grammars share. White space is bounded everywhere: nothing, one space, or one line break with
// at most kIndentMax spaces or tabs; never before a comma or a colon. Models that were trained on other layouts lose
// nothing but the layout, and none can fill an answer with it.

#include <optional>
#include <string>
#include <vector>

#include "backends/local/grammar/builder.hpp"

namespace ganglion::local::grammar {

inline constexpr std::uint32_t kIndentMax = 40;

class JsonRules {
 public:
  explicit JsonRules(AutomatonBuilder& builder) : builder_(builder) {}

  core::Result<RuleId> any_value();
  core::Result<RuleId> any_object();
  core::Result<RuleId> string();  // of any length, in any spelling
  core::Result<RuleId> number();
  core::Result<RuleId> integer();
  core::Result<RuleId> boolean();
  core::Result<RuleId> null();
  core::Result<RuleId> never();                                   // nothing satisfies it
  core::Result<RuleId> key(const std::vector<std::string>& but);  // a member's name, in one spelling, other than these

  // White space between two nodes; the first byte of it carries `op`, and none of it is an empty transition, so the
  // caller gives what follows directly the same `op`.
  core::Result<void> space(RuleGraph& graph, std::uint32_t from, std::uint32_t to, CountOp op = {});
  // White space and then one byte; `op` on whatever comes first.
  core::Result<void> space_and(RuleGraph& graph, std::uint32_t from, std::uint32_t to, char c, CountOp op = {});

 private:
  core::Result<void> define_values();
  AutomatonBuilder& builder_;
  std::optional<RuleId> value_, object_, array_, string_, number_, integer_, boolean_, null_, never_, indent_;
  std::optional<ByteTable> strings_;
};

}  // namespace ganglion::local::grammar
