// Embeddings against transformers and sentence-transformers' pooling, alone and in one ragged pass.

#include "backends/local/models/bert.hpp"

#include "tests/unit/backends/local/models/goldens.hpp"

namespace ganglion::local {
namespace {

struct EmbeddingCase {
  std::vector<std::int32_t> ids;
  std::vector<float> want;
};

class BertGoldens : public testing::TestWithParam<const char*> {
 protected:
  void load(Isa isa, bool int8, Pooling pooling) {
    auto config = load_model_config(data_dir(GetParam()));
    auto checkpoint = Checkpoint::open(data_dir(GetParam()));
    ASSERT_TRUE(config && checkpoint);
    EXPECT_TRUE(config->normalize);
    config->pooling = pooling;
    auto loaded = Bert::load(std::move(*checkpoint), *config, {&kernels_for(isa), &pool_}, int8, 512);
    ASSERT_TRUE(loaded) << loaded.error().message;
    bert_ = std::move(*loaded);
  }
  std::vector<EmbeddingCase> cases(const std::string& pooling) {
    std::ifstream file(data_dir(GetParam()) + "/goldens.json");
    const nlohmann::json json = nlohmann::json::parse(file);
    std::vector<EmbeddingCase> out;
    for (const auto& item : json.at("cases")) {
      out.push_back({item.at("ids").get<std::vector<std::int32_t>>(), item.at(pooling).get<std::vector<float>>()});
    }
    EXPECT_GT(out.size(), 2u);
    return out;
  }
  ThreadPool pool_{2};
  std::unique_ptr<Bert> bert_;
};
INSTANTIATE_TEST_SUITE_P(Models, BertGoldens, testing::Values("bert_tiny", "bert_tiny_mean"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(BertGoldens, BothPoolingsAgreeOnEveryLevel) {
  for (int i = 0; i < kIsaCount; ++i) {
    if (!isa_supported(static_cast<Isa>(i))) continue;
    for (Pooling pooling : {Pooling::cls, Pooling::mean}) {
      load(static_cast<Isa>(i), false, pooling);
      for (const auto& c : cases(pooling == Pooling::cls ? "cls" : "mean")) {
        const std::span<const std::int32_t> ids = c.ids;
        const auto got = bert_->encode({&ids, 1});
        ASSERT_TRUE(got);
        EXPECT_LT(relative_error(got->front(), c.want), 1e-5);
      }
    }
  }
}

TEST_P(BertGoldens, ARaggedPassEqualsEachAlone) {
  load(best_isa(), false, Pooling::mean);
  const auto all = cases("mean");
  std::vector<std::span<const std::int32_t>> inputs;
  for (const auto& c : all) inputs.emplace_back(c.ids);
  const auto together = bert_->encode(inputs);
  ASSERT_TRUE(together);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const auto alone = bert_->encode({&inputs[i], 1});
    ASSERT_TRUE(alone);
    EXPECT_EQ(alone->front(), (*together)[i]) << "sequence " << i;
  }
}

TEST_P(BertGoldens, Int8KeepsTheDirection) {
  load(best_isa(), true, Pooling::mean);
  for (const auto& c : cases("mean")) {
    const std::span<const std::int32_t> ids = c.ids;
    const auto got = bert_->encode({&ids, 1});
    ASSERT_TRUE(got);
    double cosine = 0;
    for (std::size_t i = 0; i < c.want.size(); ++i) cosine += static_cast<double>(c.want[i]) * got->front()[i];
    EXPECT_GT(cosine, 0.999);
  }
}

TEST(BertLoad, NamesTheMissingTensor) {
  ThreadPool pool(1);
  auto config = load_model_config(data_dir("bert_tiny"));
  auto checkpoint = Checkpoint::open(data_dir("bert_tiny"));
  ASSERT_TRUE(config && checkpoint);
  config->layers += 1;
  const auto loaded = Bert::load(std::move(*checkpoint), *config, {&kernels_for(best_isa()), &pool}, false, 64);
  ASSERT_FALSE(loaded);
  EXPECT_NE(loaded.error().message.find("encoder.layer."), std::string::npos) << loaded.error().message;
}

}  // namespace
}  // namespace ganglion::local
