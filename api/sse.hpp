#pragma once
// Server-sent events (WHATWG HTML, section 9.2), sans-I/O: an incremental parser that takes bytes in any split and
// hands out whole events with the bytes to forward, and a writer whose output cannot be broken out of by CR or LF in a
// value.

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "core/error.hpp"
#include "core/limits.hpp"

namespace ganglion::api {

// One block up to its blank line. Views are valid until the next call on the parser (and only while the bytes given to
// feed() live).
struct SseEvent {
  std::string_view raw;   // to forward: the block's own bytes with its blank line; re-framed with LF if it held a CR
  std::string_view data;  // data lines joined with LF
  std::string_view type;  // the event field; "" is "message"
  std::string_view id;
  bool has_data = false;  // false: only comments or other fields (a keep-alive)
  bool in_place = false;  // raw is part of the bytes given to feed(): it is valid as long as they live
};

class SseParser {
 public:
  explicit SseParser(std::size_t event_bytes_max = core::kSseEventBytesMax) : event_bytes_max_(event_bytes_max) {}

  // Gives the next bytes. Only when next() has returned nullopt for the bytes given before; `bytes` must live until
  // then. What is left of an unfinished event is copied.
  void feed(std::string_view bytes);

  // The next whole event, nullopt when more bytes are needed. Error: upstream_protocol, when one event is larger than
  // the maximum; the parser is then of no more use.
  core::Result<std::optional<SseEvent>> next();

  // At the end of the bytes: the event that lacks its blank line, if one is held. The standard discards it; a relay may
  // still accept a last `data: [DONE]` whose server closed early.
  std::optional<SseEvent> finish();

  bool mid_event() const { return !held_.empty() && !release_held_; }  // bytes of an unfinished event are held

 private:
  void skip_mark();
  std::optional<SseEvent> usual_event();
  bool find_end();
  SseEvent make_event(std::string_view block);
  void add_line(std::string_view line, SseEvent& event);

  std::size_t event_bytes_max_;
  std::string_view input_;
  std::size_t at_ = 0;        // how far input_ was scanned
  std::size_t block_at_ = 0;  // where the current block begins in input_
  std::string held_;          // the beginning of a block whose end has not come
  std::string joined_;        // data of several lines
  std::string reframed_;
  bool release_held_ = false;  // held_ was handed out by the last call
  bool at_start_ = true;       // a byte order mark may still come
  std::size_t mark_ = 0;       // bytes of it that have come
  bool line_empty_ = true;     // the scan stands at the beginning of a line
  bool after_cr_ = false;      // the last byte was a CR: an LF now belongs to it
  bool content_ = false;       // the block has a line that is not empty
  bool has_cr_ = false;
  std::size_t lines_ = 0;  // lines of the block that are not empty
};

// Appends one event. `data` may hold line ends of any kind: each line gets its own data field. CR and LF are removed
// from `type`.
void append_sse_event(std::string& out, std::string_view data, std::string_view type = {});
void append_sse_comment(std::string& out, std::string_view text);

inline constexpr std::string_view kSseDone = "data: [DONE]\n\n";

}  // namespace ganglion::api
