// The tree of known pages alone: what is found, who shares, what is thrown out first.

#include "backends/local/engine/prefix_tree.hpp"

#include <gtest/gtest.h>

#include <numeric>

namespace ganglion::local {
namespace {

using Tokens = std::vector<std::int32_t>;

// `pages` whole pages whose tokens say what they are.
Tokens tokens(std::initializer_list<int> pages) {
  Tokens out;
  for (const int page : pages) {
    for (int i = 0; i < kPageTokens; ++i) out.push_back(page * 100 + i);
  }
  return out;
}

class PrefixTreeTest : public testing::Test {
 protected:
  // What a sequence does that computes `t`: finds, takes, publishes. Returns how many pages it found.
  int compute(const std::string& space, const Tokens& t, std::vector<std::int32_t>& pages) {
    tree_.match(space, t, pages);
    const int found = static_cast<int>(pages.size());
    while (pages.size() * kPageTokens < t.size()) {
      const auto page = tree_.take();
      EXPECT_TRUE(page);
      pages.push_back(page.value_or(0));
    }
    tree_.publish(space, t, pages, found);
    return found;
  }
  int found(const std::string& space, const Tokens& t) {
    std::vector<std::int32_t> pages;
    tree_.match(space, t, pages);
    const int count = static_cast<int>(pages.size());
    tree_.release(pages);
    return count;
  }

  PagePool pool_{6};
  PrefixTree tree_{pool_};
  std::vector<std::int32_t> a_, b_, c_;
};

TEST_F(PrefixTreeTest, FindsTheLongestKnownBeginningInWholePages) {
  compute("x", tokens({1, 2, 3}), a_);
  EXPECT_EQ(found("x", tokens({1, 2, 3, 4})), 3);
  EXPECT_EQ(found("x", tokens({1, 2, 9})), 2);
  EXPECT_EQ(found("x", tokens({2, 3})), 0) << "the same tokens elsewhere in a text are something else";
  Tokens nearly = tokens({1, 2});
  nearly.pop_back();
  EXPECT_EQ(found("x", nearly), 1);
  nearly = tokens({1, 2});
  nearly.back() ^= 1;
  EXPECT_EQ(found("x", nearly), 1);
}

TEST_F(PrefixTreeTest, NothingIsFoundInAnotherSpace) {
  compute("x", tokens({1, 2}), a_);
  EXPECT_EQ(found("y", tokens({1, 2})), 0);
  compute("y", tokens({1, 2}), b_);
  EXPECT_NE(a_, b_);
  EXPECT_EQ(pool_.used(), 4);
}

TEST_F(PrefixTreeTest, WhoComputedTheSameSharesThePagesOfWhoWasFirst) {
  // Both begin before either is through.
  for (auto* pages : {&a_, &b_}) {
    for (int i = 0; i < 2; ++i) pages->push_back(*tree_.take());
  }
  const Tokens t = tokens({1, 2});
  EXPECT_EQ(tree_.publish("x", t, a_, 0), 2);
  EXPECT_EQ(pool_.used(), 4);
  EXPECT_EQ(tree_.publish("x", std::span(t).first(kPageTokens), b_, 0), 1);
  EXPECT_EQ(b_[0], a_[0]);
  EXPECT_EQ(tree_.publish("x", t, b_, 1), 2);
  EXPECT_EQ(b_, a_);
  EXPECT_EQ(pool_.used(), 2);
  EXPECT_EQ(pool_.references(a_[0]), 3);
  tree_.release(a_);
  EXPECT_EQ(tree_.idle(), 0);
  tree_.release(b_);
  EXPECT_EQ(tree_.idle(), 2);
  EXPECT_EQ(tree_.available(), 6);
}

TEST_F(PrefixTreeTest, ThrowsOutTheEndsOfWhatWasUsedLongestAgo) {
  compute("x", tokens({1, 2}), a_);
  compute("x", tokens({5, 6}), b_);
  tree_.release(a_);
  tree_.release(b_);
  EXPECT_EQ(found("x", tokens({1, 2})), 2);  // now used later than 5, 6
  compute("x", tokens({7, 8, 9}), c_);       // two were free
  EXPECT_EQ(tree_.evicted(), 1u);
  EXPECT_EQ(found("x", tokens({5, 6})), 1) << "the end goes first";
  EXPECT_EQ(found("x", tokens({1, 2})), 2);
}

TEST_F(PrefixTreeTest, WhatIsInUseStays) {
  compute("x", tokens({1, 2, 3}), a_);
  compute("x", tokens({1, 2, 4}), b_);
  tree_.release(a_);
  EXPECT_EQ(tree_.idle(), 1) << "only 3: 1 and 2 are the other's, too";
  EXPECT_EQ(tree_.available(), 3);
  for (int i = 0; i < 3; ++i) c_.push_back(*tree_.take());
  EXPECT_FALSE(tree_.take());
  EXPECT_EQ(found("x", tokens({1, 2, 4})), 3);
  EXPECT_EQ(found("x", tokens({1, 2, 3})), 2);
}

TEST_F(PrefixTreeTest, ForgettingLeavesNothing) {
  compute("x", tokens({1, 2}), a_);
  compute("y", tokens({1, 2}), b_);
  tree_.release(a_);
  tree_.release(b_);
  tree_.forget("x", tokens({1, 2}));
  EXPECT_EQ(found("x", tokens({1, 2})), 0);
  EXPECT_EQ(found("y", tokens({1, 2})), 2);
  tree_.forget_all();
  EXPECT_EQ(found("y", tokens({1, 2})), 0);
  EXPECT_EQ(pool_.used(), 0);
  EXPECT_EQ(compute("y", tokens({1, 2}), a_), 0);  // and it goes on
}

}  // namespace
}  // namespace ganglion::local
