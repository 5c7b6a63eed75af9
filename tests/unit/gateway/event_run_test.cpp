// Events that are handed out together: where they lie together they stay, else the copy holds all of them in order.

#include "gateway/event_run.hpp"

#include <gtest/gtest.h>

namespace ganglion::gateway {
namespace {

TEST(EventRun, WhatLiesTogetherStaysWhereItIs) {
  const std::string_view received = "abcdefgh";
  EventRun run;
  EXPECT_TRUE(run.bytes().empty());
  run.add(received.substr(1, 2), true);
  run.add(received.substr(3, 4), true);
  EXPECT_EQ(run.bytes(), "bcdefg");
  EXPECT_EQ(run.size(), 6U);
  EXPECT_EQ(run.bytes().data(), received.data() + 1);
}

TEST(EventRun, WhatDoesNotIsCopiedInOrder) {
  const std::string_view received = "abcdefgh";
  EventRun run;
  run.add(received.substr(0, 2), true);
  run.add(received.substr(3, 2), true);  // a byte was left out
  EXPECT_EQ(run.bytes(), "abde");
  run.add(received.substr(5, 2), true);
  run.copy("made");
  EXPECT_EQ(run.bytes(), "abdefgmade");

  run.clear();
  std::string held = "held";
  run.add(held, false);
  held = "gone";
  run.add(received.substr(0, 3), true);
  EXPECT_EQ(run.bytes(), "heldabc");

  run.clear();
  run.add(received.substr(2, 2), true);
  EXPECT_EQ(run.bytes(), "cd");
  EXPECT_EQ(run.bytes().data(), received.data() + 2);
}

}  // namespace
}  // namespace ganglion::gateway
