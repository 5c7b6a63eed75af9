// The event stream parser: the standard's cases, every split, bounds; and the writer against injection.

#include "api/sse.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace ganglion::api {
namespace {

struct Event {
  std::string raw, data, type, id;
  bool has_data = false;
  friend bool operator==(const Event&, const Event&) = default;
};
void PrintTo(const Event& event, std::ostream* os) {
  *os << "{raw " << ::testing::PrintToString(event.raw) << " data " << ::testing::PrintToString(event.data) << "}";
}

void drain(SseParser& parser, std::vector<Event>& out) {
  while (true) {
    const auto event = parser.next();
    ASSERT_TRUE(event) << event.error().message;
    if (!*event) return;
    const SseEvent& e = **event;
    out.push_back({std::string{e.raw}, std::string{e.data}, std::string{e.type}, std::string{e.id}, e.has_data});
  }
}

std::vector<Event> parse(std::string_view bytes, std::size_t piece = std::string_view::npos) {
  SseParser parser;
  std::vector<Event> events;
  while (!bytes.empty()) {
    // A copy of its own that dies before the next feed, so that a view kept too long is caught by ASan.
    const std::string chunk{bytes.substr(0, piece)};
    bytes.remove_prefix(chunk.size());
    parser.feed(chunk);
    drain(parser, events);
  }
  return events;
}

std::vector<std::string> data_of(const std::vector<Event>& events) {
  std::vector<std::string> data;
  for (const Event& event : events) {
    if (event.has_data) data.push_back(event.data);
  }
  return data;
}

// Only what lies whole in the bytes given may be used longer than until the next call.
TEST(SseParser, SaysWhichEventsLieInTheBytesGiven) {
  SseParser parser;
  const std::string first = "data: a\n\n: comment\ndata: b\n\ndata: c\r\n\r\ndata: d\n\ndata: e";
  const std::string second = "f\n\ndata: g\n\n";
  std::vector<std::pair<std::string, bool>> seen;
  const auto drain_now = [&](const std::string& bytes) {
    parser.feed(bytes);
    for (auto event = parser.next(); event && *event; event = parser.next()) {
      const char* const at = (*event)->raw.data();
      const bool within = std::less_equal<>{}(bytes.data(), at) && std::less<>{}(at, bytes.data() + bytes.size());
      EXPECT_EQ((*event)->in_place, within) << (*event)->data;
      seen.emplace_back((*event)->data, (*event)->in_place);
    }
  };
  drain_now(first);
  drain_now(second);
  EXPECT_EQ(seen, (std::vector<std::pair<std::string, bool>>{
                      {"a", true}, {"b", true}, {"c", false}, {"d", true}, {"ef", false}, {"g", true}}));
}

TEST(SseParser, ReadsTheStandardsCases) {
  using V = std::vector<std::string>;
  EXPECT_EQ(data_of(parse("data: YHOO\ndata: +2\ndata: 10\n\n")), (V{"YHOO\n+2\n10"}));
  EXPECT_EQ(
      data_of(parse(": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n")),
      (V{"first event", "second event", " third event"}));
  EXPECT_EQ(data_of(parse("data\n\ndata\ndata\n\ndata:")), (V{"", "\n"}));
  EXPECT_EQ(data_of(parse("data:test\n\ndata: test\n\n")), (V{"test", "test"}));
  EXPECT_EQ(data_of(parse("\xEF\xBB\xBF"
                          "data: a\n\n")),
            (V{"a"}));
  EXPECT_EQ(data_of(parse("\n\n\n\r\n\rdata: a\r\rdata: b\r\n\r\ndata: c\n\n")), (V{"a", "b", "c"}));
  EXPECT_EQ(data_of(parse("data: unfinished\n")), V{});
  EXPECT_EQ(data_of(parse("Data: no\ndata : no\nda\n\n")), V{});
}

TEST(SseParser, ReadsTypeAndId) {
  const auto events = parse("event: message_stop\nid: 7\ndata: {}\n\nid: a\0b\ndata: x\n\n");
  ASSERT_GE(events.size(), 1U);
  EXPECT_EQ(events[0].type, "message_stop");
  EXPECT_EQ(events[0].id, "7");
  using namespace std::string_view_literals;
  EXPECT_EQ(parse("id: a\0b\ndata: x\n\n"sv)[0].id, "");
}

TEST(SseParser, HandsOutTheBytesToForward) {
  const auto events = parse(": keep-alive\n\ndata: {\"a\":1}\n\nretry: 5\ndata: x\r\n\r\n");
  ASSERT_EQ(events.size(), 3U);
  EXPECT_EQ(events[0].raw, ": keep-alive\n\n");
  EXPECT_FALSE(events[0].has_data);
  EXPECT_EQ(events[1].raw, "data: {\"a\":1}\n\n");
  EXPECT_EQ(events[2].raw, "retry: 5\ndata: x\n\n");  // re-framed: no CR leaves the gateway
}

TEST(SseParser, EverySplitGivesTheSameEvents) {
  const std::string stream =
      "\xEF\xBB\xBF: hi\r\n\r\ndata: a\n\n\n\ndata: b\r\rdata: c\r\n\r\n\r\nevent: x\r\ndata: 1\r\ndata: "
      "\xE2\x82\xAC\r\n\r\n"
      "data: {\"x\":\"long enough for the vector loop to take it whole\"}\n\n:\n\ndata\r\n\rdata: [DONE]\n\n";
  const auto whole = parse(stream);
  EXPECT_EQ(data_of(whole).size(), 7U);
  for (std::size_t piece = 1; piece <= stream.size(); ++piece) EXPECT_EQ(parse(stream, piece), whole) << piece;
  for (std::size_t cut = 0; cut <= stream.size(); ++cut) {
    SseParser parser;
    std::vector<Event> events;
    const std::string head = stream.substr(0, cut);
    const std::string tail = stream.substr(cut);
    parser.feed(head);
    drain(parser, events);
    parser.feed(tail);
    drain(parser, events);
    EXPECT_EQ(events, whole) << cut;
  }
}

TEST(SseParser, BoundsOneEvent) {
  SseParser parser{64};
  const std::string fits = "data: " + std::string(50, 'x') + "\n\n";
  parser.feed(fits);
  auto event = parser.next();
  ASSERT_TRUE(event);
  EXPECT_TRUE(*event);
  const std::string drip(10, 'x');
  bool failed = false;
  for (int i = 0; i < 8 && !failed; ++i) {
    parser.feed(drip);
    event = parser.next();
    failed = !event;
  }
  ASSERT_TRUE(failed);
  EXPECT_EQ(event.error().kind, core::ErrorKind::upstream_protocol);
  SseParser at_once{64};
  const std::string large = "data: " + std::string(100, 'x') + "\n\n";
  at_once.feed(large);
  EXPECT_FALSE(at_once.next());
}

TEST(SseParser, TakesAMegabyteInSingleBytesInLinearTime) {
  SseParser parser;
  std::string event = "data: " + std::string(1'000'000, 'x') + "\n\n";
  std::size_t size = 0;
  for (const char c : event) {
    parser.feed({&c, 1});
    const auto got = parser.next();
    ASSERT_TRUE(got);
    if (*got) size = (*got)->data.size();
  }
  EXPECT_EQ(size, 1'000'000U);
}

TEST(SseParser, TellsAnUnfinishedEvent) {
  SseParser parser;
  parser.feed("data: a\n\ndata: [DONE]");
  ASSERT_TRUE(*parser.next());
  EXPECT_FALSE(*parser.next());
  EXPECT_TRUE(parser.mid_event());
  const auto last = parser.finish();
  ASSERT_TRUE(last);
  EXPECT_EQ(last->data, "[DONE]");
  EXPECT_EQ(last->raw, "data: [DONE]\n\n");
  EXPECT_FALSE(parser.mid_event());
  SseParser clean;
  clean.feed("data: a\n\n");
  ASSERT_TRUE(*clean.next());
  EXPECT_FALSE(clean.mid_event());
  EXPECT_FALSE(clean.finish());
}

TEST(SseWriter, CannotBeBrokenOutOf) {
  std::string out;
  append_sse_event(out, "a\n\ndata: forged\r\revent: x\r\nb", "t\nid: 9\r");
  const auto events = parse(out);
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].data, "a\n\ndata: forged\n\nevent: x\nb");
  EXPECT_EQ(events[0].type, "tid: 9");
  EXPECT_EQ(events[0].id, "");
  out.clear();
  append_sse_comment(out, "x\ndata: forged\n\n");
  EXPECT_EQ(data_of(parse(out)), std::vector<std::string>{});
}

TEST(SseWriter, RoundTripsData) {
  for (const std::string data : {"", "x", "\n", "a\n", "\na", "a\nb\n\nc", " lead", "[DONE]"}) {
    std::string out;
    append_sse_event(out, data);
    const auto events = parse(out);
    ASSERT_EQ(events.size(), 1U) << data;
    EXPECT_EQ(events[0].data, data);
  }
}

}  // namespace
}  // namespace ganglion::api
