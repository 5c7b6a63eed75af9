// Inspector of streams and scan of whole answers: usage, completeness, neurons.

#include "api/openai_stream.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "api/error_body.hpp"
#include "api/models_body.hpp"
#include "api/openai_response.hpp"

namespace ganglion::api {
namespace {

using nlohmann::json;

TEST(StreamInspector, FollowsAWholeStream) {
  StreamInspector stream;
  EXPECT_EQ(
      stream
          .inspect(
              R"({"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null})")
          .text_bytes,
      0U);
  const ChunkFacts text =
      stream.inspect(R"({"choices":[{"index":0,"delta":{"content":"hey"},"finish_reason":null}],"usage":null})");
  EXPECT_EQ(text.text_bytes, 3U);
  EXPECT_TRUE(text.first_text);
  EXPECT_FALSE(stream.inspect(R"({"choices":[{"index":0,"delta":{"content":"x"}}]})").first_text);
  EXPECT_FALSE(stream.finished());
  stream.inspect(R"({"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null})");
  EXPECT_TRUE(stream.finished());
  EXPECT_FALSE(stream.usage());
  const std::string_view last =
      R"({"id":"x","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11,"prompt_tokens_details":{"cached_tokens":4}}})";
  const ChunkFacts usage = stream.inspect(last);
  EXPECT_TRUE(usage.usage_only);
  EXPECT_EQ(usage.usage_object.of(last).front(), '{');
  EXPECT_EQ(json::parse(usage.usage_object.of(last))["total_tokens"], 11);
  EXPECT_FALSE(stream.complete());
  EXPECT_TRUE(stream.inspect("[DONE]").done);
  EXPECT_TRUE(stream.complete());
  EXPECT_EQ(stream.usage(), (Usage{.input_tokens = 9, .cached_input_tokens = 4, .output_tokens = 2}));
  EXPECT_EQ(stream.text_events(), 2U);
  EXPECT_EQ(stream.text_bytes(), 4U);
}

std::string event_with(std::string_view text, std::string_view rest = R"(},"finish_reason":null}],"usage":null})") {
  return R"({"id":"x","choices":[{"index":0,"delta":{"content":")" + std::string{text} + "\"" + std::string{rest};
}

void expect_same(const ChunkFacts& one, const ChunkFacts& other, std::string_view event) {
  EXPECT_EQ(one.done, other.done) << event;
  EXPECT_EQ(one.malformed, other.malformed) << event;
  EXPECT_EQ(one.error, other.error) << event;
  EXPECT_EQ(one.usage_only, other.usage_only) << event;
  EXPECT_EQ(one.usage_object, other.usage_object) << event;
  EXPECT_EQ(one.text_bytes, other.text_bytes) << event;
}

// Whatever came before, an event is what it is alone: most are only compared with the one before.
TEST(StreamInspector, AnEventIsReadTheSameAfterOneLikeIt) {
  const std::string padded_a = R"({"choices":[{"index":0,"delta":{"content":"ab"}}],"obfuscation":"xyz"})";
  const std::string padded_b = R"({"choices":[{"index":0,"delta":{"content":"a\u00e9"}}],"obfuscation":""})";
  const std::string padding_first = R"({"obfuscation":"longer","choices":[{"index":0,"delta":{"content":"ab"}}]})";
  const std::string call_a = R"({"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"{\"a"}}]}}]})";
  const std::string call_b = R"({"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"\":1}"}}]}}]})";
  const std::vector<std::string> events{
      event_with("hello"),
      event_with(""),
      event_with("\xC3\xA9\\n\\\" and \\ud83d\\ude00"),
      event_with("lone \\ud83d"),
      event_with("bad \\x escape"),
      event_with("cut \\"),
      event_with("control \x01 character"),
      event_with("line\nbreak"),
      event_with(std::string(5000, 'a')),
      event_with("more", R"(},"finish_reason":"stop"}],"usage":null})"),
      event_with("more", R"(},"finish_reason":null}],"usage":null} )"),
      event_with("more", R"(},"finish_reason":null}],"usage":null}})"),
      event_with("more", R"(},"finish_reason":null}],"usage":nul)"),
      event_with("more", R"(,"refusal":"two"},"finish_reason":null}],"usage":null})"),
      event_with("more", R"(},"finish_reason":null}],"usage":{"prompt_tokens":1}})"),
      event_with("more", R"(},"finish_reason":null}],"error":{}})"),
      event_with("closed\"},\"finish_reason\":\"stop\"}],\"x\":[{\"a\":{\"content\":\"b"),
      padded_a,
      padded_b,
      R"({"choices":[{"index":0,"delta":{"content":"ab"}}],"obfuscation":"cut)",
      R"({"choices":[{"index":0,"delta":{"content":"ab"}}],"obfuscation":5})",
      R"({"choices":[{"index":0,"delta":{"content":"ab"}}],"obfuscation":"a","obfuscation":"b"})",
      padding_first,
      call_a,
      call_b,
      "[DONE]",
      "",
  };
  for (const std::string& before : events) {
    for (const std::string& event : events) {
      StreamInspector after;
      after.inspect(before);
      StreamInspector fresh;
      expect_same(after.inspect(event), fresh.inspect(event), before + " then " + event);
    }
  }
  // And all of them in one stream, against one that is given no two events alike.
  StreamInspector stream;
  StreamInspector spaced;
  std::string spaces;
  for (const std::string& event : events) {
    stream.inspect(event);
    spaced.inspect(event == "[DONE]" ? event : (spaces += ' ') + event);
    EXPECT_EQ(stream.text_bytes(), spaced.text_bytes()) << event;
    EXPECT_EQ(stream.text_events(), spaced.text_events()) << event;
    EXPECT_EQ(stream.open(0), spaced.open(0)) << event;
    EXPECT_EQ(stream.failed(), spaced.failed()) << event;
    EXPECT_EQ(stream.finished(), spaced.finished()) << event;
  }
}

TEST(EventFrame, ComparesAndKeepsNoText) {
  EventFrame frame;
  const std::string first = event_with("one");
  EXPECT_FALSE(frame.text_bytes(first));
  frame.keep(first, {.offset = first.find("one"), .length = 3}, {});
  EXPECT_EQ(frame.text_bytes(first), 3U);
  EXPECT_EQ(frame.text_bytes(event_with("")), 0U);
  EXPECT_EQ(frame.text_bytes(event_with(std::string(100'000, 'x'))), 100'000U);
  EXPECT_FALSE(frame.text_bytes(event_with("one").substr(1)));
  EXPECT_FALSE(frame.text_bytes(event_with("one") + " "));
  // One with a long text is kept too, one with much around its text is not.
  const std::string longer = event_with(std::string(100'000, 'y'));
  frame.keep(longer, {.offset = first.find("one"), .length = 100'000}, {});
  EXPECT_EQ(frame.text_bytes(first), 3U);
  const std::string large = R"({"x":")" + std::string(EventFrame::kBytesMax, 'z') + R"(","text":"t"})";
  frame.keep(large, {.offset = large.find(":\"t\"") + 2, .length = 1}, {});
  EXPECT_FALSE(frame.text_bytes(large));
  EXPECT_FALSE(frame.text_bytes(first));
}

TEST(StreamInspector, EveryChoiceMustEnd) {
  StreamInspector stream;
  stream.inspect(R"({"choices":[{"index":0,"delta":{"content":"a"}},{"index":1,"delta":{"content":"b"}}]})");
  stream.inspect(R"({"choices":[{"index":1,"delta":{},"finish_reason":"stop"}]})");
  stream.inspect(R"({"choices":[{"index":1,"delta":{},"finish_reason":"stop"}]})");
  stream.inspect("[DONE]");
  EXPECT_FALSE(stream.complete());
  StreamInspector nothing;
  nothing.inspect("[DONE]");
  EXPECT_FALSE(nothing.complete());
}

TEST(StreamInspector, LastUsageWinsAndOrdinaryChunksKeepTheirs) {
  StreamInspector stream;
  const ChunkFacts running = stream.inspect(
      R"({"choices":[{"index":0,"delta":{"content":"a"}}],"usage":{"prompt_tokens":5,"completion_tokens":1}})");
  EXPECT_FALSE(running.usage_only);
  EXPECT_FALSE(running.usage_object.empty());
  stream.inspect(
      R"({"choices":[{"index":0,"delta":{"content":"b"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":2}})");
  EXPECT_EQ(stream.usage()->output_tokens, 2U);
}

TEST(StreamInspector, SeesErrorsAndRubbish) {
  StreamInspector broken;
  EXPECT_TRUE(broken.inspect(R"({"error":{"message":"boom"}})").error);
  EXPECT_TRUE(broken.failed());
  StreamInspector rubbish;
  EXPECT_TRUE(rubbish.inspect("<html>").malformed);
  EXPECT_TRUE(rubbish.inspect(R"({"choices":[)").malformed);
  EXPECT_TRUE(rubbish.failed());
  StreamInspector fine;
  EXPECT_FALSE(fine.inspect(R"({"error":null,"choices":[]})").error);
  EXPECT_FALSE(fine.failed());
}

TEST(StreamInspector, CountsToolArgumentsAndReasoning) {
  StreamInspector stream;
  EXPECT_EQ(
      stream
          .inspect(
              R"({"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c","type":"function","function":{"name":"ab","arguments":"{\"x"}}]}}]})")
          .text_bytes,
      2U + 4U);
  EXPECT_EQ(stream.inspect(R"({"choices":[{"index":0,"delta":{"reasoning_content":"hmm"}}]})").text_bytes, 3U);
  EXPECT_EQ(stream.inspect(R"({"choices":[{"index":0,"text":"legacy"}]})").text_bytes, 6U);
}

TEST(StreamInspector, IgnoresImpossibleNumbers) {
  StreamInspector stream;
  stream.inspect(
      R"({"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":-4,"prompt_tokens_details":{"cached_tokens":99}}})");
  EXPECT_EQ(stream.usage(), (Usage{.input_tokens = 3, .cached_input_tokens = 3}));
  stream.inspect(R"({"choices":[{"index":99999999999,"delta":{}}]})");
  stream.inspect(
      R"({"choices":[],"usage":{"prompt_tokens":12.0,"completion_tokens":"x","prompt_tokens_details":null}})");
  EXPECT_EQ(stream.usage()->input_tokens, 12U);
}

TEST(WithNeurons, AddsTheFieldToTheUsageChunk) {
  SseParser parser;
  parser.feed("data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\ndata: {\"choices\":[]}\n\n");
  SseEvent event = **parser.next();
  StreamInspector stream;
  std::string out;
  EXPECT_EQ(with_neurons(event, stream.inspect(event), "1.25", out),
            "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"neurons\":1.25}}\n\n");
  event = **parser.next();
  EXPECT_EQ(with_neurons(event, stream.inspect(event), "1.25", out), event.raw);
}

TEST(ScanAnswer, ReadsUsageOfEachEndpoint) {
  const std::string chat =
      R"({"id":"a","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10,"prompt_tokens_details":{"cached_tokens":2,"audio_tokens":0}}})";
  const auto facts = scan_answer(chat);
  ASSERT_TRUE(facts);
  EXPECT_EQ(facts->usage, (Usage{.input_tokens = 7, .cached_input_tokens = 2, .output_tokens = 3}));
  EXPECT_EQ(facts->choices, 1U);
  std::string out;
  const json injected = json::parse(inject_neurons(chat, *facts, "0.5", out));
  EXPECT_EQ(injected["usage"]["neurons"], 0.5);
  json without = injected;
  without["usage"].erase("neurons");
  EXPECT_EQ(without, json::parse(chat));
  const auto embedding =
      scan_answer(R"({"data":[{"embedding":[0.1]},{"embedding":[0.2]}],"usage":{"prompt_tokens":4,"total_tokens":4}})");
  ASSERT_TRUE(embedding);
  EXPECT_EQ(embedding->choices, 2U);
  EXPECT_EQ(embedding->usage->input_tokens, 4U);
}

TEST(ScanAnswer, HandlesMissingUsageErrorsAndRubbish) {
  const std::string bare = R"({"choices":[],"usage":null})";
  const auto facts = scan_answer(bare);
  ASSERT_TRUE(facts);
  EXPECT_FALSE(facts->usage);
  std::string out;
  EXPECT_EQ(inject_neurons(bare, *facts, "1", out).data(), bare.data());
  const std::string empty = R"({"usage":{ }})";
  EXPECT_EQ(inject_neurons(empty, *scan_answer(empty), "1", out), R"({"usage":{ "neurons":1}})");
  EXPECT_TRUE(scan_answer(R"({"error":{"message":"x"}})")->error);
  for (const std::string_view bad : {"", "[]", "{\"a\":", "<html></html>", "{} {}"}) {
    const auto result = scan_answer(bad);
    ASSERT_FALSE(result) << bad;
    EXPECT_EQ(result.error().kind, core::ErrorKind::upstream_protocol);
  }
}

TEST(ErrorBody, EveryKindHasOpenAisShape) {
  for (int i = 0; i < static_cast<int>(core::ErrorKind::kCount); ++i) {
    const core::Error error = core::make_error(static_cast<core::ErrorKind>(i));
    const json body = json::parse(openai_error_body(error));
    ASSERT_EQ(body.size(), 1U);
    const json& inner = body["error"];
    EXPECT_EQ(inner.size(), 4U);
    EXPECT_FALSE(inner["message"].get<std::string>().empty());
    EXPECT_FALSE(inner["type"].get<std::string>().empty());
    EXPECT_TRUE(inner["param"].is_null());
    EXPECT_TRUE(inner.contains("code"));
    EXPECT_EQ(http_status(error), core::face(error.kind).http_status);
  }
  const json body =
      json::parse(openai_error_body(core::make_error(core::ErrorKind::model_not_found, "no \"x\"\nhere", "model")));
  EXPECT_EQ(body["error"]["message"], "no \"x\"\nhere");
  EXPECT_EQ(body["error"]["param"], "model");
  EXPECT_EQ(body["error"]["code"], "model_not_found");
}

TEST(ErrorBody, EventIsOneEventAndNoDone) {
  SseParser parser;
  const std::string text = openai_error_event(core::make_error(core::ErrorKind::upstream_closed, "cut\r\n\r\ndata: x"));
  parser.feed(text);
  const auto event = parser.next();
  ASSERT_TRUE(event && *event);
  EXPECT_EQ(json::parse((*event)->data)["error"]["code"], "upstream_closed");
  EXPECT_FALSE(*parser.next());
}

TEST(ModelsBody, ListsModels) {
  const ModelCard cards[] = {{.id = "a\"b", .created_s = 5, .owned_by = "me"},
                             {.id = "c", .created_s = 0, .owned_by = "x"}};
  const json list = json::parse(models_body(cards));
  EXPECT_EQ(list["object"], "list");
  ASSERT_EQ(list["data"].size(), 2U);
  EXPECT_EQ(list["data"][0], json::parse(model_body(cards[0])));
  EXPECT_EQ(list["data"][0]["id"], "a\"b");
  EXPECT_EQ(list["data"][1]["object"], "model");
  EXPECT_EQ(json::parse(models_body({}))["data"], json::array());
}

}  // namespace
}  // namespace ganglion::api
