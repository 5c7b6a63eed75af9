#pragma once
// A model's own Jinja chat template: compiled once at load, rendered per request. The dialect is what Hugging Face
// transformers renders templates with: Jinja2, trim_blocks and lstrip_blocks on, autoescape off, loop controls,
// generation blocks, an immutable sandbox, tojson without HTML escaping, raise_exception and strftime_now.
// Immutable after compile: any number of threads may render.

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backends/local/chat/json.hpp"
#include "backends/local/chat/value.hpp"
#include "core/error.hpp"

namespace ganglion::local {

namespace jinja {
struct Template;
}

inline constexpr std::size_t kTemplateSourceBytesMax = 1024 * 1024;

// What one render may use before it is stopped with invalid_value.
struct RenderLimits {
  std::size_t steps_max = 4'000'000;                  // nodes evaluated
  std::size_t output_bytes_max = 32 * 1024 * 1024;    // of the prompt, and of any one string
  std::size_t work_bytes_max = std::size_t{1} << 30;  // of everything built on the way
};

struct RenderInput {
  jinja::Value messages;                      // a list of {role, content, ...}
  jinja::Value tools = jinja::Value::none();  // a list of JSON schemas, or none
  bool add_generation_prompt = true;
  std::string bos_token;
  std::string eos_token;
  std::vector<std::pair<std::string, jinja::Value>> extra;  // further variables; they win over the ones above
  std::chrono::system_clock::time_point now = std::chrono::system_clock::now();  // for strftime_now, in UTC
  RenderLimits limits;
};

class ChatTemplate {
 public:
  // Errors: invalid_value (syntax) and unsupported (a construct, filter, test, function or method that is not
  // implemented); both name it and its line.
  static core::Result<ChatTemplate> compile(std::string source);

  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  // The prompt. Errors are invalid_value with param "messages": raise_exception's own message as it is, or what went
  // wrong and in which line.
  core::Result<std::string> render(const RenderInput& input) const;

  // Whether the template reads the variable anywhere ("tools", "enable_thinking").
  bool mentions(std::string_view variable) const;
  const std::string& source() const { return source_; }

 private:
  ChatTemplate(std::unique_ptr<const jinja::Template> compiled, std::string source);
  std::unique_ptr<const jinja::Template> compiled_;
  std::string source_;
};

// A model folder's templates and the special tokens that they print.
struct ChatFormat {
  std::shared_ptr<const ChatTemplate> chat;
  std::shared_ptr<const ChatTemplate> tool_use;                     // for requests with tools; null: `chat`
  std::vector<std::pair<std::string, std::string>> special_tokens;  // "bos_token" -> "<s>", ...

  const ChatTemplate& for_tools(bool tools) const { return tools && tool_use ? *tool_use : *chat; }
};

// Reads chat_template.jinja, else tokenizer_config.json's "chat_template" (one string, or a list of {name, template}
// of which "default" and "tool_use" are used). nullopt: the folder has no template. Errors name the file.
core::Result<std::optional<ChatFormat>> load_chat_template(const std::filesystem::path& dir);

}  // namespace ganglion::local
