// Embeddings through the engine: goldens, passes that mix requests, bounds, cancellation.

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "backends/local/engine/engine.hpp"
#include "tests/unit/backends/local/engine/embed_sinks.hpp"
#include "tests/unit/backends/local/engine/engine_fixture.hpp"

namespace ganglion::local {
namespace {

using core::ErrorKind;

std::unique_ptr<EmbeddingEngine> load(const std::string& model, EmbeddingOptions options = {}) {
  options.dir = model_dir(model);
  options.threads = 2;
  auto engine = EmbeddingEngine::load(options);
  if (!engine) {
    ADD_FAILURE() << engine.error().message;
    return nullptr;
  }
  return std::move(*engine);
}

TEST(EmbeddingEngine, GoldensInOneRequestAndInManySmallPasses) {
  for (const char* model : {"bert_tiny", "bert_tiny_mean"}) {
    std::ifstream file(model_dir(model) + "/goldens.json");
    const auto json = nlohmann::json::parse(file);
    std::vector<std::vector<std::int32_t>> inputs;
    std::vector<std::vector<float>> want;
    int tokens = 0;
    for (const auto& c : json.at("cases")) {
      inputs.push_back(c.at("ids").get<std::vector<std::int32_t>>());
      want.push_back(c.at(json.at("pooling").get<std::string>()).get<std::vector<float>>());
      tokens += static_cast<int>(inputs.back().size());
    }
    for (int budget : {1, 40, 4096}) {
      auto engine = load(model, {.step_tokens_max = budget});
      ASSERT_NE(engine, nullptr);
      EXPECT_EQ(engine->dimensions(), static_cast<int>(want[0].size()));
      auto first = std::make_shared<KeepingEmbedSink>(), second = std::make_shared<KeepingEmbedSink>();
      ASSERT_TRUE(engine->submit(inputs, first));
      ASSERT_TRUE(engine->submit({inputs[1]}, second));
      const auto result = first->wait();
      ASSERT_TRUE(result);
      EXPECT_EQ(result->prompt_tokens, tokens);
      ASSERT_EQ(result->vectors.size(), want.size());
      for (std::size_t i = 0; i < want.size(); ++i) {
        for (std::size_t d = 0; d < want[i].size(); ++d) ASSERT_NEAR(result->vectors[i][d], want[i][d], 1e-5);
      }
      EXPECT_EQ(second->wait()->vectors.at(0), result->vectors[1]);
    }
  }
}

TEST(EmbeddingEngine, BoundsAreChecked) {
  auto engine = load("bert_tiny", {.inputs_max = 4});
  const auto kind = [&](std::vector<std::vector<std::int32_t>> inputs) {
    const auto r = engine->submit(std::move(inputs), std::make_shared<KeepingEmbedSink>());
    EXPECT_FALSE(r);
    return r ? ErrorKind::internal : r.error().kind;
  };
  EXPECT_EQ(kind({}), ErrorKind::invalid_value);
  EXPECT_EQ(kind({{}}), ErrorKind::invalid_value);
  EXPECT_EQ(kind({{2, 99999, 3}}), ErrorKind::invalid_value);
  EXPECT_EQ(kind(std::vector<std::vector<std::int32_t>>(5, {2, 3})), ErrorKind::invalid_value);
  EXPECT_EQ(kind({std::vector<std::int32_t>(static_cast<std::size_t>(engine->context_max()) + 1, 5)}),
            ErrorKind::context_length);
}

TEST(EmbeddingEngine, CancelledAndShutDownRequestsEndOnce) {
  auto engine = load("bert_tiny", {.step_tokens_max = 64});
  const std::vector<std::vector<std::int32_t>> big(400, std::vector<std::int32_t>(60, 7));
  auto gate = std::make_shared<GateEmbedSink>();
  ASSERT_TRUE(engine->submit({{2, 3}}, gate));
  gate->wait_until_entered();
  auto a = std::make_shared<KeepingEmbedSink>(), b = std::make_shared<KeepingEmbedSink>();
  const auto handle = engine->submit(big, a);
  ASSERT_TRUE(handle);
  ASSERT_TRUE(engine->submit(big, b));
  engine->cancel(*handle);
  gate->open();
  const auto cancelled = a->wait();
  ASSERT_FALSE(cancelled);
  EXPECT_EQ(cancelled.error().kind, ErrorKind::cancelled);
  EXPECT_EQ(engine->stats().cancelled, 1u);
  engine.reset();
  const auto ended = b->wait();
  EXPECT_TRUE(ended.has_value() || ended.error().kind == ErrorKind::shutting_down);
}

TEST(EmbeddingEngine, AFullQueueRefuses) {
  auto engine = load("bert_tiny", {.queue_max = 2});
  auto gate = std::make_shared<GateEmbedSink>();
  ASSERT_TRUE(engine->submit({{2, 3}}, gate));
  gate->wait_until_entered();  // it no longer counts as waiting
  auto first = std::make_shared<KeepingEmbedSink>(), second = std::make_shared<KeepingEmbedSink>();
  ASSERT_TRUE(engine->submit({{2, 3}}, first));
  ASSERT_TRUE(engine->submit({{2, 3}}, second));
  const auto refused = engine->submit({{2, 3}}, std::make_shared<KeepingEmbedSink>());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::queue_full);
  EXPECT_GE(refused.error().retry_after.count(), 1000);
  EXPECT_EQ(engine->stats().rejected_queue_full, 1u);
  gate->open();
  EXPECT_TRUE(first->wait().has_value());
  EXPECT_TRUE(second->wait().has_value());
}

// Notes in which order requests end.
class OrderEmbedSink : public EmbedSink {
 public:
  OrderEmbedSink(std::vector<int>& order, int name) : order_(order), name_(name) {}
  void on_result(core::Result<EmbedResult>&& result) noexcept override {
    EXPECT_TRUE(result.has_value());
    order_.push_back(name_);
  }

 private:
  std::vector<int>& order_;  // written by the engine's thread alone
  int name_;
};

TEST(EmbeddingEngine, FastRequestsGoIntoTheNextPassFirst) {
  std::vector<int> order;
  {
    auto engine = load("bert_tiny", {.step_tokens_max = 60});
    const std::vector<std::vector<std::int32_t>> big(3, std::vector<std::int32_t>(60, 7));  // three passes
    auto gate = std::make_shared<GateEmbedSink>();
    ASSERT_TRUE(engine->submit({{2, 3}}, gate));
    gate->wait_until_entered();
    ASSERT_TRUE(engine->submit(big, std::make_shared<OrderEmbedSink>(order, 1)));
    ASSERT_TRUE(engine->submit(big, std::make_shared<OrderEmbedSink>(order, 2)));
    ASSERT_TRUE(engine->submit(big, std::make_shared<OrderEmbedSink>(order, 3), Priority::fast));
    EXPECT_EQ(engine->stats().queued_now[0], 2);
    EXPECT_EQ(engine->stats().queued_now[1], 1);
    gate->open();
    auto last = std::make_shared<KeepingEmbedSink>();
    ASSERT_TRUE(engine->submit({{2, 3}}, last));
    EXPECT_TRUE(last->wait());
  }
  EXPECT_EQ(order, (std::vector<int>{3, 1, 2}));
}

TEST(EmbeddingEngine, PassedOverLongEnoughARegularRequestGoesFirst) {
  std::vector<int> order;
  {
    auto engine = load("bert_tiny", {.step_tokens_max = 60});
    const std::vector<std::vector<std::int32_t>> one(1, std::vector<std::int32_t>(60, 7));  // a whole pass
    auto gate = std::make_shared<GateEmbedSink>();
    ASSERT_TRUE(engine->submit({{2, 3}}, gate));
    gate->wait_until_entered();
    ASSERT_TRUE(engine->submit(one, std::make_shared<OrderEmbedSink>(order, 0)));
    for (int i = 1; i <= 20; ++i) {
      ASSERT_TRUE(engine->submit(one, std::make_shared<OrderEmbedSink>(order, i), Priority::fast));
    }
    gate->open();
    auto last = std::make_shared<KeepingEmbedSink>();
    ASSERT_TRUE(engine->submit({{2, 3}}, last, Priority::fast));  // behind all of them
    EXPECT_TRUE(last->wait());
  }
  ASSERT_EQ(order.size(), 21U);
  EXPECT_EQ(std::ranges::find(order, 0) - order.begin(), 8);
}

}  // namespace
}  // namespace ganglion::local
