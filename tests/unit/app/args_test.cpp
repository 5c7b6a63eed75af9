// Command line words: options checked against what the command takes.

#include "app/args.hpp"

#include <gtest/gtest.h>

namespace ganglion::app {
namespace {

TEST(Args, ReadsBothSpellingsFlagsAndPositionals) {
  const auto args = Args::parse({"file.yaml", "--by", "key,model", "--format=json", "--quiet"},
                                {.with_value = {"by", "format"}, .flags = {"quiet"}, .positionals_max = 1});
  ASSERT_TRUE(args);
  EXPECT_EQ(args->positionals(), std::vector<std::string>{"file.yaml"});
  EXPECT_EQ(args->get("by"), "key,model");
  EXPECT_EQ(args->get("format"), "json");
  EXPECT_TRUE(args->has("quiet"));
  EXPECT_EQ(args->get("from", "start"), "start");
}

TEST(Args, SaysWhatIsWrong) {
  const Args::Spec spec{.with_value = {"by"}, .flags = {"quiet"}};
  EXPECT_NE(Args::parse({"--bye", "x"}, spec).error().find("--by"), std::string::npos) << "known options are listed";
  EXPECT_FALSE(Args::parse({"--by"}, spec));
  EXPECT_FALSE(Args::parse({"--quiet=1"}, spec));
  EXPECT_FALSE(Args::parse({"stray"}, spec));
}

}  // namespace
}  // namespace ganglion::app
