// Log lines are one JSON object each, whatever the strings hold.

#include "core/log.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <string>

namespace ganglion::core {
namespace {

// Sends the log into a pipe for the life of the object.
class CapturedLog {
 public:
  CapturedLog() {
    EXPECT_EQ(::pipe(fds_), 0);
    set_log_fd(fds_[1]);
  }
  ~CapturedLog() {
    set_log_fd(2);
    ::close(fds_[0]);
    ::close(fds_[1]);
  }
  std::string read() {
    std::string text(64 * 1024, '\0');
    ::fcntl(fds_[0], F_SETFL, O_NONBLOCK);
    const auto n = ::read(fds_[0], text.data(), text.size());
    text.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
    return text;
  }

 private:
  int fds_[2] = {-1, -1};
};

TEST(Log, ALineIsJsonWithTypedFields) {
  CapturedLog captured;
  log(LogLevel::warn, "upstream_failed", {{"backend", "a\"b\n"}, {"tries", 3}, {"ms", 1.5}, {"final", true}});
  const auto line = nlohmann::json::parse(captured.read());
  EXPECT_EQ(line["level"], "warn");
  EXPECT_EQ(line["event"], "upstream_failed");
  EXPECT_EQ(line["backend"], "a\"b\n");
  EXPECT_EQ(line["tries"], 3);
  EXPECT_EQ(line["ms"], 1.5);
  EXPECT_EQ(line["final"], true);
}

TEST(Log, InvalidUtf8AndControlBytesStayJson) {
  std::string text;
  append_json_string(text, std::string_view{"\xff\xc0\xaf\x01\xed\xa0\x80 \xf0\x9f\x98\x80", 12});
  const auto parsed = nlohmann::json::parse(text);
  EXPECT_TRUE(parsed.get<std::string>().ends_with("\xf0\x9f\x98\x80"));
}

TEST(Log, BelowTheLevelNothingIsWritten) {
  CapturedLog captured;
  log(LogLevel::debug, "noise");
  EXPECT_EQ(captured.read(), "");
}

TEST(Log, LongStringsAreCut) {
  CapturedLog captured;
  log(LogLevel::info, "big", {{"text", std::string(10'000, 'x')}});
  EXPECT_LT(captured.read().size(), 2'300U);
}

}  // namespace
}  // namespace ganglion::core
