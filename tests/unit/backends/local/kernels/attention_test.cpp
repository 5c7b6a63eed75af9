// Paged attention against the reference: grouped heads, odd head sizes, windows, ragged batches, every page type.

#include "backends/local/kernels/attention.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "tests/unit/backends/local/kernels/random_rows.hpp"

namespace ganglion::local {
namespace {

struct Case {
  int heads, kv_heads, head_dim, window;
  KvElement element;
  bool causal;
  float softcap = 0;
};
constexpr auto f32 = KvElement::f32, f16 = KvElement::f16, i8 = KvElement::i8;
constexpr Case kCases[] = {
    {4, 4, 16, 0, f32, true},         {8, 2, 64, 0, f32, true},   {6, 1, 12, 0, f32, true},
    {32, 2, 20, 5, f32, true},        {3, 3, 128, 40, f16, true}, {4, 2, 33, 200, f16, true},
    {2, 2, 32, 0, f32, false},        {12, 4, 80, 1, f16, true},  {4, 2, 256, 0, f32, true, 2.0f},
    {8, 4, 256, 40, f16, true, 0.5f}, {8, 2, 64, 0, i8, true},    {6, 1, 12, 5, i8, true},
    {4, 2, 33, 200, i8, true},        {2, 2, 32, 0, i8, false},   {3, 3, 128, 40, i8, true},
    {8, 4, 256, 0, i8, true, 0.5f}};

// Sequences of several lengths whose pages lie scattered over the store.
struct World {
  World(const Case& c, std::uint32_t seed) : c(c), random(seed), kv({2, c.kv_heads, c.head_dim, c.element}, 64) {
    std::int32_t page = 0;
    for (int length : {1, 16, 17, 130, 300}) {
      lengths.push_back(length);
      auto& table = tables.emplace_back();
      for (int t = 0; t < length; t += kPageTokens) table.push_back(page++ * 37 % 64);
    }
  }
  void fill(const Kernels& kernels, int layer) {
    const auto n = static_cast<std::size_t>(c.head_dim);
    for (std::size_t s = 0; s < lengths.size(); ++s) {
      keys.emplace_back(static_cast<std::size_t>(c.kv_heads));
      values.emplace_back(static_cast<std::size_t>(c.kv_heads));
      for (int t = 0; t < lengths[s]; ++t) {
        const auto k = random.floats(n * static_cast<std::size_t>(c.kv_heads)), v = random.floats(k.size());
        kv.write(kernels, layer, tables[s][static_cast<std::size_t>(t / kPageTokens)], t % kPageTokens, k.data(),
                 v.data());
        for (std::size_t h = 0; h < static_cast<std::size_t>(c.kv_heads); ++h) {
          keys[s][h].push_back(stored(k.data() + h * n));
          values[s][h].push_back(stored(v.data() + h * n));
        }
      }
    }
  }
  reference::Row stored(const float* x) const {
    reference::Row row = widen(x, static_cast<std::size_t>(c.head_dim));
    if (c.element == f16) {
      for (double& v : row) v = reference::f16_value(reference::f16_bits(v));
    }
    if (c.element == i8 && rounds) {
      float top = 0;
      for (double v : row) top = std::max(top, std::fabs(static_cast<float>(v)));
      // In float as the kernels: at a tie another rounding would be off by a whole step.
      for (double& v : row)
        v = static_cast<double>(std::nearbyint(static_cast<float>(v) * (127.0f / top))) * (top / 127.0f);
    }
    return row;
  }

  Case c;
  bool rounds = true;  // int8: the rows are kept as they are read back, else as they were written
  RandomRows random;
  KvStore kv;
  std::vector<int> lengths;
  std::vector<std::vector<std::int32_t>> tables;
  std::vector<std::vector<std::vector<reference::Row>>> keys, values;  // [sequence][kv head][token]
};

class AttentionEveryLevel : public testing::TestWithParam<Isa> {};
INSTANTIATE_TEST_SUITE_P(Levels, AttentionEveryLevel, testing::ValuesIn(supported_isas()), [](const auto& info) {
  std::string name(isa_name(info.param));
  std::erase(name, '-');
  return name;
});

TEST_P(AttentionEveryLevel, MatchesTheReferenceOnRaggedBatches) {
  const Kernels& kernels = kernels_for(GetParam());
  ThreadPool pool(2);
  for (const Case& c : kCases) {
    World world(c, 21);
    ASSERT_TRUE(world.kv.valid());
    world.fill(kernels, 1);
    // The last rows of each sequence: one (a decode) for even ones, up to nine (a chunk) for odd ones.
    std::vector<AttendSlice> slices;
    int rows = 0;
    for (std::size_t s = 0; s < world.lengths.size(); ++s) {
      const int take = c.causal ? std::min(world.lengths[s], s % 2 == 0 ? 1 : 9) : world.lengths[s];
      slices.push_back({world.tables[s].data(), rows, take, world.lengths[s] - take, c.causal});
      rows += take;
    }
    const int row_floats = c.heads * c.head_dim;
    const auto q = world.random.floats(static_cast<std::size_t>(rows * row_floats), 0.3f);
    std::vector<float> out(q.size());
    AttentionPlan plan;
    plan.build(slices, c.heads, c.kv_heads);
    plan.run(kernels, pool, world.kv, 1, c.window, q.data(), out.data(), c.softcap);
    for (std::size_t s = 0; s < slices.size(); ++s) {
      for (int i = 0; i < slices[s].rows; ++i) {
        for (int h = 0; h < c.heads; ++h) {
          const std::int64_t at = (slices[s].first_row + i) * row_floats + h * c.head_dim;
          const auto kv_head = static_cast<std::size_t>(h / (c.heads / c.kv_heads));
          const int hi = c.causal ? slices[s].position + i + 1 : world.lengths[s];
          const auto want = reference::attention(widen(q.data() + at, static_cast<std::size_t>(c.head_dim)),
                                                 world.keys[s][kv_head], world.values[s][kv_head],
                                                 c.window > 0 ? std::max(0, hi - c.window) : 0, hi, c.softcap);
          for (int d = 0; d < c.head_dim; ++d) {
            ASSERT_NEAR(out[static_cast<std::size_t>(at + d)], want[static_cast<std::size_t>(d)], 3e-6)
                << "head_dim " << c.head_dim << " sequence " << s << " row " << i << " head " << h;
          }
        }
      }
    }
  }
}

// What int8 costs. The rounding of an element is spread evenly over a step of max|x| / 127, of which it takes
// 1 / sqrt(12): for uniform elements half a percent of their size. A result has that of the values, which averages out
// over the keys as the values themselves do, and that of the weights, whose scores (0.3 of a product of unit rows) move
// by as much again.
TEST_P(AttentionEveryLevel, Int8PagesAreWithinTheirRoundingOfFloat) {
  const Kernels& kernels = kernels_for(GetParam());
  ThreadPool pool(2);
  for (const Case& c : kCases) {
    if (c.element != i8 || !c.causal) continue;
    World world(c, 23);
    world.rounds = false;
    world.fill(kernels, 0);
    const int row_floats = c.heads * c.head_dim;
    double difference = 0, size = 0;
    for (std::size_t s = 0; s < world.lengths.size(); ++s) {
      const int length = world.lengths[s];
      const auto q = world.random.floats(static_cast<std::size_t>(row_floats), 0.3f);
      std::vector<float> out(q.size());
      const AttendSlice slice{world.tables[s].data(), 0, 1, length - 1, true};
      AttentionPlan plan;
      plan.build({&slice, 1}, c.heads, c.kv_heads);
      plan.run(kernels, pool, world.kv, 0, c.window, q.data(), out.data(), c.softcap);
      for (int h = 0; h < c.heads; ++h) {
        const auto kv_head = static_cast<std::size_t>(h / (c.heads / c.kv_heads));
        const auto want = reference::attention(widen(q.data() + h * c.head_dim, static_cast<std::size_t>(c.head_dim)),
                                               world.keys[s][kv_head], world.values[s][kv_head],
                                               c.window > 0 ? std::max(0, length - c.window) : 0, length, c.softcap);
        for (int d = 0; d < c.head_dim; ++d) {
          const double w = want[static_cast<std::size_t>(d)];
          difference += std::pow(static_cast<double>(out[static_cast<std::size_t>(h * c.head_dim + d)]) - w, 2);
          size += w * w;
        }
      }
    }
    const double error = std::sqrt(difference / size);
    EXPECT_LT(error, 0.015) << "head_dim " << c.head_dim;
    EXPECT_GT(error, 1e-4) << "nothing was quantised";
  }
}

TEST_P(AttentionEveryLevel, ARowIsTheSameAloneAndInAChunk) {
  const Kernels& kernels = kernels_for(GetParam());
  ThreadPool pool(2);
  for (const KvElement element : {f16, i8}) {
    const Case c{6, 2, 48, 150, element, true};
    World world(c, 22);
    world.fill(kernels, 0);
    const int length = world.lengths[4], row_floats = c.heads * c.head_dim;
    const auto q = world.random.floats(static_cast<std::size_t>(length * row_floats), 0.3f);
    std::vector<float> whole(q.size()), alone(q.size());
    AttentionPlan plan;
    AttendSlice slice{world.tables[4].data(), 0, length, 0, true};
    plan.build({&slice, 1}, c.heads, c.kv_heads);
    plan.run(kernels, pool, world.kv, 0, c.window, q.data(), whole.data());
    for (int t = 0; t < length; ++t) {
      slice = {world.tables[4].data(), t, 1, t, true};
      plan.build({&slice, 1}, c.heads, c.kv_heads);
      plan.run(kernels, pool, world.kv, 0, c.window, q.data(), alone.data());
    }
    EXPECT_EQ(std::memcmp(whole.data(), alone.data(), whole.size() * 4), 0);
  }
}

TEST_P(AttentionEveryLevel, ForgottenNumbersInReusedPagesDoNotLeak) {
  const Kernels& kernels = kernels_for(GetParam());
  ThreadPool pool(1);
  for (const KvElement element : {f32, f16, i8}) {
    KvStore kv({1, 1, 16, element}, 1);
    const std::vector<float> bad(16, std::nanf("")), good(16, 1.0f);
    for (int slot = 0; slot < kPageTokens; ++slot) kv.write(kernels, 0, 0, slot, bad.data(), bad.data());
    kv.write(kernels, 0, 0, 0, good.data(), good.data());
    const std::int32_t table[] = {0};
    AttendSlice slice{table, 0, 1, 0, true};
    AttentionPlan plan;
    plan.build({&slice, 1}, 1, 1);
    std::vector<float> out(16);
    plan.run(kernels, pool, kv, 0, 0, good.data(), out.data());
    for (float v : out) EXPECT_NEAR(v, 1.0f, 1e-6);  // int8: 127 times a 127th
  }
}

TEST_P(AttentionEveryLevel, WhatIsNotANumberShowsInInt8Too) {
  const Kernels& kernels = kernels_for(GetParam());
  ThreadPool pool(1);
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    for (const bool in_keys : {true, false}) {
      KvStore kv({1, 1, 16, i8}, 1);
      std::vector<float> good(16, 1.0f), row(16, 1.0f), out(16);
      row[5] = bad;
      kv.write(kernels, 0, 0, 0, (in_keys ? row : good).data(), (in_keys ? good : row).data());
      const std::int32_t table[] = {0};
      const AttendSlice slice{table, 0, 1, 0, true};
      AttentionPlan plan;
      plan.build({&slice, 1}, 1, 1);
      plan.run(kernels, pool, kv, 0, 0, good.data(), out.data());
      for (float v : out) EXPECT_TRUE(std::isnan(v)) << in_keys;
    }
  }
}

TEST(KvShape, Int8PagesTakeHalfOfFp16AndTheirScales) {
  const KvShape half{32, 32, 128, f16}, eight{32, 32, 128, i8};  // Llama-2-7B's
  EXPECT_EQ(half.page_bytes(), std::int64_t{8} << 20);
  EXPECT_EQ(eight.page_bytes(), half.page_bytes() / 2 + std::int64_t{32} * 32 * kPageTokens * 2 * 4);
  constexpr std::int64_t kMemory = std::int64_t{1} << 30;
  EXPECT_EQ(kMemory / half.page_bytes(), 128);
  EXPECT_EQ(kMemory / eight.page_bytes(), 248);
}

}  // namespace
}  // namespace ganglion::local
