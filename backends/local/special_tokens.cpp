// See special_tokens.hpp.

#include "backends/local/special_tokens.hpp"

#include <algorithm>

#include "backends/local/chat/text.hpp"

namespace ganglion::backends {

namespace {

using local::jinja::Kind;
using local::jinja::Value;

constexpr std::string_view kMark = "\xEF\xB7\x90";  // U+FDD0

}  // namespace

SpecialTokenGuard::SpecialTokenGuard(const local::Tokenizer& tokenizer) {
  for (const std::int32_t id : tokenizer.special_ids()) {
    const std::string_view text = tokenizer.id_to_token(id);
    if (!text.empty()) by_first_byte_[static_cast<unsigned char>(text[0])].emplace_back(text);
  }
}

bool SpecialTokenGuard::begins_token(std::string_view text) const {
  return std::ranges::any_of(by_first_byte_[static_cast<unsigned char>(text[0])],
                             [&](const std::string& token) { return text.starts_with(token); });
}

std::string SpecialTokenGuard::mark(std::string_view text) const {
  // Marks that came with the text go first, or one inside a spelling would hide it from the search.
  std::string plain;
  if (text.find(kMark) != std::string_view::npos) text = plain = local::jinja::replace(text, kMark, "", -1);
  std::string out;
  std::size_t copied = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    // Each place is looked at, also inside a spelling: another one may begin there.
    if (!begins_token(text.substr(i))) continue;
    const std::size_t behind_first = i + local::jinja::code_point_at(text, i).bytes;
    out.append(text.substr(copied, behind_first - copied)).append(kMark);
    copied = behind_first;
  }
  out.append(text.substr(copied));
  return out;
}

Value SpecialTokenGuard::mark(const Value& value) const {
  switch (value.kind()) {
    case Kind::string: {
      std::string marked = mark(value.as_string());
      return marked == value.as_string() ? value : Value::string(std::move(marked));
    }
    case Kind::list: {
      std::vector<Value> items;
      for (const Value& item : value.as_list().items) items.push_back(mark(item));
      return Value::list(std::move(items), value.as_list().sequence);
    }
    case Kind::dict: {
      std::vector<Value::Entry> entries;
      for (const auto& [key, item] : value.as_dict().entries) entries.emplace_back(mark(key), mark(item));
      return Value::dict(std::move(entries));
    }
    default:
      return value;
  }
}

std::vector<std::int32_t> SpecialTokenGuard::encode(const local::Tokenizer& tokenizer, std::string_view prompt) const {
  std::vector<std::int32_t> ids;
  const auto add = [&](std::vector<std::int32_t> more) { ids.insert(ids.end(), more.begin(), more.end()); };
  while (!prompt.empty()) {
    const std::string_view piece = prompt.substr(0, prompt.find(kMark));
    if (!piece.empty()) add(tokenizer.encode(piece, false));
    prompt.remove_prefix(std::min(piece.size() + kMark.size(), prompt.size()));
  }
  return ids;
}

}  // namespace ganglion::backends
