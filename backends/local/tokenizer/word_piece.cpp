// WordPiece, and the choice between models.

#include "backends/local/tokenizer/word_piece.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "backends/local/tokenizer/bpe.hpp"
#include "backends/local/tokenizer/byte_alphabet.hpp"
#include "backends/local/tokenizer/utf8.hpp"

namespace ganglion::local::tok {

WordPiece::WordPiece(const Spec& spec) : vocab_(spec.at("vocab")) {
  prefix_ = spec.find_string("continuing_subword_prefix").value_or("##");
  characters_max_ = static_cast<std::size_t>(spec.integer("max_input_chars_per_word", 100, 0, 1 << 20));
  const std::string unk = spec.find_string("unk_token").value_or("[UNK]");
  unk_id_ = vocab_.find(unk);
  if (unk_id_ < 0) spec.bad("the unknown token \"" + unk + "\" is not in the vocabulary");
  for (const auto& [token, id] : vocab_.ids()) token_bytes_max_ = std::max(token_bytes_max_, token.size());
}

void WordPiece::encode_word(std::string_view word, std::string& candidate, std::vector<std::int32_t>& ids) const {
  const std::size_t before = ids.size();
  if (count_code_points(word) > characters_max_) {
    ids.push_back(unk_id_);
    return;
  }
  for (std::size_t at = 0; at < word.size();) {
    candidate = at > 0 ? prefix_ : std::string();
    const std::size_t room = token_bytes_max_ - std::min(token_bytes_max_, candidate.size());
    std::size_t length = std::min(word.size() - at, room);
    candidate += word.substr(at, length);
    std::int32_t id = -1;
    while (length > 0) {
      const bool whole = at + length == word.size() || (static_cast<unsigned char>(word[at + length]) & 0xC0) != 0x80;
      if (whole && (id = vocab_.find(candidate)) >= 0) break;
      candidate.pop_back();
      --length;
    }
    if (id < 0) {
      ids.resize(before);
      ids.push_back(unk_id_);
      return;
    }
    ids.push_back(id);
    at += length;
  }
}

void WordPiece::encode(std::string_view word, bool byte_level, Scratch& scratch, std::vector<std::int32_t>& ids) const {
  if (!WordCache::fits(word)) {
    return encode_word(byte_level ? to_byte_alphabet(word) : std::string(word), scratch.spelled, ids);
  }
  const WordCache::Key key = WordCache::key(word);
  if (const auto known = scratch.cache.find(key); known.data() != nullptr) {
    ids.insert(ids.end(), known.begin(), known.end());
    return;
  }
  const std::size_t before = ids.size();
  encode_word(byte_level ? to_byte_alphabet(word) : std::string(word), scratch.spelled, ids);
  scratch.cache.insert(key, std::span(ids).subspan(before));
}

void Scratch::trim() {
  constexpr std::size_t kKeep = 1 << 16;  // elements; a few hundred KiB at most stay with each scratch
  if (symbols.capacity() > kKeep) symbols = {};
  if (chain.capacity() > kKeep) chain = {};
  if (heap.capacity() > kKeep) heap = {};
  if (spelled.capacity() > kKeep) spelled = {};
  pieces.clear();
  if (pieces.list.capacity() > kKeep) pieces.list = {};
  if (pieces.next.capacity() > kKeep) pieces.next = {};
  if (pieces.spans.capacity() > kKeep) pieces.spans = {};
}

std::unique_ptr<Model> make_model(const Spec& spec) {
  // Old files leave the type out where the keys already tell.
  const std::string type = spec.find_string("type").value_or(spec.has("merges") ? "BPE" : "WordPiece");
  if (type == "BPE") return std::make_unique<Bpe>(spec);
  if (type == "WordPiece") return std::make_unique<WordPiece>(spec);
  spec.unsupported("model type \"" + type + "\"");
}

}  // namespace ganglion::local::tok
