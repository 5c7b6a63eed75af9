// Each normalizer, pre-tokenizer and decoder against the `tokenizers` library's answers, and small whole tokenizers
// with awkward added tokens. The answers are made by tools/tokenizer_probe/make_component_cases.py.

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "backends/local/tokenizer/byte_alphabet.hpp"
#include "backends/local/tokenizer/decoder.hpp"
#include "backends/local/tokenizer/normalizer.hpp"
#include "backends/local/tokenizer/pre_tokenizer.hpp"
#include "backends/local/tokenizer/stream_decoder.hpp"
#include "backends/local/tokenizer/tokenizer.hpp"

namespace ganglion::local {
namespace {

using Json = nlohmann::json;

const Json& cases() {
  static const Json json = [] {
    std::ifstream in("tests/data/local_tokenizer/components.json");
    return Json::parse(in);
  }();
  return json;
}

std::string normalized(const Json& spec, const std::string& text) {
  return tok::Normalizer(tok::Spec(spec, "normalizer"))(text);
}

std::vector<std::string> words(const Json& spec, const std::string& text) {
  const tok::PreTokenizer pre_tokenizer(tok::Spec(spec, "pre_tokenizer"));
  tok::Pieces pieces;
  pieces.list.push_back({text, true});
  pre_tokenizer.apply(pieces);
  std::vector<std::string> out;
  for (const tok::Piece& piece : pieces.list) {
    if (piece.text.empty()) continue;
    out.push_back(pieces.byte_level ? tok::to_byte_alphabet(piece.text) : std::string(piece.text));
  }
  return out;
}

std::string decoded(const Json& spec, const std::vector<std::string>& tokens) {
  const tok::Decoder decoder(tok::Spec(spec, "decoder"));
  tok::DecodeChain chain(decoder, false);
  std::string out;
  for (const std::string& token : tokens) {
    chain.token(token);
    out += chain.take();
  }
  chain.finish();
  return out + chain.take();
}

// Runs `answer` over every input of every component of a kind.
template <class Answer>
void check_kind(const char* kind, const Json& inputs, Answer answer) {
  int components = 0;
  for (const Json& component : cases()["components"]) {
    if (component["kind"] != kind) continue;
    ++components;
    ASSERT_EQ(component["want"].size(), inputs.size());
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (component["want"][i].is_null()) continue;  // the library itself gives up
      try {
        EXPECT_EQ(Json(answer(component["spec"], inputs[i])), component["want"][i])
            << component["spec"].dump() << "\n  input " << inputs[i].dump(-1, ' ', true);
      } catch (const tok::LoadError& error) {
        FAIL() << error.message;
      }
    }
  }
  EXPECT_GE(components, 15);
}

TEST(TokenizerComponents, NormalizersAgreeWithTheLibrary) {
  check_kind("normalizer", cases()["texts"], [](const Json& spec, const Json& text) { return normalized(spec, text); });
}

TEST(TokenizerComponents, PreTokenizersAgreeWithTheLibrary) {
  check_kind("pre_tokenizer", cases()["texts"], [](const Json& spec, const Json& text) { return words(spec, text); });
}

TEST(TokenizerComponents, DecodersAgreeWithTheLibrary) {
  check_kind("decoder", cases()["tokens"], [](const Json& spec, const Json& tokens) { return decoded(spec, tokens); });
}

TEST(TokenizerComponents, WholeTokenizersWithAddedTokensAgree) {
  int compared = 0;
  for (const Json& whole : cases()["whole"]) {
    auto tokenizer = Tokenizer::parse(whole["tokenizer"].dump(), whole["name"].get<std::string>());
    ASSERT_TRUE(tokenizer) << tokenizer.error().message;
    const std::string added = whole["tokenizer"]["added_tokens"].dump();
    for (const Json& row : whole["encode"]) {
      EXPECT_EQ(Json(tokenizer->encode(row[0].get<std::string>(), false)), row[1])
          << whole["name"] << " " << row[0].dump(-1, ' ', true) << "\n  added " << added;
      ++compared;
    }
    for (const Json& row : whole["decode"]) {
      const auto ids = row[0].get<std::vector<std::int32_t>>();
      EXPECT_EQ(tokenizer->decode(ids, true), row[1].get<std::string>()) << whole["name"] << " " << row[0];
      EXPECT_EQ(tokenizer->decode(ids, false), row[2].get<std::string>()) << whole["name"] << " " << row[0];
      ++compared;
    }
  }
  EXPECT_GT(compared, 1500);
}

}  // namespace
}  // namespace ganglion::local
