// Whose requests find computed what an earlier prompt began with, and what the answer says of it.

#include "tests/unit/backends/local/local_fixture.hpp"

namespace ganglion::backends {
namespace {

std::shared_ptr<LocalModel> sharing(const std::string& with) {
  auto options = tiny("llama3_tiny");
  options.prefix_sharing = with;
  return load(options);
}

Reply ask_as(const std::shared_ptr<LocalModel>& model, const std::string& tenant, const json& fields = json::object()) {
  json body = {{"model", model->name()},
               {"messages", {{{"role", "user"}, {"content", "Tell me at some length, please, what a cache is for."}}}},
               {"temperature", 0},
               {"max_tokens", 6},
               {"ignore_eos", true}};
  body.update(fields);
  return ask(model, {.body = body, .tenant = tenant});
}

std::uint64_t cached(const Reply& reply) {
  EXPECT_FALSE(reply.error);
  return reply.usage ? reply.usage->cached_input_tokens : 999'999;
}

TEST(LocalPrefix, ATenantFindsItsOwnAndNoOthers) {
  const auto model = sharing("tenant");
  const Reply first = ask_as(model, "red");
  EXPECT_EQ(cached(first), 0U);
  EXPECT_FALSE(first.parsed()["usage"].contains("prompt_tokens_details"));
  EXPECT_EQ(cached(ask_as(model, "blue")), 0U);
  EXPECT_EQ(cached(ask_as(model, "")), 0U) << "nobody's request shares with nobody";
  EXPECT_EQ(cached(ask_as(model, "")), 0U);
  const Reply second = ask_as(model, "red");
  const std::uint64_t tokens = second.usage->input_tokens;
  EXPECT_EQ(cached(second), (tokens - 1) / 16 * 16);
  EXPECT_EQ(second.parsed()["usage"]["prompt_tokens_details"]["cached_tokens"], cached(second));
  EXPECT_EQ(second.parsed()["choices"], first.parsed()["choices"]);
  EXPECT_EQ(model->stats().prefix_tokens, cached(second));
}

TEST(LocalPrefix, AllShareWhereTheOperatorSaysSo) {
  const auto model = sharing("all");
  EXPECT_EQ(cached(ask_as(model, "red")), 0U);
  EXPECT_GT(cached(ask_as(model, "blue")), 0U);
}

TEST(LocalPrefix, OffMeansOff) {
  const auto model = sharing("off");
  EXPECT_EQ(cached(ask_as(model, "red")), 0U);
  EXPECT_EQ(cached(ask_as(model, "red")), 0U);
  EXPECT_EQ(model->stats().kv_pages_cached_now, 0);
}

TEST(LocalPrefix, FurtherChoicesOfOnePromptAreNotCountedTwice) {
  const auto model = sharing("tenant");
  ask_as(model, "red");
  const Reply reply = ask_as(model, "red", {{"n", 3}});
  EXPECT_EQ(cached(reply), (reply.usage->input_tokens - 1) / 16 * 16);
  EXPECT_LE(cached(reply), reply.usage->input_tokens);
}

TEST(LocalPrefix, AStreamsUsageSaysItToo) {
  const auto model = sharing("tenant");
  ask_as(model, "red");
  const Reply reply = ask_as(model, "red", {{"stream", true}, {"stream_options", {{"include_usage", true}}}});
  const auto all = events(reply.body);
  ASSERT_FALSE(all.empty());
  EXPECT_EQ(all.back()["usage"]["prompt_tokens_details"]["cached_tokens"], cached(reply));
  EXPECT_GT(cached(reply), 0U);
}

}  // namespace
}  // namespace ganglion::backends
