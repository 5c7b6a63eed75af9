// See api/openai_stream.hpp.

#include "api/openai_stream.hpp"

#include "api/json_text.hpp"
#include "api/openai_response.hpp"

namespace ganglion::api {
namespace {

// Length of a string value, or 0 for any other value; false on a syntax error.
bool text_length(JsonCursor& cursor, std::size_t& length) {
  if (cursor.peek() != JsonType::string) return cursor.skip();
  JsonString text;
  if (!cursor.string(text)) return false;
  length += text.raw.size();
  return true;
}

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
  Usage usage{};
  bool has_choices = false;  // at least one element

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
      } else {
        good = cursor.skip();
      }
      if (!good) return false;
    }
    return cursor.ok() && cursor.at_end();
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
        good = text_length(cursor, facts.text_bytes);
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
        good = text_length(cursor, facts.text_bytes);
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
          const bool text = equals(inner, "arguments") || equals(inner, "name");
          if (!(text ? text_length(cursor, facts.text_bytes) : cursor.skip())) return false;
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

ChunkFacts StreamInspector::inspect(std::string_view data) {
  ChunkFacts facts;
  if (data == "[DONE]") {
    facts.done = done_ = true;
    return facts;
  }
  ChunkReader reader{.stream = *this, .cursor = JsonCursor{data}, .facts = facts};
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
  if (facts.text_bytes != 0) {
    facts.first_text = text_events_ == 0;
    ++text_events_;
    text_bytes_ += facts.text_bytes;
  }
  return facts;
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
