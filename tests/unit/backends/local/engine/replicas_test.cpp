// Several engines of one model: who gets a request, and that the answers are the same as one engine's.

#include "backends/local/engine/replicas.hpp"

#include <algorithm>
#include <set>

#include "tests/unit/backends/local/engine/engine_fixture.hpp"

namespace ganglion::local {
namespace {

using State = ReplicaChooser::State;

std::vector<std::int32_t> tokens(int count, int seed) {
  std::vector<std::int32_t> out;
  for (int i = 0; i < count; ++i) out.push_back((i * 13 + seed * 101) % 300 + 5);
  return out;
}

TEST(ReplicaChooser, TheLeastLoadedAndEqualsInTurn) {
  ReplicaChooser chooser;
  const std::vector<State> loads{{3, true}, {1, true}, {2, true}};
  for (int i = 0; i < 6; ++i) EXPECT_EQ(chooser.choose("", tokens(40, i), loads), 1U);
  std::vector<int> times(3, 0);
  const std::vector<State> equal(3);
  for (int i = 0; i < 9; ++i) ++times[chooser.choose("", tokens(40, i), equal)];
  EXPECT_EQ(times, (std::vector<int>{3, 3, 3}));
}

TEST(ReplicaChooser, AKnownBeginningStaysUnlessTheLoadsAreFarApart) {
  ReplicaChooser chooser;
  const auto system = tokens(64, 1);
  auto question = [&](int seed) {
    auto out = system;
    const auto more = tokens(30, seed);
    out.insert(out.end(), more.begin(), more.end());
    return out;
  };
  const std::size_t home = chooser.choose("a", question(2), std::vector<State>(3));
  for (int i = 3; i < 9; ++i) EXPECT_EQ(chooser.choose("a", question(i), std::vector<State>(3)), home);
  // Another space knows nothing of it; over some calls it takes turns.
  std::set<std::size_t> others;
  for (int i = 0; i < 3; ++i) others.insert(chooser.choose("", question(20 + i), std::vector<State>(3)));
  EXPECT_EQ(others.size(), 3U);

  std::vector<State> loads(3);
  loads[home].load = ReplicaChooser::kPatience;
  EXPECT_EQ(chooser.choose("a", question(30), loads), home);
  loads[home].load = ReplicaChooser::kPatience + 1;
  const std::size_t away = chooser.choose("a", question(31), loads);
  EXPECT_NE(away, home);
  // The beginning is known there, too, from now on: the last one that computed it counts.
  EXPECT_EQ(chooser.choose("a", question(32), std::vector<State>(3)), away);
}

TEST(ReplicaChooser, OutOfServiceIsTheLastChoice) {
  ReplicaChooser chooser;
  const auto prompt = tokens(64, 1);
  const std::size_t home = chooser.choose("a", prompt, std::vector<State>(2));
  std::vector<State> states(2);
  states[home].in_service = false;
  states[1 - home].load = 50;
  EXPECT_EQ(chooser.choose("a", prompt, states), 1 - home);
}

TEST(ReplicaChooser, WhatIsRememberedIsBounded) {
  ReplicaChooser chooser;
  const std::vector<State> states(2);
  const auto first = tokens(16, 1);
  const std::size_t home = chooser.choose("a", first, states);
  for (std::size_t i = 0; i < ReplicaChooser::kRememberedMax + 10; ++i) {
    chooser.choose("b" + std::to_string(i), first, states);
  }
  // Forgotten: it goes by load.
  std::vector<State> loads(2);
  loads[home].load = 1;
  EXPECT_EQ(chooser.choose("a", first, loads), 1 - home);
}

std::unique_ptr<Replicas> load_replicas(int count, EngineOptions options = {}, const EngineHooks& hooks = {}) {
  options.dir = model_dir("llama3_tiny");
  options.threads = 1;
  auto out = Replicas::load(options, count, hooks);
  EXPECT_TRUE(out) << (out ? "" : out.error().message);
  return out ? std::move(*out) : nullptr;
}

TEST(Replicas, AnswersAreOneEnginesAndAllOfThemWork) {
  const auto replicas = load_replicas(3);
  const auto alone = load_engine("llama3_tiny");
  std::vector<std::shared_ptr<KeepingSink>> sinks;
  std::vector<Handle> handles;
  for (int i = 0; i < 24; ++i) {
    sinks.push_back(std::make_shared<KeepingSink>());
    const auto handle = replicas->submit(greedy(tokens(20 + i, i), 12), sinks.back());
    ASSERT_TRUE(handle);
    EXPECT_EQ(std::ranges::count(handles, *handle), 0) << "a handle twice";
    handles.push_back(*handle);
  }
  for (int i = 0; i < 24; ++i) {
    EXPECT_EQ(sinks[static_cast<std::size_t>(i)]->wait().tokens,
              generate(*alone, greedy(tokens(20 + i, i), 12)).tokens);
  }
  std::uint64_t all = 0;
  for (std::size_t i = 0; i < replicas->count(); ++i) {
    EXPECT_GT(replicas->engine(i).stats().generated_tokens, 0U) << i;
    all += replicas->engine(i).stats().generated_tokens;
  }
  EXPECT_EQ(replicas->stats().generated_tokens, all);
  EXPECT_EQ(replicas->stats().finished, 24U);
}

TEST(Replicas, APromptAskedAgainIsFoundWhereItWasComputed) {
  const auto replicas = load_replicas(3);
  auto request = greedy(tokens(100, 7), 4);
  request.prefix_space = "a";
  for (int i = 0; i < 6; ++i) {
    auto sink = std::make_shared<KeepingSink>();
    ASSERT_TRUE(replicas->submit(request, sink));
    EXPECT_EQ(sink->wait().last.usage.cached_prompt_tokens, i == 0 ? 0 : 96);
  }
}

TEST(Replicas, CancellingReachesTheRightOne) {
  const auto replicas = load_replicas(2);
  const auto stays = std::make_shared<KeepingSink>();
  const auto held = std::make_shared<GateSink>();
  ASSERT_TRUE(replicas->submit(greedy(tokens(10, 0), 200), stays));
  const auto handle = replicas->submit(greedy(tokens(10, 1), 200), held);
  ASSERT_TRUE(handle);
  held->wait_until_entered();
  replicas->cancel(*handle);
  held->open();
  EXPECT_EQ(held->wait().last.finish, FinishReason::cancelled);
  EXPECT_EQ(stays->wait().last.finish, FinishReason::length);
}

TEST(Replicas, AFullQueueIsNotTheEndWhileAnotherHasRoom) {
  const auto replicas = load_replicas(2, {.queue_max = 1, .batch_max = 1, .fast_reserved_percent = 0});
  // One runs and one waits in each; the chooser sees loads, so only the last finds no room.
  std::vector<std::shared_ptr<GateSink>> gates;
  int accepted = 0;
  core::Result<Handle> last;
  for (int i = 0; i < 5; ++i) {
    gates.push_back(std::make_shared<GateSink>());
    last = replicas->submit(greedy(tokens(10, i), 3), gates.back());
    if (!last) break;
    ++accepted;
    if (i < 2) gates.back()->wait_until_entered();
  }
  EXPECT_EQ(accepted, 4);
  ASSERT_FALSE(last);
  EXPECT_EQ(last.error().kind, core::ErrorKind::queue_full);
  for (auto& gate : gates) gate->open();
  for (int i = 0; i < accepted; ++i) EXPECT_EQ(gates[static_cast<std::size_t>(i)]->wait().tokens.size(), 3U);
}

}  // namespace
}  // namespace ganglion::local
