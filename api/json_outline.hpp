#pragma once
// Where the values of one JSON text lie, in the order of the text: recorded by the JsonCursor that reads it, so that
// who needs the whole structure afterwards (cache/key.cpp) does not scan the text again. No values, no types of
// numbers. Kept from text to text for its memory; not thread-safe; the text must outlive what is asked of its outline.

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace ganglion::api {

struct JsonString;

class JsonOutline {
 public:
  enum class Kind : std::uint8_t { plain, escaped, array, object };  // escaped: a string that has escapes

  struct Node {
    std::uint32_t key_begin = 0, key_end = 0;  // of an object's member; without meaning elsewhere
    std::uint32_t begin = 0, end = 0;          // the value, in the text
    std::uint32_t next = 0;                    // the node after this one's descendants
    bool key_escaped = false;                  // the key is in keys_
    Kind kind = Kind::plain;
  };

  // Places are of 32 bits. Nothing longer may be recorded.
  static constexpr std::size_t kTextBytesMax = std::numeric_limits<std::uint32_t>::max() / 2;

  // Gives a large text's nodes back (24 bytes a value: a hostile text of 10 MB has five million); it has no outline
  // then, and whoever comes back for it sees another number. Small ones are kept for their memory.
  void trim();

  std::string_view text() const { return text_; }
  // Which text this is the outline of, from 1: who comes back after a wait sees whether it is still the own one.
  std::uint64_t sequence() const { return sequence_; }

  // Node 0 is the whole text's value. The children of node i begin at i + 1 and follow each other by `next`, up to the
  // `next` of i itself.
  const Node& operator[](std::uint32_t index) const { return nodes_[index]; }
  std::uint32_t size() const { return static_cast<std::uint32_t>(nodes_.size()); }
  std::string_view key(const Node& node) const {  // with its escapes undone
    const std::string_view from = node.key_escaped ? std::string_view{keys_} : text_;
    return from.substr(node.key_begin, node.key_end - node.key_begin);
  }
  std::string_view value(const Node& node) const { return text_.substr(node.begin, node.end - node.begin); }

  // For the cursor, in the order of the text. Whole only if the text was read to its end without a failure.
  void start(std::string_view text);
  void key(const JsonString& key);  // of the value that comes next
  void leaf(Kind kind, const char* begin, const char* end);
  void open(Kind kind, const char* begin);
  void close(const char* end);

 private:
  std::uint32_t at(const char* p) const { return static_cast<std::uint32_t>(p - text_.data()); }

  std::string_view text_;
  std::uint64_t sequence_ = 0;
  std::vector<Node> nodes_;
  std::string keys_;        // those with escapes, undone
  Node coming_;             // has the key of the value that comes next
  std::uint32_t open_ = 0;  // the innermost open array or object, whose `next` is the one around it until it closes
};

}  // namespace ganglion::api
