// Redis's protocol without sockets: commands in wire form, slots, replies in any pieces, error lines, and the fuzzer's
// property over its corpus and over fixed mutations of it.

#include "net/redis_resp.hpp"

#include <gtest/gtest.h>

#include <random>

#include "tests/fuzz/resp_property.hpp"
#include "tests/support/corpus.hpp"

namespace ganglion::net {
namespace {

using namespace std::string_literals;
using redis::ErrorLine;
using redis::read_error;
using redis::RespReader;

TEST(RedisCommand, IsAnArrayOfBulkStringsWithAnyBytes) {
  RedisCommand command{"SET", "k", std::string_view{"a\0\r\n", 4}};
  command << "PX" << std::int64_t{-5};
  EXPECT_EQ(command.wire(), "*5\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\na\0\r\n\r\n$2\r\nPX\r\n$2\r\n-5\r\n"s);
}

TEST(RedisCommand, RoutesByItsFirstKeyUnlessToldOtherwise) {
  EXPECT_EQ((RedisCommand{"GET", "foo"}.slot()), redis_slot("foo"));
  EXPECT_EQ((RedisCommand{"EVAL", "return 1", "1", "foo"}.key("foo").slot()), redis_slot("foo"));
  EXPECT_EQ((RedisCommand{"PUBLISH", "c", "m"}.anywhere().slot()), RedisCommand::kAnywhere);
  EXPECT_EQ((RedisCommand{"PING"}.slot()), RedisCommand::kAnywhere);
}

// Values from CLUSTER KEYSLOT of a redis-server 7.0.
TEST(RedisSlot, AgreesWithTheServer) {
  EXPECT_EQ(redis_slot("foo"), 12182U);
  EXPECT_EQ(redis_slot("123456789"), 0x31C3U % kRedisSlots);
  EXPECT_EQ(redis_slot("{user1000}.following"), redis_slot("user1000"));
  EXPECT_EQ(redis_slot("foo{}{bar}"), 8363U);
  EXPECT_EQ(redis_slot("foo{{bar}}zap"), redis_slot("{bar"));
  EXPECT_EQ(redis_slot("foo{bar}{zap}"), redis_slot("bar"));
  EXPECT_EQ(redis_slot(""), 0U);
}

TEST(RedisScript, HasTheShaThatTheServerUses) {
  EXPECT_EQ(RedisScript{"return 1"}.sha1(), "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
}

TEST(RespReader, ReadsEveryTypeNestedAndCutAnywhere) {
  const std::string bytes = "*4\r\n:-7\r\n*2\r\n+OK\r\n-ERR x\r\n$-1\r\n$4\r\n\r\n\r\n\r\n";
  for (std::size_t cut = 0; cut <= bytes.size(); ++cut) {
    RespReader reader{1024};
    reader.feed(bytes.substr(0, cut));
    auto early = reader.next();
    ASSERT_TRUE(early);
    if (cut < bytes.size()) {
      EXPECT_FALSE(*early);
      reader.feed(bytes.substr(cut));
      early = reader.next();
    }
    ASSERT_TRUE(early && *early);
    const RedisReply& reply = **early;
    ASSERT_EQ(reply.items.size(), 4U);
    EXPECT_EQ(reply.items[0].integer, -7);
    EXPECT_EQ(reply.items[1].items[0].text, "OK");
    EXPECT_EQ(reply.items[1].items[1].type, RedisReply::Type::error);
    EXPECT_TRUE(reply.items[2].is_nil());
    EXPECT_EQ(reply.items[3].text, "\r\n\r\n");
  }
}

TEST(RespReader, AnswerOverTheBoundIsAnError) {
  for (const std::string& bytes :
       {std::string{"*1000000\r\n"}, std::string{"$2000\r\n"} + std::string(2002, 'x'),
        std::string{"*2\r\n$600\r\n"} + std::string(600, 'x') + "\r\n$600\r\n" + std::string(600, 'x') + "\r\n"}) {
    RespReader reader{1000};
    reader.feed(bytes);
    const auto reply = reader.next();
    ASSERT_FALSE(reply);
    EXPECT_NE(reply.error().find("larger"), std::string::npos) << reply.error();
  }
}

TEST(RespReader, LineWithoutAnEndIsAnError) {
  RespReader reader{1 << 30};
  const std::string piece(16 * 1024, 'x');
  reader.feed("+");
  std::size_t fed = 0;
  while (reader.next()) {
    reader.feed(piece);
    fed += piece.size();
    ASSERT_LT(fed, 100'000U);
  }
}

TEST(RedisErrorLine, SaysWhatItAsksFor) {
  const ErrorLine moved = read_error("MOVED 3999 127.0.0.1:6381");
  EXPECT_EQ(moved.ask, ErrorLine::Ask::moved);
  EXPECT_EQ(moved.slot, 3999U);
  EXPECT_EQ(moved.to, (redis::Address{"127.0.0.1", 6381}));
  const ErrorLine ask = read_error("ASK 1 :7000");
  EXPECT_EQ(ask.ask, ErrorLine::Ask::ask);
  EXPECT_EQ(ask.to, (redis::Address{"", 7000}));
  EXPECT_EQ(read_error("MOVED 16384 h:1").ask, ErrorLine::Ask::nothing);
  EXPECT_EQ(read_error("MOVED x").failure, RedisFailure::refused);
  EXPECT_EQ(read_error("TRYAGAIN Multiple keys").ask, ErrorLine::Ask::try_again);
  EXPECT_EQ(read_error("NOSCRIPT No matching script. Please use EVAL.").ask, ErrorLine::Ask::load_script);
}

TEST(RedisErrorLine, TellsTheStoresIllnessFromTheCommands) {
  const auto check = [](std::string_view line, RedisFailure failure, bool down) {
    EXPECT_EQ(read_error(line).failure, failure) << line;
    EXPECT_EQ(read_error(line).store_is_down, down) << line;
  };
  check("LOADING Redis is loading the dataset in memory", RedisFailure::loading, true);
  check("CLUSTERDOWN The cluster is down", RedisFailure::loading, true);
  check("READONLY You can't write against a read only replica.", RedisFailure::read_only, true);
  check("MISCONF Redis is configured to save RDB snapshots", RedisFailure::read_only, true);
  check("OOM command not allowed when used memory > 'maxmemory'.", RedisFailure::no_memory, false);
  check("NOAUTH Authentication required.", RedisFailure::denied, true);
  check("WRONGPASS invalid username-password pair or user is disabled.", RedisFailure::denied, true);
  check("ERR AUTH <password> called without any password configured for the default user.", RedisFailure::denied, true);
  check("NOPERM this user has no permissions to run the 'set' command", RedisFailure::denied, false);
  check("ERR Error running script (call to f_ab): @user_script:1: @user_script: 1: -READONLY You can't write",
        RedisFailure::read_only, true);
  check("WRONGTYPE Operation against a key", RedisFailure::refused, false);
  check("", RedisFailure::refused, false);
}

TEST(RedisAddress, SplitsAtTheLastColon) {
  EXPECT_EQ(redis::parse_address("[::1]:7000")->host, "::1");
  EXPECT_EQ(redis::parse_address("::1:7000")->host, "::1");
  EXPECT_EQ(redis::parse_address("h:7000")->str(), "h:7000");
  EXPECT_EQ((redis::Address{"::1", 5}.str()), "[::1]:5");
  EXPECT_FALSE(redis::parse_address("h"));
  EXPECT_FALSE(redis::parse_address("h:0"));
  EXPECT_FALSE(redis::parse_address("h:65536"));
  EXPECT_FALSE(redis::parse_address("h:7x"));
}

TEST(RespCorpus, PropertiesHold) {
  const auto cases = test::corpus("resp");
  ASSERT_GE(cases.size(), 11U);
  for (const auto& [file, bytes] : cases) fuzz::check_resp(bytes);
}

TEST(RespCorpus, PropertiesHoldForMutants) {
  const auto cases = test::corpus("resp");
  std::mt19937_64 random{20};
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes = cases[random() % cases.size()].bytes + cases[random() % cases.size()].bytes;
    for (std::uint64_t i = random() % 4; i-- > 0 && !bytes.empty();) {
      const std::size_t at = random() % bytes.size();
      static constexpr std::string_view kPalette = "+-:$*\r\n019\0x";
      if (random() % 3 == 0)
        bytes.erase(at, 1 + random() % 3);
      else
        bytes[at] = kPalette[random() % kPalette.size()];
    }
    fuzz::check_resp(bytes);
  }
}

}  // namespace
}  // namespace ganglion::net
