// A sequence's logits do not depend on what shares its steps nor on how its prompt is cut: bit for bit.

#include <cstring>

#include "tests/unit/backends/local/models/goldens.hpp"

namespace ganglion::local {
namespace {

std::vector<std::int32_t> tokens_of(int count, int seed, int vocab) {
  std::vector<std::int32_t> out;
  for (int i = 0; i < count; ++i) out.push_back((i * 37 + seed * 91 + i * i) % vocab);
  return out;
}

class DecoderBatch : public testing::TestWithParam<std::tuple<const char*, bool>> {
 protected:
  DecoderHarness harness_{std::get<0>(GetParam()), {.int8 = std::get<1>(GetParam())}};
};
INSTANTIATE_TEST_SUITE_P(Models, DecoderBatch,
                         testing::Combine(testing::Values("llama3_tiny", "mistral_tiny", "qwen3_tiny", "gemma2_tiny",
                                                          "gemma3_tiny", "phi3_partial_tiny", "mixtral_tiny"),
                                          testing::Bool()),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param)) + (std::get<1>(info.param) ? "_int8" : "");
                         });

TEST_P(DecoderBatch, ChunkedPromptEqualsWholePrompt) {
  const auto prompt = tokens_of(100, 1, 500);
  auto whole = harness_.sequence(100);
  const auto want = harness_.append(whole, prompt);
  for (std::size_t chunk : {1u, 7u, 16u, 33u}) {
    auto s = harness_.sequence(100);
    std::vector<float> got;
    for (std::size_t at = 0; at < prompt.size(); at += chunk) {
      got = harness_.append(s, std::span(prompt).subspan(at, std::min(chunk, prompt.size() - at)));
    }
    EXPECT_EQ(std::memcmp(got.data(), want.data(), want.size() * 4), 0) << "chunks of " << chunk;
  }
}

TEST_P(DecoderBatch, ManySequencesAtOnceEqualEachAlone) {
  const auto vocab = static_cast<std::size_t>(harness_.decoder->vocab_size());
  const int lengths[] = {1, 5, 16, 17, 40, 3, 64, 2, 9, 30};
  std::vector<std::vector<float>> alone;
  for (int i = 0; i < 10; ++i) {
    auto s = harness_.sequence(lengths[i] + 1);
    const auto tokens = tokens_of(lengths[i] + 1, i, 500);
    harness_.append(s, std::span(tokens).first(tokens.size() - 1));
    alone.push_back(harness_.append(s, std::span(tokens).last(1)));
  }
  // Together: even sequences are in the middle of decoding, odd ones still have their whole prompt to go; every
  // third asks for no logits.
  std::vector<DecoderHarness::Sequence> sequences;
  std::vector<std::vector<std::int32_t>> tokens;
  std::vector<DecoderSlice> slices;
  for (int i = 0; i < 10; ++i) {
    sequences.push_back(harness_.sequence(lengths[i] + 1));
    tokens.push_back(tokens_of(lengths[i] + 1, i, 500));
    if (i % 2 == 0) harness_.append(sequences.back(), std::span(tokens.back()).first(tokens.back().size() - 1));
  }
  for (std::size_t i = 0; i < 10; ++i) {
    const auto at = static_cast<std::size_t>(sequences[i].length);
    slices.push_back({std::span(tokens[i]).subspan(at), sequences[i].pages.data(), sequences[i].length, i % 3 != 2});
  }
  std::vector<float> logits(vocab * 7);
  ASSERT_TRUE(harness_.decoder->forward(harness_.kv, slices, logits.data()));
  std::size_t row = 0;
  for (std::size_t i = 0; i < 10; ++i) {
    if (i % 3 == 2) continue;
    EXPECT_EQ(std::memcmp(logits.data() + row * vocab, alone[i].data(), vocab * 4), 0) << "sequence " << i;
    ++row;
  }
  EXPECT_EQ(row, 7u);
}

TEST_P(DecoderBatch, ThreadCountDoesNotMatter) {
  DecoderHarness other(std::get<0>(GetParam()), {.int8 = std::get<1>(GetParam()), .threads = 5});
  const auto prompt = tokens_of(70, 4, 500);
  auto a = harness_.sequence(70), b = other.sequence(70);
  EXPECT_EQ(harness_.append(a, prompt), other.append(b, prompt));
}

}  // namespace
}  // namespace ganglion::local
