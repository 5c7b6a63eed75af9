// The parts below the components: UTF-8 repair, normal forms, scanners against their regexes, and the two ways of
// merging against each other.

#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <random>

#include "backends/local/tokenizer/bpe.hpp"
#include "backends/local/tokenizer/pattern.hpp"
#include "backends/local/tokenizer/tokenizer.hpp"
#include "backends/local/tokenizer/unicode.hpp"
#include "backends/local/tokenizer/utf8.hpp"
#include "tests/unit/backends/local/tokenizer/tokenizer_specs.hpp"

namespace ganglion::local::tok {
namespace {

using Json = nlohmann::json;

std::string repair(std::string_view bytes) {
  std::string storage;
  return std::string(repaired(bytes, storage));
}

TEST(TokenizerUtf8, RepairsEachMaximalBrokenPart) {
  const std::string r(kReplacement);
  EXPECT_EQ(repair("plain é 😀"), "plain é 😀");
  EXPECT_EQ(repair("\x80"), r);
  EXPECT_EQ(repair("a\xC3"), "a" + r);
  EXPECT_EQ(repair("\xF0\x9F\x98z"), r + "z");           // one truncated sequence, one mark
  EXPECT_EQ(repair("\xE0\x80\x80"), r + r + r);          // overlong: no part of it begins anything
  EXPECT_EQ(repair("\xED\xA0\x80"), r + r + r);          // a surrogate
  EXPECT_EQ(repair("\xF4\x90\x80\x80"), r + r + r + r);  // past U+10FFFF
  EXPECT_EQ(repair("\xF0\x9F\xC3\xA9"), r + "é");
  EXPECT_FALSE(valid_utf8("12345678\xFF"));
  EXPECT_TRUE(valid_utf8(std::string("\0\x7F", 2)));
}

TEST(TokenizerUtf8, RepairDoesNotDependOnHowBytesArrive) {
  std::mt19937 random(3);
  for (int round = 0; round < 500; ++round) {
    std::string bytes;
    for (unsigned n = random() % 12; n > 0; --n) {
      constexpr unsigned char kBytes[] = {'a', 0x80, 0x9F, 0xA0, 0xBF, 0xC3, 0xE0, 0xED, 0xF0, 0xF4, 0xFF, 0x90};
      bytes += static_cast<char>(kBytes[random() % std::size(kBytes)]);
    }
    Utf8Repair one_by_one;
    std::string out;
    for (const char& b : bytes) one_by_one.push({&b, 1}, out);
    one_by_one.finish(out);
    EXPECT_EQ(out, repair(bytes));
    EXPECT_TRUE(valid_utf8(out));
  }
}

std::string normalized(std::string text, NormalForm form) {
  normalize(text, form);
  return text;
}

TEST(TokenizerUnicode, NormalForms) {
  EXPECT_EQ(normalized("e\u0301", NormalForm::nfc), "é");
  EXPECT_EQ(normalized("é", NormalForm::nfd), "e\u0301");
  EXPECT_EQ(normalized("q\u0307\u0323", NormalForm::nfd), "q\u0323\u0307");  // reordered by class
  EXPECT_EQ(normalized("한국", NormalForm::nfd), "\u1112\u1161\u11ab\u1100\u116e\u11a8");
  EXPECT_EQ(normalized("\u1112\u1161\u11ab", NormalForm::nfc), "한");
  EXPECT_EQ(normalized("ﬁ Ⅷ ½", NormalForm::nfkc), "fi VIII 1\u20442");
  EXPECT_EQ(normalized("ﬁ", NormalForm::nfc), "ﬁ");
  EXPECT_EQ(normalized("\u212B", NormalForm::nfc), "Å");
}

TEST(TokenizerUnicode, AMillionMarksAreSortedInReasonableTime) {
  std::string marks = "a";
  for (int i = 0; i < 200000; ++i) marks += i % 2 == 0 ? "\u0307" : "\u0323";
  const auto begin = std::chrono::steady_clock::now();
  const std::string sorted = normalized(marks, NormalForm::nfd);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));  // quadratic bubbling takes minutes
  EXPECT_EQ(sorted.size(), marks.size());
  EXPECT_TRUE(sorted.starts_with("a\u0323\u0323"));
}

TEST(TokenizerUnicode, LowerCase) {
  const auto lower = [](char32_t c) {
    std::string out;
    append_lower(out, c);
    return out;
  };
  EXPECT_EQ(lower('Q'), "q");
  EXPECT_EQ(lower(U'É'), "é");
  EXPECT_EQ(lower(U'Ω'), "ω");
  EXPECT_EQ(lower(U'İ'), "i\u0307");
  EXPECT_EQ(lower(U'ẞ'), "ß");
  EXPECT_EQ(lower(U'ß'), "ß");
  EXPECT_EQ(lower(0x10400), "𐐨");
  EXPECT_EQ(lower(0x101), "ā");
}

// A scanner and the regex that it stands for, on random text of characters that both know.
TEST(TokenizerScanner, AgreesWithItsRegex) {
  const std::pair<SplitPattern, const char*> patterns[] = {
      {SplitPattern::gpt2, R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"},
      {SplitPattern::llama3,
       R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
      {SplitPattern::qwen2,
       R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
  };
  const char* atoms[] = {"a",      "Z",      "é",      "中",     "1",      "22",     "٣", "½",  " ",
                         "  ",     "\t",     "\n",     "\r\n",   "\r",     "\v",     "'", "'s", "'S",
                         "'ſ",     "'Re",    "'ll",    "'LL",    "'d",     "'x",     ".", "-",  "😀",
                         "\u0301", "\u00a0", "\u0085", "\u2003", "\u180e", "\u200d", "_"};
  std::mt19937 random(11);
  for (const auto& [known, source] : patterns) {
    ASSERT_EQ(known_split_pattern(source), known);
    // In parentheses, so that it is not recognised and goes to the regex engine.
    const Json json = {{"Regex", "(?:" + std::string(source) + ")"}};
    const Pattern slow{Spec(json, "pattern")};
    const Pattern fast(known);
    for (int round = 0; round < 2000; ++round) {
      std::string text;
      for (unsigned n = random() % 10; n > 0; --n) text += atoms[random() % std::size(atoms)];
      std::vector<Span> a, b;
      slow.scan(text, a);
      fast.scan(text, b);
      ASSERT_EQ(a.size(), b.size()) << Json(text).dump(-1, ' ', true);
      for (std::size_t i = 0; i < a.size(); ++i) {
        ASSERT_EQ(a[i].begin, b[i].begin) << Json(text).dump(-1, ' ', true);
        ASSERT_EQ(a[i].match, b[i].match);
      }
    }
  }
}

// BPE by its definition: the pair of lowest rank, the leftmost of equals, until none is left.
std::vector<std::string> merged_slowly(std::vector<std::string> parts,
                                       const std::vector<std::pair<std::string, std::string>>& merges) {
  while (true) {
    for (std::size_t rank = 0;; ++rank) {
      if (rank == merges.size()) return parts;
      const auto found = std::ranges::adjacent_find(
          parts, [&](const auto& a, const auto& b) { return a == merges[rank].first && b == merges[rank].second; });
      if (found == parts.end()) continue;
      *found += *(found + 1);
      parts.erase(found + 1);
      break;
    }
  }
}

// Random merges over three letters; words on both sides of the length where the heap takes over.
TEST(TokenizerBpe, ShortAndLongWordsFollowTheDefinition) {
  std::mt19937 random(5);
  for (int round = 0; round < 60; ++round) {
    std::vector<std::string> tokens = {"a", "b", "c"};
    std::vector<std::pair<std::string, std::string>> merges;
    for (int i = 0; i < 12; ++i) {
      const std::string left = tokens[random() % tokens.size()], right = tokens[random() % tokens.size()];
      if (std::ranges::find(tokens, left + right) != tokens.end()) continue;
      merges.emplace_back(left, right);
      tokens.push_back(left + right);
    }
    Json vocab;
    for (std::size_t i = 0; i < tokens.size(); ++i) vocab[tokens[i]] = i;
    const Json json = {{"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}}}};
    auto tokenizer = Tokenizer::parse(json.dump());
    ASSERT_TRUE(tokenizer) << tokenizer.error().message;
    for (const std::size_t size : {1u, 5u, 23u, 63u, 64u, 65u, 150u}) {
      std::vector<std::string> letters;
      std::string word;
      for (std::size_t i = 0; i < size; ++i) {
        letters.emplace_back(1, static_cast<char>('a' + random() % 3));
        word += letters.back();
      }
      std::vector<std::string> got;
      for (const std::int32_t id : tokenizer->encode(word, false)) got.emplace_back(tokenizer->id_to_token(id));
      EXPECT_EQ(got, merged_slowly(letters, merges)) << word;
    }
  }
}

// Cutting text at spaces for the word cache must not change ids: the same tokenizer with a merge that spans a space
// may not cut, and both must agree where that merge does not apply.
TEST(TokenizerBpe, MergesAcrossSpacesAreHonoured) {
  Json json = Json::parse(test::fallback_json());
  json["model"]["vocab"]["b▁"] = 263;
  json["model"]["merges"].insert(json["model"]["merges"].begin(), Json::array({"b", "▁"}));
  auto spanning = Tokenizer::parse(json.dump());
  ASSERT_TRUE(spanning) << spanning.error().message;
  EXPECT_EQ(spanning->encode("b a", false), (std::vector<std::int32_t>{257, 263, 258}));
  auto plain = Tokenizer::parse(test::fallback_json());
  EXPECT_EQ(plain->encode("b a", false), (std::vector<std::int32_t>{257, 259, 260}));
  EXPECT_EQ(plain->encode("a  a", false), spanning->encode("a  a", false));
}

// A megabyte without a space or newline, and one of spaces: linear-ish time, and the text comes back.
TEST(TokenizerBpe, LongRunsStayCheap) {
  for (const char* folder : {"llama2_tiny", "llama3_tiny", "mistral_tiny"}) {
    auto tokenizer = Tokenizer::load("tests/data/local/" + std::string(folder));
    ASSERT_TRUE(tokenizer) << tokenizer.error().message;
    for (const char* unit : {"ab", " ", "😀"}) {
      std::string text = "x";
      while (text.size() < 200000) text += unit;
      const auto begin = std::chrono::steady_clock::now();
      const auto ids = tokenizer->encode(text, false);
      EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10)) << folder << unit;
      EXPECT_EQ(tokenizer->decode(ids, false), text);
    }
  }
}

}  // namespace
}  // namespace ganglion::local::tok
