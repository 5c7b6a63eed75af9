#pragma once
// A hash that tells two configurations apart, for the config_info metric and for tests of reloads.

#include <string>

#include "config/config.hpp"

namespace ganglion::config {

// 16 hex digits of a SHA-256 over every value, secrets included, in the table's order.
std::string fingerprint(const Config& config);

}  // namespace ganglion::config
