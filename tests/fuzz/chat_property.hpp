#pragma once
// What must hold for any chat template text: no crash, no hang, no leak; what is rendered stays within its limits and
// comes out the same twice. Shared by the fuzzer and by the unit test that replays its corpus.

#include <cstdlib>
#include <string>
#include <string_view>

#include "backends/local/chat/chat_template.hpp"

namespace ganglion::fuzz {

inline local::RenderInput chat_input() {
  local::RenderInput input;
  input.messages = *local::jinja::parse_json(
      R"([{"role": "system", "content": "Be brief."},
          {"role": "user", "content": "Gr\u00fc\u00dfe <b> \ud83d\ude00"},
          {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f", "arguments": {"a": [1, 2.5]}}}]},
          {"role": "tool", "content": "ok"}])");
  input.tools = *local::jinja::parse_json(R"([{"type": "function", "function": {"name": "f"}}])");
  input.bos_token = "<s>";
  input.eos_token = "</s>";
  input.now = {};
  input.limits = {.steps_max = 20'000, .output_bytes_max = 64 * 1024, .work_bytes_max = 4 * 1024 * 1024};
  return input;
}

inline void check_chat_template(std::string_view source) {
  static const local::RenderInput kInput = chat_input();
  const auto compiled = local::ChatTemplate::compile(std::string{source});
  if (!compiled) return;
  const auto once = compiled->render(kInput);
  const auto twice = compiled->render(kInput);
  if (once.has_value() != twice.has_value()) std::abort();
  if (once && (*once != *twice || once->size() > kInput.limits.output_bytes_max)) std::abort();
}

}  // namespace ganglion::fuzz
