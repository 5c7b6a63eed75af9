// Streaming decode: every piece is whole UTF-8, text appears as early as it can, and the pieces add up to decode(),
// also for ids that spell broken UTF-8.

#include "backends/local/tokenizer/stream_decoder.hpp"

#include <gtest/gtest.h>

#include <random>

#include "backends/local/tokenizer/utf8.hpp"
#include "tests/unit/backends/local/tokenizer/tokenizer_specs.hpp"

namespace ganglion::local {
namespace {

Tokenizer loaded(const std::string& json) {
  auto tokenizer = Tokenizer::parse(json);
  if (!tokenizer) throw std::runtime_error(tokenizer.error().message);
  return std::move(*tokenizer);
}

TEST(StreamDecoder, HoldsBackTheBytesOfAnUnfinishedCodePoint) {
  const Tokenizer t = loaded(test::byte_level_json());
  StreamDecoder stream(t, true);
  EXPECT_EQ(stream.push('a'), "a");
  EXPECT_EQ(stream.push(0xF0), "");
  EXPECT_EQ(stream.push(0x9F), "");
  EXPECT_EQ(stream.push(0x98), "");
  EXPECT_EQ(stream.push(0x80), "😀");
  EXPECT_EQ(stream.push(0xE4), "");
  EXPECT_EQ(stream.push('b'),
            "\xEF\xBF\xBD"
            "b");
  EXPECT_EQ(stream.push(0xE4), "");
  EXPECT_EQ(stream.flush(), "\xEF\xBF\xBD");
  EXPECT_EQ(stream.push('c'), "c");  // as new after flush
}

TEST(StreamDecoder, DropsSpecialTokensWithoutBreakingWhatIsAroundThem) {
  const Tokenizer t = loaded(test::byte_level_json());
  StreamDecoder stream(t, true);
  EXPECT_EQ(stream.push(0xC3), "");
  EXPECT_EQ(stream.push(259), "");
  EXPECT_EQ(stream.push(0xA9), "é");
}

TEST(StreamDecoder, StripsTheFirstSpaceOnly) {
  const Tokenizer t = loaded(test::fallback_json());
  StreamDecoder stream(t, true);
  EXPECT_EQ(stream.push(260), "a");
  EXPECT_EQ(stream.push(260), " a");
  EXPECT_EQ(stream.push(257), " ");
  EXPECT_EQ(stream.flush(), "");
  EXPECT_EQ(stream.push(260), "a");
}

TEST(StreamDecoder, ExactByteRunsWaitForTheirEndAndPromptOnesDoNot) {
  const Tokenizer t = loaded(test::fallback_json());
  const auto byte = [](int b) { return b + 1; };
  StreamDecoder exact(t, true);
  StreamDecoder prompt(t, true, ByteRuns::prompt);
  for (int b : {0xE4, 0xBD}) {
    EXPECT_EQ(exact.push(byte(b)), "");
    EXPECT_EQ(prompt.push(byte(b)), "");
  }
  EXPECT_EQ(exact.push(byte(0xA0)), "");
  EXPECT_EQ(prompt.push(byte(0xA0)), "你");
  EXPECT_EQ(exact.push(258), "你a");
  EXPECT_EQ(prompt.push(258), "a");
  // A run that is broken somewhere is broken everywhere for the reference.
  for (int b : {0xC3, 0xA9, 0xFF}) {
    exact.push(byte(b));
    prompt.push(byte(b));
  }
  EXPECT_EQ(exact.push(258),
            "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"
            "a");
}

class RandomIds : public testing::TestWithParam<const char*> {};

TEST_P(RandomIds, PiecesAddUpToDecode) {
  const std::string name = GetParam();
  const Tokenizer t = name == "byte_level"   ? loaded(test::byte_level_json())
                      : name == "fallback"   ? loaded(test::fallback_json())
                      : name == "word_piece" ? loaded(test::word_piece_json())
                                             : [&] {
                                                 auto from_file = Tokenizer::load("tests/data/local/" + name);
                                                 return std::move(*from_file);
                                               }();
  std::mt19937 random(7);
  for (int round = 0; round < 300; ++round) {
    std::vector<std::int32_t> ids;
    for (int n = static_cast<int>(random() % 20); n > 0; --n) {
      ids.push_back(static_cast<std::int32_t>(random() % static_cast<unsigned>(t.vocab_size() + 1)));
    }
    const bool skip = round % 2 == 0;
    StreamDecoder exact(t, skip);
    StreamDecoder prompt(t, skip, ByteRuns::prompt);
    std::string text;
    for (const std::int32_t id : ids) {
      const std::string piece = exact.push(id);
      EXPECT_TRUE(tok::valid_utf8(piece));
      EXPECT_TRUE(tok::valid_utf8(prompt.push(id)));
      text += piece;
    }
    text += exact.flush();
    EXPECT_TRUE(tok::valid_utf8(prompt.flush()));
    EXPECT_EQ(text, t.decode(ids, skip));
  }
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, RandomIds,
                         testing::Values("byte_level", "fallback", "word_piece", "llama3_tiny", "mistral_tiny",
                                         "llama_old_files", "bert_tiny"),
                         [](const auto& param) { return std::string(param.param); });

}  // namespace
}  // namespace ganglion::local
