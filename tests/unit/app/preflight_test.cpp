// What is tried before a configuration is taken: files that exist and do not work are found now, not half-way.

#include "app/preflight.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/tls_files.hpp"

namespace ganglion::app {
namespace {

using ganglion::test::TlsFiles;
using testing::HasSubstr;

config::Config with_provider(const std::string& base_url, const std::string& ca_file) {
  config::Config config;
  config.remotes.push_back(
      {.name = "up", .upstream = {.base_url = base_url, .tls = {.verify = true, .ca_file = ca_file}}});
  return config;
}

TEST(Preflight, TakesWhatWorks) {
  const TlsFiles files;
  config::Config config = with_provider("https://localhost:1/v1", files.cert());
  config.server.tls = config.admin.tls = {.cert_file = files.cert(), .key_file = files.key()};
  EXPECT_TRUE(preflight(config));
  EXPECT_TRUE(preflight(config::Config{}));
}

TEST(Preflight, NamesAnAuthorityFileThatIsNone) {
  const TlsFiles files;
  const auto refused = preflight(with_provider("https://localhost:1/v1", files.key()));
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("provider up: CA file " + files.key()));
  EXPECT_TRUE(preflight(with_provider("http://localhost:1/v1", files.key()))) << "nothing reads it";
}

TEST(Preflight, RefusesACertificateWithAnothersKey) {
  const TlsFiles files;
  const TlsFiles other;
  for (const bool admin : {false, true}) {
    config::Config config;
    (admin ? config.admin : config.server).tls = {.cert_file = files.cert(), .key_file = other.key()};
    const auto refused = preflight(config);
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().message, HasSubstr(admin ? "admin: " : "server: "));
  }
}

}  // namespace
}  // namespace ganglion::app
