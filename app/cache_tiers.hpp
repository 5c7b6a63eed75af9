#pragma once
// The cache's tiers as the configuration wants them.

#include <memory>

#include "cache/tiers.hpp"
#include "config/config.hpp"
#include "metrics/registry.hpp"
#include "net/redis_hooks.hpp"

namespace ganglion::app {

// A tier that cannot be had is left out and logged: a cache never keeps a gateway from starting. `successor`: the disk
// may still be another process's for a moment, and is waited for, behind the caller's back. All that is referred to
// outlives what is returned.
std::unique_ptr<cache::Tiers> make_cache_tiers(const config::Config& config, const core::Clock& clock,
                                               cache::MemoryCache& memory, cache::PurgeLog& purges,
                                               metrics::Registry& registry, net::RedisHooks& redis_hooks,
                                               bool successor = false);

}  // namespace ganglion::app
