// See cache/key.hpp. The values of the body's outline are written with each object's members sorted; no recursion past
// the 64 levels that the cursor allows. Linear in the body for any nesting.

#include "cache/key.hpp"

#include <openssl/rand.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "api/json_cursor.hpp"
#include "api/json_text.hpp"
#include "core/assert.hpp"

namespace ganglion::cache {
namespace {

// Fields of the scope are length-prefixed, so that no two scopes write the same bytes.
void append_field(std::string& out, std::string_view text) {
  const std::uint64_t size = text.size();
  out.append(reinterpret_cast<const char*>(&size), sizeof size);
  out.append(text);
}

constexpr bool ignored_at_top(std::string_view key) {
  return key == "stream" || key == "stream_options" || key == "model";
}

// Values from this size on are hashed where they lie in the body; what is shorter is gathered.
constexpr std::size_t kInPlaceBytes = 512;
constexpr std::size_t kTextKept = std::size_t{1} << 20;  // bytes, from key to key
constexpr std::size_t kMembersKept = 65'536;
constexpr std::size_t kHashStepBytes = 8192;  // both hashes read these while they are in the first cache

}  // namespace

KeySeed KeySeed::of(const StoreSecret& secret) {
  const StoreKey derived = secret.name("seed of the memory tier's keys");
  KeySeed seed;
  std::memcpy(&seed.hash, derived.bytes.data(), sizeof seed.hash);
  std::memcpy(&seed.check, derived.bytes.data() + sizeof seed.hash, sizeof seed.check);
  return seed;
}

KeySeed KeySeed::random() {
  KeySeed seed;
  if (RAND_bytes(reinterpret_cast<unsigned char*>(&seed), sizeof seed) != 1) {
    throw std::runtime_error("the system's random generator failed");
  }
  return seed;
}

// Writes the canonical text of an outlined body.
struct Canonical {
  KeyMaker& maker;
  const api::JsonOutline& outline;

  using Node = api::JsonOutline::Node;
  using Kind = api::JsonOutline::Kind;

  // Part of the body.
  void add(std::string_view part) {
    if (part.size() < kInPlaceBytes)
      maker.text_.append(part);
    else
      maker.runs_.push_back({.text_end = maker.text_.size(), .in_body = part});
  }

  // One spelling for each string: what stands between escapes is taken as it is, and of the escapes only \/ and \uXXXX
  // have another spelling. Most escapes in prompts are \n, so the text is not taken apart byte by byte.
  void add_string(std::string_view quoted) {
    std::size_t begin = 0;  // of what is not added yet
    std::size_t at = 0;
    while (true) {
      const std::size_t slash = quoted.find('\\', at);
      if (slash == std::string_view::npos) break;
      const char escape = quoted[slash + 1];
      if (escape != '/' && escape != 'u') {
        at = slash + 2;
        continue;
      }
      add(quoted.substr(begin, slash - begin));
      std::size_t size = escape == '/' ? 2 : 6;
      // A high surrogate comes with its other half: the cursor has checked.
      if (escape == 'u' && (quoted[slash + 2] | 0x20) == 'd' && quoted[slash + 3] >= '8') size = 12;
      std::string character;
      api::append_unescaped(character, quoted.substr(slash, size));
      api::append_json_escaped(maker.text_, character);
      begin = at = slash + size;
    }
    add(quoted.substr(begin));
  }

  void write(std::uint32_t index, bool top) {
    const Node& node = outline[index];
    std::string& out = maker.text_;
    switch (node.kind) {
      case Kind::object:
        write_object(index, top);
        break;
      case Kind::array:
        out.push_back('[');
        for (std::uint32_t child = index + 1; child < node.next; child = outline[child].next) {
          if (child != index + 1) out.push_back(',');
          write(child, false);
        }
        out.push_back(']');
        break;
      case Kind::escaped:
        add_string(outline.value(node));
        break;
      case Kind::plain:
        add(outline.value(node));
    }
  }

  void write_object(std::uint32_t index, bool top) {
    // The order of this object's members: a stretch of order_ that is given back at the end.
    std::vector<std::uint32_t>& order = maker.order_;
    const std::size_t first = order.size();
    bool sorted = true;
    for (std::uint32_t child = index + 1; child < outline[index].next; child = outline[child].next) {
      if (top && ignored_at_top(outline.key(outline[child]))) continue;
      if (order.size() > first && outline.key(outline[child]) < outline.key(outline[order.back()])) sorted = false;
      order.push_back(child);
    }
    if (!sorted) {
      // Indices grow with the place in the text, so members of one name keep their order without a stable sort.
      std::sort(order.begin() + static_cast<std::ptrdiff_t>(first), order.end(), [&](std::uint32_t a, std::uint32_t b) {
        const int compared = outline.key(outline[a]).compare(outline.key(outline[b]));
        return compared != 0 ? compared < 0 : a < b;
      });
    }
    maker.text_.push_back('{');
    for (std::size_t i = first; i < order.size(); ++i) {
      if (i != first) maker.text_.push_back(',');
      const std::uint32_t child = order[i];
      if (outline[child].key_escaped) {
        api::append_json_string(maker.text_, outline.key(outline[child]));
      } else {
        maker.text_.push_back('"');
        maker.text_.append(outline.key(outline[child]));
        maker.text_.push_back('"');
      }
      maker.text_.push_back(':');
      write(child, false);
    }
    maker.text_.push_back('}');
    order.resize(first);
  }
};

void KeyMaker::scope(const KeyScope& scope, char form) {
  text_.clear();
  runs_.clear();
  if (text_.capacity() > kTextKept) text_ = {};
  if (order_.capacity() > kMembersKept) order_ = {};
  append_field(text_, scope.tenant);
  append_field(text_, scope.gateway);
  append_field(text_, scope.model);
  text_.push_back(static_cast<char>(scope.endpoint));
  text_.append(reinterpret_cast<const char*>(&scope.policy_version), sizeof scope.policy_version);
  text_.push_back(form);
  body_at_ = text_.size();
}

CacheKey KeyMaker::hash() {
  if (runs_.empty()) {
    return {
        .hash = core::hash128(text_, seed_.hash), .check = core::hash128(text_, seed_.check), .bytes = text_.size()};
  }
  hash_.reset(seed_.hash);
  check_.reset(seed_.check);
  std::uint64_t bytes = 0;
  each_part([&](std::string_view part) {
    bytes += part.size();
    for (; !part.empty(); part.remove_prefix(std::min(part.size(), kHashStepBytes))) {
      const std::string_view step = part.substr(0, kHashStepBytes);
      hash_.update(step);
      check_.update(step);
    }
  });
  return {.hash = hash_.digest(), .check = check_.digest(), .bytes = bytes};
}

template <class Use>
void KeyMaker::each_part(const Use& use) const {
  std::size_t at = 0;
  for (const Run& run : runs_) {
    use(std::string_view{text_}.substr(at, run.text_end - at));
    use(run.in_body);
    at = run.text_end;
  }
  use(std::string_view{text_}.substr(at));
}

std::string KeyMaker::whole_text() const {
  std::string out;
  each_part([&](std::string_view part) { out.append(part); });
  return out;
}

StoreKey KeyMaker::store_key(const StoreSecret& secret) const {
  return runs_.empty() ? secret.name(text_) : secret.name(whole_text());
}

core::Result<CacheKey> KeyMaker::from_body(const KeyScope& scope_, std::string_view body) {
  if (body.size() > api::JsonOutline::kTextBytesMax) {
    return core::fail(core::ErrorKind::payload_too_large, "the request body is too large to be cached");
  }
  api::JsonCursor cursor{body, &outline_};
  const bool whole = cursor.skip() && cursor.at_end();
  auto key = whole ? core::Result<CacheKey>{from_outline(scope_, outline_)}
                   : core::Result<CacheKey>{std::unexpected(api::json_error(body, cursor))};
  outline_.trim();  // what was made of it is in text_ and in the body
  return key;
}

CacheKey KeyMaker::from_outline(const KeyScope& scope_, const api::JsonOutline& outline) {
  GW_ASSERT(outline.size() != 0);
  scope(scope_, 'b');
  order_.clear();
  Canonical{.maker = *this, .outline = outline}.write(0, true);
  return hash();
}

CacheKey KeyMaker::from_text(const KeyScope& scope_, std::string_view text) {
  scope(scope_, 't');
  text_.append(text);
  return hash();
}

std::string KeyMaker::canonical() const {
  return whole_text().substr(body_at_);
}

}  // namespace ganglion::cache
