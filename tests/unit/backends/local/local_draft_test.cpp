// `local[].draft` through the backend: the same answers to the same requests, adapters beside it, and what is refused.

#include "tests/unit/backends/local/local_fixture.hpp"

namespace ganglion::backends {
namespace {

LocalModelOptions drafted(const std::string& model, const std::string& draft) {
  auto options = tiny(model);
  options.draft.directory = tiny(draft).directory;
  options.draft.tokens = 3;
  return options;
}

Reply ask_with(const std::shared_ptr<LocalModel>& model, const json& fields) {
  json body = {
      {"model", model->name()}, {"prompt", "The gateway"}, {"seed", 5}, {"max_tokens", 40}, {"ignore_eos", true}};
  body.update(fields);
  return ask(model, {.endpoint = api::Endpoint::completions, .body = body});
}

TEST(LocalDraft, AnswersAreThoseWithoutAndAdaptersHaveThemToo) {
  auto options = drafted("llama2_tiny", "llama_fp16");
  options.adapters = {{"support", GANGLION_SOURCE_DIR "/tests/data/local/lora/llama2_tiny.all_linears"}};
  const auto with = load(options);
  options.draft = {};
  const auto without = load(options);
  for (const json& fields : {json{{"temperature", 0}}, json{{"temperature", 0.8}, {"top_p", 0.9}, {"logprobs", 2}},
                             json{{"temperature", 0}, {"lora", "support"}}, json{{"n", 3}, {"stop", "e"}}}) {
    const Reply a = ask_with(without, fields), b = ask_with(with, fields);
    ASSERT_FALSE(a.error);
    ASSERT_FALSE(b.error);
    EXPECT_EQ(a.parsed()["choices"], b.parsed()["choices"]) << fields;
    EXPECT_EQ(a.parsed()["usage"], b.parsed()["usage"]) << fields;
  }
  EXPECT_GT(with->stats().drafted_tokens, 0U);
  EXPECT_EQ(without->stats().draft_pages_total, 0);
  EXPECT_TRUE(idle(*with));
  EXPECT_EQ(with->stats().draft_pages_used_now, 0);
}

TEST(LocalDraft, WhatCannotBeIsRefusedWhenTheModelLoads) {
  const auto refusal = [](const LocalModelOptions& options) {
    const auto model = load_local_model(options);
    EXPECT_FALSE(model);
    return model ? std::string{} : model.error().message;
  };
  EXPECT_THAT(refusal(drafted("bert_tiny", "llama2_tiny")), testing::HasSubstr("a draft is for models that generate"));
  EXPECT_THAT(refusal(drafted("llama2_tiny", "bert_tiny")), testing::HasSubstr("it cannot guess text"));
  EXPECT_THAT(refusal(drafted("llama2_tiny", "llama3_tiny")),
              testing::HasSubstr("its vocabulary is not the model's: token"));
  auto options = drafted("llama2_tiny", "llama_fp16");
  options.draft.quantize = "int3";
  EXPECT_THAT(refusal(options), testing::HasSubstr("quantize must be"));
}

}  // namespace
}  // namespace ganglion::backends
