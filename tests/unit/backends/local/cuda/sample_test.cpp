// Sampling on the device against the rules of SamplingParams, computed here in double.

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "tests/unit/backends/local/cuda/device_fixture.hpp"

namespace ganglion::local {
namespace {

class SampleTest : public DeviceTest {
 protected:
  std::vector<cuda::SampleResult> choose(const std::vector<float>& logits, int vocab, std::vector<cuda::SampleRow> rows,
                                         const std::vector<cuda::SampleAdjust>& adjust = {},
                                         const std::vector<std::uint32_t>& masks = {}) {
    const auto stride = static_cast<int>(logits.size() / rows.size());
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i].logits_row = static_cast<int>(i);
    const auto logits_at = up(logits), rows_at = up(rows), adjust_at = up(adjust), masks_at = up(masks);
    const auto results = room(rows.size() * sizeof(cuda::SampleResult));
    run(cuda::sample(queue(), {.logits = logits_at.as<float>(),
                               .stride = stride,
                               .vocab = vocab,
                               .count = static_cast<int>(rows.size()),
                               .rows = rows_at.as<cuda::SampleRow>(),
                               .adjust = adjust_at.as<cuda::SampleAdjust>(),
                               .masks = masks_at.as<std::uint32_t>(),
                               .results = results.as<cuda::SampleResult>()}));
    return down<cuda::SampleResult>(results.data(), rows.size());
  }
  static std::vector<double> softmax(const std::vector<float>& logits, double temperature) {
    reference::Row scaled;
    for (float v : logits) scaled.push_back(static_cast<double>(v) / temperature);
    return reference::softmax(scaled);
  }
};

TEST_F(SampleTest, GreedyTakesTheLargestAndTheLowestIdOfEquals) {
  constexpr int kVocab = 32003;
  auto logits = normal(3 * (kVocab + 13), 3.0f);
  const auto row = static_cast<std::size_t>(kVocab + 13);
  logits[5 * 7] = logits[1000] = 50.0f;
  logits[row + kVocab - 1] = 60.0f;
  logits[row + kVocab] = 90.0f;  // behind the vocabulary
  const auto got = choose(logits, kVocab, std::vector<cuda::SampleRow>(3));
  EXPECT_EQ(got[0].id, 35);
  EXPECT_EQ(got[1].id, kVocab - 1);
  const auto third = logits.begin() + static_cast<std::ptrdiff_t>(2 * row);
  EXPECT_EQ(got[2].id, std::max_element(third, third + kVocab) - third);
  for (const auto& r : got) EXPECT_EQ(r.ok, 1);
}

TEST_F(SampleTest, LogitsThatAreNotNumbersAreReported) {
  std::vector<float> logits = normal(3 * 100, 1.0f);
  logits[17] = NAN;
  logits[117] = INFINITY;
  const auto got = choose(logits, 100, std::vector<cuda::SampleRow>(3));
  EXPECT_EQ(got[0].ok, 0);
  EXPECT_EQ(got[1].ok, 0);
  EXPECT_EQ(got[2].ok, 1);
}

// Draws evenly over [0, 1) and compares the frequencies with the distribution that the filters leave.
TEST_F(SampleTest, DrawsFollowTheFilteredDistribution) {
  constexpr int kVocab = 500, kDraws = 4000;
  const auto logits = normal(kVocab, 2.0f);
  struct FilterCase {
    float temperature, top_p, min_p;
    int top_k;
  };
  for (const FilterCase f : {FilterCase{1.0f, 1.0f, 0, 0}, FilterCase{0.7f, 1.0f, 0, 5}, FilterCase{1.3f, 0.6f, 0, 0},
                             FilterCase{1.0f, 0.8f, 0, 20}, FilterCase{1.0f, 1.0f, 0.1f, 0}}) {
    auto p = softmax(logits, static_cast<double>(f.temperature));
    std::vector<int> order(kVocab);
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(),
              [&](int a, int b) { return p[static_cast<std::size_t>(a)] > p[static_cast<std::size_t>(b)]; });
    const double best = p[static_cast<std::size_t>(order[0])];
    std::vector<int> kept(order.begin(), f.top_k > 0 ? order.begin() + f.top_k : order.end());
    double total = 0, sum = 0;
    for (int id : kept) total += p[static_cast<std::size_t>(id)];
    std::size_t count = 0;
    while (count < kept.size() && (count == 0 || sum < static_cast<double>(f.top_p) * total))
      sum += p[static_cast<std::size_t>(kept[count++])];
    kept.resize(f.top_p < 1 ? count : kept.size());
    std::erase_if(kept, [&](int id) { return p[static_cast<std::size_t>(id)] < static_cast<double>(f.min_p) * best; });
    double left = 0;
    for (int id : kept) left += p[static_cast<std::size_t>(id)];

    std::vector<float> many;
    std::vector<cuda::SampleRow> rows;
    for (int i = 0; i < kDraws; ++i) {
      many.insert(many.end(), logits.begin(), logits.end());
      rows.push_back({.temperature = f.temperature,
                      .top_p = f.top_p,
                      .min_p = f.min_p,
                      .top_k = f.top_k,
                      .uniform = (i + 0.5) / kDraws});
    }
    std::map<int, int> times;
    for (const auto& r : choose(many, kVocab, rows)) ++times[r.id];
    for (const auto& [id, n] : times) {
      EXPECT_TRUE(std::find(kept.begin(), kept.end(), id) != kept.end()) << id << " was filtered away";
    }
    for (int id : kept) {
      // Evenly spaced draws hit an interval of length q within one draw of q times their number.
      EXPECT_NEAR(times[id], p[static_cast<std::size_t>(id)] / left * kDraws, 1.6) << "token " << id;
    }
  }
}

TEST_F(SampleTest, PenaltiesBiasAndLogprobs) {
  constexpr int kVocab = 1000;
  const auto logits = normal(kVocab, 1.0f);
  const auto p = softmax(logits, 1.0);
  std::vector<int> order(kVocab);
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](int a, int b) { return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)]; });
  // The best three are pushed down by one rule each; a bias lifts a poor one above the fourth.
  cuda::SampleRow row{
      .frequency = 2.0f, .presence = 3.0f, .repetition = 100.0f, .adjust_count = 4, .logprobs = 1, .top_logprobs = 20};
  const int lifted = order[500];
  const std::vector<cuda::SampleAdjust> adjust{
      {order[0], 2, 0.0f, 0}, {order[1], 0, 0.0f, 1}, {order[2], 0, -50.0f, 0}, {lifted, 1, 20.0f, 0}};
  const auto got = choose(logits, kVocab, {row}, adjust).front();
  EXPECT_EQ(got.id, lifted);
  EXPECT_NEAR(got.logprob, std::log(p[static_cast<std::size_t>(lifted)]), 1e-4);
  ASSERT_EQ(got.top_count, 20);
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(got.top_id[i], order[static_cast<std::size_t>(i)]);
    EXPECT_NEAR(got.top_logprob[i], std::log(p[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])]), 1e-4);
  }
  // Sampled tokens report the model's own log-probability too.
  row = {.temperature = 0.8f, .logprobs = 1, .uniform = 0.37};
  const auto drawn = choose(logits, kVocab, {row}).front();
  EXPECT_NEAR(drawn.logprob, std::log(p[static_cast<std::size_t>(drawn.id)]), 1e-3);
}

// Rows with a mask draw from what it allows, by the same filtered distribution; their neighbours from everything. The
// log-probabilities are those of the whole vocabulary.
TEST_F(SampleTest, MasksAllowWhatTheyName) {
  constexpr int kVocab = 1003, kDraws = 2000;  // not a multiple of a word
  const auto logits = normal(kVocab, 2.0f);
  const std::size_t words = (kVocab + 31) / 32;
  std::vector<int> allowed;
  std::vector<std::uint32_t> mask(words, 0);
  for (int id = 2; id < kVocab; id += 97) allowed.push_back(id);
  allowed.push_back(kVocab - 1);
  for (const int id : allowed) mask[static_cast<std::size_t>(id) / 32] |= 1U << (id % 32);
  const auto p = softmax(logits, 1.0);
  double left = 0;
  for (const int id : allowed) left += p[static_cast<std::size_t>(id)];
  std::vector<float> many;
  std::vector<cuda::SampleRow> rows;
  std::vector<std::uint32_t> masks(words, 0);  // one that allows nothing, then the one above
  masks.insert(masks.end(), mask.begin(), mask.end());
  for (int i = 0; i < kDraws + 3; ++i) {
    many.insert(many.end(), logits.begin(), logits.end());
    rows.push_back({.temperature = 1.0f,
                    .logprobs = 1,
                    .uniform = (i + 0.5) / kDraws,
                    .mask_from = static_cast<std::int32_t>(words)});
  }
  rows[kDraws] = {.mask_from = static_cast<std::int32_t>(words)};                         // greedy
  rows[kDraws + 1] = {.adjust_count = 1, .mask_from = static_cast<std::int32_t>(words)};  // and pushed
  rows[kDraws + 2] = {.temperature = 1.0f, .uniform = 0.5, .mask_from = 0};               // nothing
  const int best = *std::max_element(allowed.begin(), allowed.end(), [&](int a, int b) {
    return logits[static_cast<std::size_t>(a)] < logits[static_cast<std::size_t>(b)];
  });
  const int forbidden = 3;
  const auto got = choose(many, kVocab, rows, {{forbidden, 0, 90.0f, 0}}, masks);
  std::map<int, int> times;
  for (int i = 0; i < kDraws; ++i) {
    const auto& r = got[static_cast<std::size_t>(i)];
    ASSERT_EQ(r.ok, 1);
    ++times[r.id];
    EXPECT_NEAR(r.logprob, std::log(p[static_cast<std::size_t>(r.id)]), 1e-3);
  }
  for (const auto& [id, n] : times) EXPECT_TRUE(std::find(allowed.begin(), allowed.end(), id) != allowed.end()) << id;
  for (const int id : allowed) EXPECT_NEAR(times[id], p[static_cast<std::size_t>(id)] / left * kDraws, 1.6) << id;
  EXPECT_EQ(got[kDraws].id, best);
  EXPECT_EQ(got[kDraws + 1].id, best) << "a bias does not bring back what the grammar forbids";
  EXPECT_EQ(got[kDraws + 2].ok, 0);
}

}  // namespace
}  // namespace ganglion::local
