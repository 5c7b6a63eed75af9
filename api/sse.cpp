// See api/sse.hpp. Two steps: find_end() walks bytes with a little state, so it never looks at a byte twice whatever
// the split; make_event() reads the fields of one whole block. The usual event needs neither.

#include "api/sse.hpp"

#include <bit>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace ganglion::api {
namespace {

constexpr std::string_view kBom = "\xEF\xBB\xBF";

// The first CR or LF, or end.
const char* line_end(const char* p, const char* end) {
#if defined(__SSE2__)
  const __m128i lf = _mm_set1_epi8('\n');
  const __m128i cr = _mm_set1_epi8('\r');
  for (; end - p >= 16; p += 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    const auto mask =
        static_cast<unsigned>(_mm_movemask_epi8(_mm_or_si128(_mm_cmpeq_epi8(bytes, lf), _mm_cmpeq_epi8(bytes, cr))));
    if (mask != 0) return p + std::countr_zero(mask);
  }
#endif
  while (p != end && *p != '\n' && *p != '\r') ++p;
  return p;
}

// Takes the next line off `block`, without its end.
std::string_view take_line(std::string_view& block) {
  const char* const end = block.data() + block.size();
  const char* const stop = line_end(block.data(), end);
  const std::string_view line{block.data(), static_cast<std::size_t>(stop - block.data())};
  std::size_t used = line.size();
  if (stop != end) used += stop[0] == '\r' && stop + 1 != end && stop[1] == '\n' ? 2 : 1;
  block.remove_prefix(used);
  return line;
}

}  // namespace

void SseParser::feed(std::string_view bytes) {
  if (release_held_) {
    held_.clear();
    release_held_ = false;
  }
  input_ = bytes;
  at_ = 0;
  block_at_ = 0;
}

// Drops the byte order mark that may lead the stream, in whatever pieces it comes.
void SseParser::skip_mark() {
  while (at_ < input_.size() && at_start_) {
    if (input_[at_] != kBom[mark_]) {
      at_start_ = false;
      if (mark_ == 0) break;
      // It was none: what looked like its beginning is the beginning of a line.
      held_.assign(kBom.substr(0, mark_));
      content_ = true;
      line_empty_ = false;
      break;
    }
    ++at_;
    if (++mark_ == kBom.size()) at_start_ = false;
  }
  block_at_ = at_;
}

// Moves at_ behind the blank line that ends the block (true), or to the end of the input. Blank lines before a block
// are dropped. Invariant: without content nothing is held.
bool SseParser::find_end() {
  const char* const begin = input_.data();
  const char* const end = begin + input_.size();
  const char* p = begin + at_;
  while (p != end) {
    if (after_cr_) {
      after_cr_ = false;
      if (*p == '\n') {
        ++p;
        if (!content_) block_at_ = static_cast<std::size_t>(p - begin);
        continue;
      }
    }
    const char* const stop = line_end(p, end);
    if (stop != p) {
      line_empty_ = false;
      content_ = true;
    }
    p = stop;
    if (p == end) break;
    ++p;
    after_cr_ = *stop == '\r';
    has_cr_ = has_cr_ || after_cr_;
    if (!line_empty_) {
      line_empty_ = true;
      ++lines_;
    } else if (content_) {
      at_ = static_cast<std::size_t>(p - begin);
      return true;
    } else {
      block_at_ = static_cast<std::size_t>(p - begin);
      has_cr_ = false;
    }
  }
  at_ = input_.size();
  return false;
}

// A whole block, here from its beginning to its end, of one line that begins with "data: " and ends in line feeds.
std::optional<SseEvent> SseParser::usual_event() {
  static constexpr std::string_view kField = "data: ";
  if (content_ || after_cr_ || at_start_) return std::nullopt;
  const std::string_view rest = input_.substr(at_);
  if (!rest.starts_with(kField)) return std::nullopt;
  const std::size_t end = rest.find('\n');
  if (end >= rest.size() - 1 || rest[end + 1] != '\n' || end + 2 > event_bytes_max_) return std::nullopt;
  const std::string_view line = rest.substr(0, end);
  if (line.find('\r') != std::string_view::npos) return std::nullopt;
  at_ += end + 2;
  block_at_ = at_;
  return SseEvent{
      .raw = rest.substr(0, end + 2), .data = line.substr(kField.size()), .has_data = true, .in_place = true};
}

core::Result<std::optional<SseEvent>> SseParser::next() {
  if (release_held_) {
    held_.clear();
    release_held_ = false;
  }
  if (at_start_) skip_mark();
  if (auto event = usual_event()) return event;
  const bool whole = find_end();
  const std::string_view piece = input_.substr(block_at_, at_ - block_at_);
  block_at_ = at_;
  if (held_.size() + piece.size() > event_bytes_max_) {
    block_at_ = 0;  // the same answer again, should anyone ask
    at_ = input_.size();
    return core::fail(core::ErrorKind::upstream_protocol, "an event of the upstream's stream is larger than " +
                                                              std::to_string(event_bytes_max_) + " bytes");
  }
  if (!whole) {
    held_.append(piece);
    return std::nullopt;
  }
  if (held_.empty()) return make_event(piece);
  held_.append(piece);
  release_held_ = true;
  return make_event(held_);
}

std::optional<SseEvent> SseParser::finish() {
  if (!mid_event()) return std::nullopt;
  after_cr_ = false;
  if (!line_empty_) {
    held_.push_back('\n');
    ++lines_;
  }
  held_.push_back('\n');
  release_held_ = true;
  return make_event(held_);
}

// Reads one whole block and makes the scan ready for the next.
SseEvent SseParser::make_event(std::string_view block) {
  const std::size_t lines = lines_;
  const bool in_place = !has_cr_ && !release_held_;
  if (has_cr_) {
    reframed_.clear();
    while (!block.empty()) {
      reframed_.append(take_line(block));
      reframed_.push_back('\n');
    }
    block = reframed_;
  }
  line_empty_ = true;
  content_ = false;
  has_cr_ = false;
  lines_ = 0;
  SseEvent event;
  event.raw = block;
  event.in_place = in_place;
  if (lines == 1) {
    // The usual event. Its line ends where the two line feeds begin.
    add_line(block.substr(0, block.size() - 2), event);
    return event;
  }
  while (!block.empty()) add_line(take_line(block), event);
  return event;
}

void SseParser::add_line(std::string_view line, SseEvent& event) {
  const std::size_t colon = line.find(':');
  if (colon == 0) return;  // a comment
  const std::string_view field = line.substr(0, colon);
  std::string_view value = colon == std::string_view::npos ? std::string_view{} : line.substr(colon + 1);
  if (value.starts_with(' ')) value.remove_prefix(1);
  if (field == "data") {
    if (!event.has_data) {
      event.has_data = true;
      event.data = value;
      return;
    }
    if (event.data.data() != joined_.data() || joined_.empty()) joined_.assign(event.data);
    joined_.push_back('\n');
    joined_.append(value);
    event.data = joined_;
  } else if (field == "event") {
    event.type = value;
  } else if (field == "id" && value.find('\0') == std::string_view::npos) {
    event.id = value;
  }
}

void append_sse_event(std::string& out, std::string_view data, std::string_view type) {
  if (!type.empty()) {
    out += "event: ";
    for (const char c : type) {
      if (c != '\r' && c != '\n') out.push_back(c);
    }
    out.push_back('\n');
  }
  bool more = true;
  while (more) {
    const std::size_t before = data.size();
    const std::string_view line = take_line(data);
    more = before != line.size();  // a line end was taken: a line follows, be it empty
    out += "data: ";
    out += line;
    out.push_back('\n');
  }
  out.push_back('\n');
}

void append_sse_comment(std::string& out, std::string_view text) {
  while (true) {
    out += ": ";
    out += take_line(text);
    out.push_back('\n');
    if (text.empty()) break;
  }
  out.push_back('\n');
}

}  // namespace ganglion::api
