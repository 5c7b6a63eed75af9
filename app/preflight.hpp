#pragma once
// What a configuration needs beyond its own text, tried before anything is started or changed: certificates, keys and
// trusted authorities load, prices add up. So a reload is taken whole or not at all.

#include "config/config.hpp"
#include "core/error.hpp"
#include "gateway/snapshot.hpp"

namespace ganglion::app {

gateway::SnapshotInput snapshot_input(const config::Config& config);

// The error's message is for the operator, and says which part and which file.
core::Result<void> preflight(const config::Config& config);

}  // namespace ganglion::app
