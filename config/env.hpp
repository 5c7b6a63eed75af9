#pragma once
// ${NAME} in scalar values: ${NAME} must be set, ${NAME:-text} falls back to text when it is unset or empty, $${
// stands for a literal ${. A lone $ is itself.

#include <expected>
#include <string>
#include <string_view>

#include "config/loader.hpp"

namespace ganglion::config {

struct Expanded {
  std::string text;
  bool used_env = false;  // at least one ${...} was replaced
};

std::expected<Expanded, std::string> expand_env(std::string_view text, const EnvLookup& env);

}  // namespace ganglion::config
