// Finds a model folder's chat templates and special tokens.

#include <array>
#include <fstream>
#include <sstream>

#include "backends/local/chat/chat_template.hpp"

namespace ganglion::local {

namespace {

// Room for tokenizer configurations that list every added token.
constexpr std::uintmax_t kConfigBytesMax = 64 * 1024 * 1024;

core::Result<std::optional<std::string>> read_file(const std::filesystem::path& path) {
  std::error_code error;
  const std::uintmax_t size = std::filesystem::file_size(path, error);
  if (error) return std::nullopt;
  if (size > kConfigBytesMax) return core::fail(core::ErrorKind::invalid_value, path.string() + ": too large");
  std::ifstream in(path, std::ios::binary);
  std::string text(static_cast<std::size_t>(size), '\0');
  if (!in.read(text.data(), static_cast<std::streamsize>(text.size()))) {
    return core::fail(core::ErrorKind::not_found, path.string() + ": cannot be read");
  }
  return text;
}

core::Result<std::shared_ptr<const ChatTemplate>> compile(const std::filesystem::path& origin, std::string source) {
  auto compiled = ChatTemplate::compile(std::move(source));
  if (!compiled) {
    return core::fail(compiled.error().kind, origin.string() + ": " + compiled.error().message);
  }
  return std::make_shared<const ChatTemplate>(std::move(*compiled));
}

// A special token is written as a string or as an added token's object with "content".
std::optional<std::string> token_text(const jinja::Value* v) {
  if (v == nullptr) return std::nullopt;
  if (v->is(jinja::Kind::dict)) v = v->as_dict().find("content");
  if (v == nullptr || !v->is(jinja::Kind::string)) return std::nullopt;
  return v->as_string();
}

core::Result<void> read_templates(const std::filesystem::path& path, const jinja::Value& templates,
                                  ChatFormat& format) {
  if (templates.is(jinja::Kind::string)) {
    auto compiled = compile(path, templates.as_string());
    if (!compiled) return std::unexpected(compiled.error());
    format.chat = std::move(*compiled);
    return {};
  }
  if (!templates.is(jinja::Kind::list)) {
    return core::fail(core::ErrorKind::invalid_value, path.string() + ": chat_template must be a string or a list");
  }
  for (const jinja::Value& entry : templates.as_list().items) {
    const jinja::Value* name = entry.is(jinja::Kind::dict) ? entry.as_dict().find("name") : nullptr;
    const jinja::Value* source = entry.is(jinja::Kind::dict) ? entry.as_dict().find("template") : nullptr;
    if (name == nullptr || source == nullptr || !name->is(jinja::Kind::string) || !source->is(jinja::Kind::string)) {
      return core::fail(core::ErrorKind::invalid_value,
                        path.string() + ": chat_template entries need name and template");
    }
    const bool tools = name->as_string() == "tool_use";
    if (!tools && name->as_string() != "default") continue;
    auto compiled = compile(path, source->as_string());
    if (!compiled) return std::unexpected(compiled.error());
    (tools ? format.tool_use : format.chat) = std::move(*compiled);
  }
  return {};
}

}  // namespace

core::Result<std::optional<ChatFormat>> load_chat_template(const std::filesystem::path& dir) {
  ChatFormat format;
  const std::filesystem::path config_path = dir / "tokenizer_config.json";
  auto config_text = read_file(config_path);
  if (!config_text) return std::unexpected(config_text.error());
  jinja::Value config = jinja::Value::dict({});
  if (*config_text) {
    auto parsed = jinja::parse_json(**config_text);
    if (!parsed || !parsed->is(jinja::Kind::dict)) {
      return core::fail(core::ErrorKind::invalid_value,
                        config_path.string() + ": " + (parsed ? "not a JSON object" : parsed.error().message));
    }
    config = std::move(*parsed);
  }
  for (const std::string_view name : {"bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token"}) {
    if (auto text = token_text(config.as_dict().find(name))) format.special_tokens.emplace_back(name, *text);
  }
  const std::filesystem::path jinja_path = dir / "chat_template.jinja";
  auto source = read_file(jinja_path);
  if (!source) return std::unexpected(source.error());
  const jinja::Value* inline_template = config.as_dict().find("chat_template");
  if (*source) {
    auto compiled = compile(jinja_path, std::move(**source));
    if (!compiled) return std::unexpected(compiled.error());
    format.chat = std::move(*compiled);
  } else if (inline_template != nullptr && !inline_template->is(jinja::Kind::none)) {
    if (auto read = read_templates(config_path, *inline_template, format); !read) return std::unexpected(read.error());
  }
  if (!format.chat) format.chat = format.tool_use;
  if (!format.chat) return std::nullopt;
  return format;
}

}  // namespace ganglion::local
