// See api/json_outline.hpp.

#include "api/json_outline.hpp"

#include "api/json_text.hpp"
#include "core/assert.hpp"

namespace ganglion::api {
namespace {

// Of what is kept from text to text, 3 MB: prompts of token ids have as many values.
constexpr std::size_t kNodesKept = std::size_t{1} << 17;
constexpr std::size_t kKeyBytesKept = 65'536;

}  // namespace

void JsonOutline::start(std::string_view text) {
  GW_ASSERT(text.size() <= kTextBytesMax);
  text_ = text;
  ++sequence_;
  nodes_.clear();
  keys_.clear();
  open_ = 0;
}

void JsonOutline::trim() {
  if (nodes_.capacity() <= kNodesKept && keys_.capacity() <= kKeyBytesKept) return;
  nodes_ = {};
  keys_ = {};
  text_ = {};
  ++sequence_;
}

void JsonOutline::key(const JsonString& key) {
  coming_.key_escaped = key.escaped;
  if (!key.escaped) {
    coming_.key_begin = at(key.raw.data());
    coming_.key_end = coming_.key_begin + static_cast<std::uint32_t>(key.raw.size());
    return;
  }
  coming_.key_begin = static_cast<std::uint32_t>(keys_.size());
  append_unescaped(keys_, key.raw);
  coming_.key_end = static_cast<std::uint32_t>(keys_.size());
}

void JsonOutline::leaf(Kind kind, const char* begin, const char* end) {
  coming_.kind = kind;
  coming_.begin = at(begin);
  coming_.end = at(end);
  coming_.next = size() + 1;
  nodes_.push_back(coming_);
}

void JsonOutline::open(Kind kind, const char* begin) {
  coming_.kind = kind;
  coming_.begin = at(begin);
  coming_.next = open_;
  open_ = size();
  nodes_.push_back(coming_);
}

void JsonOutline::close(const char* end) {
  Node& node = nodes_[open_];
  open_ = node.next;
  node.end = at(end);
  node.next = size();
}

}  // namespace ganglion::api
