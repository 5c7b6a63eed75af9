// The request's `lora` field.

#include "tests/unit/backends/local/local_fixture.hpp"

namespace ganglion::backends {
namespace {

std::shared_ptr<LocalModel> adapted() {
  auto options = tiny("llama2_tiny");
  options.adapters = {{"support", GANGLION_SOURCE_DIR "/tests/data/local/lora/llama2_tiny.all_linears"}};
  return load(options);
}

Reply ask_with(const std::shared_ptr<LocalModel>& model, const json& fields) {
  json body = {
      {"model", model->name()}, {"prompt", "The gateway"}, {"temperature", 0}, {"max_tokens", 8}, {"ignore_eos", true}};
  body.update(fields);
  return ask(model, {.endpoint = api::Endpoint::completions, .body = body});
}

TEST(LocalLora, NamesAnAdapter) {
  const auto model = adapted();
  const Reply bare = ask_with(model, json::object()), adapted = ask_with(model, {{"lora", "support"}});
  ASSERT_FALSE(bare.error);
  ASSERT_FALSE(adapted.error);
  EXPECT_NE(bare.parsed()["choices"], adapted.parsed()["choices"]);
  EXPECT_EQ(ask_with(model, {{"lora", nullptr}}).parsed()["choices"], bare.parsed()["choices"]);
}

TEST(LocalLora, RefusesAnUnknownOneAndWhatIsNoName) {
  const auto model = adapted();
  const Reply unknown = ask_with(model, {{"lora", "sales"}});
  ASSERT_TRUE(unknown.error);
  EXPECT_EQ(unknown.error->kind, core::ErrorKind::model_not_found);
  EXPECT_EQ(unknown.error->param, "lora");
  const Reply number = ask_with(model, {{"lora", 3}});
  ASSERT_TRUE(number.error);
  EXPECT_EQ(number.error->kind, core::ErrorKind::invalid_value);
}

TEST(LocalLora, AnEmbeddingModelTakesNone) {
  auto options = tiny("bert_tiny");
  options.adapters = {{"a", "b"}};
  const auto model = load_local_model(options);
  ASSERT_FALSE(model);
  EXPECT_THAT(model.error().message, testing::HasSubstr("adapters"));
}

}  // namespace
}  // namespace ganglion::backends
