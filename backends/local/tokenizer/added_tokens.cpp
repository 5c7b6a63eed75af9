// Finding added tokens.

#include "backends/local/tokenizer/added_tokens.hpp"

#include <algorithm>

#include "backends/local/tokenizer/utf8.hpp"

namespace ganglion::local::tok {
namespace {

constexpr std::size_t kContentBytesMax = 4096;

char32_t last_code_point(std::string_view text) {
  std::size_t at = text.size() - 1;
  while ((static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
  return decode_at(text.data() + at).value;
}

bool stands_alone(std::string_view text, std::size_t begin, std::size_t end) {
  const bool word_before = begin > 0 && is(last_code_point(text.substr(0, begin)), kWord);
  const bool word_after = end < text.size() && is(decode_at(text.data() + end).value, kWord);
  return !word_before && !word_after;
}

std::size_t skip_spaces_left(std::string_view text, std::size_t at) {
  while (at > 0) {
    const char32_t c = last_code_point(text.substr(0, at));
    if (!is(c, kSpace)) break;
    at -= c < 0x80 ? 1 : c < 0x800 ? 2 : 3;
  }
  return at;
}

std::size_t skip_spaces_right(std::string_view text, std::size_t at) {
  while (at < text.size()) {
    const CodePoint c = decode_at(text.data() + at);
    if (!is(c.value, kSpace)) break;
    at += c.size;
  }
  return at;
}

// The id that the file states is the one that the model was trained with; it must not contradict the vocabulary.
std::int32_t read_id(const Spec& spec, const std::string& content, const Vocab& vocab, std::int32_t next) {
  const std::int32_t known = vocab.find(content);
  const auto id = static_cast<std::int32_t>(spec.integer("id", known >= 0 ? known : next, 0, kTokenIdMax));
  if (known >= 0 ? id != known : vocab.has_id(id)) {
    spec.bad("the id " + std::to_string(id) + " of \"" + content + "\" contradicts the vocabulary");
  }
  return id;
}

}  // namespace

void AddedTokens::Trie::insert(std::string_view key, std::int32_t token) {
  if (key.empty()) return;
  if (nodes_.empty()) nodes_.emplace_back();
  std::int32_t node = 0;
  for (std::size_t i = 0; i < key.size(); ++i) {
    const auto byte = static_cast<unsigned char>(key[i]);
    std::int32_t to = i == 0 ? first_[byte] : child(node, byte);
    if (to == 0) {
      to = static_cast<std::int32_t>(nodes_.size());
      nodes_.emplace_back();
      if (i == 0) {
        first_[byte] = to;
      } else {
        nodes_[static_cast<std::size_t>(node)].next.emplace_back(byte, to);
      }
    }
    node = to;
  }
  Node& end = nodes_[static_cast<std::size_t>(node)];
  if (end.token < 0) end.token = token;  // of equal keys the first counts
}

std::int32_t AddedTokens::Trie::child(std::int32_t node, unsigned char byte) const {
  for (const auto& [b, to] : nodes_[static_cast<std::size_t>(node)].next) {
    if (b == byte) return to;
  }
  return 0;
}

std::optional<AddedTokens::Trie::Found> AddedTokens::Trie::next(std::string_view text, std::size_t from) const {
  for (std::size_t begin = from; begin < text.size(); ++begin) {
    std::int32_t node = first_[static_cast<unsigned char>(text[begin])];
    std::optional<Found> found;
    for (std::size_t i = begin + 1; node != 0; ++i) {
      const std::int32_t token = nodes_[static_cast<std::size_t>(node)].token;
      if (token >= 0) found = Found{begin, i, token};
      if (i >= text.size()) break;
      node = child(node, static_cast<unsigned char>(text[i]));
    }
    if (found) return found;
  }
  return std::nullopt;
}

AddedTokens::AddedTokens(const std::vector<Spec>& specs, const Vocab& vocab, const Normalizer& normalizer) {
  std::int32_t next = vocab.end_id();
  for (const Spec& spec : specs) {
    AddedToken token{};
    token.content = spec.string("content");
    token.single_word = spec.boolean("single_word", false);
    token.lstrip = spec.boolean("lstrip", false);
    token.rstrip = spec.boolean("rstrip", false);
    token.special = spec.boolean("special", false);
    token.normalized = spec.boolean("normalized", !token.special);
    if (token.content.size() > kContentBytesMax) spec.bad("content is over 4096 bytes");
    if (token.content.empty() || by_content_.contains(token.content)) continue;
    token.id = read_id(spec, token.content, vocab, next);
    next = std::max(next, token.id + 1);
    if (!by_id_.emplace(token.id, tokens_.size()).second) spec.bad("the id is taken by another added token");
    by_content_.emplace(token.content, tokens_.size());
    if (token.normalized) {
      token.shown = normalizer(token.content);
      normalized_.insert(token.shown, static_cast<std::int32_t>(tokens_.size()));
    } else {
      token.shown = token.content;
      raw_.insert(token.content, static_cast<std::int32_t>(tokens_.size()));
    }
    tokens_.push_back(std::move(token));
  }
}

void AddedTokens::split(const Trie& trie, std::string_view text, bool plain_special, std::vector<Segment>& out) const {
  std::size_t done = 0;
  std::size_t from = 0;
  while (!trie.empty()) {
    const auto found = trie.next(text, from);
    if (!found) break;
    from = found->end;
    const AddedToken& token = tokens_[static_cast<std::size_t>(found->token)];
    if (plain_special && token.special) continue;
    if (token.single_word && !stands_alone(text, found->begin, found->end)) continue;
    std::size_t begin = found->begin;
    std::size_t end = found->end;
    if (token.lstrip) begin = std::max(skip_spaces_left(text, begin), done);
    if (token.rstrip) end = skip_spaces_right(text, end);
    if (done < begin) out.push_back({done, begin, -1});
    out.push_back({begin, end, token.id});
    done = end;
  }
  if (done < text.size()) out.push_back({done, text.size(), -1});
}

void AddedTokens::split_raw(std::string_view text, bool plain_special, std::vector<Segment>& out) const {
  split(raw_, text, plain_special, out);
}

void AddedTokens::split_normalized(std::string_view text, bool plain_special, std::vector<Segment>& out) const {
  split(normalized_, text, plain_special, out);
}

const AddedToken* AddedTokens::by_id(std::int32_t id) const {
  const auto it = by_id_.find(id);
  return it == by_id_.end() ? nullptr : &tokens_[it->second];
}

const AddedToken* AddedTokens::by_content(std::string_view content) const {
  const auto it = by_content_.find(std::string(content));
  return it == by_content_.end() ? nullptr : &tokens_[it->second];
}

bool AddedTokens::is_special(std::string_view content) const {
  const AddedToken* token = by_content(content);
  return token != nullptr && token->special;
}

}  // namespace ganglion::local::tok
