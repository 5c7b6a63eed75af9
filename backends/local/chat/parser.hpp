#pragma once
// Tokens to AST. Everything that the interpreter cannot do is refused here, with its name and line.

#include <memory>
#include <string_view>

#include "backends/local/chat/ast.hpp"
#include "core/error.hpp"

namespace ganglion::local::jinja {

// Errors: invalid_value (syntax), unsupported (statement, filter, test, function, method or argument).
core::Result<std::unique_ptr<const Template>> parse_template(std::string_view source);

}  // namespace ganglion::local::jinja
