// See the header.

#include "tests/unit/backends/local/tokenizer/tokenizer_specs.hpp"

#include <nlohmann/json.hpp>

#include "backends/local/tokenizer/byte_alphabet.hpp"

namespace ganglion::local::test {

using Json = nlohmann::json;

std::string byte_level_json() {
  Json vocab;
  for (int b = 0; b < 256; ++b) {
    const char c = static_cast<char>(b);
    vocab[tok::to_byte_alphabet({&c, 1})] = b;
  }
  vocab["he"] = 256;
  vocab["ll"] = 257;
  vocab["hell"] = 258;
  return Json{{"added_tokens", {{{"id", 259}, {"content", "<|end|>"}, {"special", true}, {"normalized", false}}}},
              {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
              {"decoder", {{"type", "ByteLevel"}}},
              {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"h e", "l l", "he ll"}}}}}
      .dump();
}

std::string fallback_json(const std::string& extra) {
  Json vocab = {{"<unk>", 0}, {"▁", 257}, {"a", 258}, {"b", 259}, {"▁a", 260}, {"ab", 261}};
  for (int b = 0; b < 256; ++b) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned>(b));
    vocab[name] = b + 1;
  }
  Json model = {{"type", "BPE"},
                {"vocab", vocab},
                {"merges", Json::array({Json::array({"▁", "a"}), Json::array({"a", "b"})})},
                {"unk_token", "<unk>"},
                {"fuse_unk", true},
                {"byte_fallback", true}};
  if (!extra.empty()) model.update(Json::parse(extra));
  const Json replace = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}};
  const Json restore = {{"type", "Replace"}, {"pattern", {{"String", "▁"}}}, {"content", " "}};
  return Json{
      {"added_tokens", {{{"id", 262}, {"content", "</s>"}, {"special", true}, {"normalized", false}}}},
      {"normalizer", {{"type", "Sequence"}, {"normalizers", {{{"type", "Prepend"}, {"prepend", "▁"}}, replace}}}},
      {"decoder",
       {{"type", "Sequence"},
        {"decoders",
         {restore,
          {{"type", "ByteFallback"}},
          {{"type", "Fuse"}},
          {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}}},
      {"model", model}}
      .dump();
}

std::string word_piece_json() {
  const Json vocab = {{"[UNK]", 0}, {"[CLS]", 1},  {"[SEP]", 2}, {"un", 3},
                      {"##aff", 4}, {"##able", 5}, {"hello", 6}, {"!", 7}};
  return Json{
      {"normalizer", {{"type", "BertNormalizer"}, {"lowercase", true}}},
      {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
      {"post_processor", {{"type", "BertProcessing"}, {"cls", {"[CLS]", 1}}, {"sep", {"[SEP]", 2}}}},
      {"decoder", {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}}},
      {"model", {{"type", "WordPiece"}, {"vocab", vocab}, {"unk_token", "[UNK]"}, {"max_input_chars_per_word", 10}}}}
      .dump();
}

}  // namespace ganglion::local::test
