#pragma once
// POST /admin/cache/purge: what an operator asks for, and what is told back.

#include <boost/asio/awaitable.hpp>
#include <string>
#include <string_view>

#include "cache/tiers.hpp"
#include "core/error.hpp"
#include "net/exchange.hpp"

namespace ganglion::gateway {

// {"all": true}, or any of tenant, gateway, model, tag, key, of which an entry must agree with all. Errors:
// invalid_json, invalid_value, missing_field; the param names the field.
core::Result<cache::PurgeScope> parse_purge(std::string_view body);

// Answers one request to that path.
boost::asio::awaitable<void> serve_purge(net::Exchange& exchange, cache::Tiers& tiers);

}  // namespace ganglion::gateway
