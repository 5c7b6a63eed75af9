#pragma once
// A decoder on the device and sequences for it, for tests of whole models.

#include "backends/local/models/cuda/cuda_decoder.hpp"
#include "tests/unit/backends/local/cuda/device_fixture.hpp"
#include "tests/unit/backends/local/models/goldens.hpp"

namespace ganglion::local {

// A decoder on the device whose sequences have scattered pages.
class CudaHarness {
 public:
  CudaHarness(const std::string& dir, CudaOptions options) {
    auto config = load_model_config(dir);
    auto checkpoint = Checkpoint::open(dir);
    if (!config || !checkpoint) {
      ADD_FAILURE() << dir;
      return;
    }
    take(CudaDecoder::load(*checkpoint, *config, options));
  }
  // Random weights.
  CudaHarness(const ModelConfig& config, const CudaOptions& options, std::uint64_t seed) {
    take(CudaDecoder::random(config, options, seed));
  }
  struct Sequence {
    std::vector<std::int32_t> pages;
    int length = 0;
    int adapter = -1;
    bool long_positions = false;
  };
  Sequence sequence(int tokens, bool long_positions = false) {
    Sequence s;
    s.long_positions = long_positions;
    for (int t = 0; t < tokens; t += cuda::kPageTokens) s.pages.push_back(next_page_++ * 101 % kPages);
    EXPECT_LE(next_page_, kPages);
    return s;
  }
  std::vector<float> append(Sequence& s, std::span<const std::int32_t> tokens) {
    CudaDecoder::Slice slice{tokens, s.pages.data(), s.length, true, nullptr};
    slice.adapter = s.adapter, slice.long_positions = s.long_positions;
    const auto queued = decoder->submit({&slice, 1});
    EXPECT_TRUE(queued) << (queued ? "" : queued.error().message);
    auto logits = decoder->logits();
    EXPECT_TRUE(logits) << (logits ? "" : logits.error().message);
    s.length += static_cast<int>(tokens.size());
    return logits ? *logits : std::vector<float>(static_cast<std::size_t>(decoder->vocab_size()));
  }
  static constexpr int kPages = 1024;
  std::unique_ptr<CudaDecoder> decoder;

 private:
  void take(core::Result<std::unique_ptr<CudaDecoder>> made) {
    if (!made) {
      ADD_FAILURE() << made.error().message;
      return;
    }
    decoder = std::move(*made);
    EXPECT_TRUE(decoder->reserve_pages(kPages));
  }
  std::int32_t next_page_ = 0;
};

// Worst relative error of the logits over all stored rows.
inline double worst_of(CudaHarness& harness, const std::string& goldens, int adapter = -1) {
  double worst = 0;
  for (const GoldenCase& c : read_goldens(goldens)) {
    auto s = harness.sequence(static_cast<int>(c.prompt.size()), c.long_positions);
    s.adapter = adapter;
    int done = 0;
    for (std::size_t i = 0; i < c.positions.size(); ++i) {
      const int upto = c.positions[i] + 1;
      if (upto == done) continue;
      const auto logits = harness.append(
          s, std::span(c.prompt).subspan(static_cast<std::size_t>(done), static_cast<std::size_t>(upto - done)));
      done = upto;
      worst = std::max(worst, relative_l2(logits, c.logits[i]));
    }
  }
  return worst;
}

inline bool no_gpu() {
  return !find_devices();
}

}  // namespace ganglion::local
