// See vocabulary.hpp.

#include "backends/local/grammar/vocabulary.hpp"

#include <algorithm>

#include "backends/local/tokenizer/tokenizer.hpp"

namespace ganglion::local::grammar {

Vocabulary::Vocabulary(const Tokenizer& tokenizer, std::int64_t size, std::span<const std::int32_t> end_ids)
    : bytes_(static_cast<std::size_t>(size)), end_ids_(end_ids.begin(), end_ids.end()) {
  const std::int64_t known = std::min<std::int64_t>(size, tokenizer.vocab_size());
  for (std::int64_t i = 0; i < known; ++i) {
    const auto id = static_cast<std::int32_t>(i);
    std::string& bytes = bytes_[static_cast<std::size_t>(i)];
    bytes = tokenizer.is_special(id) ? special(id) : tokenizer.token_bytes(id);
    // No text has this byte, and tokens of single bytes must not spell a special token's code.
    if (!tokenizer.is_special(id) && bytes.find('\xff') != std::string::npos) bytes.clear();
  }
  build();
}

Vocabulary::Vocabulary(std::vector<std::string> bytes, std::vector<std::int32_t> end_ids)
    : bytes_(std::move(bytes)), end_ids_(std::move(end_ids)) {
  build();
}

std::string Vocabulary::special(std::int32_t id) {
  const auto byte = [id](int shift) { return static_cast<char>(static_cast<unsigned char>(id >> shift)); };
  return {'\xff', byte(16), byte(8), byte(0)};
}

void Vocabulary::build() {
  std::erase_if(end_ids_, [&](std::int32_t id) { return id < 0 || id >= size(); });
  std::vector<std::pair<std::string, std::int32_t>> entries;
  entries.reserve(bytes_.size());
  for (std::size_t i = 0; i < bytes_.size(); ++i) {
    const auto id = static_cast<std::int32_t>(i);
    if (std::find(end_ids_.begin(), end_ids_.end(), id) != end_ids_.end()) bytes_[i] = special(id);
    entries.emplace_back(bytes_[i], id);
    openings_max_ = std::max(
        openings_max_, static_cast<int>(std::ranges::count_if(bytes_[i], [](char c) { return c == '{' || c == '['; })));
  }
  trie_ = Trie(std::move(entries));
}

}  // namespace ganglion::local::grammar
