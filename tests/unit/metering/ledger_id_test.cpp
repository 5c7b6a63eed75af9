// The ledger's own name.

#include "metering/ledger_id.hpp"

#include <gmock/gmock.h>

#include "tests/unit/metering/ledger_support.hpp"

namespace ganglion::metering {
namespace {

using ::testing::HasSubstr;

TEST(LedgerId, IsMadeOnceAndKept) {
  TempDir dir(true);
  std::filesystem::create_directories(dir.ledger());
  EXPECT_FALSE(read_ledger_id(dir.ledger()));
  const std::string id = ensure_ledger_id(dir.ledger()).value();
  EXPECT_THAT(id, ::testing::MatchesRegex("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"));
  EXPECT_EQ(ensure_ledger_id(dir.ledger()).value(), id);
  EXPECT_EQ(read_ledger_id(dir.ledger()).value(), id);
  TempDir other(true);
  std::filesystem::create_directories(other.ledger());
  EXPECT_NE(ensure_ledger_id(other.ledger()).value(), id);
}

TEST(LedgerId, ADamagedOneIsAnErrorAndStays) {
  TempDir dir(true);
  std::filesystem::create_directories(dir.ledger());
  ASSERT_TRUE(ensure_ledger_id(dir.ledger()));
  write_file(dir.ledger() + "/ledger.id", "not-a-uuid\n");
  const auto id = ensure_ledger_id(dir.ledger());
  ASSERT_FALSE(id);
  EXPECT_THAT(id.error().message, HasSubstr("ledger.id holds no UUID"));
  EXPECT_EQ(read_file(dir.ledger() + "/ledger.id"), "not-a-uuid\n");
}

}  // namespace
}  // namespace ganglion::metering
