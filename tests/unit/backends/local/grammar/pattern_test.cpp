// Patterns against PCRE2, numbers against their values, formats against examples.

#include "backends/local/grammar/pattern.hpp"

#include "backends/local/grammar/characters.hpp"
#include "backends/local/grammar/numbers.hpp"
#include "tests/unit/backends/local/grammar/grammar_fixture.hpp"
#include "tests/unit/backends/local/grammar/json_schema.hpp"

namespace ganglion::local::grammar::test {
namespace {

bool runs(const ByteTable& table, const std::string& bytes) {
  std::uint32_t at = 0;
  for (const char c : bytes) {
    at = table.rows[at].next[static_cast<std::uint8_t>(c)];
    if (at == ByteTable::kNone) return false;
  }
  return table.rows[at].final;
}

TEST(GrammarPattern, AgreesWithPcre2) {
  const std::vector<std::string> patterns = {"a",
                                             "^a$",
                                             "^a|b$",
                                             "^(a|b)*$",
                                             "^a{2,3}b?$",
                                             "^[a-c]+$",
                                             "^[^a-c]+$",
                                             "^.$",
                                             "^a.c$",
                                             "^\\d+\\.\\d{2}$",
                                             "^\\w+\\s\\w+$",
                                             "^\\W$",
                                             "^\\S{1,4}$",
                                             "^(?:ab){2}$",
                                             "^(a(b(c)?)?)?$",
                                             "^[\\w.-]+@[a-z]+$",
                                             "^\\u00e9\\x41$",
                                             "^[\\u4e00-\\u9fff]{2}$",
                                             "b+$",
                                             "^ab",
                                             "^a*?b$",
                                             "^(a{2}){2}$",
                                             "^[-a]+$",
                                             "^[a\\-z]+$",
                                             "^\\$\\^$",
                                             "^{$",
                                             "^a{0}b$",
                                             "^(|a)b$",
                                             "^[\\d-]+$",
                                             "^a{2,}$",
                                             "^\"\\\\\"$",
                                             "^\\n\\t$",
                                             "^[\"\\\\\\n]+$",
                                             "^(a?){3}$",
                                             "",
                                             "^$"};
  RandomSchemas random(11);
  for (const std::string& pattern : patterns) {
    AutomatonBuilder builder;
    const auto table = pattern_table(builder, pattern);
    ASSERT_TRUE(table) << pattern << ": " << table.error().message;
    static const std::vector<std::string> kPieces = {"a",  "b", "c", "d",  "1",  "2",  ".",  "-", "@", " ", "\n",
                                                     "\t", "é", "A", "日", "😀", "\"", "\\", "$", "^", "{", "_"};

    for (int i = 0; i < 3000; ++i) {
      std::string text;
      for (std::size_t n = random.pick(6); n > 0; --n) text += kPieces[random.pick(i % 3 == 0 ? 3 : kPieces.size())];
      const bool expected = matches(pattern, text);

      ASSERT_EQ(runs(*table, spelled(text)), expected) << pattern << " on " << text;
    }
  }
}

TEST(GrammarPattern, WhatIsNotRegularIsRefusedByName) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"^(?=a)", "'(?='"},  {"(?!a)b", "'(?!'"},    {"(?<=a)b", "'(?<'"}, {"^(a)\\1$", "'\\1'"},
      {"\\bword", "'\\b'"}, {"^\\p{L}+$", "'\\p'"}, {"^(^a)$", "'^'"},    {"^a$b", "'$'"}};
  for (const auto& [pattern, named] : cases) {
    AutomatonBuilder builder;
    const auto table = pattern_table(builder, pattern);
    ASSERT_FALSE(table) << pattern;
    EXPECT_EQ(table.error().kind, core::ErrorKind::unsupported) << pattern;
    EXPECT_NE(table.error().message.find(named), std::string::npos) << table.error().message;
  }
  for (const std::string pattern : {"(a", "a)", "[a", "*a", "a**", "a{3,2}", "[z-a]", "\\", "\\x1"}) {
    AutomatonBuilder builder;
    const auto table = pattern_table(builder, pattern);
    ASSERT_FALSE(table) << pattern;
    EXPECT_EQ(table.error().kind, core::ErrorKind::invalid_value) << pattern;
  }
}

TEST(GrammarPattern, SizeIsBounded) {
  for (const std::string pattern : {"^(((a{50}){50}){50}){50}$", "^(a|b)*a(a|b){30}$", "^.{99999}$"}) {
    AutomatonBuilder builder;
    const auto table = pattern_table(builder, pattern);
    ASSERT_FALSE(table) << pattern;
    EXPECT_EQ(table.error().kind, core::ErrorKind::invalid_value);
  }
}

// Every spelled character, and nothing that is not UTF-8.
TEST(GrammarCharacters, EveryCodePointHasItsSpelling) {
  AutomatonBuilder builder;
  const auto table = any_string_table(builder);
  ASSERT_TRUE(table);
  for (std::uint32_t c = 0; c <= 0x10FFFF; c += c < 0x3000 ? 1 : 97) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    std::string utf8;
    if (c < 0x80) {
      utf8 = {static_cast<char>(c)};
    } else if (c < 0x800) {
      utf8 = {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 63))};
    } else if (c < 0x10000) {
      utf8 = {static_cast<char>(0xE0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 63)),
              static_cast<char>(0x80 | (c & 63))};
    } else {
      utf8 = {static_cast<char>(0xF0 | c >> 18), static_cast<char>(0x80 | (c >> 12 & 63)),
              static_cast<char>(0x80 | (c >> 6 & 63)), static_cast<char>(0x80 | (c & 63))};
    }
    const std::string dumped = nlohmann::json(utf8).dump();
    ASSERT_EQ('"' + spelled(utf8) + '"', dumped);
    ASSERT_TRUE(runs(*table, spelled(utf8))) << c;
  }
  for (const char* bad :
       {"\x80", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xff", "\xe6\x97", "\xc3(", "\xe0\x80\x80"}) {
    EXPECT_FALSE(runs(*table, bad));
  }
}

TEST(GrammarNumbers, ExactlyThoseBetweenTheBounds) {
  std::mt19937_64 random(5);
  const auto pick = [&](int low, int high) {
    return low + static_cast<int>(random() % static_cast<unsigned>(high - low + 1));
  };
  for (int round = 0; round < 400; ++round) {
    NumberSpec spec;
    spec.integer = round % 2 == 0;
    const int scale = spec.integer ? 1 : 100;
    const int low = pick(-3000, 3000), high = low + pick(0, 3000);
    const auto decimal = [&](int v) { return *Decimal::parse(nlohmann::json(static_cast<double>(v) / scale).dump()); };
    const bool has_low = pick(0, 3) > 0, has_high = pick(0, 3) > 0;
    if (has_low) spec.minimum = decimal(low), spec.minimum_open = pick(0, 1) == 1;
    if (has_high) spec.maximum = decimal(high), spec.maximum_open = pick(0, 1) == 1;
    if (spec.integer && pick(0, 2) == 0) spec.multiple_of = static_cast<std::uint32_t>(pick(1, 17));
    AutomatonBuilder builder;
    const auto table = number_table(builder, spec);
    ASSERT_TRUE(table);
    for (int i = 0; i < 300; ++i) {
      int v = i < 4 ? low - 1 + i : i < 8 ? high - 5 + i : pick(low - 100, high + 100);
      if (i > 290) v = pick(-100000, 100000);
      bool expected = !(has_low && (v < low || (v == low && spec.minimum_open))) &&
                      !(has_high && (v > high || (v == high && spec.maximum_open)));
      if (spec.multiple_of != 0) expected = expected && v % static_cast<int>(spec.multiple_of) == 0;
      std::string text = std::to_string(std::abs(v) / scale);
      if (v < 0) text.insert(0, "-");
      if (!spec.integer && v % scale != 0) {
        char rest[8];
        std::snprintf(rest, sizeof rest, ".%02d", std::abs(v) % scale);
        text += rest;
      }
      ASSERT_EQ(runs(*table, text), expected)
          << text << " in " << (has_low ? low : 0) << ".." << (has_high ? high : 0) << " of " << scale;
      if (!spec.integer && text.find('.') != std::string::npos) ASSERT_EQ(runs(*table, text + "0"), expected) << text;
    }
  }
}

TEST(GrammarNumbers, UnboundedOnesAreJsonNumbers) {
  AutomatonBuilder builder;
  const auto table = number_table(builder, {});
  ASSERT_TRUE(table);
  for (const char* good : {"0", "-0", "1", "-12.5", "0.001", "1e5", "1.5E-10", "123456789012345678", "1e+99"}) {
    EXPECT_TRUE(runs(*table, good)) << good;
  }
  for (const char* bad :
       {"", "-", "01", "1.", ".5", "+1", "1e", "1e999", "0x1", "1.e3", "1234567890123456789", "--1"}) {
    EXPECT_FALSE(runs(*table, bad)) << bad;
  }
}

TEST(GrammarFormats, ByExample) {
  struct Example {
    const char* format;
    std::vector<const char*> good, bad;
  };
  const std::vector<Example> examples = {
      {"date",
       {"2024-02-29", "1999-12-31", "2000-02-29"},
       {"2023-02-29", "1900-02-29", "2024-13-01", "2024-04-31", "0000-01-01", "24-01-01"}},
      {"time", {"00:00:00Z", "23:59:59.123+01:00"}, {"24:00:00Z", "12:00:00", "12:60:00Z"}},
      {"date-time", {"2024-02-29T12:00:00Z"}, {"2024-02-29 12:00:00Z", "2024-02-30T12:00:00Z"}},
      {"uuid",
       {"123e4567-e89b-12d3-a456-426614174000"},
       {"123e4567e89b12d3a456426614174000", "123e4567-e89b-12d3-a456-42661417400g"}},
      {"email", {"a.b@example.org", "x+y@a-b.co"}, {"a@", "@b.c", "a@b", "a b@c.de", "a..b@c.de", "a@-b.de"}},
      {"ipv4", {"0.0.0.0", "255.255.255.255"}, {"256.0.0.0", "1.2.3", "01.2.3.4"}},
      {"ipv6", {"::", "::1", "1:2:3:4:5:6:7:8", "fe80::1:2"}, {"1:2:3", ":::", "1::2::3", "12345::"}},
      {"hostname", {"localhost", "a.b-c.de"}, {"-a", "a-", "a..b"}},
      {"duration", {"P1D", "PT5M", "P1Y2M3DT4H5M6S", "P2W"}, {"P", "PT", "1D", "P1S"}},
      {"uri", {"https://example.org/a?b=c#d", "urn:x:y"}, {"example.org", "http://a b", "1http://x"}}};
  for (const Example& e : examples) {
    const auto grammar = grammar_of(schema_source(nlohmann::json{{"type", "string"}, {"format", e.format}}.dump()));
    for (const char* text : e.good)
      EXPECT_TRUE(accepts(grammar, nlohmann::json(text).dump())) << e.format << " " << text;
    for (const char* text : e.bad)
      EXPECT_FALSE(accepts(grammar, nlohmann::json(text).dump())) << e.format << " " << text;
  }
}

}  // namespace
}  // namespace ganglion::local::grammar::test
