// Text that may be shown: stop strings across token borders, held-back beginnings, tokens and text in step.
// The tokenizer is a real one: byte-level, so that code points can be split over tokens.

#include "backends/local/engine/text_stream.hpp"

#include <gtest/gtest.h>

#include "tests/unit/backends/local/engine/engine_fixture.hpp"

namespace ganglion::local {
namespace {

const Tokenizer& tokenizer() {
  static const Tokenizer* const t = new Tokenizer(*Tokenizer::load(model_dir("llama3_tiny")));
  return *t;
}

struct Shown {
  std::string text;
  std::vector<std::int32_t> tokens;
  std::vector<std::string> pieces;
  bool stopped = false;
};

Shown show(const std::string& text, std::vector<std::string> stops) {
  Shown out;
  TextStream stream(tokenizer(), std::move(stops));
  const auto keep = [&](TextStream::Release r) {
    out.text += r.text;
    out.tokens.insert(out.tokens.end(), r.tokens.begin(), r.tokens.end());
    if (!r.text.empty()) out.pieces.push_back(r.text);
    out.stopped = r.stopped;
  };
  for (std::int32_t id : tokenizer().encode(text, false)) {
    keep(stream.push(id, std::nullopt));
    if (out.stopped) return out;
  }
  keep(stream.finish());
  return out;
}

TEST(TextStream, PassesEverythingThroughWithoutStops) {
  const std::string text = "Hello, world! It is 12 o'clock.\n";
  const Shown s = show(text, {});
  EXPECT_EQ(s.text, text);
  EXPECT_EQ(s.tokens, tokenizer().encode(text, false));
  EXPECT_GT(s.pieces.size(), 3u);
}

TEST(TextStream, NeverSplitsACodePoint) {
  const std::string text =
      "\xE6\xBC\xA2\xE5\xAD\x97 \xF0\x9F\xA7\xA0 na\xC3\xAFve \xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x9A\x80";
  const Shown s = show(text, {});
  EXPECT_EQ(s.text, text);
  EXPECT_EQ(s.tokens, tokenizer().encode(text, false));
  for (const std::string& piece : s.pieces) {
    EXPECT_NE(static_cast<unsigned char>(piece[0]) & 0xC0, 0x80) << "begins inside a code point";
  }
}

TEST(TextStream, CutsAtAStopStringWhereverTokensEnd) {
  const std::string text = "one two three four five";
  for (std::size_t at = 0; at < text.size(); ++at) {
    for (std::size_t n = 1; at + n <= text.size(); ++n) {
      const std::string stop = text.substr(at, n);
      const Shown s = show(text, {stop});
      EXPECT_TRUE(s.stopped) << stop;
      EXPECT_EQ(s.text, text.substr(0, text.find(stop))) << stop;
    }
  }
}

TEST(TextStream, TheEarliestOfSeveralStopsCounts) {
  EXPECT_EQ(show("alpha beta gamma", {"gamma", "beta", "zeta"}).text, "alpha ");
  EXPECT_EQ(show("alpha beta gamma", {"beta gamma", "ta"}).text, "alpha be");
}

TEST(TextStream, WhatTurnsOutNotToBeAStopIsShown) {
  const Shown s = show("one two thr", {"three", "two three"});
  EXPECT_FALSE(s.stopped);
  EXPECT_EQ(s.text, "one two thr");
}

TEST(TextStream, ABeginningOfAStopIsHeldBack) {
  TextStream stream(tokenizer(), {"<end>"});
  std::string shown;
  for (std::int32_t id : tokenizer().encode("text <en", false)) shown += stream.push(id, std::nullopt).text;
  EXPECT_EQ(shown, "text ");
  EXPECT_EQ(stream.finish().text, "<en");
}

TEST(TextStream, SelfOverlappingStopsAreFound) {
  EXPECT_EQ(show("xaaab", {"aab"}).text, "xa");
  EXPECT_EQ(show("abababac", {"ababac"}).text, "ab");
}

TEST(TextStream, TokensOfTheStopStringAreNotReported) {
  const std::string text = "one two three";
  const auto ids = tokenizer().encode(text, false);
  const Shown s = show(text, {" three"});
  EXPECT_EQ(s.text, "one two");
  EXPECT_EQ(tokenizer().decode(s.tokens, true), "one two");
  EXPECT_LT(s.tokens.size(), ids.size());
}

}  // namespace
}  // namespace ganglion::local
