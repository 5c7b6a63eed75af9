// One pass over the text; replacements are not expanded again, so that a value cannot smuggle in another variable.

#include "config/env.hpp"

#include <cstdlib>

namespace ganglion::config {
namespace {

bool is_name(std::string_view name) {
  if (name.empty() || (name.front() >= '0' && name.front() <= '9')) return false;
  for (const char c : name) {
    const bool good = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
    if (!good) return false;
  }
  return true;
}

}  // namespace

std::optional<std::string> process_env(std::string_view name) {
  const char* const value = std::getenv(std::string(name).c_str());
  if (value == nullptr) return std::nullopt;
  return std::string(value);
}

std::expected<Expanded, std::string> expand_env(std::string_view text, const EnvLookup& env) {
  Expanded out;
  while (!text.empty()) {
    if (text.starts_with("$${")) {
      out.text += "${";
      text.remove_prefix(3);
      continue;
    }
    if (!text.starts_with("${")) {
      out.text += text.front();
      text.remove_prefix(1);
      continue;
    }
    const std::size_t close = text.find('}');
    if (close == std::string_view::npos) return std::unexpected("\"${\" without its \"}\"; write $${ for a literal ${");
    const std::string_view inside = text.substr(2, close - 2);
    const std::size_t fallback = inside.find(":-");
    const std::string_view name = inside.substr(0, fallback);
    // The text is not shown: a secret may have been pasted into the braces.
    if (!is_name(name))
      return std::unexpected("${...} must hold the name of an environment variable, as in ${OPENAI_API_KEY}");
    const std::optional<std::string> value = env(name);
    if (value && !(value->empty() && fallback != std::string_view::npos)) {
      out.text += *value;
    } else if (fallback != std::string_view::npos) {
      out.text += inside.substr(fallback + 2);
    } else {
      return std::unexpected("environment variable " + std::string(name) + " is not set");
    }
    out.used_env = true;
    text.remove_prefix(close + 1);
  }
  return out;
}

}  // namespace ganglion::config
