// `ganglion calibrate`: prices that the configuration takes, and what it refuses.

#include "app/calibrate.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "app/commands.hpp"
#include "config/loader.hpp"

namespace ganglion::app {
namespace {

const std::string kModel =
    "local: [{name: m, path: \"" +
    std::filesystem::absolute(GANGLION_SOURCE_DIR "/tests/data/local/llama3_tiny").lexically_normal().string() +
    "\", threads: 1}]\n";

TEST(Calibrate, RowsAreAPriceListThatTheConfigurationTakes) {
  const backends::TokenCost cost{.input_us = 50, .cached_us = 2.5, .output_us = 400, .batch = 8, .prompt_tokens = 512};
  const auto config = config::load_text(kModel + price_rows("m", "cuda:0 (a card)", cost, 20), "test.yaml");
  ASSERT_TRUE(config) << config::format(config.error());
  ASSERT_EQ(config->pricing.models.size(), 1U);
  const auto& price = config->pricing.models[0];
  EXPECT_EQ(price.model, "m");
  EXPECT_EQ(price.unit, "neurons");
  EXPECT_EQ(price.per_1m_input_tokens, "1000");  // 50 s a million tokens, 20 neurons a second
  EXPECT_EQ(price.per_1m_cached_input_tokens, "50.00");
  EXPECT_EQ(price.per_1m_output_tokens, "8000");
}

TEST(Calibrate, FoundTokensNeverCostMoreThanComputedOnes) {
  const backends::TokenCost noisy{.input_us = 1, .cached_us = 3, .output_us = 0};
  const std::string rows = price_rows("m", "cpu", noisy, 1'000);
  EXPECT_NE(rows.find("cached_input_per_1m: 1000\n"), std::string::npos) << rows;
  EXPECT_EQ(rows.find("output_per_1m"), std::string::npos) << "a model that makes embeddings";
}

TEST(Calibrate, MeasuresAModelAndWritesItsPrices) {
  const auto directory = std::filesystem::path(testing::TempDir()) / "ganglion-calibrate";
  std::filesystem::create_directories(directory);
  const std::string file = directory / "ganglion.yaml", out = directory / "prices.yaml";
  std::ofstream(file) << kModel;
  ASSERT_EQ(calibrate_command({file, "--model", "m", "--usd-per-hour", "0.05", "--batch", "2", "--prompt-tokens", "32",
                               "--output-tokens", "4", "--rounds", "1", "--write", out}),
            0);
  std::stringstream written;
  written << std::ifstream(out).rdbuf();
  const auto config = config::load_text(kModel + written.str(), "test.yaml");
  ASSERT_TRUE(config) << config::format(config.error()) << written.str();
  ASSERT_EQ(config->pricing.models.size(), 1U);
  EXPECT_GT(std::stod(config->pricing.models[0].per_1m_input_tokens), 0);
  EXPECT_GT(std::stod(config->pricing.models[0].per_1m_output_tokens), 0);
  // 0.05 / 3,600 USD a second at 0.011 USD a thousand neurons.
  EXPECT_NE(written.str().find(" 1.26 neurons a second"), std::string::npos) << written.str();
}

TEST(Calibrate, RefusesWhatItCannotKnow) {
  EXPECT_EQ(calibrate_command({"--model", "demo-chat"}), 2) << "what a second costs";
  EXPECT_EQ(calibrate_command({"--model", "none", "--usd-per-hour", "1"}), 2);
  EXPECT_EQ(calibrate_command({"--model", "demo-chat", "--usd-per-hour", "-1"}), 2);
  EXPECT_EQ(calibrate_command({"--model", "demo-chat", "--usd-per-hour", "1", "--neurons-per-second", "1"}), 2);
  EXPECT_EQ(calibrate_command({"--model", "demo-chat", "--usd-per-hour", "1", "--batch", "0.5"}), 2);
}

}  // namespace
}  // namespace ganglion::app
