// The public face of the interpreter, see chat_template.hpp.

#include "backends/local/chat/chat_template.hpp"

#include <algorithm>

#include "backends/local/chat/evaluator.hpp"
#include "backends/local/chat/parser.hpp"

namespace ganglion::local {

ChatTemplate::ChatTemplate(std::unique_ptr<const jinja::Template> compiled, std::string source)
    : compiled_(std::move(compiled)), source_(std::move(source)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

core::Result<ChatTemplate> ChatTemplate::compile(std::string source) {
  if (source.size() > kTemplateSourceBytesMax) {
    return core::fail(core::ErrorKind::invalid_value,
                      "chat template: larger than " + std::to_string(kTemplateSourceBytesMax) + " bytes");
  }
  auto compiled = jinja::parse_template(source);
  if (!compiled) return std::unexpected(compiled.error());
  return ChatTemplate(std::move(*compiled), std::move(source));
}

core::Result<std::string> ChatTemplate::render(const RenderInput& input) const {
  return jinja::Evaluator(*compiled_, input).run();
}

bool ChatTemplate::mentions(std::string_view variable) const {
  return std::ranges::binary_search(compiled_->names, variable);
}

}  // namespace ganglion::local
