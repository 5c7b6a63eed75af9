#pragma once
// Watches the events of an OpenAI-dialect stream (chat.completion.chunk, text_completion) go by: usage, ends, errors,
// and how much text came. One inspector a stream. An event is scanned once, and one that differs from the event before
// it in its text alone, as most do, is only compared with it; nothing is allocated for it.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "api/json_cursor.hpp"
#include "api/sse.hpp"
#include "api/types.hpp"

namespace ganglion::api {

// What one event is. Spans are into the event's data.
struct ChunkFacts {
  bool done = false;        // [DONE]
  bool malformed = false;   // has data that is neither [DONE] nor a JSON object
  bool error = false;       // carries an error object
  bool usage_only = false;  // usage and an empty choices: made by stream_options.include_usage alone
  bool first_text = false;  // the first event of the stream with text, tool arguments or reasoning
  Span usage_object;        // the usage object, empty if none (null does not count)
  std::size_t text_bytes = 0;
};

// What events of one stream share: an event that has been read, without its text.
class EventFrame {
 public:
  static constexpr std::size_t kBytesMax = 1024;  // of a frame; a larger event is not kept

  // Of a good event: where its text stands, and a string behind it that may change too (empty: none). Both are what is
  // between a string's quotes.
  void keep(std::string_view event, Span text, Span padding);
  // The length of an event's text, if nothing but text and padding differs and both are what a JSON string may hold:
  // then it is as good as the one that was kept, and means the same.
  std::optional<std::size_t> text_bytes(std::string_view event) const;

 private:
  std::string bytes_;  // empty: none
  std::size_t ahead_ = 0;
  std::size_t between_ = 0;
};

class StreamInspector {
 public:
  static constexpr std::size_t kChoicesMax = 128;

  ChunkFacts inspect(std::string_view data);
  ChunkFacts inspect(const SseEvent& event) { return event.has_data ? inspect(event.data) : ChunkFacts{}; }

  bool done() const { return done_; }
  bool failed() const { return failed_; }  // an error object or a malformed event was seen
  // Every choice that began has its finish_reason, at least one did, and [DONE] came; no error. Only then is the
  // answer fit for the cache.
  bool complete() const { return done_ && !failed_ && begun_ != 0 && open_ == 0; }
  bool finished() const { return begun_ != 0 && open_ == 0; }   // the same without [DONE]
  const std::optional<Usage>& usage() const { return usage_; }  // the last one reported; nullopt if none was
  std::uint64_t text_bytes() const { return text_bytes_; }      // of content, reasoning, tool arguments, text
  // The choice has begun and has no finish_reason yet.
  bool open(std::size_t choice) const {
    const std::uint64_t bit = std::uint64_t{1} << (choice % 64);
    return choice < kChoicesMax && (begun_bits_[choice / 64] & ~ended_bits_[choice / 64] & bit) != 0;
  }
  std::uint64_t text_events() const { return text_events_; }  // events with text: near the number of tokens

 private:
  friend struct ChunkReader;
  void count_text(ChunkFacts& facts);

  EventFrame frame_;
  std::optional<Usage> usage_;
  std::uint64_t text_bytes_ = 0;
  std::uint64_t text_events_ = 0;
  std::uint32_t begun_ = 0;
  std::uint32_t open_ = 0;
  std::uint64_t begun_bits_[kChoicesMax / 64] = {};
  std::uint64_t ended_bits_[kChoicesMax / 64] = {};
  bool done_ = false;
  bool failed_ = false;
};

// The event with `"neurons":<decimal>` added to its usage object, re-framed, in `out` (old content replaced); the
// event's own bytes if it carries no usage. `decimal` must be a JSON number, e.g. "1.234".
std::string_view with_neurons(const SseEvent& event, const ChunkFacts& facts, std::string_view decimal,
                              std::string& out);

// Reads an OpenAI usage object (the cursor stands at its value). False on a syntax error. Missing counts are 0.
bool read_usage(JsonCursor& cursor, Usage& usage);

}  // namespace ganglion::api
