// What tokens cost: measured on small models, where only the order is certain.

#include "backends/local/local_calibrate.hpp"

#include "tests/unit/backends/local/engine/runners.hpp"
#include "tests/unit/backends/local/local_fixture.hpp"

namespace ganglion::backends {
namespace {

TEST(LocalCalibrate, EachKindOfTokenHasACost) {
  auto options = tiny("llama3_tiny");
  const auto model = load(options);
  const auto cost = measure_token_cost(*model, {.batch = 4, .prompt_tokens = 5'000, .output_tokens = 16, .rounds = 3});
  ASSERT_TRUE(cost) << cost.error().message;
  EXPECT_GT(cost->input_us, 0);
  EXPECT_GT(cost->output_us, 0);
  EXPECT_GE(cost->cached_us, 0);
  EXPECT_EQ(cost->batch, 4);
  EXPECT_EQ(cost->prompt_tokens, model->context_max() / 4) << "no more than fits";
  EXPECT_GT(model->stats().prefix_tokens, 0U);
  EXPECT_TRUE(idle(*model));
}

TEST(LocalCalibrate, EmbeddingModelsHaveInputAlone) {
  const auto model = load(tiny("bert_tiny"));
  const auto cost = measure_token_cost(*model, {.batch = 2, .prompt_tokens = 32});
  ASSERT_TRUE(cost) << cost.error().message;
  EXPECT_GT(cost->input_us, 0);
  EXPECT_EQ(cost->output_us, 0);
}

// A price of nothing would give every answer away.
TEST(LocalCalibrate, WhatCouldNotBeMeasuredIsNoPrice) {
  const auto round = [](double input, double output) { return TokenCost{.input_us = input, .output_us = output}; };
  const auto good = typical_cost({round(3, -5), round(2, 7), round(9, 8)}, true);
  ASSERT_TRUE(good);
  EXPECT_EQ(good->input_us, 3);
  EXPECT_EQ(good->output_us, 7);
  for (const auto& [rounds, generates] : {std::pair{std::vector{round(3, -5)}, true},
                                          {std::vector{round(3, 0)}, true},
                                          {std::vector{round(-1, 5)}, true},
                                          {std::vector{round(0, 0)}, false}}) {
    const auto cost = typical_cost(rounds, generates);
    ASSERT_FALSE(cost);
    EXPECT_EQ(cost.error().kind, core::ErrorKind::overloaded);
    EXPECT_NE(cost.error().message.find("--rounds"), std::string::npos) << cost.error().message;
  }
  EXPECT_TRUE(typical_cost({round(3, 0)}, false)) << "an embedding has no output";
}

TEST(LocalCalibrate, AFailureIsToldAndNotMeasured) {
  auto trouble = std::make_shared<local::Trouble>();
  auto model = load_local_model(tiny("llama3_tiny"), local::failing(trouble));
  ASSERT_TRUE(model) << model.error().message;
  trouble->fail_steps = 1;
  const auto cost = measure_token_cost(**model, {.batch = 4, .prompt_tokens = 64});
  ASSERT_FALSE(cost);
  EXPECT_EQ(cost.error().kind, core::ErrorKind::no_backend);
}

}  // namespace
}  // namespace ganglion::backends
