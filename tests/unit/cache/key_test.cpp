// The cache key: what must not matter, and that everything else does.

#include "cache/key.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>
#include <string>

namespace ganglion::cache {
namespace {

const KeySeed kSeed{.hash = 1, .check = 2};
const KeyScope kScope{.tenant = "acme", .gateway = "default", .model = "m"};

CacheKey key(std::string_view body, const KeyScope& scope = kScope) {
  KeyMaker maker{kSeed};
  const auto made = maker.from_body(scope, body);
  EXPECT_TRUE(made) << body;
  return made ? *made : CacheKey{};
}

std::string canonical(std::string_view body) {
  KeyMaker maker{kSeed};
  EXPECT_TRUE(maker.from_body(kScope, body)) << body;
  return std::string{maker.canonical()};
}

TEST(CacheKey, IgnoresWhatJsonIgnores) {
  const CacheKey base =
      key(R"({"messages":[{"role":"user","content":"hé"}],"temperature":0,"x":{"a":1,"b":{"c":2,"d":3}}})");
  EXPECT_EQ(key("{ \"messages\" : [ {\n\"role\":\t\"user\", \"content\":\"h\xC3\xA9\" } ] , \"temperature\" : "
                "0,\"x\":{\"a\":1,\"b\":{\"c\":2,\"d\":3}}}"),
            base);
  EXPECT_EQ(key(R"({"x":{"b":{"d":3,"c":2},"a":1},"temperature":0,"messages":[{"content":"h\u00e9","role":"user"}]})"),
            base);
  EXPECT_EQ(
      key(R"({"x":{"b":{"d":3,"c":2},"a":1},"temper\u0061ture":0,"messages":[{"content":"\u0068\u00E9","role":"user"}]})"),
      base);
}

TEST(CacheKey, IgnoresStreamingAndTheModelsSpellingAtTheTopOnly) {
  const CacheKey base = key(R"({"model":"alias","input":"x"})");
  EXPECT_EQ(key(R"({"input":"x"})"), base);
  EXPECT_EQ(key(R"({"input":"x","stream":true,"stream_options":{"include_usage":true},"model":"other-alias"})"), base);
  EXPECT_EQ(key(R"({"input":"x","str\u0065am":true})"), base);
  EXPECT_NE(key(R"({"input":"x","metadata":{"stream":true}})"), key(R"({"input":"x","metadata":{}})"));
  EXPECT_NE(key(R"({"input":"x","metadata":{"model":"a"}})"), key(R"({"input":"x","metadata":{"model":"b"}})"));
}

// Long values are hashed where they lie; how a text is cut by that must not show.
TEST(CacheKey, LongTextsHaveTheKeysOfTheirCharacters) {
  const StoreSecret secret{"a secret"};
  for (const std::size_t size : {500, 511, 512, 513, 5'000, 100'000}) {
    const std::string text(size, 'x');
    const auto body = [&](const std::string& first, const std::string& second) {
      return R"({"messages":[{"content":")" + first + R"(","role":"user"},{"content":")" + second + R"("}],"n":1})";
    };
    const std::string plain = body(text + "/" + text, text);
    KeyMaker maker{kSeed};
    const CacheKey base = maker.from_body(kScope, plain).value();
    const StoreKey name = maker.store_key(secret);
    EXPECT_EQ(maker.canonical(), plain);
    for (const std::string& same :
         {body(text + R"(\/)" + text, text), body(text + R"(\u002f)" + text, text),
          body(R"(\u0078)" + text.substr(1) + "/" + text, text), body(text + "/" + text, text.substr(1) + R"(\u0078)"),
          R"({ "n":1, "messages":[ {"role":"user","content":")" + text + "/" + text + R"("},{"content":")" + text +
              R"("}]})"}) {
      EXPECT_EQ(maker.from_body(kScope, same).value(), base) << size;
      EXPECT_EQ(maker.store_key(secret).bytes, name.bytes) << size;
      EXPECT_EQ(maker.canonical(), plain);
    }
    for (const std::string& other : {body(text + "/" + text, text + "x"), body(text + "x/" + text, text),
                                     body(text + "/" + text + R"(\n)", text), body(text, text + "/" + text)}) {
      EXPECT_NE(maker.from_body(kScope, other).value(), base) << size;
      EXPECT_NE(maker.store_key(secret).bytes, name.bytes) << size;
    }
    // The hash of the whole text: that of a maker whose text is short enough to be gathered.
    KeyMaker gathered{kSeed};
    EXPECT_EQ(base.bytes - gathered.from_body(kScope, R"({"n":1})").value().bytes, plain.size() - 7);
  }
}

TEST(CacheKey, EverythingElseCounts) {
  // Pairwise different: each body, and each scope.
  const std::vector<std::string> bodies = {
      R"({"messages":[{"role":"user","content":"a"}]})",
      R"({"messages":[{"role":"user","content":"A"}]})",
      R"({"messages":[{"role":"user","content":"a "}]})",
      R"({"messages":[{"role":"system","content":"a"}]})",
      R"({"messages":[{"role":"user","content":"a"},{"role":"user","content":"b"}]})",
      R"({"messages":[{"role":"user","content":"b"},{"role":"user","content":"a"}]})",
      R"({"messages":[{"role":"user","content":"a"}],"temperature":0})",
      R"({"messages":[{"role":"user","content":"a"}],"temperature":0.0})",
      R"({"messages":[{"role":"user","content":"a"}],"temperature":null})",
      R"({"messages":[{"role":"user","content":"a"}],"seed":1})",
      R"({"messages":[{"role":"user","content":"a"}],"seed":"1"})",
      R"({"messages":[{"role":"user","content":"a"}],"user":"u1"})",
      R"({"messages":[{"role":"user","content":"a"}],"user":"u2"})",
      R"({"messages":[{"role":"user","content":["a"]}]})",
      R"({"messages":[{"role":"user","content":""}]})",
      R"({"messages":[{"role":"user","content":null}]})",
      R"({"x":{"a":{"b":1}}})",
      R"({"x":{"a":{},"b":1}})",
      R"({"x":[1,2]})",
      R"({"x":[12]})",
      R"({"x":[[1],2]})",
      R"({"x":"[1,2]"})",
      R"({"x":[]})",
      R"({"x":{}})",
      R"({"x":"a\",\"y\":\"b"})",
      R"({"x":"a","y":"b"})",
      R"({"x":1,"x":2})",
      R"({"x":2,"x":1})",
      R"({"x":"\n"})",
      R"({"x":"\\n"})",
      R"({"x":"\u0000"})",
      R"({"":1})",
      R"({"X":1})",
      R"({"x":1})",
      "{}"};
  std::set<std::pair<std::uint64_t, std::uint64_t>> seen;
  for (const std::string& body : bodies) {
    const CacheKey made = key(body);
    EXPECT_TRUE(seen.emplace(made.hash.low, made.hash.high).second) << body;
  }
  const std::vector<KeyScope> scopes = {
      {.tenant = "acm", .gateway = "edefault", .model = "m"},
      {.tenant = "acme", .gateway = "other", .model = "m"},
      {.tenant = "acme", .gateway = "defaultm", .model = ""},
      {.tenant = "acme", .gateway = "default", .model = "n"},
      {.tenant = "acme", .gateway = "default", .endpoint = api::Endpoint::completions, .model = "m"},
      {.tenant = "acme", .gateway = "default", .model = "m", .policy_version = 1}};
  for (const KeyScope& scope : scopes) {
    const CacheKey made = key(bodies[0], scope);
    EXPECT_TRUE(seen.emplace(made.hash.low, made.hash.high).second) << scope.tenant << scope.gateway << scope.model;
  }
}

TEST(CacheKey, HashAndCheckAreIndependentAndSeeded) {
  const CacheKey one = key(R"({"x":1})");
  EXPECT_NE(one.hash, one.check);
  KeyMaker other{{.hash = 3, .check = 4}};
  const auto reseeded = other.from_body(kScope, R"({"x":1})");
  EXPECT_NE(reseeded->hash, one.hash);
  EXPECT_NE(reseeded->check, one.check);
  EXPECT_NE(KeySeed::random().hash, KeySeed::random().hash);
}

TEST(CacheKey, CallersOwnKeyStaysInsideItsScope) {
  KeyMaker maker{kSeed};
  const CacheKey mine = maker.from_text(kScope, "k");
  EXPECT_EQ(maker.from_text(kScope, "k"), mine);
  EXPECT_FALSE(maker.from_text(kScope, "l") == mine);
  EXPECT_FALSE(maker.from_text({.tenant = "other", .gateway = "default", .model = "m"}, "k") == mine);
  EXPECT_FALSE(maker.from_text({.tenant = "acme", .gateway = "default", .model = "n"}, "k") == mine);
  // A body cannot pose as a caller's key, nor the other way round.
  EXPECT_FALSE(maker.from_text(kScope, R"({"x":1})") == key(R"({"x":1})"));
}

TEST(CacheKey, CanonicalTextIsSortedJson) {
  EXPECT_EQ(canonical(R"( {"b": [ {"z":1,"a":"\u0041\n"} , -1.50e+3 ], "a": {} , "stream":false, "\u0062b":null} )"),
            R"({"a":{},"b":[{"a":"A\n","z":1},-1.50e+3],"bb":null})");
  // Whatever the order, canonical text parses to the same value as the original.
  const std::string body =
      R"({"q":[{"y":[1,2,{"k":"v","j":[{}]}],"x":"\ud83d\ude00\"\\"}],"c":{"b":{"a":[[],{"d":true}]}},"a":1.0})";
  EXPECT_EQ(nlohmann::json::parse(canonical(body)), nlohmann::json::parse(body));
  EXPECT_EQ(canonical(canonical(body)), canonical(body));
}

TEST(CacheKey, RefusesWhatIsNotJson) {
  KeyMaker maker{kSeed};
  for (const std::string_view bad : {"", "{", "{\"a\":}", "{} x"}) EXPECT_FALSE(maker.from_body(kScope, bad)) << bad;
  EXPECT_FALSE(maker.from_body(kScope, std::string(100, '[') + std::string(100, ']')));
}

TEST(CacheKey, DeepUnsortedObjectsStayLinear) {
  std::string body = "1";
  for (int i = 0; i < 63; ++i) body = R"({"b":)" + body + R"(,"a":")" + std::string(20'000, 'x') + "\"}";
  const auto start = std::chrono::steady_clock::now();
  key(body);
  // 1.2 MB: copying at every level would move 40 MB; this bound only catches something far worse.
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds{2});
}

}  // namespace
}  // namespace ganglion::cache
