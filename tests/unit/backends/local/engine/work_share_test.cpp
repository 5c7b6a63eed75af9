// Shares of a step's time: they add up, and follow tokens and context.

#include "backends/local/engine/work_share.hpp"

#include <gtest/gtest.h>

#include <numeric>

namespace ganglion::local {
namespace {

// Llama-2-7B's shapes in 8 bits on a machine that does 170 operations in the time of reading a byte.
WorkShare shares(std::int64_t experts_used = 0) {
  ModelConfig c;
  c.experts_used = experts_used;
  c.vocab_size = 32'000;
  c.hidden_size = 4'096;
  c.layers = c.heads = c.kv_heads = 32;
  c.head_dim = 128;
  c.intermediate_size = 11'008;
  return WorkShare(c, {.weight_bytes = 6.7e9, .kv_token_bytes = 524'288, .operations_byte = 170});
}

TEST(WorkShare, SharesAddUpToOne) {
  WorkShare share = shares();
  const std::vector<WorkShare::Part> parts{{0, 512}, {100, 1}, {4'000, 1}, {2'048, 300}};
  const auto got = share.of(parts);
  EXPECT_NEAR(std::accumulate(got.begin(), got.end(), 0.0), 1.0, 1e-12);
  for (const double s : got) EXPECT_GT(s, 0);
  EXPECT_DOUBLE_EQ(share.of(std::vector<WorkShare::Part>{{7, 1}})[0], 1.0);
}

TEST(WorkShare, EqualWorkCostsTheSameAndMoreTokensMore) {
  WorkShare share = shares();
  const auto got = share.of(std::vector<WorkShare::Part>{{0, 100}, {0, 100}, {0, 200}});
  EXPECT_DOUBLE_EQ(got[0], got[1]);
  EXPECT_NEAR(got[2] / got[0], 2.0, 0.1);
}

TEST(WorkShare, ALongContextCostsWhatReadingItTakes) {
  WorkShare share = shares();
  std::vector<WorkShare::Part> parts(64, {0, 1});
  parts[0].position = 4'095;
  const auto got = share.of(parts);
  // 2.1 GB of keys and values against a 64th of 6.7 GB of weights.
  EXPECT_NEAR(got[0] / got[1], (2.147 + 0.1047) / 0.1047, 0.5);
}

// The more a token's products take, the less its place in the context matters.
TEST(WorkShare, EveryExpertThatATokenUsesCounts) {
  const std::vector<WorkShare::Part> parts{{0, 2'048}, {30'000, 2'048}};
  WorkShare dense = shares(), mixture = shares(4);
  const double before = dense.of(parts)[1], after = mixture.of(parts)[1];
  EXPECT_GT(before, 0.5);
  EXPECT_GT(after, 0.5);
  EXPECT_LT(after, before - 0.05);
}

}  // namespace
}  // namespace ganglion::local
