// Secrets: never printed, compared whole.

#include "core/secret.hpp"

#include <gtest/gtest.h>

#include <sstream>

namespace ganglion::core {
namespace {

TEST(Secret, PrintsRedacted) {
  std::ostringstream out;
  out << Secret{"sk-very-secret"};
  EXPECT_EQ(out.str(), "[redacted]");
}

TEST(Secret, MovingEmptiesTheSource) {
  Secret a{"sk-1"};
  const Secret b = std::move(a);
  EXPECT_TRUE(a.empty());  // NOLINT(bugprone-use-after-move): the contract under test
  EXPECT_EQ(b.reveal(), "sk-1");
}

TEST(Secret, ComparesAllBytes) {
  EXPECT_TRUE(equal_constant_time("abc", "abc"));
  EXPECT_FALSE(equal_constant_time("abc", "abd"));
  EXPECT_FALSE(equal_constant_time("abc", "abcd"));
}

}  // namespace
}  // namespace ganglion::core
