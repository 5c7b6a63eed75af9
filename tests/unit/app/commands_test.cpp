// Commands as they are typed: what they print, and their exit codes.

#include "app/commands.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <iostream>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>

#include "config/loader.hpp"
#include "tests/unit/metering/ledger_support.hpp"

namespace ganglion::app {
namespace {

using testing::HasSubstr;

struct Ran {
  int code = -1;
  std::string out, err;
};

Ran run(int (*command)(const Words&), const Words& words) {
  std::ostringstream out;
  std::ostringstream err;
  std::streambuf* const real_out = std::cout.rdbuf(out.rdbuf());
  std::streambuf* const real_err = std::cerr.rdbuf(err.rdbuf());
  Ran ran;
  ran.code = command(words);
  std::cout.rdbuf(real_out);
  std::cerr.rdbuf(real_err);
  ran.out = out.str();
  ran.err = err.str();
  return ran;
}

TEST(KeysCommand, WhatItPrintsLoads) {
  for (const std::string tenant : {"acme", "default"}) {
    const Ran made = run(keys_command, {"create", "--id", "a", "--tenant", tenant});
    ASSERT_EQ(made.code, 0) << made.err;
    const std::size_t at = made.err.find("key_pepper:");
    ASSERT_NE(at, std::string::npos) << made.err;
    const auto loaded = config::load_text(
        "local: [{name: demo-chat, path: models/demo-chat}]\n" + made.err.substr(at), "c.yaml",
        {.env = [](std::string_view) -> std::optional<std::string> { return "pepper-0123456789abcdef"; },
         .check_files = false});
    ASSERT_TRUE(loaded) << config::format(loaded.error());
    EXPECT_TRUE(loaded->warnings.empty()) << config::format(loaded->warnings);
    ASSERT_EQ(loaded->gateway.keys.size(), 1U);
    EXPECT_EQ(loaded->gateway.keys[0].id, "a");
    EXPECT_EQ(loaded->gateway.keys[0].tenant, tenant);
  }
}

TEST(KeysCommand, TakesNoNameThatTheConfigurationRefuses) {
  for (const char* option : {"--id", "--tenant"}) {
    for (const std::string& name : {std::string{"x y"}, std::string{}, std::string{"a/b"}, std::string(65, 'a')}) {
      const Ran refused = run(keys_command, {"create", option, name});
      EXPECT_EQ(refused.code, 2) << option << " " << name;
      EXPECT_EQ(refused.out, "") << "no key is made";
      EXPECT_THAT(refused.err, HasSubstr(option));
    }
  }
}

class LedgerCommands : public testing::Test {
 protected:
  LedgerCommands() {
    const auto ledger = metering::Ledger::open(metering::options_in(dir_), clock_, hooks_).value();
    ledger->terminal_async(ledger->intent(metering::subject("r1"), "x").value(), metering::finished());
  }

  metering::TempDir dir_;
  core::ManualClock clock_;  // 2026-01-01
  metering::RecordingHooks hooks_;
};

TEST_F(LedgerCommands, AnEmptyRangeIsAnError) {
  for (const char* to : {"2026-11-01", "2026-12-01"}) {
    const Words words{"--dir", dir_.ledger(), "--from", "2026-12-01", "--to", to};
    const Ran usage = run(usage_command, words);
    EXPECT_EQ(usage.code, 2) << usage.out;
    EXPECT_THAT(usage.err, HasSubstr("from must be before to"));
    Words exported{"export"};
    exported.insert(exported.end(), words.begin(), words.end());
    EXPECT_EQ(run(ledger_command, exported).code, 2);
  }
  EXPECT_EQ(run(usage_command, {"--dir", dir_.ledger(), "--from", "2025-12-01", "--to", "2026-11-01"}).code, 0);
}

TEST_F(LedgerCommands, AnInvoiceOverNothingSaysSo) {
  const auto invoice = [&](const std::string& tenant, const std::string& month) {
    return run(invoice_command, {"--dir", dir_.ledger(), "--tenant", tenant, "--month", month});
  };
  const Ran nobody = invoice("nobody", "2026-01");
  EXPECT_EQ(nobody.code, 0);
  EXPECT_THAT(nobody.out, HasSubstr("Due: USD 0.00"));
  EXPECT_THAT(nobody.err, HasSubstr("no usage of the tenant 'nobody' is on record in 2026-01"));
  EXPECT_THAT(invoice("acme", "2025-12").err, HasSubstr("no usage of the tenant 'acme'"));
  EXPECT_EQ(invoice("acme", "2026-01").err, "");
}

}  // namespace
}  // namespace ganglion::app
