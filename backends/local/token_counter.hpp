#pragma once
// Counts tokens of plain text with a loaded model's tokenizer: for estimates at admission and for answers of remote
// providers that report no usage. Cheap to copy; any thread.

#include <cstdint>
#include <functional>
#include <string_view>
#include <utility>

namespace ganglion::backends {

class TokenCounter {
 public:
  using Count = std::function<std::uint64_t(std::string_view)>;

  // Without a tokenizer: one token per four bytes, rounded up, which is the usual figure for English text.
  TokenCounter() = default;
  explicit TokenCounter(Count count) : count_(std::move(count)) {}

  bool exact() const { return static_cast<bool>(count_); }
  // Tokens of `text` alone, without the special tokens or template that a model would add.
  std::uint64_t count(std::string_view text) const {
    return count_ ? count_(text) : (static_cast<std::uint64_t>(text.size()) + 3) / 4;
  }

 private:
  Count count_;
};

}  // namespace ganglion::backends
