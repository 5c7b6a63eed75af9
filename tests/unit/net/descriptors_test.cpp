// How many descriptors the network leaves to the ledger and to those who are served already.

#include "net/descriptors.hpp"

#include <gtest/gtest.h>

#include <climits>

namespace ganglion::net {
namespace {

TEST(Descriptors, ClientsStopBeforeUpstreamsAndUpstreamsBeforeFiles) {
  for (const std::uint64_t limit : {64ULL, 160ULL, 256ULL, 1024ULL, 20'000ULL, 65'536ULL, 1ULL << 30}) {
    const DescriptorBounds bounds = descriptor_bounds(limit);
    EXPECT_GT(bounds.client, static_cast<int>(limit / 4)) << limit;
    EXPECT_GE(bounds.upstream - bounds.client, 16) << limit;
    EXPECT_GE(static_cast<int>(limit) - bounds.upstream, 16) << limit;
    EXPECT_LE(static_cast<int>(limit) - bounds.upstream, 256) << limit;
  }
  // 9,500 streams, each with its upstream, and whatever else is open.
  EXPECT_GE(descriptor_bounds(20'000).client, 19'000 + 400);
  EXPECT_LE(descriptor_bounds(1ULL << 40).client, INT_MAX);
  EXPECT_GE(descriptor_bounds(8).client, 1) << "even then";
}

}  // namespace
}  // namespace ganglion::net
