// The native parse for the local engine: every field, every refusal with its param; and the answers that go back.

#include "api/chat_request.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "api/openai_answer.hpp"
#include "api/openai_convert.hpp"
#include "api/openai_stream.hpp"
#include "api/sse.hpp"

namespace ganglion::api {
namespace {

using core::ErrorKind;
using nlohmann::json;

std::string chat_with(const std::string& fields) {
  return R"({"model":"m","messages":[{"role":"user","content":"hi"}])" + (fields.empty() ? "" : "," + fields) + "}";
}

TEST(ChatRequest, ReadsEverything) {
  const auto request = parse_chat_request(R"({"model":"demo","messages":[
      {"role":"system","content":"be brief"},
      {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b\u00e9"}],"name":"joe"},
      {"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},
      {"role":"tool","tool_call_id":"c","content":"42"}],
    "temperature":0.5,"top_p":0.9,"top_k":-1,"min_p":0.1,"seed":-1,"stop":["a","b"],"stop_token_ids":[5],"max_tokens":7,
    "max_completion_tokens":9,"frequency_penalty":-2,"presence_penalty":2,"repetition_penalty":1.1,"logit_bias":{"3":-100,"4":1.5},
    "logprobs":true,"top_logprobs":20,"n":2,"stream":true,"stream_options":{"include_usage":true},"ignore_eos":true,
    "response_format":{"type":"text"},"tools":[{"type":"function","function":{"name":"f","b":1,"a":2}}],"tool_choice":"auto","x":1})");
  ASSERT_TRUE(request) << request.error().message;
  ASSERT_EQ(request->messages.size(), 4U);
  EXPECT_EQ(request->messages[0].role, "system");
  EXPECT_EQ(request->messages[1].content, "ab\xC3\xA9");
  EXPECT_EQ(request->messages[1].name, "joe");
  EXPECT_FALSE(request->messages[2].content);
  EXPECT_EQ(json::parse(request->messages[2].tool_calls_json)[0]["id"], "c");
  EXPECT_EQ(request->messages[3].tool_call_id, "c");
  EXPECT_EQ(request->tools_json, R"([{"type":"function","function":{"name":"f","b":1,"a":2}}])");
  const SamplingFields& s = request->sampling;
  EXPECT_FLOAT_EQ(s.temperature, 0.5F);
  EXPECT_FLOAT_EQ(s.top_p, 0.9F);
  EXPECT_EQ(s.top_k, 0);
  EXPECT_FLOAT_EQ(s.min_p, 0.1F);
  EXPECT_EQ(s.seed, ~std::uint64_t{0});
  EXPECT_EQ(s.stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(s.stop_token_ids, std::vector<std::int32_t>{5});
  EXPECT_EQ(s.max_tokens, 9);
  EXPECT_FLOAT_EQ(s.frequency_penalty, -2);
  EXPECT_FLOAT_EQ(s.presence_penalty, 2);
  EXPECT_FLOAT_EQ(s.repetition_penalty, 1.1F);
  EXPECT_EQ(s.logit_bias, (std::vector<std::pair<std::int32_t, float>>{{3, -100.0F}, {4, 1.5F}}));
  EXPECT_TRUE(s.logprobs);
  EXPECT_EQ(s.top_logprobs, 20);
  EXPECT_EQ(s.n, 2);
  EXPECT_TRUE(s.stream);
  EXPECT_TRUE(s.include_usage);
  EXPECT_TRUE(s.ignore_eos);
}

TEST(ChatRequest, RefusesByNameAndKind) {
  const auto expect = [](const std::string& fields, ErrorKind kind, std::string_view param) {
    const auto request = parse_chat_request(chat_with(fields));
    ASSERT_FALSE(request) << fields;
    EXPECT_EQ(request.error().kind, kind) << fields << ": " << request.error().message;
    EXPECT_EQ(request.error().param, param) << fields << ": " << request.error().message;
  };
  for (const char* bad : {"2.01", "-0.1", "\"hot\"", "[]"}) {
    expect(std::string{"\"temperature\":"} + bad, ErrorKind::invalid_value, "temperature");
  }
  expect(R"("top_p":0)", ErrorKind::invalid_value, "top_p");
  expect(R"("top_p":1.1)", ErrorKind::invalid_value, "top_p");
  expect(R"("min_p":1)", ErrorKind::invalid_value, "min_p");
  expect(R"("top_k":-2)", ErrorKind::invalid_value, "top_k");
  expect(R"("top_k":1.5)", ErrorKind::invalid_value, "top_k");
  expect(R"("n":0)", ErrorKind::invalid_value, "n");
  expect(R"("n":9)", ErrorKind::invalid_value, "n");
  expect(R"("n":18446744073709551615)", ErrorKind::invalid_value, "n");
  expect(R"("max_tokens":0)", ErrorKind::invalid_value, "max_tokens");
  expect(R"("max_completion_tokens":2147483648)", ErrorKind::invalid_value, "max_completion_tokens");
  expect(R"("seed":1.5)", ErrorKind::invalid_value, "seed");
  expect(R"("stop":"")", ErrorKind::invalid_value, "stop");
  expect(R"("stop":[1])", ErrorKind::invalid_value, "stop");
  expect(R"("stop":["a","a","a","a","a","a","a","a","a","a","a","a","a","a","a","a","a"])", ErrorKind::invalid_value,
         "stop");
  expect(R"("stop_token_ids":[-1])", ErrorKind::invalid_value, "stop_token_ids");
  expect(R"("logit_bias":{"x":1})", ErrorKind::invalid_value, "logit_bias");
  expect(R"("logit_bias":{"1":101})", ErrorKind::invalid_value, "logit_bias");
  expect(R"("logit_bias":[])", ErrorKind::invalid_value, "logit_bias");
  expect(R"("frequency_penalty":2.1)", ErrorKind::invalid_value, "frequency_penalty");
  expect(R"("repetition_penalty":0)", ErrorKind::invalid_value, "repetition_penalty");
  expect(R"("logprobs":1)", ErrorKind::invalid_value, "logprobs");
  expect(R"("top_logprobs":1)", ErrorKind::invalid_value, "top_logprobs");
  expect(R"("logprobs":true,"top_logprobs":21)", ErrorKind::invalid_value, "top_logprobs");
  expect(R"("stream":"yes")", ErrorKind::invalid_value, "stream");
  expect(R"("stream_options":{"include_usage":"x"})", ErrorKind::invalid_value, "stream_options.include_usage");
  expect(R"("response_format":"text")", ErrorKind::invalid_value, "response_format");
  expect(R"("response_format":{"type":"xml"})", ErrorKind::invalid_value, "response_format.type");
  expect(R"("response_format":{"type":"json_schema"})", ErrorKind::missing_field, "response_format.json_schema");
  expect(R"("response_format":{"type":"json_schema","json_schema":{"schema":{}}})", ErrorKind::invalid_value,
         "response_format.json_schema.name");
  expect(R"("response_format":{"type":"json_schema","json_schema":{"name":"a b"}})", ErrorKind::invalid_value,
         "response_format.json_schema.name");
  expect(R"("response_format":{"type":"json_schema","json_schema":{"name":"a","strict":1}})", ErrorKind::invalid_value,
         "response_format.json_schema.strict");
  expect(R"("tool_choice":"required")", ErrorKind::invalid_value, "tool_choice");
  const std::string tools = R"("tools":[{"type":"function","function":{"name":"f"}}],)";
  expect(tools + R"("tool_choice":"sometimes")", ErrorKind::invalid_value, "tool_choice");
  expect(tools + R"("tool_choice":{"type":"function"})", ErrorKind::invalid_value, "tool_choice");
  expect(tools + R"("tool_choice":{"type":"function","function":{"name":"g"}})", ErrorKind::invalid_value,
         "tool_choice");
  expect(R"("tools":[{"type":"web_search"}])", ErrorKind::unsupported, "tools[0].type");
  expect(R"("tools":[{"type":"function","function":{"name":""}}])", ErrorKind::invalid_value, "tools[0].function.name");
  expect(R"("tools":[{"type":"function"}])", ErrorKind::invalid_value, "tools[0].function");
  expect(R"("parallel_tool_calls":1)", ErrorKind::invalid_value, "parallel_tool_calls");
  expect(R"("audio":{})", ErrorKind::unsupported, "audio");
  expect(R"("tools":{})", ErrorKind::invalid_value, "tools");
}

TEST(ChatRequest, RefusesBadMessages) {
  const auto expect = [](const std::string& messages, ErrorKind kind, std::string_view param) {
    const auto request = parse_chat_request(R"({"model":"m","messages":)" + messages + "}");
    ASSERT_FALSE(request) << messages;
    EXPECT_EQ(request.error().kind, kind) << messages;
    EXPECT_EQ(request.error().param, param) << messages << ": " << request.error().message;
  };
  expect("[]", ErrorKind::invalid_value, "messages");
  expect("null", ErrorKind::missing_field, "messages");
  expect(R"([{"content":"x"}])", ErrorKind::missing_field, "messages[0].role");
  expect(R"([{"role":"king","content":"x"}])", ErrorKind::invalid_value, "messages[0].role");
  expect(R"([{"role":1}])", ErrorKind::invalid_value, "messages[0].role");
  expect(R"([{"role":"user"}])", ErrorKind::missing_field, "messages[0].content");
  expect(R"([{"role":"user","content":"x"},{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}])",
         ErrorKind::unsupported, "messages[1].content[0].type");
  expect(R"([{"role":"user","content":[{"type":"text"}]}])", ErrorKind::invalid_value, "messages[0].content[0].text");
  expect(R"([{"role":"user","content":7}])", ErrorKind::invalid_value, "messages[0].content");
  EXPECT_EQ(parse_chat_request("{").error().kind, ErrorKind::invalid_json);
  EXPECT_EQ(parse_chat_request("[]").error().kind, ErrorKind::invalid_value);
  EXPECT_EQ(parse_chat_request(R"({"messages":[{"role":"user","content":"x"}]})").error().param, "model");
  EXPECT_FALSE(parse_chat_request(chat_with("\"x\":1e999")));  // no number: refused, not thrown
}

TEST(ChatRequest, ToolChoiceNoneHidesTheTools) {
  EXPECT_EQ(parse_chat_request(chat_with(R"("tools":[{}],"tool_choice":"none")"))->tools_json, "");
  EXPECT_EQ(parse_chat_request(chat_with(R"("tools":[])"))->tools_json, "");
}

TEST(ChatRequest, ReadsWhatTheAnswerMustBe) {
  const auto request = parse_chat_request(chat_with(
      R"("response_format":{"type":"json_schema","json_schema":{"name":"x","strict":true,"schema":{"b":1,"a":2}}},
         "tools":[{"type":"function","function":{"name":"f","strict":true,"parameters":{"type":"object"}}},
                  {"type":"function","function":{"name":"g"}}],
         "tool_choice":{"type":"function","function":{"name":"g"}},"parallel_tool_calls":false)"));
  ASSERT_TRUE(request) << request.error().message;
  EXPECT_EQ(request->format.kind, ResponseFormat::Kind::json_schema);
  EXPECT_EQ(request->format.schema_json, R"({"b":1,"a":2})");
  EXPECT_TRUE(request->format.strict);
  EXPECT_EQ(request->tool_choice, ToolChoice::named);
  EXPECT_FALSE(request->parallel_tool_calls);
  ASSERT_EQ(request->tools.size(), 1U);
  EXPECT_EQ(request->tools[0].name, "g");
  EXPECT_EQ(request->tools[0].parameters_json, "");
  EXPECT_NE(request->tools_json.find("\"f\""), std::string::npos) << "the template is shown all of them";
  const auto all = parse_chat_request(chat_with(
      R"("tools":[{"type":"function","function":{"name":"f","strict":true,"parameters":{"type":"object"}}}],"tool_choice":"required")"));
  ASSERT_TRUE(all);
  EXPECT_EQ(all->tool_choice, ToolChoice::required);
  EXPECT_TRUE(all->tools.at(0).strict);
  EXPECT_EQ(all->tools.at(0).parameters_json, R"({"type":"object"})");
  EXPECT_EQ(parse_chat_request(chat_with(R"("response_format":{"type":"json_object"})"))->format.kind,
            ResponseFormat::Kind::json_object);
}

TEST(StreamWriter, ToolCallsAddUpToTheWholeBody) {
  const StreamWriter writer{Endpoint::chat_completions, {"chatcmpl-1", "m", 7}, false};
  std::string sse;
  writer.role(0, sse);
  writer.tool_call(0, 0, "call_1", "f", sse);
  writer.tool_arguments(0, 0, "{\"a\":", sse);
  writer.tool_arguments(0, 0, "1}", sse);
  writer.tool_call(0, 1, "call_2", "g", sse);
  writer.tool_arguments(0, 1, "{}", sse);
  writer.finish(0, "tool_calls", sse);
  nlohmann::json calls = nlohmann::json::array();
  for (std::size_t at = sse.find("data: "); at != std::string::npos; at = sse.find("data: ", at + 1)) {
    const auto event = nlohmann::json::parse(sse.substr(at + 6, sse.find("\n\n", at) - at - 6));
    const auto delta = event["choices"][0]["delta"];
    for (const auto& piece : delta.value("tool_calls", nlohmann::json::array())) {
      const auto index = piece.at("index").get<std::size_t>();
      if (index == calls.size()) {
        calls.push_back(piece);
        calls.back().erase("index");
      } else {
        auto& text = calls[index]["function"]["arguments"];
        text = text.get<std::string>() + piece.at("function").at("arguments").get<std::string>();
      }
    }
  }
  AnswerChoice choice{.text = "", .finish_reason = "tool_calls", .logprobs = {}, .tool_calls = {}};
  choice.tool_calls = {{"call_1", "f", "{\"a\":1}"}, {"call_2", "g", "{}"}};
  const auto body = nlohmann::json::parse(chat_body({"chatcmpl-1", "m", 7}, std::vector{choice}, {}));
  const auto& message = body["choices"][0]["message"];
  EXPECT_TRUE(message["content"].is_null());
  EXPECT_EQ(message["tool_calls"], calls);
  EXPECT_EQ(calls[0]["type"], "function");
  EXPECT_EQ(body["choices"][0]["finish_reason"], "tool_calls");
}

TEST(CompletionRequest, ReadsPromptsInEveryForm) {
  const auto prompts = [](const std::string& prompt) {
    const auto request = parse_completion_request(R"({"model":"m","prompt":)" + prompt + "}");
    return request ? request->prompts : std::vector<PromptItem>{};
  };
  EXPECT_EQ(prompts(R"("a")"), (std::vector<PromptItem>{"a"}));
  EXPECT_EQ(prompts(R"(["a","b"])"), (std::vector<PromptItem>{"a", "b"}));
  EXPECT_EQ(prompts("[1,2]"), (std::vector<PromptItem>{TokenIds{1, 2}}));
  EXPECT_EQ(prompts("[[1],[2,3]]"), (std::vector<PromptItem>{TokenIds{1}, TokenIds{2, 3}}));
  for (const char* bad : {"[]", "[[]]", "[1,\"a\"]", "[\"a\",[1]]", "[-1]", "[1.5]", "{}", "[2147483648]"}) {
    EXPECT_EQ(parse_completion_request(std::string{R"({"model":"m","prompt":)"} + bad + "}").error().param, "prompt")
        << bad;
  }
  const auto full = parse_completion_request(R"({"model":"m","prompt":"a","logprobs":0,"echo":true,"suffix":""})");
  ASSERT_TRUE(full);
  EXPECT_TRUE(full->echo);
  EXPECT_TRUE(full->sampling.logprobs);
  EXPECT_EQ(full->sampling.top_logprobs, 0);
  EXPECT_EQ(parse_completion_request(R"({"model":"m","prompt":"a","suffix":"x"})").error().kind,
            ErrorKind::unsupported);
  EXPECT_EQ(parse_completion_request(R"({"model":"m","prompt":"a","best_of":2})").error().param, "best_of");
  EXPECT_EQ(parse_completion_request(R"({"model":"m","prompt":"a","logprobs":6})").error().param, "logprobs");
}

TEST(EmbeddingRequest, ReadsAndRefuses) {
  const auto request =
      parse_embedding_request(R"({"model":"m","input":["a","b"],"encoding_format":"base64","dimensions":64})");
  ASSERT_TRUE(request);
  EXPECT_EQ(request->inputs.size(), 2U);
  EXPECT_EQ(request->encoding_format, EncodingFormat::base64);
  EXPECT_EQ(request->dimensions, 64);
  EXPECT_EQ(parse_embedding_request(R"({"model":"m","input":""})").error().param, "input");
  EXPECT_EQ(parse_embedding_request(R"({"model":"m","input":"a","encoding_format":"x"})").error().param,
            "encoding_format");
  EXPECT_EQ(parse_embedding_request(R"({"model":"m","input":"a","dimensions":0})").error().param, "dimensions");
  std::string many = R"({"model":"m","input":["a")";
  for (int i = 0; i < 2048; ++i) many += ",\"a\"";
  EXPECT_EQ(parse_embedding_request(many + "]}").error().param, "input");
}

const AnswerIdentity kIdentity{.id = "chatcmpl-1", .model = "de\"mo", .created_s = 99};

// What StreamWriter writes must be what chat_body says, after the official clients' accumulation.
TEST(StreamWriter, AgreesWithTheWholeBody) {
  for (const Endpoint endpoint : {Endpoint::chat_completions, Endpoint::completions}) {
    const std::vector<TokenLogprobEntry> first = {{.chosen = {"he", -0.5F}, .top = {{"he", -0.5F}, {"a", -1.5F}}}};
    const std::vector<TokenLogprobEntry> second = {{.chosen = {"\xF0\x9F\x98\x80", -0.25F}, .top = {}}};
    const Usage usage{.input_tokens = 3, .cached_input_tokens = 1, .output_tokens = 2};
    std::string sse;
    const StreamWriter writer{endpoint, kIdentity, true};
    writer.role(0, sse);
    writer.role(1, sse);
    writer.text(0, "he", sse, first);
    writer.text(1, "x\n\"y\"", sse);
    writer.text(0, "\xF0\x9F\x98\x80", sse, second, 2);
    writer.finish(1, "length", sse);
    writer.finish(0, "stop", sse);
    writer.usage(usage, sse);
    StreamWriter::done(sse);
    const AnswerChoice choices[] = {
        {.text = "he\xF0\x9F\x98\x80", .finish_reason = "stop", .logprobs = {first[0], second[0]}},
        {.text = "x\n\"y\"", .finish_reason = "length", .logprobs = {}}};
    const bool chat = endpoint == Endpoint::chat_completions;
    const json body =
        json::parse(chat ? chat_body(kIdentity, choices, usage) : completion_body(kIdentity, choices, usage));
    const auto assembled = assemble_from_stream(endpoint, sse);
    ASSERT_TRUE(assembled) << assembled.error().message << sse;
    EXPECT_EQ(json::parse(*assembled), body);
    EXPECT_EQ(body["usage"]["total_tokens"], 5);
    EXPECT_EQ(body["model"], "de\"mo");
    StreamInspector inspector;
    SseParser parser;
    parser.feed(sse);
    while (const auto event = *parser.next()) inspector.inspect(*event);
    EXPECT_TRUE(inspector.complete());
    EXPECT_EQ(inspector.usage(), usage);
  }
}

TEST(StreamWriter, SaysUsageNullOnlyWhenUsageWasAsked) {
  std::string with;
  std::string without;
  StreamWriter{Endpoint::chat_completions, kIdentity, true}.text(0, "a", with);
  StreamWriter{Endpoint::chat_completions, kIdentity, false}.text(0, "a", without);
  EXPECT_NE(with.find(R"("usage":null)"), std::string::npos);
  EXPECT_EQ(without.find("usage"), std::string::npos);
}

TEST(EmbeddingBody, FloatsAndBase64CarryTheSameNumbers) {
  const std::vector<std::vector<float>> vectors = {{0.1F, -2.5F, 3e-9F}, {1.0F, 0.0F, 1.0F / 3}};
  const json floats = json::parse(embedding_body("m", vectors, EncodingFormat::float_array, 7));
  const json packed = json::parse(embedding_body("m", vectors, EncodingFormat::base64, 7));
  EXPECT_EQ(floats["usage"], json::parse(R"({"prompt_tokens":7,"total_tokens":7})"));
  for (std::size_t i = 0; i < vectors.size(); ++i) {
    EXPECT_EQ(floats["data"][i]["index"], i);
    EXPECT_EQ(floats["data"][i]["embedding"].get<std::vector<float>>(), vectors[i]);
    std::string raw(vectors[i].size() * sizeof(float), '\0');
    std::memcpy(raw.data(), vectors[i].data(), raw.size());
    EXPECT_EQ(packed["data"][i]["embedding"], base64(raw));
  }
  EXPECT_NE(embedding_body("m", vectors, EncodingFormat::float_array, 7).find("[0.1,-2.5,3e-09]"), std::string::npos);
}

TEST(Base64, MatchesTheStandardsExamples) {
  EXPECT_EQ(base64(""), "");
  EXPECT_EQ(base64("f"), "Zg==");
  EXPECT_EQ(base64("fo"), "Zm8=");
  EXPECT_EQ(base64("foo"), "Zm9v");
  EXPECT_EQ(base64("foobar"), "Zm9vYmFy");
  EXPECT_EQ(base64("\xFF\xFE\xFD"), "//79");
}

}  // namespace
}  // namespace ganglion::api
