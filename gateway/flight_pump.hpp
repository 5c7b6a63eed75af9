#pragma once
// One flight's call, apart from every client: first into the tiers below memory, then to the upstream; lives until the
// answer is whole or nobody wants it. Runs on the worker that made it.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cache/semantic_index.hpp"
#include "cache/single_flight.hpp"
#include "cache/tiers.hpp"
#include "gateway/billed_call.hpp"
#include "net/held_body.hpp"

namespace ganglion::gateway {

// What the client that led shares with the call; same thread. Where the call was not needed, `call` is still there,
// with all that was taken for it.
struct FlightLead {
  Bill bill;
  std::optional<CallSpec> call;
};

struct Pump {
  Services& services;
  std::unique_ptr<cache::Recorder> recorder;
  std::shared_ptr<FlightLead> lead;
  net::HeldBody body;
  std::string client_model;
  // What the answer is to be kept as; null: share, do not store.
  std::shared_ptr<cache::Entry> meta;
  std::vector<cache::NegativeTtl> negative;
  std::optional<cache::SemanticPoint> semantic;  // by which similar questions will find the answer
  // Tiers below memory; `reader` null: there are none, or they are not to be asked.
  cache::TierReader* reader = nullptr;
  std::optional<cache::StoreKey> name;
  // An older answer, to be served if the upstream fails and its window allows.
  std::shared_ptr<const cache::Entry> stale;
  bool refresh = false;  // only to replace `stale`; nobody waits
};

boost::asio::awaitable<void> run_pump(std::unique_ptr<Pump> pump);

}  // namespace ganglion::gateway
