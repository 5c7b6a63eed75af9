// The classes of cases by which JSON parsers are known to differ, written here anew: what must be accepted, what must
// be refused, and what a parser may decide (then the decision is written down). Every codec that reads a whole JSON
// text on the request path must agree with a strict second parser, or be stricter where the table says so.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "api/json_cursor.hpp"
#include "api/openai_request.hpp"
#include "api/openai_response.hpp"
#include "api/openai_stream.hpp"
#include "api/tags.hpp"

namespace ganglion::api {
namespace {

using std::string_literals::operator""s;

std::vector<std::string> valid_values() {
  std::vector<std::string> out{
      "[]",
      "{}",
      "[1]",
      "[\"\"]",
      "[[]   ]",
      "[null, 1, \"1\", {}]",
      "\"\"",
      "\"a\"",
      "0",
      "-0",
      "-1",
      "-123",
      "20e1",
      "1e1",
      "1E1",
      "1e+2",
      "1E-2",
      "0e1",
      "0e+1",
      "0.5",
      "-0.5",
      "1.5e-3",
      "123.456789",
      "123.456e78",
      "1000000000000000000",
      "9223372036854775807",
      "-9223372036854775808",
      "18446744073709551615",
      "0.00000000000000000000000000000000000001",
      "true",
      "false",
      "null",
      "[true,false,null]",
      "\"\\u0041\"",
      "\"\\u0000\"",
      "\"\\u00e9\"",
      "\"\\uFFFF\"",
      "\"\\u2028\\u2029\"",
      "\"\\ud83d\\ude00\"",
      "\"\\uD834\\uDD1E tail\"",
      "\"\\u005C\\u0022\"",
      "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
      "\"\\\\u0000\"",
      "\"/ & \\/\"",
      "\"\x7f\"",
      "\"\xc3\xa9\"",
      "\"\xe2\x82\xac\"",
      "\"\xe2\x80\xa8\"",
      "\"\xef\xbf\xbf\"",
      "\"\xf0\x9f\x98\x80\"",
      "\"\xf4\x8f\xbf\xbf\"",
      "\"new\\u000Aline\"",
      "{\"\":0}",
      "{\"a\":[]}",
      "{\"a\":\"b\",\"c\":\"d\"}",
      "{\"a\\u0000b\":1}",
      "{\"\\ud83d\\ude00\":1}",
      "{\"x\":[{\"id\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}],\"id\":\"b\"}",
      "{\n\"a\":\r\n\t\"b\"\n}",
      " [1 , 2]\t",
      "[\n]",
      "[ 4]",
      "[1\n,1\n,256]",
      std::string(50, '[') + std::string(50, ']'),
  };
  return out;
}

// Neither a value nor a text.
std::vector<std::string> broken_values() {
  return {
      "[1,]",
      "[,1]",
      "[1,,2]",
      "[,]",
      "[1 true]",
      "[1 2]",
      "[3[4]]",
      "[\"a\" \"b\"]",
      "[\"\": 1]",
      "[1",
      "[1,",
      "[\"a",
      "[\"a\",\n4\n,1,",
      "[}",
      "[1}",
      "[1]]",
      "]",
      "}",
      "{",
      "{\"a\"",
      "{\"a\":",
      "{\"a\":}",
      "{\"a\" 1}",
      "{\"a\":1,}",
      "{\"a\":1,,\"b\":2}",
      "{,\"a\":1}",
      "{,}",
      "{:1}",
      "{1:1}",
      "{a:1}",
      "{'a':1}",
      "{null:1}",
      "{[1]:1}",
      "{\"a\":1 \"b\":2}",
      "{\"a\"::1}",
      "{\"a\":1}}",
      "{\"a\":[}",
      "{\"a\":\"b\"]",
      "{\"a\":1}#",
      "{\"a\":1}//",
      "{\"a\"/**/:1}",
      "/*c*/1",
      "1/**/",
      "#1",
      "01",
      "-01",
      "00",
      "-",
      "--1",
      "+1",
      "++1",
      ".5",
      "-.5",
      "1.",
      "1.e1",
      "-2.",
      "0.e1",
      "1e",
      "1E",
      "1e+",
      "1e-",
      "1eE2",
      "1.0e",
      "0e",
      "0e+",
      "1e1.5",
      "1.2.3",
      "1 000",
      "1_000",
      "1,5",
      "0x1",
      "0xF",
      "1a",
      "1\xc2\xa0",
      "-a",
      "-foo",
      "\xef\xbc\x91",
      "NaN",
      "-NaN",
      "nan",
      "Infinity",
      "-Infinity",
      "Inf",
      "nul",
      "nulL",
      "nullx",
      "tru",
      "True",
      "TRUE",
      "fals",
      "False",
      "undefined",
      "\"",
      "\"a",
      "\"\\\"",
      "\"\\",
      "\"\\x00\"",
      "\"\\a\"",
      "\"\\0\"",
      "\"\\'\"",
      "\"\\u\"",
      "\"\\u0\"",
      "\"\\u00\"",
      "\"\\u00A\"",
      "\"\\u12G4\"",
      "\"\\u-123\"",
      "\"\\U0041\"",
      "\"\\\n\"",
      "\"\\\xf0\x9f\x8c\x80\"",
      "'a'",
      "`a`",
      "a",
      "\"a\"b",
      "\"a\n\"",
      "\"a\tb\"",
      "\"\x1f\"",
      "\"\0\""s,
      "\"\xff\"",
      "\"\x80\"",
      "\"\xc0\xaf\"",
      "\"\xc1\x81\"",
      "\"\xc3\"",
      "\"\xe2\x82\"",
      "\"\xe0\x80\xaf\"",
      "\"\xed\xa0\x80\"",
      "\"\xed\xbf\xbf\"",
      "\"\xf0\x80\x80\xaf\"",
      "\"\xf0\x9f\x98\"",
      "\"\xf4\x90\x80\x80\"",
      "\"\xf8\x88\x80\x80\x80\"",
      "\"\xfc\x84\x80\x80\x80\x80\"",
      "[\xff]",
      "\xc3\xa9",
      "[1\v]",
      "[\f1]",
      "[\xc2\xa0]",
      "[\xe2\x80\xa8]",
      "[\xe2\x81\xa0]",
      "[\0]"s,
      "[\"a\"\0]"s,
      "*",
      "<null>",
      "[<null>]",
      "{\"a\":true} \"x\"",
      "[][]",
      "1 2",
      "{}{}",
      "\x01",
      "(1)",
      ",",
      ":",
  };
}

std::string in_request(const std::string& value) {
  return R"({"model":"m","extra":)" + value + R"(,"messages":[{"role":"user","content":"hi"}]})";
}

bool request_takes(const std::string& body) {
  ParserScratch scratch;
  return parse_request(Endpoint::chat_completions, body, scratch).has_value();
}

bool answer_takes(const std::string& body) {
  return scan_answer(body).has_value();
}

bool event_takes(const std::string& body) {
  StreamInspector inspector;
  return !inspector.inspect(body).malformed;
}

TEST(JsonSuite, WhatMustBeAcceptedIs) {
  const auto values = valid_values();
  EXPECT_GE(values.size(), 60U);
  for (const std::string& value : values) {
    SCOPED_TRACE(value);
    ASSERT_TRUE(nlohmann::json::accept(value));
    EXPECT_TRUE(request_takes(in_request(value)));
    EXPECT_TRUE(request_takes(" \t\r\n" + in_request(value) + "\r\n"));
    EXPECT_TRUE(answer_takes(R"({"choices":[],"extra":)" + value + "}"));
    EXPECT_TRUE(event_takes(R"({"choices":[],"extra":)" + value + "}"));
  }
}

TEST(JsonSuite, WhatMustBeRefusedIs) {
  const auto values = broken_values();
  EXPECT_GE(values.size(), 140U);
  for (const std::string& value : values) {
    SCOPED_TRACE(value);
    ASSERT_FALSE(nlohmann::json::accept(value));
    EXPECT_FALSE(request_takes(value));
    EXPECT_FALSE(answer_takes(value));
    EXPECT_FALSE(parse_tags(value));
    // Inside a good text, where it may close or open what is around it: as the second parser says.
    const std::string body = in_request(value);
    EXPECT_EQ(request_takes(body), nlohmann::json::accept(body)) << body;
    const std::string answer = R"({"choices":[],"extra":)" + value + "}";
    // A provider's text goes on as it came: bytes in its strings that are no UTF-8 are the client's to judge.
    if (valid_utf8(value)) EXPECT_EQ(answer_takes(answer), nlohmann::json::accept(answer)) << answer;
    const std::string tags = R"({"a":)" + value + "}";
    if (parse_tags(tags)) EXPECT_TRUE(nlohmann::json::accept(tags)) << tags;
  }
}

// What a parser may decide. Here: lengths and depths are bounded, half of a surrogate pair is no text, numbers that no
// double holds are passed on as they are.
TEST(JsonSuite, WhatMayBeDecidedIsDecidedOnce) {
  struct Case {
    std::string value;
    bool taken;
  };
  const std::vector<Case> cases{
      {"\"\\uD800\"", false},
      {"\"\\uDC00\"", false},
      {"\"\\uDFAA\"", false},
      {"\"\\uD800\\uD800\"", false},
      {"\"\\uD800\\u0041\"", false},
      {"\"\\uDd1e\\uD834\"", false},
      {"\"\\uD888\\u1234\"", false},
      {"\"\\uD800\\n\"", false},
      {"1e400", true},
      {"-1e9999", true},
      {"123e-10000000", true},
      {"0.4e00669999999999999999999999", true},
      {std::string(100, '1'), true},
      {"-" + std::string(100, '9'), true},
      {std::string(60, '[') + std::string(60, ']'), true},
      {std::string(70, '[') + std::string(70, ']'), false},
      {std::string(100'000, '['), false},
      {std::string(100'000, '[') + std::string(100'000, ']'), false},
      {"\"" + std::string(1'000'000, 'a') + "\"", true},
      {"\xef\xbb\xbf{}", false},
      {"\xfe\xff", false},
  };
  for (const Case& each : cases) {
    SCOPED_TRACE(each.value.substr(0, 60));
    EXPECT_EQ(request_takes(in_request(each.value)), each.taken);
  }
  EXPECT_FALSE(request_takes("\xef\xbb\xbf" + in_request("1"))) << "a byte order mark";
  EXPECT_FALSE(request_takes(""));
  EXPECT_FALSE(request_takes(" "));
  // Members that the gateway reads are given once; others may be given twice, and go up as they came.
  EXPECT_FALSE(request_takes(R"({"model":"m","model":"n","messages":[{"role":"user","content":"hi"}]})"));
  EXPECT_TRUE(request_takes(R"({"model":"m","x":1,"x":2,"messages":[{"role":"user","content":"hi"}]})"));
}

}  // namespace
}  // namespace ganglion::api
