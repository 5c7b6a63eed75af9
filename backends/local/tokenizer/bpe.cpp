// BPE: the initial symbols of a word, and the choice of how to merge them.

#include "backends/local/tokenizer/bpe.hpp"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "backends/local/tokenizer/byte_alphabet.hpp"
#include "backends/local/tokenizer/utf8.hpp"

namespace ganglion::local::tok {
namespace {

constexpr std::string_view kMeta = "\xE2\x96\x81";  // U+2581, the lower one eighth block that stands for a space
// Up to this many symbols, looking through all pairs for the best is faster than keeping a heap.
constexpr std::size_t kShortWord = 64;

// Whether "x▁" occurs in `token` for some x other than ▁.
bool crosses_meta(std::string_view token) {
  for (std::size_t at = token.find(kMeta, 1); at != std::string_view::npos; at = token.find(kMeta, at + 1)) {
    if (!token.substr(0, at).ends_with(kMeta)) return true;
  }
  return false;
}

}  // namespace

Bpe::Bpe(const Spec& spec) : vocab_(spec.at("vocab")) {
  if (const auto dropout = spec.find("dropout")) {
    if (!dropout->json().is_number() || dropout->json().get<double>() != 0.0) {
      dropout->unsupported("BPE dropout");  // it would make ids random
    }
  }
  prefix_ = spec.find_string("continuing_subword_prefix").value_or("");
  suffix_ = spec.find_string("end_of_word_suffix").value_or("");
  fuse_unk_ = spec.boolean("fuse_unk", false);
  byte_fallback_ = spec.boolean("byte_fallback", false);
  ignore_merges_ = spec.boolean("ignore_merges", false);
  if (const auto unk = spec.find_string("unk_token")) {
    unk_id_ = vocab_.find(*unk);
    if (unk_id_ < 0) spec.at("unk_token").bad("\"" + *unk + "\" is not in the vocabulary");
  }
  read_merges(spec);
  index_characters();
}

void Bpe::read_merges(const Spec& spec) {
  const Spec merges = spec.at("merges");
  if (!merges.json().is_array()) merges.bad("is not a list");
  merges_ = MergeTable(merges.json().size());
  cut_at_meta_ = prefix_.empty() && suffix_.empty() && !ignore_merges_ && vocab_.find(kMeta) >= 0;
  std::uint32_t rank = 0;
  std::string line;
  for (const nlohmann::json& merge : merges.json()) {
    const auto bad = [&](const std::string& what) {
      merges.bad("entry " + std::to_string(rank) + " (" +
                 merge.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).substr(0, 80) + ") " + what);
    };
    std::string_view left, right;
    if (merge.is_string()) {
      line = merge.get<std::string>();
      if (line.starts_with("#version")) continue;
      const std::size_t space = line.find(' ');
      if (space == std::string::npos || line.find(' ', space + 1) != std::string::npos) bad("is not \"a b\"");
      left = std::string_view(line).substr(0, space);
      right = std::string_view(line).substr(space + 1);
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      left = merge[0].get_ref<const std::string&>();
      right = merge[1].get_ref<const std::string&>();
    } else {
      bad("is neither \"a b\" nor [\"a\", \"b\"]");
    }
    const std::int32_t left_id = vocab_.find(left);
    const std::int32_t right_id = vocab_.find(right);
    if (left_id < 0 || right_id < 0) bad("joins a token that is not in the vocabulary");
    const std::string product = std::string(left) + std::string(right.substr(std::min(prefix_.size(), right.size())));
    const std::int32_t id = vocab_.find(product);
    if (id < 0) bad("makes a token that is not in the vocabulary");
    merges_.insert(left_id, right_id, {rank++, id});
    if (cut_at_meta_ && crosses_meta(product)) cut_at_meta_ = false;
  }
}

void Bpe::index_characters() {
  basic_ids_.assign(0x10000, -1);
  for (const auto& [token, id] : vocab_.ids()) {
    if (token.empty() || sequence_size(token[0]) != token.size()) continue;
    const CodePoint c = decode_at(token.data());
    if (c.value < 0x10000) basic_ids_[c.value] = id;
  }
  all_bytes_known_ = prefix_.empty() && suffix_.empty();
  for (unsigned b = 0; b < 256; ++b) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", b);
    fallback_ids_[b] = vocab_.find(name);
    byte_ids_[b] = basic_ids_[byte_to_char(static_cast<unsigned char>(b))];
    all_bytes_known_ = all_bytes_known_ && byte_ids_[b] >= 0;
  }
  if (!ignore_merges_) return;
  for (const auto& [token, id] : vocab_.ids()) {
    if (auto raw = from_byte_alphabet(token)) raw_words_.emplace(std::move(*raw), id);
  }
}

void Bpe::encode(std::string_view word, bool byte_level, Scratch& scratch, std::vector<std::int32_t>& ids) const {
  if (byte_level || !cut_at_meta_) return encode_cached(word, byte_level, scratch, ids);
  while (!word.empty()) {
    std::size_t cut = 0;
    while (word.substr(cut).starts_with(kMeta)) cut += kMeta.size();
    cut = std::min(word.find(kMeta, cut), word.size());
    encode_cached(word.substr(0, cut), false, scratch, ids);
    word.remove_prefix(cut);
  }
}

void Bpe::encode_cached(std::string_view word, bool byte_level, Scratch& scratch,
                        std::vector<std::int32_t>& ids) const {
  if (!WordCache::fits(word)) return encode_word(word, byte_level, scratch, ids);
  const WordCache::Key key = WordCache::key(word);
  if (const auto known = scratch.cache.find(key); known.data() != nullptr) {
    ids.insert(ids.end(), known.begin(), known.end());
    return;
  }
  const std::size_t before = ids.size();
  encode_word(word, byte_level, scratch, ids);
  scratch.cache.insert(key, std::span(ids).subspan(before));
}

void Bpe::encode_word(std::string_view word, bool byte_level, Scratch& scratch, std::vector<std::int32_t>& ids) const {
  if (ignore_merges_) {
    std::int32_t whole = -1;
    if (byte_level) {
      const auto it = raw_words_.find(std::string(word));
      if (it != raw_words_.end()) whole = it->second;
    } else {
      whole = vocab_.find(word);
    }
    if (whole >= 0) {
      ids.push_back(whole);
      return;
    }
  }
  scratch.symbols.clear();
  if (byte_level && all_bytes_known_) {
    for (char b : word) scratch.symbols.push_back(byte_ids_[static_cast<unsigned char>(b)]);
  } else if (byte_level) {
    scratch.spelled = to_byte_alphabet(word);
    add_characters(scratch.spelled, scratch.symbols);
  } else {
    add_characters(word, scratch.symbols);
  }
  if (scratch.symbols.size() <= kShortWord) {
    merge_short(scratch);
  } else {
    merge_long(scratch);
  }
  ids.insert(ids.end(), scratch.symbols.begin(), scratch.symbols.end());
}

std::int32_t Bpe::character_id(const char* at, std::uint32_t size) const {
  if (size < 4) return basic_ids_[decode_at(at).value];
  return vocab_.find(std::string_view(at, size));
}

bool Bpe::add_fallback_bytes(std::string_view character, std::vector<std::int32_t>& symbols) const {
  if (!byte_fallback_) return false;
  for (char b : character) {
    if (fallback_ids_[static_cast<unsigned char>(b)] < 0) return false;
  }
  for (char b : character) symbols.push_back(fallback_ids_[static_cast<unsigned char>(b)]);
  return true;
}

// One symbol per character, its fallback bytes, or <unk>; the order in which a pending <unk> is written is the
// reference's.
void Bpe::add_characters(std::string_view word, std::vector<std::int32_t>& symbols) const {
  bool unk_pending = false;
  std::string decorated;
  for (std::size_t i = 0; i < word.size();) {
    const std::uint32_t size = sequence_size(word[i]);
    std::string_view character = word.substr(i, size);
    std::int32_t id;
    if (prefix_.empty() && suffix_.empty()) {
      id = character_id(word.data() + i, size);
    } else {
      decorated = (i > 0 ? prefix_ : std::string()) + std::string(character);
      if (i + size == word.size()) decorated += suffix_;
      character = decorated;
      id = vocab_.find(decorated);
    }
    i += size;
    if (id >= 0) {
      if (unk_pending) symbols.push_back(unk_id_);
      unk_pending = false;
      symbols.push_back(id);
    } else if (!add_fallback_bytes(character, symbols) && unk_id_ >= 0) {
      if (unk_pending && !fuse_unk_) symbols.push_back(unk_id_);
      unk_pending = true;
    }
  }
  if (unk_pending) symbols.push_back(unk_id_);
}

}  // namespace ganglion::local::tok
