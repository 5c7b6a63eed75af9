// JSON mode, JSON schemas and tool calls through the backend: random models, whose every answer must be right.

#include <filesystem>
#include <fstream>

#include "tests/support/temp_dir.hpp"
#include "tests/unit/backends/local/local_fixture.hpp"

namespace ganglion::backends {
namespace {

using testing::HasSubstr;

// A copy of a tiny model with a longer context, and perhaps another chat template.
std::shared_ptr<LocalModel> copy_of(const test::TempDir& dir, const std::string& name,
                                    const std::string& chat_template = "") {
  using std::filesystem::copy_options;
  std::filesystem::copy(GANGLION_SOURCE_DIR "/tests/data/local/" + name, dir.path(),
                        copy_options::recursive | copy_options::overwrite_existing);
  std::ifstream in(dir / "config.json");
  json config = json::parse(in);
  config["max_position_embeddings"] = 2048;
  std::ofstream(dir / "config.json") << config;
  if (!chat_template.empty()) std::ofstream(dir / "chat_template.jinja") << chat_template;
  auto options = tiny(name);
  options.directory = dir.path();
  options.kv_bytes = 64ULL << 20;
  return load(options);
}

const std::shared_ptr<LocalModel>& llama() {
  static const test::TempDir dir;
  static const auto model = copy_of(dir, "llama3_tiny");
  return model;
}
const std::shared_ptr<LocalModel>& qwen() {
  static const test::TempDir dir;
  static const auto model = copy_of(dir, "qwen2_tiny");
  return model;
}

const json kPerson = {
    {"type", "object"},
    {"properties",
     {{"age", {{"type", "integer"}, {"minimum", 0}, {"maximum", 130}}},
      {"kind", {{"enum", {"a", "b"}}}},
      {"tags", {{"type", "array"}, {"items", {{"type", "string"}, {"maxLength", 8}}}, {"maxItems", 3}}}}},
    {"required", {"age", "kind", "tags"}},
    {"additionalProperties", false}};

json schema_format(const json& schema, bool strict = true) {
  return {{"type", "json_schema"}, {"json_schema", {{"name", "answer"}, {"strict", strict}, {"schema", schema}}}};
}

bool is_person(const std::string& text) {
  const json v = json::parse(text, nullptr, false);
  if (!v.is_object() || v.size() != 3 || !v["age"].is_number_integer() || v["age"] < 0 || v["age"] > 130) return false;
  if (v["kind"] != "a" && v["kind"] != "b") return false;
  if (!v["tags"].is_array() || v["tags"].size() > 3) return false;
  return std::ranges::all_of(v["tags"], [](const json& t) { return t.is_string(); });
}

TEST(LocalStructured, EveryChoiceSatisfiesTheSchemaStreamedOrNot) {
  for (const bool stream : {false, true}) {
    const Reply reply = chat(
        llama(),
        {{"response_format", schema_format(kPerson)}, {"n", 4}, {"seed", 5}, {"stream", stream}, {"max_tokens", 300}});
    ASSERT_FALSE(reply.error) << reply.error->message;
    std::vector<std::string> texts;
    if (stream) {
      for (const Streamed& choice : joined(events(reply.body))) {
        texts.push_back(choice.text);
        EXPECT_EQ(choice.finish_reason, "stop");
      }
    } else {
      for (const json& choice : reply.parsed()["choices"]) {
        texts.push_back(choice["message"]["content"]);
        EXPECT_EQ(choice["finish_reason"], "stop");
      }
    }
    ASSERT_EQ(texts.size(), 4U);
    for (const std::string& text : texts) EXPECT_TRUE(is_person(text)) << text;
  }
  EXPECT_TRUE(idle(*llama()));
}

TEST(LocalStructured, JsonModeGivesAnObjectOrIsCutAtTheLength) {
  for (int seed = 0; seed < 12; ++seed) {
    const Reply reply =
        chat(llama(), {{"response_format", {{"type", "json_object"}}}, {"seed", seed}, {"max_tokens", 120}});
    ASSERT_FALSE(reply.error) << reply.error->message;
    const json choice = reply.parsed()["choices"][0];
    const std::string text = choice["message"]["content"];
    if (choice["finish_reason"] == "stop") {
      EXPECT_TRUE(json::parse(text, nullptr, false).is_object()) << text;
    } else {
      EXPECT_EQ(choice["finish_reason"], "length");
      EXPECT_EQ(reply.parsed()["usage"]["completion_tokens"], 120);
      EXPECT_EQ(text[text.find_first_not_of(" \n")], '{');
    }
  }
}

TEST(LocalStructured, LogprobsStayTheModelsOwn) {
  const Reply reply = chat(llama(), {{"response_format", schema_format({{"const", "x"}})},
                                     {"temperature", 0},
                                     {"logprobs", true},
                                     {"top_logprobs", 2}});
  ASSERT_FALSE(reply.error) << reply.error->message;
  const json choice = reply.parsed()["choices"][0];
  std::string text;
  double total = 0;
  for (const json& entry : choice["logprobs"]["content"]) {
    text += entry["token"].get<std::string>();
    total += entry["logprob"].get<double>();
    EXPECT_GE(entry["top_logprobs"][0]["logprob"].get<double>(), entry["logprob"].get<double>());
  }
  EXPECT_EQ(json(text), choice["message"]["content"]);
  EXPECT_LT(total, -5) << "a random model does not believe in what it was made to say";
}

TEST(LocalStructured, RefusesASchemaByItsPlace) {
  Reply reply = chat(
      llama(),
      {{"response_format", schema_format({{"type", "object"}, {"properties", {{"a", {{"not", json::object()}}}}}})}});
  ASSERT_TRUE(reply.error);
  EXPECT_EQ(reply.error->kind, core::ErrorKind::unsupported);
  EXPECT_EQ(reply.error->param, "response_format.json_schema.schema");
  EXPECT_THAT(reply.error->message, HasSubstr("#/properties/a/not"));
  reply = complete(llama(), {{"response_format", {{"type", "json_object"}}}});
  ASSERT_TRUE(reply.error);
  EXPECT_EQ(reply.error->param, "response_format");
  EXPECT_TRUE(idle(*llama()));
}

TEST(LocalStructured, NeighboursAnswerAsAlone) {
  const json plain = {{"temperature", 0}, {"max_tokens", 40}};
  const std::string alone = chat(llama(), plain).parsed()["choices"][0]["message"]["content"];
  boost::asio::io_context io(1);
  LocalBackend backend(llama(), io.get_executor());
  std::vector<Reply> replies(6);
  test::run_coroutine(io, [&]() -> boost::asio::awaitable<void> {
    for (std::size_t i = 0; i < replies.size(); ++i) {
      json body = {{"model", "m"}, {"messages", {{{"role", "user"}, {"content", "What is a cache?"}}}}, {"seed", i}};
      body.update(i % 2 == 0 ? plain : json{{"response_format", schema_format(kPerson)}, {"max_tokens", 300}});
      replies[i] = co_await ask(backend, {.body = body});
    }
  });
  for (std::size_t i = 0; i < replies.size(); ++i) {
    const std::string text = replies[i].parsed()["choices"][0]["message"]["content"];
    if (i % 2 == 0) {
      EXPECT_EQ(text, alone);
    } else {
      EXPECT_TRUE(is_person(text)) << text;
    }
  }
}

TEST(LocalStructured, TheDemoModelAnswersInJson) {
  auto options = tiny("demo");
  options.directory = GANGLION_SOURCE_DIR "/models/demo-chat";
  options.kv_bytes = 64ULL << 20;
  const auto model = load(options);
  for (int i = 0; i < 3; ++i) {
    const Reply reply = chat(model, {{"response_format", schema_format(kPerson)},
                                     {"temperature", i == 0 ? 0 : 1},
                                     {"seed", i},
                                     {"max_tokens", 200}});
    ASSERT_FALSE(reply.error) << reply.error->message;
    EXPECT_TRUE(is_person(reply.parsed()["choices"][0]["message"]["content"])) << reply.body;
  }
}

// ---- tools ----

json weather_tools(bool strict = false) {
  return {{{"type", "function"},
           {"function",
            {{"name", "get_weather"},
             {"strict", strict},
             {"parameters",
              {{"type", "object"},
               {"properties",
                {{"city", {{"type", "string"}, {"maxLength", 12}}},
                 {"days", {{"type", "integer"}, {"minimum", 1}, {"maximum", 9}}}}},
               {"required", {"city", "days"}},
               {"additionalProperties", false}}}}}},
          {{"type", "function"},
           {"function",
            {{"name", "now"},
             {"parameters", {{"type", "object"}, {"properties", json::object()}, {"additionalProperties", false}}}}}}};
}

bool good_call(const json& call) {
  const json arguments = json::parse(call["function"]["arguments"].get<std::string>(), nullptr, false);
  if (call["type"] != "function" || call["id"].get<std::string>().empty()) return false;
  if (call["function"]["name"] == "now") return arguments == json::object();
  return call["function"]["name"] == "get_weather" && arguments.size() == 2 && arguments["city"].is_string() &&
         arguments["days"].is_number_integer() && arguments["days"] >= 1 && arguments["days"] <= 9;
}

// The message that a stream's deltas add up to, as clients do it.
json accumulated(const std::string& body, std::string& finish) {
  json calls = json::array();
  std::string content;
  for (const json& event : events(body)) {
    for (const json& choice : event["choices"]) {
      const json& delta = choice["delta"];
      content += delta.value("content", "");
      for (json piece : delta.value("tool_calls", json::array())) {
        const auto index = piece["index"].get<std::size_t>();
        piece.erase("index");
        if (index == calls.size()) {
          calls.push_back(piece);
        } else {
          calls[index]["function"]["arguments"] = calls[index]["function"]["arguments"].get<std::string>() +
                                                  piece["function"]["arguments"].get<std::string>();
        }
      }
      if (choice["finish_reason"].is_string()) finish = choice["finish_reason"];
    }
  }
  return {{"content", content}, {"tool_calls", calls}};
}

class LocalTools : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::string style = GetParam();
    if (style == "json") {
      model_ = copy_of(dir_, "llama3_tiny",
                       "{% if tools %}Environment: ipython{{ tools | tojson }}{% endif %}{% for m in messages %}{{ "
                       "m.content }}{% endfor %}");
    } else if (style == "mistral_args") {
      model_ = copy_of(dir_, "mistral_tiny",
                       "{% if tools %}[TOOL_CALLS]f[ARGS]{{ tools | tojson }}{% endif %}{% for m in messages %}{{ "
                       "m.content }}{% endfor %}");
    } else {
      model_ = copy_of(dir_, style == "hermes" ? "qwen2_tiny" : "mistral_tiny");
    }
  }
  test::TempDir dir_;
  std::shared_ptr<LocalModel> model_;
};
INSTANTIATE_TEST_SUITE_P(Styles, LocalTools, testing::Values("hermes", "json", "mistral_list", "mistral_args"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(LocalTools, RequiredCallsAreAlwaysRight) {
  for (int seed = 0; seed < 6; ++seed) {
    json fields = {{"tools", weather_tools()}, {"tool_choice", "required"}, {"seed", seed}, {"max_tokens", 400}};
    const Reply whole = chat(model_, fields);
    ASSERT_FALSE(whole.error) << whole.error->message;
    const json choice = whole.parsed()["choices"][0];
    if (choice["finish_reason"] == "length") continue;
    EXPECT_EQ(choice["finish_reason"], "tool_calls");
    EXPECT_TRUE(choice["message"]["content"].is_null()) << whole.body;
    ASSERT_GE(choice["message"]["tool_calls"].size(), 1U);
    for (const json& call : choice["message"]["tool_calls"]) EXPECT_TRUE(good_call(call)) << call;
    fields["stream"] = true;
    std::string finish;
    const Reply streamed = chat(model_, fields);
    const json message = accumulated(streamed.body, finish);
    EXPECT_EQ(finish, "tool_calls");
    EXPECT_EQ(message["content"], "");
    EXPECT_EQ(message["tool_calls"], choice["message"]["tool_calls"]);
    EXPECT_EQ(streamed.usage->output_tokens, whole.usage->output_tokens);
  }
}

TEST_P(LocalTools, ANamedOneIsTheOneThatIsCalled) {
  const Reply reply = chat(model_, {{"tools", weather_tools()},
                                    {"tool_choice", {{"type", "function"}, {"function", {{"name", "now"}}}}},
                                    {"n", 2},
                                    {"max_tokens", 100}});
  ASSERT_FALSE(reply.error) << reply.error->message;
  std::set<std::string> ids;
  for (const json& choice : reply.parsed()["choices"]) {
    ASSERT_EQ(choice["message"]["tool_calls"].size(), 1U) << reply.body;
    EXPECT_EQ(choice["message"]["tool_calls"][0]["function"]["name"], "now");
    EXPECT_TRUE(good_call(choice["message"]["tool_calls"][0]));
    ids.insert(choice["message"]["tool_calls"][0]["id"]);
  }
  EXPECT_EQ(ids.size(), 2U);
}

TEST_P(LocalTools, OneAtATimeWhereAsked) {
  for (int seed = 0; seed < 4; ++seed) {
    const Reply reply = chat(model_, {{"tools", weather_tools()},
                                      {"tool_choice", "required"},
                                      {"parallel_tool_calls", false},
                                      {"seed", seed},
                                      {"max_tokens", 200}});
    ASSERT_FALSE(reply.error) << reply.error->message;
    EXPECT_EQ(reply.parsed()["choices"][0]["message"]["tool_calls"].size(), 1U);
  }
}

TEST_P(LocalTools, LeftToARandomModelTheAnswerIsText) {
  const json fields = {{"tools", weather_tools()}, {"temperature", 0}, {"max_tokens", 24}};
  const Reply with = chat(model_, fields);
  ASSERT_FALSE(with.error) << with.error->message;
  EXPECT_FALSE(with.parsed()["choices"][0]["message"].contains("tool_calls"));
  EXPECT_EQ(with.parsed()["choices"][0]["finish_reason"], "length");
}

TEST_P(LocalTools, AnAnswerIsTheFormatOrACall) {
  for (int seed = 0; seed < 5; ++seed) {
    const Reply reply = chat(
        model_,
        {{"tools", weather_tools()}, {"response_format", schema_format(kPerson)}, {"seed", seed}, {"max_tokens", 400}});
    ASSERT_FALSE(reply.error) << reply.error->message;
    const json choice = reply.parsed()["choices"][0];
    if (choice["finish_reason"] == "length") continue;
    if (choice["finish_reason"] == "tool_calls") {
      for (const json& call : choice["message"]["tool_calls"]) EXPECT_TRUE(good_call(call)) << call;
    } else {
      EXPECT_TRUE(is_person(choice["message"]["content"])) << reply.body;
    }
  }
}

TEST_P(LocalTools, ResultsGoBackIntoThePrompt) {
  if (std::string(GetParam()) == "json" || std::string(GetParam()) == "mistral_args")
    GTEST_SKIP() << "a template of this test's own";
  const Reply first = chat(model_, {{"tools", weather_tools()},
                                    {"tool_choice", {{"type", "function"}, {"function", {{"name", "now"}}}}},
                                    {"max_tokens", 100}});
  ASSERT_FALSE(first.error) << first.error->message;
  json assistant = first.parsed()["choices"][0]["message"];
  const json messages = {{{"role", "user"}, {"content", "What time is it?"}},
                         assistant,
                         {{"role", "tool"}, {"tool_call_id", assistant["tool_calls"][0]["id"]}, {"content", "12:00"}}};
  const Reply second = chat(model_, {{"messages", messages}, {"tools", weather_tools()}, {"max_tokens", 8}});
  ASSERT_FALSE(second.error) << second.error->message;
  EXPECT_GT(second.usage->input_tokens, first.usage->input_tokens);
}

// Strict functions may be called or not; if they are, their arguments are right. The mark is made likely.
TEST(LocalToolsStrict, ACallThatTheModelBeginsIsRight) {
  const auto id = qwen()->parts().tokenizer().token_to_id("<tool_call>").value();
  int called = 0;
  for (int seed = 0; seed < 6; ++seed) {
    const Reply reply = chat(qwen(), {{"tools", weather_tools(true)},
                                      {"seed", seed},
                                      {"logit_bias", {{std::to_string(id), 4.5}}},
                                      {"max_tokens", 300}});
    ASSERT_FALSE(reply.error) << reply.error->message;
    const json choice = reply.parsed()["choices"][0];
    if (choice["finish_reason"] != "tool_calls") continue;
    ++called;
    for (const json& call : choice["message"]["tool_calls"]) EXPECT_TRUE(good_call(call)) << call;
  }
  EXPECT_GT(called, 2);
}

TEST(LocalToolsStrict, ModelsWhoseCallsAreNotKnownAreNotForced) {
  test::TempDir dir;
  const auto model =
      copy_of(dir, "llama3_tiny",
              "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}");
  Reply reply = chat(model, {{"tools", weather_tools()}, {"tool_choice", "required"}});
  ASSERT_TRUE(reply.error);
  EXPECT_EQ(reply.error->kind, core::ErrorKind::unsupported);
  EXPECT_EQ(reply.error->param, "tool_choice");
  reply = chat(model, {{"tools", weather_tools()}, {"max_tokens", 4}});
  EXPECT_FALSE(reply.error);
  const json broken = {{{"type", "function"}, {"function", {{"name", "f"}, {"parameters", {{"typo", 1}}}}}}};
  reply = chat(qwen(), {{"tools", broken}, {"tool_choice", "required"}});
  ASSERT_TRUE(reply.error);
  EXPECT_EQ(reply.error->param, "tools");
  EXPECT_THAT(reply.error->message, HasSubstr("function 'f'"));
}

}  // namespace
}  // namespace ganglion::backends
