// The labels of a request: what is taken, and that everything else is refused with what would be right.

#include "api/tags.hpp"

#include <gtest/gtest.h>

namespace ganglion::api {
namespace {

TEST(Tags, TakesStringsNumbersAndBooleansByName) {
  const auto tags = parse_tags(R"( {"team":"search","user":42,"beta":true,"rate":-1.5e3,"a b":"\u00e9\"x"} )");
  ASSERT_TRUE(tags) << tags.error().message;
  const Tags expected{{"a b", "é\"x", TagType::text},
                      {"beta", "true", TagType::boolean},
                      {"rate", "-1.5e3", TagType::number},
                      {"team", "search", TagType::text},
                      {"user", "42", TagType::number}};
  EXPECT_EQ(*tags, expected);
  ASSERT_NE(find_tag(*tags, "user"), nullptr);
  EXPECT_EQ(*find_tag(*tags, "user"), "42");
  EXPECT_EQ(find_tag(*tags, "use"), nullptr);
}

TEST(Tags, WithoutTheHeaderOrEntriesThereAreNone) {
  EXPECT_TRUE(parse_tags("")->empty());
  EXPECT_TRUE(parse_tags("{}")->empty());
}

TEST(Tags, WhatIsWrittenReadsBackTheSame) {
  const auto tags = parse_tags(R"({"z":false,"quote":"a\"b\\c","n":0.10})").value();
  std::string json;
  append_tags_json(json, tags);
  EXPECT_EQ(json, R"({"n":0.10,"quote":"a\"b\\c","z":false})");
  EXPECT_EQ(parse_tags(json).value(), tags);
}

TEST(Tags, RefusalsNameTheHeaderAndWhatWouldBeRight) {
  const std::string long_name(kTagNameBytesMax + 1, 'n');
  const std::string long_value(kTagValueBytesMax + 1, 'v');
  const std::pair<std::string, std::string> cases[] = {
      {"team=search", "is not a JSON object"},
      {"[1]", "is not a JSON object"},
      {"\"x\"", "is not a JSON object"},
      {R"({"a":1)", "is not valid JSON"},
      {R"({"a":1} x)", "is not valid JSON"},
      {R"({"a":01})", "is not valid JSON"},
      {R"({"a":tru})", "is not valid JSON"},
      {R"({a:1})", "is not valid JSON"},
      {R"({"a":{}})", "an object"},
      {R"({"a":[1]})", "an array"},
      {R"({"a":null})", "null"},
      {R"({"a":1,"a":2})", "twice"},
      {R"({"a":1,"\u0061":2})", "twice"},
      {R"({"a":1,"b":2,"c":3,"d":4,"e":5,"f":6})", "more than 5 entries"},
      {R"({"":1})", "name that is empty"},
      {R"({"cf.user_id":"x"})", "reserved"},
      {R"({"a":"line\nbreak"})", "control characters"},
      {R"({"a\u0000":"x"})", "control characters"},
      {"{\"a\":\"\xff\"}", "is not UTF-8"},
      {"{\"" + long_name + "\":1}", "longer than 64 bytes"},
      {"{\"a\":\"" + long_value + "\"}", "longer than 255 bytes"},
      {"{\"a\":0." + std::string(300, '1') + "}", "longer than 255 bytes"},
      // JSON, but PostgreSQL's jsonb refuses it, and with it the whole batch of records.
      {R"({"a":1e309})", "too large or too small"},
      {R"({"a":-1e200000})", "too large or too small"},
      {R"({"a":1e-99999})", "too large or too small"},
  };
  for (const auto& [header, why] : cases) {
    const auto tags = parse_tags(header);
    ASSERT_FALSE(tags) << header;
    EXPECT_EQ(tags.error().kind, core::ErrorKind::invalid_value) << header;
    EXPECT_EQ(tags.error().param, "cf-aig-metadata");
    EXPECT_NE(tags.error().message.find("cf-aig-metadata"), std::string::npos);
    EXPECT_NE(tags.error().message.find(why), std::string::npos) << header << ": " << tags.error().message;
    EXPECT_NE(tags.error().message.find("at most 5 entries"), std::string::npos);
  }
}

TEST(Tags, TheLargestThatFitIsTaken) {
  std::string header = "{";
  for (std::size_t i = 0; i < kTagsMax; ++i) {
    header += (i == 0 ? "\"" : ",\"") + std::string(kTagNameBytesMax - 1, 'n') + std::to_string(i) + "\":\"" +
              std::string(kTagValueBytesMax, 'v') + "\"";
  }
  const auto tags = parse_tags(header + "}");
  ASSERT_TRUE(tags) << tags.error().message;
  EXPECT_EQ(tags->size(), kTagsMax);
}

}  // namespace
}  // namespace ganglion::api
