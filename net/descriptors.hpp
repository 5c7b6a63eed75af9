#pragma once
// File descriptors that the network leaves to others. A crowd of clients must neither keep those already served from
// their upstreams nor the ledger from its next file, so clients are refused first, then new upstream connections.

#include <cstdint>

namespace ganglion::net {

// The kernel hands out the lowest free number, so a socket's number says how many are in use: one whose number is not
// below its bound is closed again.
struct DescriptorBounds {
  int client;
  int upstream;
};

// For a process that may have `limit` descriptors.
DescriptorBounds descriptor_bounds(std::uint64_t limit);

// Of this process, by its limit at the first call.
const DescriptorBounds& descriptor_bounds();

// As many descriptors as the hard limit allows. Call it at the start.
void raise_descriptor_limit();

}  // namespace ganglion::net
