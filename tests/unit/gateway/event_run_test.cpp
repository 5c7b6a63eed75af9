// Events that are handed out together: what lies together stays where it is, and their order is kept.

#include "gateway/event_run.hpp"

#include <gtest/gtest.h>

#include <string>

namespace ganglion::gateway {
namespace {

std::string all(const EventRun& run) {
  EXPECT_EQ(run.size(), run.copied().size() + run.in_place().size());
  return std::string{run.copied()} + std::string{run.in_place()};
}

TEST(EventRun, WhatLiesTogetherStaysWhereItIs) {
  const std::string_view received = "abcdefgh";
  EventRun run;
  EXPECT_EQ(all(run), "");
  run.add(received.substr(1, 2), true);
  run.add(received.substr(3, 4), true);
  EXPECT_EQ(all(run), "bcdefg");
  EXPECT_TRUE(run.copied().empty());
  EXPECT_EQ(run.in_place().data(), received.data() + 1);
}

TEST(EventRun, AnEventThatCameInPiecesIsCopiedAndNoOther) {
  const std::string_view received = "abcdefgh";
  EventRun run;
  std::string held = "held";
  run.add(held, false);
  held = "gone";
  run.add(received.substr(0, 3), true);
  run.add(received.substr(3, 3), true);
  EXPECT_EQ(all(run), "heldabcdef");
  EXPECT_EQ(run.copied(), "held");
  EXPECT_EQ(run.in_place().data(), received.data());
}

TEST(EventRun, OrderIsKeptWhateverIsCopied) {
  const std::string_view received = "abcdefgh";
  EventRun run;
  run.add(received.substr(0, 2), true);
  run.add(received.substr(3, 2), true);  // a byte was left out
  EXPECT_EQ(all(run), "abde");
  run.add(received.substr(5, 2), true);
  run.copy("made");
  run.add(received.substr(7, 1), true);
  EXPECT_EQ(all(run), "abdefgmadeh");
  run.clear();
  EXPECT_EQ(all(run), "");
  run.add(received.substr(2, 2), true);
  EXPECT_EQ(all(run), "cd");
}

}  // namespace
}  // namespace ganglion::gateway
