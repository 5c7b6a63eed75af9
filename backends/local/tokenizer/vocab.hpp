#pragma once
// The model's vocabulary: token text to id and back.

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "backends/local/tokenizer/spec.hpp"

namespace ganglion::local::tok {

inline constexpr std::int64_t kTokenIdMax = 4'000'000;  // bounds the table of ids; real vocabularies are < 300,000

class Vocab {
 public:
  Vocab() = default;
  // A JSON object of token: id. Throws LoadError (negative or huge ids, the same id twice).
  explicit Vocab(const Spec& spec);
  Vocab(Vocab&&) noexcept = default;
  Vocab& operator=(Vocab&&) noexcept = default;

  std::int32_t find(std::string_view token) const {  // -1: absent
    const auto it = ids_.find(token);
    return it == ids_.end() ? -1 : it->second;
  }
  // "" when no token has this id.
  std::string_view token(std::int32_t id) const {
    return id >= 0 && static_cast<std::size_t>(id) < tokens_.size() ? tokens_[static_cast<std::size_t>(id)]
                                                                    : std::string_view();
  }
  bool has_id(std::int32_t id) const { return !token(id).empty() || (id >= 0 && id == empty_id_); }
  std::size_t size() const { return ids_.size(); }
  // One more than the largest id.
  std::int32_t end_id() const { return static_cast<std::int32_t>(tokens_.size()); }
  const std::unordered_map<std::string_view, std::int32_t>& ids() const { return ids_; }

 private:
  std::deque<std::string> storage_;
  std::unordered_map<std::string_view, std::int32_t> ids_;
  std::vector<std::string_view> tokens_;
  std::int32_t empty_id_ = -1;  // the id of the token "", should there be one
};

}  // namespace ganglion::local::tok
