// Reads the vocabulary.

#include "backends/local/tokenizer/vocab.hpp"

#include <nlohmann/json.hpp>

namespace ganglion::local::tok {

Vocab::Vocab(const Spec& spec) {
  if (!spec.json().is_object()) spec.bad("is not an object of token: id");
  ids_.reserve(spec.json().size());
  for (const auto& [token, id] : spec.json().items()) {
    if (!id.is_number_integer() || id.get<std::int64_t>() < 0 || id.get<std::int64_t>() > kTokenIdMax) {
      spec.bad("the id of \"" + token + "\" is not an integer from 0 to " + std::to_string(kTokenIdMax));
    }
    const auto value = id.get<std::int32_t>();
    if (static_cast<std::size_t>(value) >= tokens_.size()) tokens_.resize(static_cast<std::size_t>(value) + 1);
    if (has_id(value)) spec.bad("the id " + std::to_string(value) + " has two tokens, one is \"" + token + "\"");
    const std::string_view stored = storage_.emplace_back(token);
    tokens_[static_cast<std::size_t>(value)] = stored;
    ids_.emplace(stored, value);
    if (token.empty()) empty_id_ = value;
  }
}

}  // namespace ganglion::local::tok
