// See api/openai_stream.hpp.

#include "api/openai_stream.hpp"

#include "api/json_text.hpp"
#include "api/openai_response.hpp"

namespace ganglion::api {
namespace {

bool count(JsonCursor& cursor, std::uint64_t& out) {
  if (cursor.peek() != JsonType::number) return cursor.skip();
  std::string_view text;
  if (!cursor.number(text)) return false;
  if (const auto value = to_uint64(text)) {
    out = *value;
  } else if (const auto real = to_double(text); real && *real >= 0 && *real < 9e15) {
    out = static_cast<std::uint64_t>(*real);  // "12.0", as some upstreams write counts
  }
  return true;
}

}  // namespace

bool read_usage(JsonCursor& cursor, Usage& usage) {
  JsonString key;
  for (bool more = cursor.begin_object(key); more; more = cursor.next_member(key)) {
    bool good = true;
    if (equals(key, "prompt_tokens") || equals(key, "input_tokens")) {
      good = count(cursor, usage.input_tokens);
    } else if (equals(key, "completion_tokens") || equals(key, "output_tokens")) {
      good = count(cursor, usage.output_tokens);
    } else if (equals(key, "prompt_tokens_details") || equals(key, "input_tokens_details")) {
      if (cursor.peek() != JsonType::object) {
        good = cursor.skip();
      } else {
        JsonString inner;
        for (bool again = cursor.begin_object(inner); again; again = cursor.next_member(inner)) {
          if (!(equals(inner, "cached_tokens") ? count(cursor, usage.cached_input_tokens) : cursor.skip()))
            return false;
        }
        good = cursor.ok();
      }
    } else {
      good = cursor.skip();
    }
    if (!good) return false;
  }
  // A provider that reports more cached tokens than tokens must not make a negative bill.
  if (usage.cached_input_tokens > usage.input_tokens) usage.cached_input_tokens = usage.input_tokens;
  return cursor.ok();
}

// Reads one event's JSON. Each function returns false on a syntax error.
struct ChunkReader {
  StreamInspector& stream;
  JsonCursor cursor;
  ChunkFacts& facts;
  std::string_view data;
  Usage usage{};
  bool has_choices = false;  // at least one element
  // For EventFrame.
  std::size_t texts = 0;  // strings that count as text
  Span text;              // the last of them
  Span padding;           // a top-level string that says nothing

  bool read() {
    JsonString key;
    for (bool more = cursor.begin_object(key); more; more = cursor.next_member(key)) {
      bool good = true;
      if (equals(key, "choices")) {
        good = choices();
      } else if (equals(key, "usage")) {
        good = usage_object();
      } else if (equals(key, "error")) {
        facts.error = cursor.peek() != JsonType::null;
        good = cursor.skip();
      } else if (equals(key, "obfuscation") && cursor.peek() == JsonType::string) {
        JsonString value;  // OpenAI hides the length of the text with as many characters as make the event even
        good = cursor.string(value);
        padding = span_of(value);
      } else {
        good = cursor.skip();
      }
      if (!good) return false;
    }
    return cursor.ok() && cursor.at_end();
  }

  Span span_of(const JsonString& value) const {
    return {.offset = static_cast<std::size_t>(value.raw.data() - data.data()), .length = value.raw.size()};
  }

  // A string counts as text; any other value does not.
  bool text_value() {
    if (cursor.peek() != JsonType::string) return cursor.skip();
    JsonString value;
    if (!cursor.string(value)) return false;
    facts.text_bytes += value.raw.size();
    ++texts;
    text = span_of(value);
    return true;
  }

  bool usage_object() {
    if (cursor.peek() != JsonType::object) return cursor.skip();
    const std::size_t first = cursor.offset();
    usage = {};
    if (!read_usage(cursor, usage)) return false;
    facts.usage_object = {.offset = first, .length = cursor.offset() - first};
    return true;
  }

  bool choices() {
    if (cursor.peek() != JsonType::array) return cursor.skip();
    for (bool more = cursor.begin_array(); more; more = cursor.next_element()) {
      has_choices = true;
      if (!(cursor.peek() == JsonType::object ? choice() : cursor.skip())) return false;
    }
    return cursor.ok();
  }

  bool choice() {
    std::uint64_t index = 0;
    bool ended = false;
    JsonString key;
    for (bool more = cursor.begin_object(key); more; more = cursor.next_member(key)) {
      bool good = true;
      if (equals(key, "index")) {
        good = count(cursor, index);
      } else if (equals(key, "delta")) {
        good = cursor.peek() == JsonType::object ? delta() : cursor.skip();
      } else if (equals(key, "text")) {
        good = text_value();
      } else if (equals(key, "finish_reason")) {
        ended = cursor.peek() == JsonType::string;
        good = cursor.skip();
      } else {
        good = cursor.skip();
      }
      if (!good) return false;
    }
    mark(index, ended);
    return cursor.ok();
  }

  bool delta() {
    JsonString key;
    for (bool more = cursor.begin_object(key); more; more = cursor.next_member(key)) {
      bool good = true;
      if (equals(key, "content") || equals(key, "refusal") || equals(key, "reasoning_content") ||
          equals(key, "reasoning")) {
        good = text_value();
      } else if (equals(key, "tool_calls")) {
        good = tool_calls();
      } else {
        good = cursor.skip();
      }
      if (!good) return false;
    }
    return cursor.ok();
  }

  // Names and arguments are tokens that the model wrote; the frame around them is not counted.
  bool tool_calls() {
    if (cursor.peek() != JsonType::array) return cursor.skip();
    for (bool more = cursor.begin_array(); more; more = cursor.next_element()) {
      if (cursor.peek() != JsonType::object) {
        if (!cursor.skip()) return false;
        continue;
      }
      JsonString key;
      for (bool member = cursor.begin_object(key); member; member = cursor.next_member(key)) {
        if (!equals(key, "function") || cursor.peek() != JsonType::object) {
          if (!cursor.skip()) return false;
          continue;
        }
        JsonString inner;
        for (bool field = cursor.begin_object(inner); field; field = cursor.next_member(inner)) {
          const bool counts = equals(inner, "arguments") || equals(inner, "name");
          if (!(counts ? text_value() : cursor.skip())) return false;
        }
        if (!cursor.ok()) return false;
      }
      if (!cursor.ok()) return false;
    }
    return cursor.ok();
  }

  void mark(std::uint64_t index, bool ended) {
    if (index >= StreamInspector::kChoicesMax) return;
    const std::uint64_t bit = std::uint64_t{1} << (index % 64);
    if ((stream.begun_bits_[index / 64] & bit) == 0) {
      stream.begun_bits_[index / 64] |= bit;
      ++stream.begun_;
      ++stream.open_;
    }
    if (ended && (stream.ended_bits_[index / 64] & bit) == 0) {
      stream.ended_bits_[index / 64] |= bit;
      --stream.open_;
    }
  }
};

void EventFrame::keep(std::string_view event, Span text, Span padding) {
  bytes_.clear();
  if (event.size() - text.length - padding.length > kBytesMax || (!padding.empty() && padding.offset < text.end()))
    return;
  if (padding.empty()) padding.offset = event.size();
  bytes_.reserve(event.size() - text.length - padding.length);
  bytes_ = event.substr(0, text.offset);
  bytes_ += event.substr(text.end(), padding.offset - text.end());
  bytes_ += event.substr(padding.end());
  ahead_ = text.offset;
  between_ = padding.offset - text.end();
}

std::optional<std::size_t> EventFrame::text_bytes(std::string_view event) const {
  std::string_view frame = bytes_;
  if (frame.empty() || event.size() < frame.size() || !event.starts_with(frame.substr(0, ahead_))) return std::nullopt;
  // The last byte of what lies ahead of each value is its opening quote.
  JsonCursor cursor{event.substr(ahead_ - 1)};
  JsonString text;
  if (!cursor.string(text)) return std::nullopt;
  event.remove_prefix(ahead_ + text.raw.size());
  frame.remove_prefix(ahead_);
  if (between_ == frame.size()) return event == frame ? std::optional{text.raw.size()} : std::nullopt;
  if (!event.starts_with(frame.substr(0, between_))) return std::nullopt;
  cursor = JsonCursor{event.substr(between_ - 1)};
  JsonString padding;
  if (!cursor.string(padding)) return std::nullopt;
  return event.substr(between_ + padding.raw.size()) == frame.substr(between_) ? std::optional{text.raw.size()}
                                                                               : std::nullopt;
}

ChunkFacts StreamInspector::inspect(std::string_view data) {
  ChunkFacts facts;
  if (data == "[DONE]") {
    facts.done = done_ = true;
    return facts;
  }
  if (const auto text_bytes = frame_.text_bytes(data)) {
    // What else the event says, the one before has said: of that nothing changes by being said again.
    facts.text_bytes = *text_bytes;
    count_text(facts);
    return facts;
  }
  ChunkReader reader{.stream = *this, .cursor = JsonCursor{data}, .facts = facts, .data = data};
  if (!reader.read()) {
    facts = ChunkFacts{.malformed = true};
    failed_ = true;
    return facts;
  }
  if (facts.error) failed_ = true;
  if (!facts.usage_object.empty()) {
    usage_ = reader.usage;
    facts.usage_only = !reader.has_choices && !facts.error;
  }
  if (reader.texts == 1 && facts.usage_object.empty() && !facts.error) frame_.keep(data, reader.text, reader.padding);
  count_text(facts);
  return facts;
}

void StreamInspector::count_text(ChunkFacts& facts) {
  if (facts.text_bytes == 0) return;
  facts.first_text = text_events_ == 0;
  ++text_events_;
  text_bytes_ += facts.text_bytes;
}

std::string_view with_neurons(const SseEvent& event, const ChunkFacts& facts, std::string_view decimal,
                              std::string& out) {
  if (facts.usage_object.empty()) return event.raw;
  std::string data;
  splice_neurons(event.data, facts.usage_object, decimal, data);
  out.clear();
  append_sse_event(out, data, event.type);
  return out;
}

}  // namespace ganglion::api
