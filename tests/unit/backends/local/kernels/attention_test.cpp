// Paged attention against the reference: grouped heads, odd head sizes, windows, ragged batches, both page types.

#include "backends/local/kernels/attention.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "tests/unit/backends/local/kernels/random_rows.hpp"

namespace ganglion::local {
namespace {

struct Case {
  int heads, kv_heads, head_dim, window;
  bool half, causal;
  float softcap = 0;
};
constexpr Case kCases[] = {{4, 4, 16, 0, false, true},        {8, 2, 64, 0, false, true},
                           {6, 1, 12, 0, false, true},        {32, 2, 20, 5, false, true},
                           {3, 3, 128, 40, true, true},       {4, 2, 33, 200, true, true},
                           {2, 2, 32, 0, false, false},       {12, 4, 80, 1, true, true},
                           {4, 2, 256, 0, false, true, 2.0f}, {8, 4, 256, 40, true, true, 0.5f}};

// Sequences of several lengths whose pages lie scattered over the store.
struct World {
  World(const Case& c, std::uint32_t seed) : c(c), random(seed), kv({2, c.kv_heads, c.head_dim, c.half}, 64) {
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
    if (c.half) {
      for (double& v : row) v = reference::f16_value(reference::f16_bits(v));
    }
    return row;
  }

  Case c;
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

TEST_P(AttentionEveryLevel, ARowIsTheSameAloneAndInAChunk) {
  const Kernels& kernels = kernels_for(GetParam());
  ThreadPool pool(2);
  const Case c{6, 2, 48, 150, true, true};
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

TEST_P(AttentionEveryLevel, ForgottenNumbersInReusedPagesDoNotLeak) {
  const Kernels& kernels = kernels_for(GetParam());
  ThreadPool pool(1);
  KvStore kv({1, 1, 16, false}, 1);
  const std::vector<float> bad(16, std::nanf("")), good(16, 1.0f);
  for (int slot = 0; slot < kPageTokens; ++slot) kv.write(kernels, 0, 0, slot, bad.data(), bad.data());
  kv.write(kernels, 0, 0, 0, good.data(), good.data());
  const std::int32_t table[] = {0};
  AttendSlice slice{table, 0, 1, 0, true};
  AttentionPlan plan;
  plan.build({&slice, 1}, 1, 1);
  std::vector<float> out(16);
  plan.run(kernels, pool, kv, 0, 0, good.data(), out.data());
  for (float v : out) EXPECT_EQ(v, 1.0f);
}

}  // namespace
}  // namespace ganglion::local
