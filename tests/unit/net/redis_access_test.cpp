// Who may use the Redis server: passwords, ACL users, TLS and client certificates, against a real redis-server.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "net/redis_client.hpp"
#include "tests/support/redis_server.hpp"
#include "tests/support/tls_files.hpp"
#include "tests/unit/net/redis_fixture.hpp"

namespace ganglion::net {
namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;
using test::RedisServer;

class RedisAccessTest : public test::RedisTest {
 protected:
  // The first verdict, and one command after it.
  std::pair<RedisState, RedisResult> try_with(const RedisOptions& options) {
    RedisClient client(io_.get_executor(), options, hooks_);
    RedisResult answer = std::unexpected(RedisError{});
    RedisState state = RedisState::connecting;
    run([&]() -> asio::awaitable<void> {
      client.start();
      while (client.state() == RedisState::connecting) co_await pause(1ms);
      state = client.state();
      answer = co_await client.command(RedisCommand{"SET", "gl:k", "v"}, core::Deadline::after(2s));
    });
    return {state, answer};
  }
};

TEST_F(RedisAccessTest, PasswordLetsInAndAWrongOneIsToldApart) {
  const RedisServer server("requirepass sesame");
  RedisOptions options{.addresses = {server.address()}, .command_timeout = 2s};
  options.password = core::Secret{"sesame"};
  EXPECT_TRUE(try_with(options).second);
  for (const char* wrong : {"", "wrong"}) {
    options.password = core::Secret{wrong};
    hooks_.changes.clear();
    const auto [state, answer] = try_with(options);
    EXPECT_EQ(state, RedisState::down);
    ASSERT_FALSE(answer);
    EXPECT_EQ(answer.error().failure, RedisFailure::unavailable);
    EXPECT_TRUE(hooks_.was_down(RedisDown::denied));
    EXPECT_THAT(answer.error().message,
                ::testing::AnyOf(::testing::HasSubstr("NOAUTH"), ::testing::HasSubstr("WRONGPASS")));
  }
}

TEST_F(RedisAccessTest, PasswordThatTheServerDoesNotWantIsToldToo) {
  const RedisServer server;
  RedisOptions options{.addresses = {server.address()}, .command_timeout = 2s};
  options.password = core::Secret{"sesame"};
  EXPECT_EQ(try_with(options).first, RedisState::down);
  EXPECT_TRUE(hooks_.was_down(RedisDown::denied));
}

TEST_F(RedisAccessTest, AclUserIsUsedAndWhatItMayNotDoFailsAlone) {
  const RedisServer server("user default off\nuser gateway on >pw ~gl:* &gl:* +@all -@dangerous +cluster|slots");
  RedisOptions options{
      .addresses = {server.address()}, .username = "gateway", .key_prefix = "gl:", .command_timeout = 2s};
  options.password = core::Secret{"pw"};
  EXPECT_TRUE(try_with(options).second);
  RedisClient client(io_.get_executor(), options, hooks_);
  run([&]() -> asio::awaitable<void> {
    const auto denied = co_await client.command(RedisCommand{"SET", "elsewhere", "v"});
    EXPECT_FALSE(denied);
    if (!denied) EXPECT_EQ(denied.error().failure, RedisFailure::denied);
    EXPECT_TRUE(co_await client.command(RedisCommand{"SET", "gl:k", "v"}));
  });
  EXPECT_EQ(client.state(), RedisState::up);
}

// The commands go on; the subscription is tried again now and then, not several times a second.
TEST_F(RedisAccessTest, UserThatMayNotSubscribeStillServes) {
  const RedisServer server(
      "user default on >admin ~* &* +@all\nuser app on >sesame ~* resetchannels -@all +ping +del +set");
  RedisOptions options{.addresses = {server.address()}, .username = "app", .command_timeout = 2s};
  options.password = core::Secret{"sesame"};
  RedisClient client(io_.get_executor(), options, hooks_);
  const auto subscription = client.subscribe("channel", [](std::string_view) {}, [] {});
  run([&]() -> asio::awaitable<void> {
    co_await pause(2s);
    EXPECT_TRUE(co_await client.command(RedisCommand{"SET", "k", "v"}, core::Deadline::after(2s)));
  });
  const std::string stats = server.say({"INFO", "stats"}, "admin");
  const std::string name = "total_connections_received:";
  const auto at = stats.find(name);
  ASSERT_NE(at, std::string::npos) << stats;
  EXPECT_LT(std::stoi(stats.substr(at + name.size())), 8);  // commands, the subscription's first, the test's own
}

TEST_F(RedisAccessTest, UserThatMayNotAskForSlotsOrDeleteStillServes) {
  const RedisServer server("user default off\nuser gateway on >pw ~gl:* +set +get +ping");
  RedisOptions options{
      .addresses = {server.address()}, .username = "gateway", .key_prefix = "gl:", .command_timeout = 2s};
  options.password = core::Secret{"pw"};
  EXPECT_TRUE(try_with(options).second);
}

TEST_F(RedisAccessTest, TlsIsVerifiedAgainstTheAuthorityGiven) {
  const test::TlsFiles files;
  const std::string directory = files.cert().substr(0, files.cert().rfind('/'));
  const RedisServer server("tls-auth-clients no", directory);
  RedisOptions options{.addresses = {server.address()}, .tls = true, .command_timeout = 2s};
  options.tls_client.ca_file = files.cert();
  EXPECT_TRUE(try_with(options).second);
  const test::TlsFiles other;
  options.tls_client.ca_file = other.cert();
  EXPECT_EQ(try_with(options).first, RedisState::down);
  EXPECT_TRUE(hooks_.was_down(RedisDown::tls));
  options.tls_client.verify = false;
  EXPECT_TRUE(try_with(options).second);
  options.tls = false;  // plain words to a TLS port
  EXPECT_EQ(try_with(options).first, RedisState::down);
}

TEST_F(RedisAccessTest, ClientCertificateIsShownWhereTheServerAsks) {
  const test::TlsFiles files;
  const std::string directory = files.cert().substr(0, files.cert().rfind('/'));
  const RedisServer server("tls-auth-clients yes", directory);
  RedisOptions options{.addresses = {server.address()}, .tls = true, .command_timeout = 2s};
  options.tls_client.ca_file = files.cert();
  EXPECT_EQ(try_with(options).first, RedisState::down);
  options.tls_cert_file = files.cert();
  options.tls_key_file = files.key();
  EXPECT_TRUE(try_with(options).second);
}

TEST_F(RedisAccessTest, LargeValuesPassThroughTls) {
  const test::TlsFiles files;
  const RedisServer server("tls-auth-clients no", files.cert().substr(0, files.cert().rfind('/')));
  RedisOptions options{.addresses = {server.address()}, .tls = true, .command_timeout = 5s, .hung_after = 5s};
  options.tls_client.ca_file = files.cert();
  RedisClient client(io_.get_executor(), options, hooks_);
  run([&]() -> asio::awaitable<void> {
    const std::string value(3 * 1024 * 1024 + 17, 'z');
    EXPECT_TRUE(co_await client.command(RedisCommand{"SET", "big", value}));
    for (int i = 0; i < 3; ++i) {
      const auto got = co_await client.command(RedisCommand{"GET", "big"});
      EXPECT_TRUE(got && got->text == value);
    }
  });
}

}  // namespace
}  // namespace ganglion::net
