// parse_request and rewrite_body: what is read, what is refused and with which param, and that rewriting changes
// nothing else.

#include "api/openai_request.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "api/rewrite.hpp"

namespace ganglion::api {
namespace {

using core::ErrorKind;
using nlohmann::json;

constexpr std::string_view kChat = R"({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]})";

struct Parsed {
  explicit Parsed(std::string_view body, Endpoint endpoint = Endpoint::chat_completions)
      : result(parse_request(endpoint, body, scratch)) {}
  ParserScratch scratch;
  core::Result<RequestView> result;
};

void expect_error(std::string_view body, ErrorKind kind, std::string_view param,
                  Endpoint endpoint = Endpoint::chat_completions) {
  const Parsed parsed{body, endpoint};
  ASSERT_FALSE(parsed.result) << body;
  EXPECT_EQ(parsed.result.error().kind, kind) << body << ": " << parsed.result.error().message;
  EXPECT_EQ(parsed.result.error().param, param) << body << ": " << parsed.result.error().message;
  EXPECT_FALSE(parsed.result.error().message.empty());
}

TEST(ParseRequest, ReadsEveryFieldThatMatters) {
  const std::string body = R"({
    "messages": [{"role":"system","content":"ab"},{"role":"user","name":"x","content":[{"type":"text","text":"cde"},
      {"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}],
    "n": 3, "temperature": 0, "seed": -7, "max_tokens": 10, "max_completion_tokens": 20, "stream": true,
    "stream_options": {"include_usage": true}, "service_tier": "flex", "user": "u\u0031", "tools": [{"type":"function"}],
    "model": "m\u002d1", "api_base": "http://elsewhere", "unknown": {"deep": [1,2,{"x":null}]}})";
  const Parsed parsed{body};
  ASSERT_TRUE(parsed.result) << parsed.result.error().message;
  const RequestView& view = *parsed.result;
  EXPECT_EQ(view.model, "m-1");
  EXPECT_EQ(view.model_value.of(body), R"("m\u002d1")");
  EXPECT_EQ(view.n, 3U);
  EXPECT_EQ(view.temperature, 0.0);
  EXPECT_EQ(view.seed, -7);
  EXPECT_EQ(view.max_tokens, 20U);
  EXPECT_TRUE(view.stream);
  EXPECT_TRUE(view.include_usage);
  EXPECT_EQ(view.service_tier, "flex");
  EXPECT_EQ(view.user, "u1");
  EXPECT_TRUE(view.tools);
  EXPECT_EQ(view.tools_bytes, std::string_view{R"([{"type":"function"}])"}.size());
  EXPECT_EQ(view.prompt_items, 2U);
  EXPECT_EQ(view.media_parts, 1U);
  EXPECT_EQ(view.prompt_text_bytes, 2U + 3U + 3U);  // "ab", "cde" and the name with its quotes
  EXPECT_EQ(body[view.object_end], '}');
  EXPECT_EQ(view.object_end, body.size() - 1);
}

TEST(ParseRequest, NullIsAbsent) {
  const Parsed parsed{R"({"model":"m","messages":[{"role":"assistant","content":null}],"stream":null,"n":null,
    "temperature":null,"seed":null,"max_tokens":null,"service_tier":null,"stream_options":null,"tools":null,"user":null})"};
  ASSERT_TRUE(parsed.result) << parsed.result.error().message;
  EXPECT_FALSE(parsed.result->stream);
  EXPECT_EQ(parsed.result->n, 1U);
  EXPECT_FALSE(parsed.result->temperature);
  EXPECT_FALSE(parsed.result->max_tokens);
  EXPECT_TRUE(parsed.result->stream_options_bare);
}

TEST(ParseRequest, ReadsPromptsAndInputs) {
  const auto items = [](std::string_view value) {
    const std::string body = R"({"model":"m","input":)" + std::string{value} + "}";
    const Parsed parsed{body, Endpoint::embeddings};
    EXPECT_TRUE(parsed.result) << value;
    return parsed.result ? std::array{parsed.result->prompt_items, parsed.result->prompt_text_bytes,
                                      parsed.result->prompt_token_ids}
                         : std::array<std::size_t, 3>{};
  };
  EXPECT_EQ(items(R"("abc")"), (std::array<std::size_t, 3>{1, 3, 0}));
  EXPECT_EQ(items(R"(["a","bc"])"), (std::array<std::size_t, 3>{2, 3, 0}));
  EXPECT_EQ(items("[1,2,3]"), (std::array<std::size_t, 3>{1, 0, 3}));
  EXPECT_EQ(items("[[1,2],[3]]"), (std::array<std::size_t, 3>{2, 0, 3}));
  const Parsed completion{R"({"model":"m","prompt":"hi","best_of":4})", Endpoint::completions};
  ASSERT_TRUE(completion.result);
  EXPECT_EQ(completion.result->best_of, 4U);
}

TEST(ParseRequest, NamesTheWrongField) {
  constexpr std::string_view kTail = R"("messages":[{"role":"user","content":"x"}]})";
  const auto with = [&](std::string_view field) {
    return R"({"model":"m",)" + std::string{field} + "," + std::string{kTail};
  };
  expect_error(with(R"("n":0)"), ErrorKind::invalid_value, "n");
  expect_error(with(R"("n":129)"), ErrorKind::invalid_value, "n");
  expect_error(with(R"("n":1.0)"), ErrorKind::invalid_value, "n");
  expect_error(with(R"("n":"1")"), ErrorKind::invalid_value, "n");
  expect_error(with(R"("stream":"true")"), ErrorKind::invalid_value, "stream");
  expect_error(with(R"("stream":1)"), ErrorKind::invalid_value, "stream");
  expect_error(with(R"("max_tokens":-1)"), ErrorKind::invalid_value, "max_tokens");
  expect_error(with(R"("max_completion_tokens":1.5)"), ErrorKind::invalid_value, "max_completion_tokens");
  expect_error(with(R"("temperature":"hot")"), ErrorKind::invalid_value, "temperature");
  expect_error(with(R"("temperature":1e999)"), ErrorKind::invalid_value, "temperature");
  expect_error(with(R"("seed":1.5)"), ErrorKind::invalid_value, "seed");
  expect_error(with(R"("stream_options":[])"), ErrorKind::invalid_value, "stream_options");
  expect_error(with(R"("stream_options":{"include_usage":1})"), ErrorKind::invalid_value,
               "stream_options.include_usage");
  expect_error(with(R"("tools":{})"), ErrorKind::invalid_value, "tools");
  expect_error(R"({"model":7,)" + std::string{kTail}, ErrorKind::invalid_value, "model");
  expect_error(R"({"model":null,)" + std::string{kTail}, ErrorKind::invalid_value, "model");
  expect_error(R"({"model":"",)" + std::string{kTail}, ErrorKind::invalid_value, "model");
  expect_error("{" + std::string{kTail}, ErrorKind::missing_field, "model");
  expect_error(R"({"model":"m"})", ErrorKind::missing_field, "messages");
  expect_error(R"({"model":"m"})", ErrorKind::missing_field, "prompt", Endpoint::completions);
  expect_error(R"({"model":"m"})", ErrorKind::missing_field, "input", Endpoint::embeddings);
  expect_error(R"({"Model":"m","messages":[{"role":"user"}]})", ErrorKind::missing_field, "model");
  expect_error(R"({"model":"m","messages":[]})", ErrorKind::invalid_value, "messages");
  expect_error(R"({"model":"m","messages":"hi"})", ErrorKind::invalid_value, "messages");
  expect_error(R"({"model":"m","messages":null})", ErrorKind::invalid_value, "messages");
  expect_error(R"({"model":"m","messages":["hi"]})", ErrorKind::invalid_value, "messages[0]");
  expect_error(R"({"model":"m","messages":[{"role":"user"},{"role":3}]})", ErrorKind::invalid_value,
               "messages[1].role");
  expect_error(R"({"model":"m","messages":[{"content":"x"}]})", ErrorKind::missing_field, "messages[0].role");
  expect_error(R"({"model":"m","messages":[{"role":"user","content":5}]})", ErrorKind::invalid_value,
               "messages[0].content");
  expect_error(R"({"model":"m","messages":[{"role":"user","content":["x"]}]})", ErrorKind::invalid_value,
               "messages[0].content[0]");
  expect_error(R"({"model":"m","messages":[{"role":"user","content":[{"type":"text","text":1}]}]})",
               ErrorKind::invalid_value, "messages[0].content[0].text");
  expect_error(R"({"model":"m","input":[]})", ErrorKind::invalid_value, "input", Endpoint::embeddings);
  expect_error(R"({"model":"m","input":["a",1]})", ErrorKind::invalid_value, "input[1]", Endpoint::embeddings);
  expect_error(R"({"model":"m","input":[1,-2]})", ErrorKind::invalid_value, "input[1]", Endpoint::embeddings);
  expect_error(R"({"model":"m","input":"x","encoding_format":"hex"})", ErrorKind::invalid_value, "encoding_format",
               Endpoint::embeddings);
  expect_error("[]", ErrorKind::invalid_value, "");
}

TEST(ParseRequest, RefusesAFieldGivenTwiceHoweverItIsSpelt) {
  expect_error(R"({"model":"a","messages":[{"role":"user"}],"model":"b"})", ErrorKind::invalid_value, "model");
  expect_error(R"({"model":"a","messages":[{"role":"user"}],"mod\u0065l":"b"})", ErrorKind::invalid_value, "model");
  expect_error(R"({"model":"a","messages":[{"role":"user","role":"x"}]})", ErrorKind::invalid_value,
               "messages[0].role");
  expect_error(R"({"model":"a","messages":[{"role":"user"}],"stream":true,"stream":false})", ErrorKind::invalid_value,
               "stream");
  const Parsed escaped{R"({"mod\u0065l":"a","messages":[{"role":"user"}],"x":1,"x":2})"};
  ASSERT_TRUE(escaped.result);
  EXPECT_EQ(escaped.result->model, "a");
}

TEST(ParseRequest, SyntaxErrorsGiveThePlace) {
  expect_error("", ErrorKind::invalid_json, "");
  expect_error(std::string{kChat} + "x", ErrorKind::invalid_json, "");
  expect_error(std::string{kChat.substr(0, kChat.size() - 1)}, ErrorKind::invalid_json, "");
  expect_error(R"({"model":"m","messages":[{"role":"user","content":"x"}],"x":{"y":tru}})", ErrorKind::invalid_json,
               "");
  expect_error(R"({"model":"m","messages":)", ErrorKind::invalid_json, "");
  expect_error("{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"\xC3\"}]}", ErrorKind::invalid_json,
               "");
  const Parsed parsed{"{\"model\": \"m\",\n \"messages\": [}"};
  EXPECT_EQ(parsed.result.error().message, "invalid JSON at line 2, column 15 (byte 29): expected a value");
}

TEST(ParseRequest, NeverAcceptsATruncatedBody) {
  for (std::size_t size = 0; size < kChat.size(); ++size) {
    const Parsed parsed{kChat.substr(0, size)};
    EXPECT_FALSE(parsed.result) << size;
  }
}

std::string rewrite(std::string_view body, const RewritePlan& plan) {
  const Parsed parsed{body};
  EXPECT_TRUE(parsed.result) << body;
  std::string out;
  const core::TextParts parts = rewrite_body(body, *parsed.result, plan, out);
  std::string whole;
  std::string result{parts.whole(whole)};
  EXPECT_EQ(result.size(), parts.size());
  return result;
}

TEST(RewriteBody, LeavesTheBytesAloneWhenNothingChanges) {
  const Parsed parsed{kChat};
  std::string out = "old";
  const core::TextParts same =
      rewrite_body(kChat, *parsed.result, {.model = "gpt-4o-mini", .include_usage = true}, out);
  ASSERT_EQ(same.parts().size(), 1U);
  EXPECT_EQ(same.parts()[0].data(), kChat.data());
  EXPECT_EQ(out, "old");
}

TEST(RewriteBody, SplicesTheModelAlone) {
  EXPECT_EQ(rewrite(R"( {"x" : 1.0 ,"model" :"a", "messages":[{"role":"user"}] } )", {.model = "b/\"c\""}),
            R"( {"x" : 1.0 ,"model" :"b/\"c\"", "messages":[{"role":"user"}] } )");
}

TEST(RewriteBody, AsksForUsageInEveryForm) {
  const auto form = [](std::string_view options) {
    const std::string body =
        R"({"model":"m","stream":true,)" + std::string{options} + R"("messages":[{"role":"user"}]})";
    const std::string out = rewrite(body, {.include_usage = true});
    const json before = json::parse(body);
    json after = json::parse(out);
    EXPECT_EQ(after["stream_options"]["include_usage"], true) << out;
    after["stream_options"].erase("include_usage");
    json kept = before.value("stream_options", json::object());
    if (kept.is_null()) kept = json::object();
    kept.erase("include_usage");
    EXPECT_EQ(after["stream_options"], kept) << out;
    after["stream_options"] = before.value("stream_options", json{});
    json expected = before;
    expected["stream_options"] = before.value("stream_options", json{});
    EXPECT_EQ(after, expected);
    return out;
  };
  EXPECT_EQ(form(""),
            R"({"model":"m","stream":true,"messages":[{"role":"user"}],"stream_options":{"include_usage":true}})");
  form(R"("stream_options":null,)");
  form(R"("stream_options":{},)");
  form(R"("stream_options": { } ,)");
  form(R"("stream_options":{"include_obfuscation":false},)");
  form(R"("stream_options":{"include_usage":false,"x":[1]},)");
  form(R"("stream_options":{"x":1,"include_usage":null},)");
}

TEST(RewriteBody, StripsTheServiceTierWithItsComma) {
  const RewritePlan strip{.model = "b", .strip_service_tier = true};
  EXPECT_EQ(rewrite(R"({"service_tier":"flex" , "model":"a","messages":[{"role":"user"}]})", strip),
            R"({ "model":"b","messages":[{"role":"user"}]})");
  EXPECT_EQ(rewrite(R"({"model":"a", "service_tier" : "flex", "messages":[{"role":"user"}]})", strip),
            R"({"model":"b", "messages":[{"role":"user"}]})");
  EXPECT_EQ(rewrite(R"({"model":"a","messages":[{"role":"user"}],"service_tier":null })", strip),
            R"({"model":"b","messages":[{"role":"user"}] })");
  const RewritePlan all{.model = "b", .include_usage = true, .strip_service_tier = true};
  EXPECT_EQ(rewrite(R"({"model":"a","stream":true,"messages":[{"role":"user"}],"service_tier":"x"})", all),
            R"({"model":"b","stream":true,"messages":[{"role":"user"}],"stream_options":{"include_usage":true}})");
}

}  // namespace
}  // namespace ganglion::api
