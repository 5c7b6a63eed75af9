// Streams to bodies and back: what the official clients would have accumulated, and that a round trip keeps it.

#include "api/openai_convert.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <vector>

#include "api/openai_stream.hpp"
#include "api/sse.hpp"

namespace ganglion::api {
namespace {

using nlohmann::json;

std::string stream_of(const std::vector<std::string>& chunks, bool done = true) {
  std::string out;
  for (const std::string& chunk : chunks) append_sse_event(out, chunk);
  if (done) out += kSseDone;
  return out;
}

std::string frame(const std::string& choices, const std::string& usage = "null") {
  return R"({"id":"chatcmpl-1","object":"chat.completion.chunk","created":17,"model":"m","system_fingerprint":"fp","choices":)" +
         choices + R"(,"usage":)" + usage + "}";
}

const std::vector<std::string> kText = {
    frame(
        R"([{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}])"),
    frame(
        R"([{"index":0,"delta":{"content":"Hel"},"logprobs":{"content":[{"token":"Hel","logprob":-0.5,"bytes":[72],"top_logprobs":[]}],"refusal":null},"finish_reason":null}])"),
    frame(
        R"([{"index":0,"delta":{"content":"lo \ud83d\ude00\n"},"logprobs":{"content":[{"token":"lo","logprob":-1e-7,"bytes":null,"top_logprobs":[]}],"refusal":null},"finish_reason":null}])"),
    frame(R"([{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}])"),
    frame("[]", R"({"prompt_tokens":3,"completion_tokens":2,"total_tokens":5})")};

TEST(AssembleFromStream, MakesTheBodyOfATextAnswer) {
  const auto body = assemble_from_stream(Endpoint::chat_completions, stream_of(kText));
  ASSERT_TRUE(body) << body.error().message;
  EXPECT_EQ(json::parse(*body), json::parse(R"({"id":"chatcmpl-1","object":"chat.completion","created":17,"model":"m",
    "system_fingerprint":"fp","choices":[{"index":0,"message":{"role":"assistant","content":"Hello \ud83d\ude00\n","refusal":null},
    "logprobs":{"content":[{"token":"Hel","logprob":-0.5,"bytes":[72],"top_logprobs":[]},
      {"token":"lo","logprob":-1e-7,"bytes":null,"top_logprobs":[]}],"refusal":null},"finish_reason":"stop"}],
    "usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}})"));
}

TEST(AssembleFromStream, MergesToolCallsByIndex) {
  const auto body = assemble_from_stream(
      Endpoint::chat_completions,
      stream_of(
          {frame(
               R"([{"index":0,"delta":{"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"call_a","type":"function","function":{"name":"get","arguments":""}}]}}])"),
           frame(
               R"([{"index":0,"delta":{"tool_calls":[{"index":1,"id":"call_b","type":"function","function":{"name":"put","arguments":"{"}}]}}])"),
           frame(R"([{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"x\":"}}]}}])"),
           frame(
               R"([{"index":0,"delta":{"tool_calls":[{"index":1,"function":{"arguments":"}"}},{"index":0,"function":{"arguments":"1}"}}]}}])"),
           frame(R"([{"index":0,"delta":{},"finish_reason":"tool_calls"}])")}));
  ASSERT_TRUE(body) << body.error().message;
  const json message = json::parse(*body)["choices"][0]["message"];
  EXPECT_TRUE(message["content"].is_null());
  EXPECT_EQ(message["tool_calls"],
            json::parse(R"([{"id":"call_a","type":"function","function":{"name":"get","arguments":"{\"x\":1}"}},
    {"id":"call_b","type":"function","function":{"name":"put","arguments":"{}"}}])"));
  EXPECT_FALSE(json::parse(*body).contains("usage"));
}

TEST(AssembleFromStream, KeepsChoicesApartAndUnknownFields) {
  const auto body = assemble_from_stream(
      Endpoint::chat_completions,
      stream_of(
          {frame(R"([{"index":1,"delta":{"role":"assistant","content":"b","reasoning_content":"th"}}])"),
           frame(R"([{"index":0,"delta":{"role":"assistant","content":"a"}}])"),
           frame(
               R"([{"index":1,"delta":{"reasoning_content":"ink"},"finish_reason":"length","x_extra":{"k":1}},{"index":0,"delta":{},"finish_reason":"stop"}])")}));
  ASSERT_TRUE(body);
  const json choices = json::parse(*body)["choices"];
  ASSERT_EQ(choices.size(), 2U);
  EXPECT_EQ(choices[0]["index"], 0);
  EXPECT_EQ(choices[0]["message"]["content"], "a");
  EXPECT_EQ(choices[1]["message"]["reasoning_content"], "think");
  EXPECT_EQ(choices[1]["finish_reason"], "length");
  EXPECT_EQ(choices[1]["x_extra"]["k"], 1);
}

TEST(AssembleFromStream, RefusesWhatIsNotWhole) {
  const auto refused = [](std::string_view sse) {
    return !assemble_from_stream(Endpoint::chat_completions, sse).has_value();
  };
  EXPECT_TRUE(refused(""));
  EXPECT_TRUE(refused("data: [DONE]\n\n"));
  EXPECT_TRUE(refused(stream_of(kText, false)));
  EXPECT_TRUE(refused(stream_of({"not json"})));
  EXPECT_TRUE(refused(stream_of({R"({"error":{"message":"x"}})"})));
  EXPECT_TRUE(refused(stream_of({R"({"choices":[{"index":-1,"delta":{}}]})"})));
  EXPECT_TRUE(refused(stream_of({R"({"choices":[{"index":0,"delta":[]}]})"})));
  EXPECT_TRUE(refused(stream_of({R"({"choices":"x"})"})));
  EXPECT_TRUE(refused(stream_of(kText) + "data: {}\n\n"));
  EXPECT_TRUE(refused(stream_of(kText) + "data: {"));
  EXPECT_FALSE(assemble_from_stream(Endpoint::embeddings, stream_of(kText)));
  EXPECT_FALSE(refused(stream_of(kText)));
}

void expect_round_trip(Endpoint endpoint, const std::string& body) {
  const auto sse = stream_from_body(endpoint, body, true);
  ASSERT_TRUE(sse) << sse.error().message;
  StreamInspector inspector;
  SseParser parser;
  parser.feed(*sse);
  while (true) {
    const auto event = parser.next();
    ASSERT_TRUE(event);
    if (!*event) break;
    EXPECT_FALSE(inspector.inspect(**event).malformed);
  }
  EXPECT_TRUE(inspector.complete()) << *sse;
  const auto back = assemble_from_stream(endpoint, *sse);
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(json::parse(*back), json::parse(body)) << *sse;
}

TEST(StreamFromBody, RoundTripsChatAnswers) {
  expect_round_trip(Endpoint::chat_completions, *assemble_from_stream(Endpoint::chat_completions, stream_of(kText)));
  expect_round_trip(Endpoint::chat_completions,
                    R"({"id":"a","object":"chat.completion","created":1,"model":"m","service_tier":"default","choices":[
      {"index":0,"message":{"role":"assistant","content":null,"refusal":null,"tool_calls":[
        {"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\":[1,2]}"}},
        {"id":"c2","type":"function","function":{"name":"f","arguments":"{}"}}]},"logprobs":null,"finish_reason":"tool_calls"},
      {"index":1,"message":{"role":"assistant","content":null,"refusal":"no","annotations":[]},"logprobs":null,"finish_reason":"stop"},
      {"index":2,"message":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":"length"}],
      "usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3,"prompt_tokens_details":{"cached_tokens":0}}})");
}

TEST(StreamFromBody, RoundTripsCompletions) {
  expect_round_trip(Endpoint::completions, R"({"id":"c","object":"text_completion","created":1,"model":"m","choices":[
      {"index":0,"text":"one\r\n\r\ntwo","logprobs":{"tokens":["one"],"token_logprobs":[-0.25],"top_logprobs":[{"one":-0.25}],"text_offset":[0]},"finish_reason":"stop"},
      {"index":1,"text":"","logprobs":null,"finish_reason":"length"}],
      "usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}})");
}

TEST(StreamFromBody, SendsUsageOnlyWhenAsked) {
  const std::string body = *assemble_from_stream(Endpoint::chat_completions, stream_of(kText));
  const auto with = stream_from_body(Endpoint::chat_completions, body, true);
  const auto without = stream_from_body(Endpoint::chat_completions, body, false);
  EXPECT_NE(with->find("\"usage\""), std::string::npos);
  EXPECT_EQ(without->find("\"usage\""), std::string::npos);
  EXPECT_TRUE(without->ends_with("data: [DONE]\n\n"));
}

TEST(StreamFromBody, RefusesOtherBodies) {
  for (const std::string_view bad :
       {"", "{}", "[]", R"({"error":{}})", R"({"choices":[]})", R"({"choices":[{"index":0}]})",
        R"({"choices":[{"index":0,"message":"x"}]})", R"({"choices":[{"index":0,"message":{"content":[1]}}]})",
        R"({"choices":[{"index":0,"message":{"tool_calls":{}}}]})", R"({"choices":[{"index":99999,"message":{}}]})"}) {
    EXPECT_FALSE(stream_from_body(Endpoint::chat_completions, bad, true)) << bad;
  }
}

}  // namespace
}  // namespace ganglion::api
