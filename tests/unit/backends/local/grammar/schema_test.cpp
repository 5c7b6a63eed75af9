// JSON Schema keyword by keyword: what is accepted, what is not, and what is refused by name.

#include "backends/local/grammar/schema.hpp"

#include <nlohmann/json.hpp>

#include "tests/unit/backends/local/grammar/grammar_fixture.hpp"

namespace ganglion::local::grammar::test {
namespace {

struct Case {
  const char* schema;
  std::vector<const char*> good, bad;
};

void check(const Case& c, bool strict = false) {
  const auto grammar = grammar_of(schema_source(c.schema, strict));
  ASSERT_NE(grammar, nullptr);
  for (const char* text : c.good) EXPECT_TRUE(accepts(grammar, text)) << c.schema << " refuses " << text;
  for (const char* text : c.bad) EXPECT_FALSE(accepts(grammar, text)) << c.schema << " takes " << text;
}

TEST(GrammarSchema, Types) {
  check({R"({"type":"string"})",
         {R"("")", R"("a\u00e9\ud83d\ude00\/")", "\"日\"", R"( "x")"},
         {"x", "\"a\nb\"", R"("\ud83d")", R"("\x")", "\"\xff\"", "null"}});
  check({R"({"type":"integer"})", {"0", "-1", "123"}, {"1.0", "1e3", "01", "-0", "\"1\""}});
  check({R"({"type":"number"})", {"0", "-1.5e3", "123"}, {"NaN", ".5"}});
  check({R"({"type":["boolean","null"]})", {"true", "false", "null"}, {"0", "True", "nul"}});
  check({R"({"type":"object"})",
         {"{}", R"({"a":1})", R"({"a": [1, {"b": null}]})"},
         {"[]", R"({"a":})", R"({"a":1,})", R"({"a" : 1})"}});
  check({R"({"type":"array"})", {"[]", "[1,\"a\",{}]"}, {"{}", "[1,]", "[,1]"}});
  check({"true", {"1", "{}", "[[]]", "null", "\"x\""}, {"", "nul"}});
  check({"{}", {"1", "{}"}, {"a"}});
}

TEST(GrammarSchema, Objects) {
  check(
      {R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string"},"c":{}},"required":["b"],"additionalProperties":false})",
       {R"({"b":"x"})", R"({"a":1,"b":"x"})", R"({"a": 1, "b": "x", "c": [null]})", R"({"b":"x","c":1})",
        "{\n  \"a\": 1,\n  \"b\": \"\"\n}"},
       {"{}", R"({"a":1})", R"({"b":"x","a":1})", R"({"b":1})", R"({"b":"x","d":1})", R"({"a":1,"a":1,"b":"x"})"}});
  check({R"({"type":"object","properties":{"a":{"type":"integer"}},"additionalProperties":{"type":"boolean"}})",
         {"{}", R"({"a":1})", R"({"a":1,"b":true,"ab":false})", R"({"b":true})", R"({"":true})"},
         {R"({"b":1})", R"({"b":true,"a":1})", R"({"\u0061":true})"}});
  // What is not said is open, or closed where the request is strict.
  const Case open{R"({"type":"object","properties":{"a":{"type":"integer"}}})",
                  {R"({"a":1,"b":[]})", R"({"b":null})"},
                  {R"({"a":"x"})"}};
  check(open);
  check({open.schema, {"{}", R"({"a":1})"}, {R"({"a":1,"b":[]})"}}, true);
  check({R"({"type":"object","required":["x"],"additionalProperties":{"type":"null"}})",
         {R"({"x":null})", R"({"x":null,"y":null})"},
         {"{}", R"({"x":1})"}});
  check({R"({"properties":{"q\"\n":{"const":1}},"additionalProperties":false})",
         {R"({"q\"\n":1})"},
         {"3", R"({"q\"\u000a":1})"}});
}

TEST(GrammarSchema, ManyOptionalPropertiesStaySmall) {
  nlohmann::ordered_json schema = {{"type", "object"}, {"additionalProperties", false}};
  for (int i = 0; i < 300; ++i) schema["properties"]["property_number_" + std::to_string(i)] = {{"type", "integer"}};
  const auto grammar = grammar_of(schema_source(schema.dump()));
  ASSERT_NE(grammar, nullptr);
  EXPECT_TRUE(accepts(grammar, R"({"property_number_7":1,"property_number_299":2})"));
  EXPECT_FALSE(accepts(grammar, R"({"property_number_7":1,"property_number_6":2})"));
  EXPECT_LT(grammar->automaton().states(), 30'000U);
}

TEST(GrammarSchema, Arrays) {
  check({R"({"type":"array","items":{"type":"integer"},"minItems":2,"maxItems":4})",
         {"[1,2]", "[1, 2, 3]", "[1,2,3,4]"},
         {"[]", "[1]", "[1,2,3,4,5]", "[1,\"a\"]", "[1 ]"}});
  check({R"({"type":"array","items":{"type":"null"},"minItems":3})",
         {"[null,null,null]", "[null,null,null,null,null]"},
         {"[null,null]"}});
  check({R"({"type":"array","maxItems":0})", {"[]", "[ ]"}, {"[1]"}});
  check({R"({"type":"array","prefixItems":[{"type":"integer"},{"type":"string"}],"items":false})",
         {"[]", "[1]", "[1,\"a\"]"},
         {"[\"a\"]", "[1,\"a\",1]", "[1,2]"}});
  check({R"({"type":"array","prefixItems":[{"type":"integer"}],"items":{"type":"string"},"minItems":2,"maxItems":3})",
         {"[1,\"a\"]", "[1,\"a\",\"b\"]"},
         {"[1]", "[1,\"a\",\"b\",\"c\"]", "[1,2]"}});
  check({R"({"type":"array","prefixItems":[{"const":1},{"const":2},{"const":3}],"minItems":1,"maxItems":2})",
         {"[1]", "[1,2]"},
         {"[]", "[1,2,3]"}});
  check({R"({"type":"array","items":{"type":"integer"},"maxItems":1000000})", {"[1,2,3]"}, {"[1,2,]"}});
}

TEST(GrammarSchema, Strings) {
  check({R"({"type":"string","minLength":2,"maxLength":4})",
         {"\"ab\"", "\"日本語\"", "\"\\ud83d\\ude00x\"", "\"\\n\\n\\n\\n\""},
         {"\"a\"", "\"abcde\"", "\"\\ud83d\\ude00\""}});
  check({R"({"type":"string","minLength":3})", {"\"abc\"", "\"abcdefghijkl\""}, {"\"ab\""}});
  check({R"({"type":"string","maxLength":0})", {"\"\""}, {"\"a\""}});
  check({R"({"type":"string","pattern":"^[a-z]+$","minLength":2,"maxLength":3})",
         {"\"ab\"", "\"abc\""},
         {"\"a\"", "\"abcd\"", "\"aB\""}});
  check({R"({"type":"string","pattern":"a","allOf":[{"pattern":"b"}]})", {"\"xaxbx\"", "\"ba\""}, {"\"a\"", "\"b\""}});
  check({R"({"type":"string","maxLength":1000000000})", {"\"abc\""}, {"\"abc"}});
}

TEST(GrammarSchema, EnumsAndConstants) {
  check({R"({"enum":["a","ab",1,1.5,null,{"x":[1]},"\n"]})",
         {"\"a\"", "\"ab\"", "1", "1.5", "null", R"({"x":[1]})", "\"\\n\""},
         {"\"b\"", "2", "{}"}});
  check({R"({"const":{"a":1}})", {R"({"a":1})"}, {"{}"}});
  check({R"({"type":"string","enum":["a",1,"bcd"],"maxLength":2})", {"\"a\""}, {"1", "\"bcd\""}});
  check({R"({"type":"integer","enum":[1,2,3.5,9],"maximum":5})", {"1", "2"}, {"3.5", "9"}});
}

TEST(GrammarSchema, Combinations) {
  check({R"({"anyOf":[{"type":"integer"},{"type":"string","maxLength":2}]})", {"1", "\"ab\""}, {"\"abc\"", "null"}});
  check(
      {R"({"type":"object","properties":{"a":{"type":"integer"}},"anyOf":[{"required":["a"]},{"properties":{"b":{"type":"null"}},"required":["b"]}]})",
       {R"({"a":1})", R"({"b":null})", R"({"a":1,"b":null})"},
       {"{}", R"({"b":1})"}});
  check(
      {R"({"allOf":[{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]},{"properties":{"a":{"minimum":5},"b":{"const":1}},"required":["b"]}]})",
       {R"({"a":5,"b":1})"},
       {R"({"a":4,"b":1})", R"({"a":5})"}});
  check({R"({"allOf":[{"type":"object","properties":{"a":{}},"additionalProperties":false},{"properties":{"b":{}}}]})",
         {"{}", R"({"a":1})"},
         {R"({"b":1})"}});
  check({R"({"type":"integer","minimum":1,"allOf":[{"maximum":3},{"exclusiveMinimum":1}]})", {"2", "3"}, {"1", "4"}});
  check(
      {R"({"oneOf":[{"type":"object","properties":{"k":{"const":"x"},"v":{"type":"integer"}},"required":["k","v"],"additionalProperties":false},{"type":"object","properties":{"k":{"const":"y"}},"required":["k"],"additionalProperties":false}]})",
       {R"({"k":"x","v":1})", R"({"k":"y"})"},
       {R"({"k":"x"})", R"({"k":"y","v":1})"}});
}

TEST(GrammarSchema, ReferencesAndRecursion) {
  check(
      {R"({"$ref":"#/$defs/n","$defs":{"n":{"type":"object","properties":{"v":{"type":"integer"},"next":{"anyOf":[{"$ref":"#/$defs/n"},{"type":"null"}]}},"required":["v","next"],"additionalProperties":false}}})",
       {R"({"v":1,"next":null})", R"({"v":1,"next":{"v":2,"next":{"v":3,"next":null}}})"},
       {R"({"v":1})", R"({"v":1,"next":{}})"}});
  check({R"({"type":"array","items":{"$ref":"#"}})", {"[]", "[[],[[]]]"}, {"[1]"}});
  check({R"({"$ref":"#/$defs/a~1b","description":"x","$defs":{"a/b":{"type":"null"}}})", {"null"}, {"1"}});
}

// Nesting ends at its bound and closes: no reading of the schema leads to a dead end.
TEST(GrammarSchema, NestingIsBounded) {
  const auto grammar = grammar_of(schema_source(R"({"type":"array","items":{"$ref":"#"},"minItems":0})"));
  EXPECT_TRUE(accepts(grammar, std::string(kNestingMax, '[') + std::string(kNestingMax, ']')));
  EXPECT_FALSE(accepts(grammar, std::string(kNestingMax + 1, '[') + std::string(kNestingMax + 1, ']')));
  Matcher m(grammar_of(object_source()));
  for (const char c : std::string("{\"a\":")) ASSERT_TRUE(m.advance(c));
  for (int i = 1; i < kNestingMax; ++i) ASSERT_TRUE(m.advance('['));
  const auto words = mask_of(m);
  EXPECT_FALSE(has(words, '['));
  EXPECT_FALSE(has(words, '{'));
  EXPECT_TRUE(has(words, ']'));
  EXPECT_TRUE(has(words, '1'));
  // A long chain of required members needs more levels than there are.
  nlohmann::ordered_json schema = {{"$ref", "#/$defs/70"}};
  schema["$defs"]["0"] = {{"type", "null"}};
  for (int i = 1; i <= 70; ++i) {
    schema["$defs"][std::to_string(i)] = {{"type", "object"},
                                          {"properties", {{"a", {{"$ref", "#/$defs/" + std::to_string(i - 1)}}}}},
                                          {"required", {"a"}}};
  }
  const auto refused = compile(schema_source(schema.dump()), byte_vocabulary());
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("nests deeper"), std::string::npos) << refused.error().message;
}

TEST(GrammarSchema, WhiteSpaceIsBounded) {
  const auto grammar = grammar_of(object_source());
  EXPECT_TRUE(accepts(grammar, "{\n" + std::string(kIndentMax, ' ') + "\"a\": 1\n}"));
  EXPECT_FALSE(accepts(grammar, "{\n" + std::string(kIndentMax + 1, ' ') + "\"a\": 1\n}"));
  EXPECT_FALSE(accepts(grammar, "{  \"a\":1}"));
  EXPECT_FALSE(accepts(grammar, "{\n\n\"a\":1}"));
  EXPECT_FALSE(accepts(grammar, "{\"a\":1} "));
  EXPECT_TRUE(accepts(grammar, "\n{\"a\":1}"));
}

TEST(GrammarSchema, WhatIsNotSupportedIsRefusedWithItsPlace) {
  struct Refusal {
    const char *schema, *named;
    core::ErrorKind kind;
  };
  constexpr auto kUnsupported = core::ErrorKind::unsupported, kInvalid = core::ErrorKind::invalid_value;
  for (const Refusal& r : {
           Refusal{R"({"type":"array","uniqueItems":true})", "#/uniqueItems", kUnsupported},
           Refusal{R"({"properties":{"a/b":{"not":{}}}})", "#/properties/a~1b/not", kUnsupported},
           Refusal{R"({"items":{"if":{}}})", "#/items/if", kUnsupported},
           Refusal{R"({"patternProperties":{}})", "#/patternProperties", kUnsupported},
           Refusal{R"({"type":"object","minProperties":1})", "#/minProperties", kUnsupported},
           Refusal{R"({"typo":1})", "#/typo", kUnsupported},
           Refusal{R"({"format":"phone"})", "#/format", kUnsupported},
           Refusal{R"r({"type":"string","pattern":"^(?=a)"})r", "'(?='", kUnsupported},
           Refusal{R"({"multipleOf":0.3})", "#/multipleOf", kUnsupported},
           Refusal{R"({"$ref":"https://example.org/x"})", "#/$ref", kUnsupported},
           Refusal{R"({"oneOf":[{"type":"integer"},{"type":"number"}]})", "#/oneOf", kUnsupported},
           Refusal{R"({"oneOf":[{"properties":{"a":{"type":"integer"}},"required":["a"]},{"type":"string"}]})",
                   "#/oneOf", kUnsupported},
           Refusal{R"({"items":[{}]})", "#/items", kUnsupported},
           Refusal{R"({"$ref":"#/$defs/none"})", "#/$ref", kInvalid},
           Refusal{R"({"type":"strin"})", "#/type", kInvalid},
           Refusal{R"({"enum":[]})", "#/enum", kInvalid},
           Refusal{R"({"minLength":-1})", "#/minLength", kInvalid},
           Refusal{R"({"properties":{"a":1}})", "#/properties/a", kInvalid},
           Refusal{R"({"anyOf":[]})", "#/anyOf", kInvalid},
           Refusal{R"({"$ref":"#"})", "refers to itself", kInvalid},
           Refusal{R"({"anyOf":[{"$ref":"#"},{"type":"null"}]})", "refers to itself", kInvalid},
           Refusal{"false", "no JSON value", kInvalid},
           Refusal{R"({"type":"string","minLength":3,"maxLength":2})", "no JSON value", kInvalid},
           Refusal{R"({"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]})", "no JSON value", kInvalid},
           Refusal{R"({"type":"string","pattern":"^a$","minLength":2})", "no JSON value", kInvalid},
           Refusal{"[1]", "must be a schema", kInvalid},
           Refusal{"{", "not JSON", kInvalid},
       }) {
    const auto made = compile(schema_source(r.schema), byte_vocabulary());
    ASSERT_FALSE(made) << r.schema;
    EXPECT_EQ(made.error().kind, r.kind) << r.schema << ": " << made.error().message;
    EXPECT_NE(made.error().message.find(r.named), std::string::npos) << r.schema << ": " << made.error().message;
  }
}

TEST(GrammarSchema, AnnotationsArePassedOver) {
  check(
      {R"({"$schema":"https://json-schema.org/draft/2020-12/schema","$id":"x","title":"t","description":"d","default":1,"examples":[1],"x-internal":{},"type":"integer","deprecated":true})",
       {"1"},
       {"\"a\""}});
}

TEST(GrammarSchema, HugeOnesAreRefusedInTime) {
  nlohmann::ordered_json exponential = {{"$ref", "#/$defs/0"}};
  for (int i = 0; i < 40; ++i) {
    const std::string next = "#/$defs/" + std::to_string(i + 1);
    exponential["$defs"][std::to_string(i)] = {{"anyOf", {{{"$ref", next}}, {{"$ref", next}, {"title", "b"}}}}};
  }
  exponential["$defs"]["40"] = {{"type", "null"}};
  EXPECT_TRUE(accepts(exponential.dump(), "null"));  // parts are compiled once, and their readings fall together
  nlohmann::ordered_json crossed = {{"allOf", nlohmann::ordered_json::array()}};
  for (int i = 0; i < 16; ++i) {
    nlohmann::ordered_json any = nlohmann::ordered_json::array();
    for (int k = 0; k < 4; ++k) any.push_back({{"properties", {{"p" + std::to_string(i), {{"const", k}}}}}});
    crossed["allOf"].push_back({{"anyOf", any}});
  }
  nlohmann::ordered_json chain = {{"$ref", "#/$defs/0"}};
  for (int i = 0; i < 5000; ++i) {
    chain["$defs"][std::to_string(i)] = {{"type", "object"},
                                         {"properties", {{"a", {{"$ref", "#/$defs/" + std::to_string(i + 1)}}}}}};
  }
  chain["$defs"]["5000"] = {{"type", "null"}};
  nlohmann::ordered_json wide = {{"type", "object"}};
  for (int i = 0; i < 6000; ++i)
    wide["properties"]["a_rather_long_property_name_" + std::to_string(i)] = {{"type", "integer"}, {"minimum", i}};
  // A choice within itself, whichever way it is reached, and more choices that must hold together than there is stack
  // for.
  nlohmann::ordered_json endless =
      nlohmann::ordered_json::parse(R"({"type":"object","anyOf":[{"$ref":"#"},{"required":["a"]}]})");
  nlohmann::ordered_json together = {{"type", "object"}, {"allOf", nlohmann::ordered_json::array()}};
  for (int i = 0; i < 4000; ++i) together["allOf"].push_back({{"anyOf", {nlohmann::ordered_json::object()}}});
  for (const auto& schema : {crossed, chain, wide, endless, together}) {
    const auto made = compile(schema_source(schema.dump()), byte_vocabulary());
    ASSERT_FALSE(made);
    EXPECT_EQ(made.error().kind, core::ErrorKind::invalid_value) << made.error().message;
  }
}

TEST(GrammarStoreTest, KeepsTheLastUsedWithinItsBounds) {
  GrammarStore store(byte_vocabulary(), {.grammars_max = 2, .bytes_max = 1U << 30});
  const auto schema = [](int i) { return schema_source(R"({"const":)" + std::to_string(i) + "}"); };
  const auto one = *store.get(schema(1));
  EXPECT_EQ(*store.get(schema(1)), one);
  ASSERT_TRUE(store.get(schema(2)));
  EXPECT_EQ(*store.get(schema(1)), one);
  ASSERT_TRUE(store.get(schema(3)));  // 2 goes
  EXPECT_EQ(store.size(), 2U);
  EXPECT_EQ(*store.get(schema(1)), one);
  EXPECT_EQ(store.compiled(), 3U);
  ASSERT_TRUE(store.get(schema(2)));
  EXPECT_EQ(store.compiled(), 4U);
  EXPECT_NE(*store.get(schema_source(R"({"type":"object"})", true)),
            *store.get(schema_source(R"({"type":"object"})", false)));
  EXPECT_FALSE(store.get(schema_source("{")));
}

}  // namespace
}  // namespace ganglion::local::grammar::test
