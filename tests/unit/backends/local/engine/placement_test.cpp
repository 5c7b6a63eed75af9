// Which GPUs a model gets, by sizes alone; no GPU is asked.

#include "backends/local/engine/placement.hpp"

#include <gtest/gtest.h>

namespace ganglion::local {
namespace {

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

ModelConfig llama_7b() {
  ModelConfig c;
  c.vocab_size = 32'000, c.hidden_size = 4'096, c.layers = 32, c.heads = c.kv_heads = 32, c.head_dim = 128;
  c.intermediate_size = 11'008, c.max_position = 4'096;
  return c;
}

ModelConfig llama_70b() {
  ModelConfig c;
  c.vocab_size = 128'256, c.hidden_size = 8'192, c.layers = 80, c.heads = 64, c.kv_heads = 8, c.head_dim = 128;
  c.intermediate_size = 28'672, c.max_position = 131'072;
  return c;
}

std::vector<int> placed(const std::vector<GpuRoom>& gpus, const GpuNeed& need) {
  const auto out = place(gpus, need);
  EXPECT_TRUE(out) << (out ? "" : out.error().message);
  return out ? *out : std::vector<int>{};
}

TEST(Placement, ModelsAreSizedByTheirShapes) {
  EngineOptions options;
  const auto in_gib = [&](const ModelConfig& c, int gpus) {
    return static_cast<double>(need_of(c, options).on_each(gpus)) / kGiB;
  };
  // 6.5 billion parameters in the layers and twice 131 million at the ends.
  EXPECT_NEAR(in_gib(llama_7b(), 1), 14.4, 0.7);
  options.quantize = Quantize::fp8;
  EXPECT_NEAR(in_gib(llama_7b(), 1), 8.1, 0.7);
  const std::uint64_t in_fp8 = need_of(llama_7b(), options).on_each(1);
  options.quantize = Quantize::w8a8;
  EXPECT_EQ(need_of(llama_7b(), options).on_each(1), in_fp8);
  options.quantize = Quantize::int4;
  EXPECT_NEAR(in_gib(llama_7b(), 1), 5.3, 0.7);
  options.quantize = Quantize::none;
  // A page of the 7B model is 8 MiB in 16 bits; each of 64 lacks half of that in 8 bits, but for int8's scales.
  const auto whole = need_of(llama_7b(), options).cut;
  options.kv_type = KvType::f8;
  EXPECT_EQ(whole - need_of(llama_7b(), options).cut, 64u * (4u << 20));
  options.kv_type = KvType::i8;
  EXPECT_EQ(whole - need_of(llama_7b(), options).cut, 64u * ((4u << 20) - 32 * 32 * 16 * 2 * 4));
  options.kv_type = KvType::automatic;
  EXPECT_NEAR(in_gib(llama_70b(), 2), 72, 4);
  EXPECT_NEAR(in_gib(llama_70b(), 4), 40, 4);
}

TEST(Placement, OneGpuWhereItFitsAndTheOneWithMostRoom) {
  const GpuNeed need = need_of(llama_7b(), {});
  EXPECT_EQ(placed({{0, 30 * kGiB}, {1, 79 * kGiB}, {2, 40 * kGiB}}, need), std::vector<int>{1});
  EXPECT_EQ(placed({{0, 79 * kGiB}, {1, 79 * kGiB}}, need), std::vector<int>{0}) << "of equals the first";
}

TEST(Placement, TheFewestThatItCanBeCutOver) {
  const GpuNeed need = need_of(llama_70b(), {});
  EXPECT_EQ(need.ways, (std::vector<int>{1, 2, 4, 8}));
  const std::vector<GpuRoom> two{{0, 79 * kGiB}, {1, 78 * kGiB}};
  EXPECT_EQ(placed(two, need), (std::vector<int>{0, 1}));
  // One of the two is half full: four of them, the emptiest first.
  EXPECT_EQ(placed({{0, 45 * kGiB}, {1, 79 * kGiB}, {2, 50 * kGiB}, {3, 50 * kGiB}}, need),
            (std::vector<int>{1, 2, 3, 0}));
  // Three heads cannot be halved.
  ModelConfig odd = llama_70b();
  odd.kv_heads = 1, odd.heads = 64;
  EXPECT_EQ(need_of(odd, {}).ways, std::vector<int>{1});
}

TEST(Placement, ExpertsCountAndOtherFamiliesStayWhole) {
  ModelConfig mixtral = llama_7b();
  mixtral.family = ModelFamily::mixtral;
  mixtral.kv_heads = 8, mixtral.intermediate_size = 14'336, mixtral.experts = 8;
  const GpuNeed need = need_of(mixtral, {});
  EXPECT_NEAR(static_cast<double>(need.on_each(1)) / kGiB, 88.5, 2);
  EXPECT_EQ(need.ways, std::vector<int>{1});
  EngineOptions adapted;
  adapted.adapters.push_back({});
  EXPECT_EQ(need_of(llama_70b(), adapted).ways, std::vector<int>{1});
  ModelConfig packed = llama_70b();
  packed.packed.scheme = PackedScheme::gptq;
  EXPECT_NEAR(static_cast<double>(need_of(packed, {}).on_each(1)) / kGiB, 40, 3);
  EXPECT_EQ(need_of(packed, {}).ways, std::vector<int>{1});
}

TEST(Placement, NowhereSaysWhatIsMissing) {
  const auto out = place(std::vector<GpuRoom>{{0, 20 * kGiB}, {1, 10 * kGiB}}, need_of(llama_70b(), {}));
  ASSERT_FALSE(out);
  EXPECT_EQ(out.error().kind, core::ErrorKind::unsupported);
  EXPECT_NE(out.error().message.find("20.0 GiB, 10.0 GiB"), std::string::npos) << out.error().message;
  EXPECT_NE(out.error().message.find("on each of 2"), std::string::npos) << out.error().message;
  EXPECT_FALSE(place({}, need_of(llama_7b(), {})));
}

TEST(Placement, SeveralModelsShareAGpuByWhatTheyDeclare) {
  EngineOptions options;
  options.gpu_bytes = 30 * kGiB;
  const GpuNeed need = need_of(llama_7b(), options);
  std::vector<GpuRoom> gpus{{0, 79 * kGiB}, {1, 70 * kGiB}};
  std::vector<int> where;
  for (int i = 0; i < 4; ++i) {
    const auto at = placed(gpus, need);
    ASSERT_EQ(at.size(), 1U);
    where.push_back(at[0]);
    gpus[static_cast<std::size_t>(at[0])].free_bytes -= options.gpu_bytes;
  }
  EXPECT_EQ(where, (std::vector<int>{0, 1, 0, 1}));
  EXPECT_FALSE(place(gpus, need)) << "a fifth has no room left";
}

}  // namespace
}  // namespace ganglion::local
