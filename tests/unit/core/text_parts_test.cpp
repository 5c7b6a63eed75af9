// Texts that lie in parts: what is copied and what is not.

#include "core/text_parts.hpp"

#include <gtest/gtest.h>

namespace ganglion::core {
namespace {

TEST(TextParts, OnePartIsNotCopied) {
  const std::string text = "all of it";
  const TextParts parts = text;
  std::string out = "old";
  EXPECT_EQ(parts.whole(out).data(), text.data());
  EXPECT_EQ(parts.size(), text.size());
  EXPECT_EQ(out, "old");
}

TEST(TextParts, SeveralArePutTogetherAndEmptyOnesAreNone) {
  TextParts parts;
  std::string out = "old";
  EXPECT_TRUE(parts.empty());
  EXPECT_EQ(parts.whole(out), "");
  for (const std::string_view part : {"", "a", "", "bc", "", "def"}) parts.add(part);
  EXPECT_EQ(parts.parts().size(), 3U);
  EXPECT_EQ(parts.size(), 6U);
  EXPECT_EQ(parts.whole(out), "abcdef");
  for (int i = 0; i < 4; ++i) parts.add("x");
  EXPECT_THROW(parts.add("y"), std::out_of_range);
}

}  // namespace
}  // namespace ganglion::core
