#pragma once
// What must hold for any bytes given to the codecs and the cache key. Run by libFuzzer (fuzz_*.cpp) and, over the kept
// corpus, by the unit tests. A broken property ends the process.

#include <simdjson.h>

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "api/openai_convert.hpp"
#include "api/openai_request.hpp"
#include "api/openai_response.hpp"
#include "api/openai_stream.hpp"
#include "api/rewrite.hpp"
#include "api/sse.hpp"
#include "cache/key.hpp"
#include "core/assert.hpp"

namespace ganglion::fuzz {

using SseEvents = std::vector<std::tuple<std::string, std::string, std::string, std::string, bool>>;

inline SseEvents sse_events(std::string_view bytes, std::size_t piece) {
  api::SseParser parser;
  SseEvents out;
  while (!bytes.empty()) {
    const std::string chunk{bytes.substr(0, piece)};
    bytes.remove_prefix(chunk.size());
    parser.feed(chunk);
    while (true) {
      const auto event = parser.next();
      if (!event) return out;
      if (!*event) break;
      const api::SseEvent& e = **event;
      out.emplace_back(std::string{e.raw}, std::string{e.data}, std::string{e.type}, std::string{e.id}, e.has_data);
    }
  }
  return out;
}

// Any split gives the same events; what is forwarded holds no CR, and parses to the same events again.
inline void check_sse(std::string_view bytes) {
  if (bytes.size() > 65536) return;
  const SseEvents whole = sse_events(bytes, std::string_view::npos);
  for (const std::size_t piece : {std::size_t{1}, std::size_t{2}, std::size_t{3}, std::size_t{17}}) {
    GW_ASSERT(sse_events(bytes, piece) == whole);
  }
  std::string forwarded;
  for (const auto& [raw, data, type, id, has_data] : whole) {
    GW_ASSERT(raw.find('\r') == std::string::npos);
    GW_ASSERT(raw.ends_with("\n\n"));
    forwarded += raw;
    std::string written;
    api::append_sse_event(written, data, type);
    const SseEvents back = sse_events(written, std::string_view::npos);
    GW_ASSERT(back.size() == 1);
    GW_ASSERT(std::get<1>(back[0]) == data && std::get<2>(back[0]) == type && std::get<4>(back[0]));
  }
  // A mark that was in the middle would be taken for a leading one.
  if (!forwarded.starts_with("\xEF\xBB\xBF")) GW_ASSERT(sse_events(forwarded, std::string_view::npos) == whole);
}

inline simdjson::error_code simdjson_verdict(std::string_view text) {
  simdjson::dom::parser parser;
  return parser.parse(simdjson::padded_string(text)).error();
}

// The key of an outlined body is the body's.
inline void check_outline_key(const api::JsonOutline& outline, std::string_view body) {
  cache::KeyMaker maker{{.hash = 1, .check = 2}};
  const cache::CacheKey outlined = maker.from_outline({}, outline);
  const std::string canonical = maker.canonical();
  const auto scanned = maker.from_body({}, body);
  GW_ASSERT(scanned.has_value() && *scanned == outlined);
  GW_ASSERT(maker.canonical() == canonical);
}

// Accepted bodies are JSON and stay so when rewritten; bodies refused as no JSON are none (or too deep). A scan that
// records an outline comes to the same verdict, and its outline to the same cache key.
inline void check_openai_request(std::string_view body) {
  api::ParserScratch scratch;
  for (const auto endpoint : {api::Endpoint::chat_completions, api::Endpoint::completions, api::Endpoint::embeddings}) {
    api::JsonOutline outline;
    const auto view = api::parse_request(endpoint, body, scratch);
    GW_ASSERT(api::parse_request(endpoint, body, scratch, &outline).has_value() == view.has_value());
    if (view) check_outline_key(outline, body);
    if (!view) {
      const core::Error& error = view.error();
      GW_ASSERT(!error.message.empty());
      if (error.kind == core::ErrorKind::invalid_json && error.message.find("64 levels") == std::string::npos) {
        GW_ASSERT(simdjson_verdict(body) != simdjson::SUCCESS);
      }
      continue;
    }
    const auto verdict = simdjson_verdict(body);
    GW_ASSERT(verdict == simdjson::SUCCESS || verdict == simdjson::NUMBER_ERROR);
    GW_ASSERT(body[view->object_end] == '}');
    std::string out;
    std::string whole;
    GW_ASSERT(api::rewrite_body(body, *view, {.model = view->model}, out).whole(whole).data() == body.data());
    const bool stream = view->stream;
    const std::string rewritten{
        api::rewrite_body(body, *view, {.model = "new\"model", .include_usage = true, .strip_service_tier = true}, out)
            .whole(whole)};
    const auto again = api::parse_request(endpoint, rewritten, scratch);
    GW_ASSERT(again.has_value());
    GW_ASSERT(again->model == "new\"model");
    GW_ASSERT(again->service_tier.empty() && again->service_tier_member.empty());
    GW_ASSERT(!stream || again->include_usage);
  }
}

// What went by before an event changes nothing of what it is, but whether its text is the first. Two lines are two
// events; one is sent twice.
inline void check_event_after_event(std::string_view bytes) {
  const std::size_t line = bytes.find('\n');
  const std::string_view before = bytes.substr(0, line);
  const std::string_view event = line == std::string_view::npos ? bytes : bytes.substr(line + 1);
  api::StreamInspector after;
  after.inspect(before);
  api::StreamInspector fresh;
  const api::ChunkFacts one = after.inspect(event);
  const api::ChunkFacts other = fresh.inspect(event);
  GW_ASSERT(one.done == other.done && one.malformed == other.malformed && one.error == other.error);
  GW_ASSERT(one.usage_only == other.usage_only && one.usage_object == other.usage_object);
  GW_ASSERT(one.text_bytes == other.text_bytes);
  GW_ASSERT(!fresh.failed() || after.failed());
  for (std::size_t choice = 0; choice < api::StreamInspector::kChoicesMax; ++choice)
    GW_ASSERT(!after.open(choice) || fresh.open(choice) || before != event);
  GW_ASSERT(before != event || (after.complete() == fresh.complete() && after.finished() == fresh.finished()));
}

// An event's verdict agrees with simdjson, and its usage can be spliced; conversions never fail but by an Error.
inline void check_openai_stream(std::string_view bytes) {
  check_event_after_event(bytes);
  api::StreamInspector inspector;
  const api::ChunkFacts facts = inspector.inspect(bytes);
  if (!facts.done && !facts.malformed) {
    const auto verdict = simdjson_verdict(bytes);
    GW_ASSERT(verdict == simdjson::SUCCESS || verdict == simdjson::NUMBER_ERROR || verdict == simdjson::UTF8_ERROR);
  }
  GW_ASSERT(facts.text_bytes <= bytes.size());
  if (const auto answer = api::scan_answer(bytes); answer && !answer->usage_object.empty()) {
    std::string out;
    const std::string_view injected = api::inject_neurons(bytes, *answer, "1.5", out);
    GW_ASSERT(api::scan_answer(injected).has_value());
  }
  for (const auto endpoint : {api::Endpoint::chat_completions, api::Endpoint::completions}) {
    if (const auto body = api::assemble_from_stream(endpoint, bytes)) {
      GW_ASSERT(simdjson_verdict(*body) == simdjson::SUCCESS);
      (void)api::stream_from_body(endpoint, *body, true);
    }
    if (const auto sse = api::stream_from_body(endpoint, bytes, true)) {
      GW_ASSERT(api::assemble_from_stream(endpoint, *sse).has_value());
    }
  }
}

// Canonical text means the same as the body (top-level stream, stream_options and model aside) and is its own canon.
inline void check_cache_key(std::string_view body) {
  if (!api::valid_utf8(body)) return;  // parse_request refuses it before a key is asked for
  cache::KeyMaker maker{{.hash = 1, .check = 2}};
  const auto key = maker.from_body({}, body);
  if (!key) return;
  const std::string canonical{maker.canonical()};
  const auto again = maker.from_body({}, canonical);
  GW_ASSERT(again.has_value());
  GW_ASSERT(maker.canonical() == canonical);
  GW_ASSERT(*again == *key);
  nlohmann::json before = nlohmann::json::parse(body, nullptr, false);
  if (before.is_discarded()) return;  // numbers out of range
  if (before.is_object()) {
    for (const char* ignored : {"stream", "stream_options", "model"}) before.erase(ignored);
  }
  GW_ASSERT(nlohmann::json::parse(canonical, nullptr, false) == before);
}

}  // namespace ganglion::fuzz
