// Completions and embeddings of the local backend, and the token counter.

#include <bit>
#include <cstring>
#include <fstream>

#include "backends/local/weights/model_config.hpp"
#include "tests/unit/backends/local/local_fixture.hpp"

namespace ganglion::backends {
namespace {

using testing::HasSubstr;

std::shared_ptr<LocalModel> llama() {
  static const auto kModel = load(tiny("llama3_tiny"));
  return kModel;
}
std::shared_ptr<LocalModel> bert() {
  static const auto kModel = load(tiny("bert_tiny"));
  return kModel;
}

Reply embed(json fields) {
  json body = {{"model", "bert_tiny"}};
  body.update(fields);
  return ask(bert(), {.endpoint = api::Endpoint::embeddings, .body = body});
}

TEST(LocalCompletions, TextAndItsIdsGiveTheSameAnswer) {
  const json fields = {{"max_tokens", 10}, {"temperature", 0}, {"ignore_eos", true}};
  json ids = fields;
  ids["prompt"] = llama()->parts().tokenizer().encode("The cat sat", true);
  const json from_text = complete(llama(), fields).parsed();
  const json from_ids = complete(llama(), ids).parsed();
  EXPECT_EQ(from_text["object"], "text_completion");
  EXPECT_EQ(from_text["id"], "cmpl-01TEST");
  EXPECT_EQ(from_text["choices"][0]["text"], from_ids["choices"][0]["text"]);
  EXPECT_EQ(from_text["usage"], from_ids["usage"]);
}

TEST(LocalCompletions, WithoutAMaximumTheyHaveSixteenTokensAsOpenAIs) {
  const json body = complete(llama(), {{"temperature", 0}, {"ignore_eos", true}}).parsed();
  EXPECT_EQ(body["usage"]["completion_tokens"], 16);
  EXPECT_EQ(body["choices"][0]["finish_reason"], "length");
}

TEST(LocalCompletions, PromptsAndChoicesAreNumberedInOrder) {
  const json fields = {{"max_tokens", 8}, {"temperature", 0}, {"ignore_eos", true}};
  json many = fields;
  many["prompt"] = {"The cat sat", "A dog"};
  many["n"] = 2;
  const json body = complete(llama(), many).parsed();
  ASSERT_EQ(body["choices"].size(), 4U);
  json dog = fields;
  dog["prompt"] = "A dog";
  const json cat_alone = complete(llama(), fields).parsed();
  const json dog_alone = complete(llama(), dog).parsed();
  EXPECT_EQ(body["choices"][0]["text"], cat_alone["choices"][0]["text"]);
  EXPECT_EQ(body["choices"][1]["text"], cat_alone["choices"][0]["text"]);
  EXPECT_EQ(body["choices"][2]["text"], dog_alone["choices"][0]["text"]);
  EXPECT_EQ(body["choices"][3]["index"], 3);
  EXPECT_EQ(body["usage"]["prompt_tokens"].get<int>(),
            cat_alone["usage"]["prompt_tokens"].get<int>() + dog_alone["usage"]["prompt_tokens"].get<int>());
}

TEST(LocalCompletions, EchoComesFirstAlsoInStreams) {
  json fields = {{"max_tokens", 6}, {"temperature", 0}, {"ignore_eos", true}};
  const std::string plain = complete(llama(), fields).parsed()["choices"][0]["text"];
  fields["echo"] = true;
  EXPECT_EQ(complete(llama(), fields).parsed()["choices"][0]["text"], "The cat sat" + plain);
  fields["stream"] = true;
  EXPECT_EQ(joined(events(complete(llama(), fields).body))[0].text, "The cat sat" + plain);
  fields["logprobs"] = 1;
  const Reply refused = complete(llama(), fields);
  ASSERT_TRUE(refused.error);
  EXPECT_EQ(refused.error->kind, core::ErrorKind::unsupported);
}

TEST(LocalCompletions, LegacyLogprobsHaveFourEqualLists) {
  json fields = {{"max_tokens", 7}, {"seed", 2}, {"ignore_eos", true}, {"logprobs", 2}};
  const json logprobs = complete(llama(), fields).parsed()["choices"][0]["logprobs"];
  ASSERT_EQ(logprobs["tokens"].size(), 7U);
  EXPECT_EQ(logprobs["token_logprobs"].size(), 7U);
  EXPECT_EQ(logprobs["top_logprobs"].size(), 7U);
  EXPECT_LE(logprobs["top_logprobs"][0].size(), 2U);
  ASSERT_EQ(logprobs["text_offset"].size(), 7U);
  EXPECT_EQ(logprobs["text_offset"][0], 0);
  EXPECT_GT(logprobs["text_offset"][6].get<int>(), 0);
}

TEST(LocalCompletions, RefusesBadPromptsByName) {
  Reply reply = complete(llama(), {{"prompt", {1, 2, 999999}}});
  ASSERT_TRUE(reply.error);
  EXPECT_EQ(reply.error->kind, core::ErrorKind::invalid_value);
  EXPECT_EQ(reply.error->param, "prompt");
  EXPECT_THAT(reply.error->message, HasSubstr("999999"));
  reply = complete(llama(), {{"prompt", json(std::vector<std::string>(kSequencesMax + 1, "x"))}});
  ASSERT_TRUE(reply.error);
  EXPECT_THAT(reply.error->message, HasSubstr(std::to_string(kSequencesMax)));
}

std::vector<float> decoded(const std::string& base64) {
  std::string bytes;
  std::uint32_t bits = 0;
  int have = 0;
  for (const char c : base64) {
    const std::size_t v = std::string_view("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/").find(c);
    if (v == std::string_view::npos) break;
    bits = (bits << 6) | static_cast<std::uint32_t>(v);
    have += 6;
    if (have >= 8) bytes.push_back(static_cast<char>(bits >> (have -= 8)));
  }
  std::vector<float> out(bytes.size() / sizeof(float));
  std::memcpy(out.data(), bytes.data(), out.size() * sizeof(float));
  return out;
}

TEST(LocalEmbeddings, Base64AndFloatsAreTheSameVectors) {
  const json input = {"A cat sat on the mat.", "Caching"};
  const json floats = embed({{"input", input}, {"encoding_format", "float"}}).parsed();
  const json packed = embed({{"input", input}, {"encoding_format", "base64"}}).parsed();
  ASSERT_EQ(floats["data"].size(), 2U);
  EXPECT_EQ(floats["data"][1]["index"], 1);
  EXPECT_EQ(floats["data"][1]["object"], "embedding");
  for (std::size_t i = 0; i < 2; ++i) {
    const auto vector = floats["data"][i]["embedding"].get<std::vector<float>>();
    EXPECT_EQ(vector.size(), static_cast<std::size_t>(bert()->parts().embedder->dimensions()));
    EXPECT_EQ(decoded(packed["data"][i]["embedding"]), vector);
    double length = 0;
    for (const float x : vector) length += static_cast<double>(x) * static_cast<double>(x);
    EXPECT_NEAR(length, 1.0, 1e-3);
  }
  EXPECT_NE(floats["data"][0]["embedding"], floats["data"][1]["embedding"]);
}

TEST(LocalEmbeddings, MatchTheModelsGoldens) {
  std::ifstream in(GANGLION_SOURCE_DIR "/tests/data/local/bert_tiny/goldens.json");
  const json goldens = json::parse(in);
  const std::string pooling = goldens["pooling"];
  std::size_t compared = 0;
  for (const json& one : goldens["cases"]) {
    // Empty texts, and those that the goldens cut to the model's length, are refused here.
    if (one["text"] == "" || one["ids"].size() >= goldens["max_seq_length"].get<std::size_t>()) continue;
    const Reply reply = embed({{"input", one["text"]}});
    ASSERT_FALSE(reply.error) << reply.error->message;
    const auto want = one[pooling].get<std::vector<float>>();
    const auto got = reply.parsed()["data"][0]["embedding"].get<std::vector<float>>();
    ASSERT_EQ(got.size(), want.size());
    for (std::size_t k = 0; k < want.size(); ++k) EXPECT_NEAR(got[k], want[k], 1e-4) << one["text"];
    ++compared;
  }
  EXPECT_GT(compared, 2U);
}

TEST(LocalEmbeddings, CountsItsTokensAndRefusesWhatIsTooLong) {
  const Reply reply = embed({{"input", "A cat"}});
  ASSERT_FALSE(reply.error) << reply.error->message;
  const auto ids = bert()->parts().tokenizer().encode("A cat", true);
  EXPECT_EQ(reply.parsed()["usage"]["prompt_tokens"], ids.size());
  EXPECT_EQ(reply.usage->input_tokens, ids.size());
  EXPECT_EQ(reply.usage->output_tokens, 0U);
  std::string words;
  for (int i = 0; i < 100; ++i) words += "cat ";
  const Reply refused = embed({{"input", {"fine", words}}});
  ASSERT_TRUE(refused.error);
  EXPECT_EQ(refused.error->kind, core::ErrorKind::context_length);
  EXPECT_THAT(refused.error->message, HasSubstr("input 1 has"));
  const Reply shortened = embed({{"input", "A cat"}, {"dimensions", 4}});
  ASSERT_TRUE(shortened.error);
  EXPECT_EQ(shortened.error->param, "dimensions");
  const Reply chatted = chat(bert(), json::object());
  ASSERT_TRUE(chatted.error);
  EXPECT_EQ(chatted.error->kind, core::ErrorKind::unsupported);
}

TEST(TokenCounter, CountsWithTheModelsTokenizerOrGuessesByBytes) {
  const TokenCounter exact = LocalModel::counter(llama());
  EXPECT_TRUE(exact.exact());
  EXPECT_EQ(exact.count("The cat sat on the mat."),
            llama()->parts().tokenizer().encode("The cat sat on the mat.", false).size());
  const TokenCounter guess;
  EXPECT_FALSE(guess.exact());
  EXPECT_EQ(guess.count(""), 0U);
  EXPECT_EQ(guess.count("12345"), 2U);
}

TEST(LocalModelLoad, NamesWhatIsWrong) {
  LocalModelOptions options = tiny("llama3_tiny");
  options.quantize = "int3";
  auto model = load_local_model(options);
  ASSERT_FALSE(model);
  EXPECT_THAT(model.error().message, HasSubstr("int3"));
  options = tiny("no_such_model");
  model = load_local_model(options);
  ASSERT_FALSE(model);
  EXPECT_EQ(model.error().kind, core::ErrorKind::not_found);
}

TEST(LocalModelLoad, KeysAndValuesAreOfAKindThatTheModelAndDeviceHave) {
  LocalModelOptions options = tiny("llama3_tiny");
  for (const auto& [type, says] : {std::pair{"int7", "\"auto\", \"fp16\", \"bf16\", \"int8\" or \"fp8\""},
                                   {"fp8", "needs a GPU"},
                                   {"bf16", "bf16 needs a GPU; fp16 does not"}}) {
    options.kv_type = type;
    const auto model = load_local_model(options);
    ASSERT_FALSE(model) << type;
    EXPECT_THAT(model.error().message, HasSubstr(says));
    EXPECT_EQ(model.error().param, "kv_type");
  }
  options.kv_type = "int8";
  EXPECT_TRUE(load_local_model(options));
  options = tiny("bert_tiny");
  options.kv_type = "int8";
  const auto embedder = load_local_model(options);
  ASSERT_FALSE(embedder);
  EXPECT_EQ(embedder.error().kind, core::ErrorKind::unsupported);
  EXPECT_THAT(embedder.error().message, HasSubstr("keeps no keys and values"));
}

}  // namespace
}  // namespace ganglion::backends
