#pragma once
// What was built: version and commit, from CMake.

#include <string_view>

namespace ganglion::app {

inline constexpr std::string_view kVersion = GANGLION_VERSION;
extern const std::string_view kCommit;

}  // namespace ganglion::app
