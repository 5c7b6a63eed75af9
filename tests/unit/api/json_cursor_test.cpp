// The cursor's verdicts against simdjson's and its error places.

#include "api/json_cursor.hpp"

#include <gtest/gtest.h>
#include <simdjson.h>

#include <random>
#include <string>
#include <vector>

#include "api/json_text.hpp"

namespace ganglion::api {
namespace {

bool ours(std::string_view text) {
  return check_json(text).has_value();
}

bool simdjsons(const std::string& text, simdjson::error_code* code = nullptr) {
  simdjson::dom::parser parser;
  const auto result = parser.parse(simdjson::padded_string(text));
  if (code != nullptr) *code = result.error();
  return result.error() == simdjson::SUCCESS;
}

TEST(JsonCursor, AcceptsWhatTheGrammarAllows) {
  const std::vector<std::string> good = {"{}",
                                         "[]",
                                         "null",
                                         "true",
                                         "false",
                                         "0",
                                         "-0",
                                         "-1.5e+10",
                                         "1E2",
                                         "\"\"",
                                         " [ 1 , 2 ] ",
                                         R"({"a":{"b":[{}]}})",
                                         R"("\ud83d\ude00")",
                                         R"("\"\\\/\b\f\n\r\t\u0000")",
                                         "\"\xF0\x9F\x98\x80\"",
                                         "[[],[[]],{}]",
                                         R"({"":1,"":2})",
                                         "\t\r\n {\"a\"\n:\r1}\t"};
  for (const std::string& text : good) {
    EXPECT_TRUE(ours(text)) << text;
    EXPECT_TRUE(simdjsons(text)) << text;
  }
}

TEST(JsonCursor, RefusesWhatItDoesNot) {
  const std::vector<std::string> bad = {"",
                                        " ",
                                        "{",
                                        "}",
                                        "[",
                                        "]",
                                        "[1",
                                        "[1,",
                                        "[1,]",
                                        "[,1]",
                                        "[1 2]",
                                        "{\"a\"",
                                        "{\"a\":",
                                        "{\"a\":1",
                                        "{\"a\":1,",
                                        "{\"a\":1,}",
                                        "{a:1}",
                                        "{'a':1}",
                                        "{\"a\" 1}",
                                        "{1:2}",
                                        "01",
                                        "-",
                                        "-a",
                                        "1.",
                                        ".5",
                                        "1e",
                                        "1e+",
                                        "+1",
                                        "0x1",
                                        "NaN",
                                        "Infinity",
                                        "nul",
                                        "nulL",
                                        "tru",
                                        "truee",
                                        "falsy",
                                        "\"",
                                        "\"a",
                                        "\"\\",
                                        "\"\\x\"",
                                        "\"\\u12\"",
                                        "\"\\u12G4\"",
                                        "\"a\nb\"",
                                        std::string{"\"a\0b\"", 5},
                                        "\"\t\"",
                                        R"("\ud800")",
                                        R"("\udc00")",
                                        R"("\ud800\u0041")",
                                        R"("\ud800x")",
                                        "\"\xFF\"",
                                        "\"\xC0\x80\"",
                                        "\"\xED\xA0\x80\"",
                                        "\"\xF4\x90\x80\x80\"",
                                        "\"\xE2\x82\"",
                                        "{}{}",
                                        "[] x",
                                        "\xEF\xBB\xBF{}",
                                        "[1]]",
                                        "{\"a\":1}}",
                                        "[\"a\":1]",
                                        "{\"a\",1}",
                                        "/**/{}",
                                        "[1,\v2]"};
  for (const std::string& text : bad) {
    EXPECT_FALSE(ours(text)) << text;
    EXPECT_FALSE(simdjsons(text)) << text;
  }
}

TEST(JsonCursor, BoundsNesting) {
  EXPECT_TRUE(ours(std::string(64, '[') + std::string(64, ']')));
  const auto deep = check_json(std::string(65, '[') + std::string(65, ']'));
  ASSERT_FALSE(deep);
  EXPECT_NE(deep.error().message.find("64 levels"), std::string::npos);
  EXPECT_NE(deep.error().message.find("byte 64"), std::string::npos);
  std::string objects;
  for (int i = 0; i < 65; ++i) objects += "{\"a\":";
  EXPECT_FALSE(ours(objects + "1" + std::string(65, '}')));
  EXPECT_FALSE(ours(std::string(10'000'000, '[')));
}

TEST(JsonCursor, NamesTheExactPlace) {
  const auto result = check_json("{\n  \"a\": 1,\n  \"b\" 2\n}");
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().kind, core::ErrorKind::invalid_json);
  EXPECT_EQ(result.error().message, "invalid JSON at line 3, column 7 (byte 18): expected ':' after the key");
  EXPECT_EQ(check_json("[1,").error().message,
            "invalid JSON at line 1, column 4 (byte 3): expected a value, but the text ends here");
  EXPECT_EQ(check_json("[\"ab\xFF\"]").error().message,
            "invalid JSON at line 1, column 5 (byte 4): expected valid UTF-8");
}

// Every mutation of valid texts must get the verdict that simdjson gives, except for numbers outside 64 bits and
// doubles, which the grammar allows and simdjson refuses.
TEST(JsonCursor, AgreesWithSimdjsonOnMutations) {
  const std::vector<std::string> seeds = {
      R"({"model":"m","messages":[{"role":"user","content":"h\u00e9llo \"x\" \ud83d\ude00"}],"n":1,"t":-1.5e3,"b":[true,false,null]})",
      "[1,2.5,-3e-2,\"abcdefghijklmnopqrstuvwxyz0123456789\",{\"k\":{\"k\":[[],{}]}}]"};
  constexpr std::string_view kBytes = "{}[]\",:\\u0123456789eE+-.truefalsn \n\t\x01\x80\xC3\xE2\xFF";
  std::mt19937 random{7};
  int accepted = 0;
  for (int round = 0; round < 40'000; ++round) {
    std::string text = seeds[round % seeds.size()];
    for (unsigned edits = 1 + random() % 3; edits != 0; --edits) {
      const std::size_t at = random() % text.size();
      const char byte = kBytes[random() % kBytes.size()];
      switch (random() % 3) {
        case 0:
          text[at] = byte;
          break;
        case 1:
          text.insert(at, 1, byte);
          break;
        default:
          text.erase(at, 1);
      }
    }
    simdjson::error_code code{};
    const bool theirs = simdjsons(text, &code);
    if (code == simdjson::NUMBER_ERROR && ours(text)) continue;
    accepted += theirs ? 1 : 0;
    ASSERT_EQ(ours(text), theirs) << text << " " << simdjson::error_message(code);
  }
  EXPECT_GT(accepted, 1000);
}

TEST(JsonText, EscapesAndUnescapesToTheSame) {
  std::string all;
  for (int c = 0; c < 0x80; ++c) all.push_back(static_cast<char>(c));
  all += "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80";
  std::string json;
  append_json_string(json, all);
  ASSERT_TRUE(ours(json));
  JsonCursor cursor{json};
  JsonString text;
  ASSERT_TRUE(cursor.string(text));
  std::string back;
  EXPECT_EQ(text_of(text, back), all);
  json.clear();
  append_json_string(json, "a\xFFz\xE2\x82");
  EXPECT_EQ(json, "\"a\xEF\xBF\xBDz\xEF\xBF\xBD\xEF\xBF\xBD\"");
}

TEST(JsonText, FloatsReadBackTheSame) {
  for (const float value : {0.1F, -1.0F, 3.4028235e38F, 1.17549435e-38F, 0.333333343F, 16777217.0F}) {
    std::string out;
    append_number(out, value);
    EXPECT_EQ(std::stof(out), value) << out;
  }
  std::string out;
  append_number(out, 0.1F);
  EXPECT_EQ(out, "0.1");
}

}  // namespace
}  // namespace ganglion::api
