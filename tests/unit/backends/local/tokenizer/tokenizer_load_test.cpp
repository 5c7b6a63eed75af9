// Loading: what the public calls say about a small tokenizer, and the error for everything that is not implemented
// or makes no sense.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "backends/local/tokenizer/tokenizer.hpp"
#include "tests/unit/backends/local/tokenizer/tokenizer_specs.hpp"

namespace ganglion::local {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Json = nlohmann::json;

Tokenizer loaded(const std::string& json) {
  auto tokenizer = Tokenizer::parse(json);
  if (!tokenizer) throw std::runtime_error(tokenizer.error().message);
  return std::move(*tokenizer);
}

// The error that byte_level_json with one key replaced gives.
core::Error error_with(const char* key, const Json& value) {
  Json json = Json::parse(test::byte_level_json());
  json[key] = value;
  auto tokenizer = Tokenizer::parse(json.dump());
  return tokenizer ? core::Error{core::ErrorKind::kCount} : tokenizer.error();
}

TEST(TokenizerLoad, ByteLevelFacts) {
  const Tokenizer t = loaded(test::byte_level_json());
  EXPECT_THAT(t.encode("hello", true), ElementsAre(258, 'o'));
  EXPECT_THAT(t.encode("<|end|>hell", false), ElementsAre(259, 258));
  EXPECT_EQ(t.count("hello<|end|>"), 3u);
  EXPECT_EQ(t.vocab_size(), 260);
  EXPECT_EQ(t.token_to_id("hell"), 258);
  EXPECT_EQ(t.token_to_id("<|end|>"), 259);
  EXPECT_EQ(t.token_to_id("nope"), std::nullopt);
  EXPECT_EQ(t.id_to_token(' '), "Ġ");
  EXPECT_EQ(t.id_to_token(-1), "");
  EXPECT_EQ(t.id_to_token(260), "");
  EXPECT_EQ(t.token_bytes(' '), " ");
  EXPECT_EQ(t.token_bytes(0xE4), "\xE4");
  EXPECT_EQ(t.token_bytes(259), "<|end|>");
  EXPECT_TRUE(t.is_special(259));
  EXPECT_FALSE(t.is_special(258));
  EXPECT_TRUE(t.is_added(259));
  EXPECT_THAT(t.special_ids(), ElementsAre(259));
  EXPECT_EQ(t.bos_id(), std::nullopt);
}

TEST(TokenizerLoad, OrdinaryEncodingTakesSpecialTokensAsText) {
  const Tokenizer t = loaded(test::byte_level_json());
  EXPECT_THAT(t.encode_ordinary("<|end|>"), ElementsAre('<', '|', 'e', 'n', 'd', '|', '>'));
  EXPECT_EQ(t.decode(t.encode_ordinary("a<|end|>b"), true), "a<|end|>b");
}

TEST(TokenizerLoad, DecodeSkipsUnknownIdsAndSpecialTokens) {
  const Tokenizer t = loaded(test::byte_level_json());
  const std::int32_t ids[] = {258, 259, -5, 100000, 'o'};
  EXPECT_EQ(t.decode(ids, true), "hello");
  EXPECT_EQ(t.decode(ids, false), "hell<|end|>o");
  EXPECT_EQ(t.decode({}, true), "");
}

TEST(TokenizerLoad, FallbackBytesAndTheirBytes) {
  const Tokenizer t = loaded(test::fallback_json());
  EXPECT_THAT(t.encode("ab é", false), ElementsAre(260, 259, 257, 0xC3 + 1, 0xA9 + 1));
  EXPECT_EQ(t.token_bytes(260), " a");
  EXPECT_EQ(t.token_bytes(0x0A + 1), "\n");
  EXPECT_EQ(t.token_bytes(0xC3 + 1), "\xC3");
  EXPECT_THAT(t.encode("", false), IsEmpty());
}

TEST(TokenizerLoad, WordPieceFacts) {
  const Tokenizer t = loaded(test::word_piece_json());
  EXPECT_THAT(t.encode("Unaffable Héllo!", true), ElementsAre(1, 3, 4, 5, 6, 7, 2));
  EXPECT_THAT(t.encode("unzzz", false), ElementsAre(0));
  EXPECT_THAT(t.encode("ununununununun", false), ElementsAre(0));  // over max_input_chars_per_word
  EXPECT_EQ(t.decode(t.encode("unaffable hello !", true), false), "[CLS] unaffable hello! [SEP]");
  EXPECT_EQ(t.token_bytes(4), "aff");
}

TEST(TokenizerLoad, TextThatIsNotUtf8BecomesReplacementCharacters) {
  const Tokenizer t = loaded(test::byte_level_json());
  EXPECT_EQ(t.encode("a\xFF\xE4\xBD z", false), t.encode("a\xEF\xBF\xBD\xEF\xBF\xBD z", false));
  EXPECT_EQ(t.decode(t.encode(std::string("\0\xC0\x80", 3), false), false),
            std::string("\0\xEF\xBF\xBD\xEF\xBF\xBD", 7));
}

TEST(TokenizerLoad, NamesWhatIsNotImplemented) {
  const Json unigram = {{"type", "Unigram"}, {"vocab", Json::array()}};
  EXPECT_THAT(error_with("model", unigram).message, HasSubstr("model type \"Unigram\" is not implemented"));
  EXPECT_EQ(error_with("model", unigram).kind, core::ErrorKind::unsupported);
  EXPECT_THAT(error_with("normalizer", {{"type", "Precompiled"}}).message, HasSubstr("\"Precompiled\""));
  EXPECT_THAT(error_with("pre_tokenizer", {{"type", "UnicodeScripts"}}).message, HasSubstr("\"UnicodeScripts\""));
  EXPECT_THAT(error_with("decoder", {{"type", "CTC"}}).message, HasSubstr("\"CTC\""));
  EXPECT_THAT(error_with("post_processor", {{"type", "Other"}}).message, HasSubstr("\"Other\""));
  EXPECT_THAT(error_with("decoder", {{"type", "Sequence"}, {"decoders", {{{"type", "CTC"}}}}}).message,
              HasSubstr("tokenizer.json.decoder.decoders[0]"));
  for (const char* regex : {R"(\bx)", R"(\h)", "[a[bc]]", "[[:alpha:]]", "[a&&b]", "(?m:.)", "(?<n>a)", "a{2}+",
                            R"(\Kx)", R"((a)\1)", "a{2}?", "(*UTF)a", "\\"}) {
    const Json split = {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}};
    const core::Error error = error_with("pre_tokenizer", split);
    EXPECT_EQ(error.kind, core::ErrorKind::unsupported) << regex;
    EXPECT_THAT(error.message, HasSubstr(regex));
  }
  const Json broken = {{"type", "Split"}, {"pattern", {{"Regex", "(a"}}}, {"behavior", "Isolated"}};
  EXPECT_THAT(error_with("pre_tokenizer", broken).message, HasSubstr("does not compile"));
}

TEST(TokenizerLoad, NamesWhatIsMalformed) {
  EXPECT_THAT(Tokenizer::parse("{").error().message, HasSubstr("tokenizer.json: not a JSON object"));
  EXPECT_THAT(Tokenizer::parse("[]").error().message, HasSubstr("not a JSON object"));
  EXPECT_THAT(Tokenizer::parse("{}").error().message, HasSubstr("has no \"model\""));
  EXPECT_THAT(Tokenizer::parse("{\"a\":" + std::string(100, '[') + std::string(100, ']') + "}").error().message,
              HasSubstr("nested too deeply"));
  auto bpe = [](const Json& vocab, const Json& merges) {
    return error_with("model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}}).message;
  };
  EXPECT_THAT(bpe({{"a", -1}}, Json::array()), HasSubstr("the id of \"a\""));
  EXPECT_THAT(bpe({{"a", "x"}}, Json::array()), HasSubstr("the id of \"a\""));
  EXPECT_THAT(bpe({{"a", 4000000000}}, Json::array()), HasSubstr("the id of \"a\""));
  EXPECT_THAT(bpe({{"a", 1}, {"b", 1}}, Json::array()), HasSubstr("has two tokens"));
  EXPECT_THAT(bpe({{"a", 0}}, {"a b"}), HasSubstr("joins a token that is not in the vocabulary"));
  EXPECT_THAT(bpe({{"a", 0}, {"b", 1}}, {"a b"}), HasSubstr("makes a token that is not in the vocabulary"));
  EXPECT_THAT(bpe({{"a", 0}}, {"a a a"}), HasSubstr("is not \"a b\""));
  EXPECT_THAT(bpe({{"a", 0}}, {7}), HasSubstr("entry 0 (7)"));
  EXPECT_THAT(error_with("model", {{"type", "BPE"}, {"vocab", {{"a", 0}}}, {"merges", Json::array()}, {"dropout", 0.1}})
                  .message,
              HasSubstr("dropout"));
  EXPECT_THAT(error_with("model", {{"type", "WordPiece"}, {"vocab", {{"a", 0}}}}).message, HasSubstr("[UNK]"));
  EXPECT_THAT(error_with("added_tokens", {{{"id", 7}, {"content", "<x>"}}}).message,
              HasSubstr("contradicts the vocabulary"));
  EXPECT_THAT(
      error_with("added_tokens", {{{"id", 300}, {"content", "<x>"}}, {{"id", 300}, {"content", "<y>"}}}).message,
      HasSubstr("taken"));
  EXPECT_THAT(error_with("added_tokens", {{{"id", 300}}}).message, HasSubstr("added_tokens[0]: has no \"content\""));
  EXPECT_EQ(Tokenizer::load("/nonexistent").error().kind, core::ErrorKind::not_found);
}

TEST(TokenizerLoad, ReadsNamedTokensFromTheDirectory) {
  auto t = Tokenizer::load("tests/data/local/llama2_tiny");
  ASSERT_TRUE(t) << t.error().message;
  EXPECT_EQ(t->bos_id(), 1);
  EXPECT_EQ(t->eos_id(), 2);
  EXPECT_FALSE(Tokenizer::load("tests/data/local/llama2_tiny/tokenizer.json")->bos_id());
}

// One tokenizer serves all threads; ids do not depend on what the word cache has seen.
TEST(TokenizerLoad, ThreadsShareOneTokenizer) {
  auto t = Tokenizer::load("tests/data/local/llama3_tiny");
  ASSERT_TRUE(t) << t.error().message;
  std::string text;
  for (int i = 0; i < 300; ++i) text += "word" + std::to_string(i * 7919) + " the gateway's cache, 中文 ";
  const auto want = t->encode(text, true);
  std::vector<std::vector<std::int32_t>> got(4);
  {
    std::vector<std::jthread> threads;
    for (auto& ids : got) {
      threads.emplace_back([&] {
        for (int i = 0; i < 5; ++i) ids = t->encode(text, true);
      });
    }
  }
  for (const auto& ids : got) EXPECT_EQ(ids, want);
}

}  // namespace
}  // namespace ganglion::local
