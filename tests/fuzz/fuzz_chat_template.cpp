// Compiles and renders arbitrary template text over a fixed conversation. Properties: no crash, no hang, no leak;
// whatever is rendered stays within its limits and comes out the same twice.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "backends/local/chat/chat_template.hpp"

namespace {

using ganglion::local::RenderInput;

RenderInput make_input() {
  RenderInput input;
  input.messages = *ganglion::local::jinja::parse_json(
      R"([{"role": "system", "content": "Be brief."},
          {"role": "user", "content": "Gr\u00fc\u00dfe <b> \ud83d\ude00"},
          {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f", "arguments": {"a": [1, 2.5]}}}]},
          {"role": "tool", "content": "ok"}])");
  input.tools = *ganglion::local::jinja::parse_json(R"([{"type": "function", "function": {"name": "f"}}])");
  input.bos_token = "<s>";
  input.eos_token = "</s>";
  input.now = {};
  input.limits = {.steps_max = 20'000, .output_bytes_max = 64 * 1024, .work_bytes_max = 4 * 1024 * 1024};
  return input;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const RenderInput kInput = make_input();
  const auto compiled = ganglion::local::ChatTemplate::compile(std::string(reinterpret_cast<const char*>(data), size));
  if (!compiled) return 0;
  const auto once = compiled->render(kInput);
  const auto twice = compiled->render(kInput);
  if (once.has_value() != twice.has_value()) std::abort();
  if (once && (*once != *twice || once->size() > kInput.limits.output_bytes_max)) std::abort();
  return 0;
}
