#pragma once
// Small tokenizer.json texts for tests that need a tokenizer of known contents.

#include <string>

namespace ganglion::local::test {

// Byte-level: the 256 bytes as ids 0..255 in the order of the bytes, then "he" 256, "ll" 257, "hell" 258 and the
// special "<|end|>" 259.
std::string byte_level_json();
// Characters with byte fallback: <unk> 0, the bytes <0x00>.. as 1..256, then "▁" 257, "a" 258, "b" 259, "▁a" 260,
// "ab" 261, special "</s>" 262; decoder as Llama-2's. `extra` goes into the model object.
std::string fallback_json(const std::string& extra = "");
// WordPiece: [UNK] 0, [CLS] 1, [SEP] 2, "un" 3, "##aff" 4, "##able" 5, "hello" 6, "!" 7.
std::string word_piece_json();

}  // namespace ganglion::local::test
