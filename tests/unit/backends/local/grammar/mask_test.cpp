// Masks against trying every token; random answers of many schemas against a validator; random valid values through the
// grammar. GANGLION_FUZZ_SEED repeats a run.

#include <cstdlib>
#include <iostream>

#include "backends/local/tokenizer/tokenizer.hpp"
#include "tests/unit/backends/local/grammar/grammar_fixture.hpp"
#include "tests/unit/backends/local/grammar/json_schema.hpp"

namespace ganglion::local::grammar::test {
namespace {

constexpr int kSchemas = 1'500;

std::uint64_t seed() {
  static const std::uint64_t value = [] {
    const char* fixed = std::getenv("GANGLION_FUZZ_SEED");
    const std::uint64_t s = fixed != nullptr ? std::strtoull(fixed, nullptr, 10) : 1;
    std::cout << "seed " << s << " (GANGLION_FUZZ_SEED repeats)\n";
    return s;
  }();
  return value;
}

void expect_brute_force(const Matcher& m, const std::string& so_far) {
  const auto words = mask_of(m);
  for (std::int32_t id = 0; id < m.grammar().vocabulary().size(); ++id) {
    Matcher tried = m;
    ASSERT_EQ(has(words, id), tried.advance(id)) << "token " << id << " after " << so_far;
  }
}

// A text that picks allowed tokens at random, at first any, later those that close.
struct Walk {
  std::string text;
  bool complete = false;
};
Walk walk(Matcher m, RandomSchemas& random, bool brute_force) {
  Walk out;
  const Vocabulary& v = m.grammar().vocabulary();
  for (int i = 0; i < 3000; ++i) {
    if (m.over()) break;
    if (brute_force && random.pick(8) == 0) expect_brute_force(m, out.text);
    auto tokens = allowed(m);
    if (tokens.empty()) {
      ADD_FAILURE() << "nothing may follow " << out.text;
      return out;
    }
    if (m.complete() && random.pick(2) == 0) break;
    // Short texts are likelier to end in time.
    std::vector<std::int32_t> closing;
    for (const std::int32_t id : tokens) {
      const std::string& b = v.bytes(id);
      if (id == kEnd || (!b.empty() && std::string("\"}]").find(b.back()) != std::string::npos)) closing.push_back(id);
    }
    if (!closing.empty() && random.pick(4) < (i < 40 ? 1U : 3U)) tokens = closing;
    const std::int32_t id = tokens[random.pick(tokens.size())];
    if (!m.advance(id)) {
      ADD_FAILURE() << "the mask allows token " << id << " after " << out.text;
      return out;
    }
    if (id != kEnd) out.text += v.bytes(id);
  }
  out.complete = m.complete();
  return out;
}

TEST(GrammarMasks, RandomAnswersOfRandomSchemasAreValid) {
  int made = 0, complete = 0, refused = 0;
  for (int i = 0; i < kSchemas; ++i) {
    RandomSchemas random(seed() + static_cast<std::uint64_t>(i));
    const Json schema = random.schema();
    const bool strict = i % 2 == 1;
    const auto grammar = compile(schema_source(schema.dump(), strict), byte_vocabulary());
    if (!grammar) {
      // Unsatisfiable by chance, or alternatives that might overlap: said so, and nothing else.
      ASSERT_TRUE(grammar.error().message.find("no JSON value") != std::string::npos ||
                  grammar.error().message.find("satisfy both") != std::string::npos ||
                  grammar.error().message.find("constant arrays or objects") != std::string::npos ||
                  grammar.error().message.find("together with another multipleOf") != std::string::npos)
          << grammar.error().message << " in " << schema;
      ++refused;
      continue;
    }
    ++made;
    for (int k = 0; k < 4; ++k) {
      const Walk answer = walk(Matcher(*grammar), random, i % 10 == 0 && k == 0);
      ASSERT_FALSE(HasFailure()) << "schema " << i << " of seed " << seed() << ": " << schema;
      if (!answer.complete) continue;
      ++complete;
      const Json value = Json::parse(answer.text, nullptr, false);
      ASSERT_FALSE(value.is_discarded()) << answer.text << " for " << schema;
      // What is closed by default is closed as a whole: allOf's parts name members for each other.
      const bool open = !strict || schema.dump().find("allOf") != std::string::npos;
      ASSERT_TRUE(valid(schema, schema, value, open)) << answer.text << " for " << schema << " of seed " << seed();
    }
  }
  std::cout << made << " schemas, " << complete << " complete answers, " << refused << " refused\n";
  EXPECT_GT(made, kSchemas * 7 / 10);
  EXPECT_GT(complete, made * 3);
}

TEST(GrammarMasks, RandomValidValuesAreReachable) {
  int reached = 0, in_another_order = 0;
  plain_integers = true;
  for (int i = 0; i < kSchemas; ++i) {
    RandomSchemas random(seed() + 1'000'003 + static_cast<std::uint64_t>(i));
    const Json schema = random.schema();
    const auto grammar = compile(schema_source(schema.dump()), byte_vocabulary());
    if (!grammar) continue;
    for (int k = 0; k < 12; ++k) {
      const Json value = random.value(schema, schema);
      if (!valid(schema, schema, value)) continue;
      // A value's members must lie in the schema's order. What a merge has put elsewhere, or what only an alternative
      // with another order allows, is left out.
      std::string text = k % 3 == 0 ? value.dump(2) : value.dump();
      if (k % 3 == 0 && (text.find("[]") == std::string::npos)) text = value.dump(1, k % 2 == 0 ? '\t' : ' ');
      if (!accepts(*grammar, text)) {
        const std::string all = schema.dump();
        if (all.find("allOf") != std::string::npos || all.find("anyOf") != std::string::npos) {
          ++in_another_order;
          continue;
        }
        FAIL() << text << " is not reached by " << schema << " of seed " << seed();
      }
      ++reached;
      // The same by longest tokens, each allowed by the mask before it.
      Matcher m(*grammar);
      const Vocabulary& v = m.grammar().vocabulary();
      for (std::size_t at = 0; at < text.size();) {
        std::int32_t best = -1;
        for (std::int32_t id = 0; id < v.size(); ++id) {
          const std::string& b = v.bytes(id);
          if (id == kEnd || b.empty() || text.compare(at, b.size(), b) != 0) continue;
          if (best < 0 || b.size() > v.bytes(best).size()) best = id;
        }
        ASSERT_TRUE(has(mask_of(m), best)) << text.substr(0, at) << " | " << v.bytes(best) << " for " << schema;
        ASSERT_TRUE(m.advance(best));
        at += v.bytes(best).size();
      }
      ASSERT_TRUE(m.complete());
      ASSERT_TRUE(has(mask_of(m), kEnd));
    }
  }
  plain_integers = false;
  std::cout << reached << " values, " << in_another_order << " in another order\n";
  EXPECT_GT(reached, kSchemas * 3);
  EXPECT_LT(in_another_order, reached / 10);
}

TEST(GrammarMasks, EqualBruteForceInDeepAndLongPlaces) {
  const auto deep = grammar_of(object_source());
  Matcher m(deep);
  std::string text = "{\"a\":";
  for (int i = 0; i < kNestingMax - 1; ++i) text += '[';
  for (std::size_t i = 0; i < text.size(); ++i) {
    ASSERT_TRUE(m.advance(static_cast<unsigned char>(text[i])));
    if (i + 12 > text.size()) expect_brute_force(m, text.substr(0, i + 1));
  }
  const auto longest = grammar_of(schema_source(R"({"type":"string","minLength":20,"maxLength":30})"));
  Matcher s(longest);
  ASSERT_TRUE(s.advance('"'));
  for (int i = 0; i <= 30; ++i) {
    expect_brute_force(s, std::to_string(i));
    if (i < 30) ASSERT_TRUE(s.advance('x'));
  }
  const auto items =
      grammar_of(schema_source(R"({"type":"array","items":{"type":"integer"},"minItems":3,"maxItems":5})"));
  Matcher a(items);
  for (const char c : std::string("[1,2,3,4,5]")) {
    expect_brute_force(a, "array");
    ASSERT_TRUE(a.advance(c));
  }
  expect_brute_force(a, "array");
}

// Within one string the mask is made once, and few states have masks of their own.
TEST(GrammarMasks, AreKept) {
  const auto grammar = grammar_of(schema_source(
      R"({"type":"object","properties":{"a":{"type":"string"},"b":{"type":"string"}},"required":["a","b"]})"));
  Matcher m(grammar);
  for (const char c : std::string(R"({"a":")")) static_cast<void>(mask_of(m)), m.advance(c);
  mask_of(m);
  const auto made = grammar->masks_made();
  for (int i = 0; i < 500; ++i) {
    ASSERT_TRUE(m.advance('x'));
    mask_of(m);
  }
  EXPECT_EQ(grammar->masks_made(), made);
  for (const char c : std::string(R"(","b":")")) ASSERT_TRUE(m.advance(c));
  mask_of(m);
  EXPECT_EQ(grammar->masks_made(), made) << "strings share their states";
}

TEST(GrammarMasks, CopiesGoTheirOwnWays) {
  Matcher m(grammar_of(object_source()));
  for (const char c : std::string(R"({"a":[1)")) ASSERT_TRUE(m.advance(c));
  const auto before = mask_of(m);
  Matcher guess = m;
  for (const char c : std::string(R"(,{"b":[]}],"c":"x"})")) ASSERT_TRUE(guess.advance(c));
  EXPECT_TRUE(guess.over());
  EXPECT_EQ(mask_of(m), before);
  for (const char c : std::string("]}")) ASSERT_TRUE(m.advance(c));
  EXPECT_TRUE(m.advance(kEnd));
  EXPECT_FALSE(m.advance(kEnd));
}

TEST(GrammarMasks, EndTokensComeOnlyWhereTheTextIsComplete) {
  Matcher m(grammar_of(schema_source(R"({"type":"integer"})")));
  EXPECT_FALSE(has(mask_of(m), kEnd));
  EXPECT_FALSE(m.advance(kEnd));
  ASSERT_TRUE(m.advance('1'));
  EXPECT_TRUE(has(mask_of(m), kEnd));
  EXPECT_FALSE(m.over());
  ASSERT_TRUE(m.advance('2'));
  ASSERT_TRUE(m.advance(kEnd));
  EXPECT_TRUE(m.over());
  EXPECT_TRUE(allowed(m).empty());
}

// The tokenizers that we load: what the grammar takes for a token's bytes is what decoding shows.
class GrammarTokenizers : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Kinds, GrammarTokenizers,
                         testing::Values("tests/data/local/llama2_tiny", "tests/data/local/llama3_tiny",
                                         "tests/data/local/mistral_tiny", "tests/data/local/llama_old_files",
                                         "tests/data/local/qwen2_tiny", "models/demo-chat"));

TEST_P(GrammarTokenizers, RandomAnswersDecodeToValidJson) {
  const auto tokenizer = Tokenizer::load(std::string(GANGLION_SOURCE_DIR) + "/" + GetParam());
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  const std::int32_t end = tokenizer->eos_id().value_or(tokenizer->vocab_size() - 1);
  const auto vocabulary = std::make_shared<const Vocabulary>(*tokenizer, tokenizer->vocab_size() + 5, std::vector{end});
  int complete = 0;
  for (int i = 0; i < 60; ++i) {
    RandomSchemas random(seed() + 77 + static_cast<std::uint64_t>(i));
    const Json schema = random.schema();
    const auto grammar = compile(schema_source(schema.dump()), vocabulary);
    if (!grammar) continue;
    Matcher m(*grammar);
    std::vector<std::int32_t> ids;
    while (ids.size() < 600 && !m.over() && !(m.complete() && random.pick(2) == 0)) {
      auto tokens = allowed(m);
      ASSERT_FALSE(tokens.empty()) << tokenizer->decode(ids, true) << " for " << schema;
      std::vector<std::int32_t> closing;
      for (const std::int32_t id : tokens) {
        const std::string& b = vocabulary->bytes(id);
        ASSERT_TRUE(id == end || !tokenizer->is_special(id)) << "a special token is allowed";
        if (!b.empty() && std::string("\"}]").find(b.back()) != std::string::npos) closing.push_back(id);
      }
      if (!closing.empty() && random.pick(3) > 0) tokens = closing;
      ids.push_back(tokens[random.pick(tokens.size())]);
      if (ids.back() == end)
        ids.pop_back();
      else
        ASSERT_TRUE(m.advance(ids.back()));
    }
    if (!m.complete()) continue;
    ++complete;
    const std::string text = tokenizer->decode(ids, true);
    const Json value = Json::parse(text, nullptr, false);
    ASSERT_FALSE(value.is_discarded()) << text << " for " << schema;
    ASSERT_TRUE(valid(schema, schema, value)) << text << " for " << schema;
    // And the way back: the tokenizer's own tokens of a valid text are allowed one after the other.
    Matcher again(*grammar);
    for (const std::int32_t id : tokenizer->encode(text, false)) {
      ASSERT_TRUE(has(mask_of(again), id)) << text << " at " << tokenizer->id_to_token(id);
      ASSERT_TRUE(again.advance(id));
    }
    ASSERT_TRUE(again.complete()) << text;
  }
  EXPECT_GT(complete, 20);
}

// A special token is only where a grammar names it, and single bytes do not spell it.
TEST(GrammarSpecialTokens, AreNamedOrAbsent) {
  const auto tokenizer = Tokenizer::load(std::string(GANGLION_SOURCE_DIR) + "/tests/data/local/mistral_tiny");
  ASSERT_TRUE(tokenizer);
  const auto vocabulary =
      std::make_shared<const Vocabulary>(*tokenizer, tokenizer->vocab_size(), std::vector{*tokenizer->eos_id()});
  const std::int32_t mark = tokenizer->token_to_id("[TOOL_CALLS]").value();
  Source source;
  source.calls = Source::Calls::must;
  source.functions = {{"f", "", false}};
  source.syntax = {.opening = Vocabulary::special(mark),
                   .begin = "{\"name\": \"",
                   .arguments = "\", \"arguments\": ",
                   .end = "}",
                   .between = "",
                   .closing = "",
                   .several = false};
  const auto grammar = compile(source, vocabulary);
  ASSERT_TRUE(grammar) << grammar.error().message;
  Matcher m(*grammar);
  EXPECT_EQ(allowed(m), std::vector{mark});
  ASSERT_TRUE(m.advance(mark));
  for (const char c : std::string("{\"name\": \"f\", \"arguments\": {\"a\": \"")) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned>(c));
    ASSERT_TRUE(m.advance(tokenizer->token_to_id(name).value())) << name;
  }
  const auto inside = allowed(m);
  EXPECT_GT(inside.size(), 300U);
  for (const std::int32_t id : inside) EXPECT_FALSE(tokenizer->is_special(id)) << tokenizer->id_to_token(id);
}

// Any text, and calls behind the mark: text that only begins like the mark is text.
TEST(GrammarFreeText, IsFreeUntilTheMark) {
  Source source;
  source.calls = Source::Calls::after;
  source.functions = {{"f", R"({"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]})", true}};
  source.syntax = {.opening = "",
                   .begin = "<call>{\"name\": \"",
                   .arguments = "\", \"arguments\": ",
                   .end = "}</call>",
                   .between = "\n",
                   .closing = "",
                   .several = true};
  source.trigger = "<call>";
  source.parallel = true;
  const auto grammar = grammar_of(source);
  ASSERT_NE(grammar, nullptr);
  const std::string call = R"(<call>{"name": "f", "arguments": {"a": 1}}</call>)";
  for (const std::string& good : {std::string(""), std::string("plain \xc3\xa9\n"), std::string("a <ca <<call"), call,
                                  "first " + call, "<<" + call, call + "\n" + call, "<ca" + call}) {
    EXPECT_TRUE(accepts(grammar, good)) << good;
  }
  for (const std::string& bad :
       {std::string("<call>"), std::string("<call>x"),
        std::string(R"(<call>{"name": "f", "arguments": {"a": "x"}}</call>)"),
        std::string(R"(<call>{"name": "g", "arguments": {"a": 1}}</call>)"), call + " more", std::string("\xc3(")}) {
    EXPECT_FALSE(accepts(grammar, bad)) << bad;
  }
  Matcher m(grammar);
  for (const char c : std::string("x <cal")) {
    expect_brute_force(m, "text");
    ASSERT_TRUE(m.advance(static_cast<unsigned char>(c)));
  }
  expect_brute_force(m, "text");
}

}  // namespace
}  // namespace ganglion::local::grammar::test
