// What is made from the table of fields: the redacted dump, the default file, the schema, the reference, reload rules.

#include "config/describe.hpp"

#include <nlohmann/json.hpp>

#include "tests/unit/config/support.hpp"

namespace ganglion::config {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

TEST(Describe, RedactsEverySecret) {
  const Config c = good(R"(
providers: [{name: p, base_url: "http://127.0.0.1:1/v1", api_key: "${A}", models: [m]}]
key_pepper: ${B}
keys: [{id: a, secret: "${C}", limits: {tokens: {rate: 5/s, burst: 9}}}]
)",
                        {{"A", "secret-upstream"}, {"B", "secret-pepper-0123"}, {"C", "secret-client"}});
  const std::string text = describe_redacted(c);
  EXPECT_THAT(text, Not(HasSubstr("secret-")));
  const json dump = json::parse(text);
  EXPECT_EQ(dump["providers"][0]["api_key"], "[redacted]");
  EXPECT_EQ(dump["key_pepper"], "[redacted]");
  EXPECT_EQ(dump["keys"][0]["secret"], "[redacted]");
  EXPECT_EQ(dump["keys"][0]["limits"]["tokens"]["burst"], 9);
  EXPECT_EQ(dump["server"]["listen"], "127.0.0.1:8080");
  EXPECT_EQ(dump["server"]["workers"], "auto");
  EXPECT_EQ(dump["shutdown"]["drain"], "30s");
  EXPECT_TRUE(json::parse(describe_redacted(Config{}))["key_pepper"].is_null());
}

TEST(Describe, HashFollowsEveryValue) {
  const Env env = {{"A", "pepper-one-0123456789"}, {"B", "pepper-two-0123456789"}};
  const Config base = good(kBase + "key_pepper: ${A}\n", env);
  EXPECT_EQ(base.hash.size(), 16U);
  EXPECT_EQ(good("key_pepper: ${A}\n" + kBase, env).hash, base.hash);
  EXPECT_NE(good(kBase + "key_pepper: ${B}\n", env).hash, base.hash);
  EXPECT_NE(good(kBase + "key_pepper: ${A}\nshutdown: {drain: 31s}\n", env).hash, base.hash);
}

TEST(Describe, TellsWhatNeedsARestart) {
  const Config before = good(kBase);
  EXPECT_THAT(changed_not_reloadable(before, before), IsEmpty());
  EXPECT_THAT(changed_not_reloadable(
                  before, good(kBase + "request: {timeout: 5s}\nlog: {level: warn}\n"
                                       "providers: [{name: p, base_url: \"http://127.0.0.1:1\", models: [m]}]\n")),
              IsEmpty());
  const Config after = good(
      "local: [{name: other, path: models/demo-chat}]\nserver: {listen: 127.0.0.1:9, workers: 2}\nledger: {directory: "
      "x}\n");
  EXPECT_THAT(changed_not_reloadable(before, after),
              ElementsAre("server.listen", "server.workers", "local", "ledger.directory"));
  EXPECT_THAT(changed_not_reloadable(before, good("local: [{name: demo-chat, path: models/demo-chat, draft: {path: "
                                                  "models/demo-chat}}]\n")),
              ElementsAre("local"));
}

TEST(Default, EmbeddedFileLoadsAndIsTheRepositorysFile) {
  EXPECT_EQ(embedded_default_text(), slurp(std::filesystem::path(GANGLION_SOURCE_DIR) / "config/ganglion.yaml"));
  const LoadResult c = embedded_default(with_env({}));
  ASSERT_TRUE(c) << format(c.error());
  EXPECT_TRUE(c->warnings.empty());
  EXPECT_EQ(c->server.port, 8080);
  EXPECT_EQ(c->admin.port, 8081);
  EXPECT_EQ(c->local_models.at(0).name, "demo-chat");
  EXPECT_EQ(c->source, "");
}

// The commented examples of the default file must be right too: they are what operators start from.
TEST(Default, CommentedExamplesLoad) {
  std::string text;
  std::istringstream lines{std::string(embedded_default_text())};
  for (std::string line; std::getline(lines, line);) {
    const bool yaml = line.starts_with("# providers:") || line.starts_with("# keys:") ||
                      line.starts_with("# key_pepper:") || line.starts_with("# tenants:") ||
                      line.starts_with("# gateways:") || line.starts_with("#   ");
    text += (yaml ? line.substr(2) : line) + "\n";
  }
  const Config c = good(text, {{"OPENAI_API_KEY", "sk-x"}, {"GANGLION_KEY_PEPPER", "0123456789abcdef"}});
  EXPECT_EQ(c.remotes.size(), 2U);
  EXPECT_EQ(c.gateway.keys.size(), 1U);
  EXPECT_EQ(c.gateway.tenants.size(), 1U);
  EXPECT_EQ(c.gateway.gateways.size(), 1U);
  EXPECT_THAT(c.warnings, IsEmpty());
}

TEST(Default, PrintedFileLoadsAsTheEmbeddedOne) {
  const Config printed = good(default_yaml());
  EXPECT_EQ(describe_redacted(printed), describe_redacted(*embedded_default(with_env({}))));
  EXPECT_THAT(printed.warnings, IsEmpty());
}

TEST(Default, PrintedExamplesLoad) {
  // Take the comment off every example: "# key:" lines of lists, and the lines below them.
  std::string text;
  std::istringstream lines{default_yaml()};
  bool in_example = false;
  for (std::string line; std::getline(lines, line);) {
    const std::size_t indent = std::min(line.find_first_not_of(' '), line.size());
    const std::string_view rest = std::string_view(line).substr(indent);
    const bool opens = rest == "# providers:" || rest == "# keys:" || rest == "# tenants:" || rest == "# gateways:" ||
                       rest == "# models:" || rest == "# budgets:" || rest == "# key_pepper: ${GANGLION_KEY_PEPPER}";
    in_example = opens || (in_example && rest.starts_with("#   "));
    text += (in_example ? std::string(indent, ' ') + std::string(rest.substr(2)) : line) + "\n";
  }
  const Config c = good(text, {{"OPENAI_API_KEY", "sk-x"}, {"GANGLION_KEY_PEPPER", "0123456789abcdef"}});
  EXPECT_EQ(c.remotes.size(), 1U);
  EXPECT_EQ(c.gateway.keys.size(), 1U);
  EXPECT_EQ(c.gateway.model_limits.size(), 1U);
  EXPECT_EQ(c.pricing.models.size(), 1U);
}

TEST(Schema, IsClosedAndCoversTheDump) {
  const json schema = json::parse(json_schema());
  EXPECT_EQ(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
  EXPECT_EQ(schema["additionalProperties"], false);
  EXPECT_EQ(schema["properties"]["keys"]["items"]["additionalProperties"], false);
  EXPECT_THAT(schema["properties"]["providers"]["items"]["required"], ElementsAre("name", "base_url", "models"));
  const json dump = json::parse(describe_redacted(Config{}));
  for (const auto& [section, value] : dump.items()) {
    ASSERT_TRUE(schema["properties"].contains(section)) << section;
    if (!value.is_object()) continue;
    for (const auto& [key, unused] : value.items()) {
      EXPECT_TRUE(schema["properties"][section]["properties"].contains(key)) << section << "." << key;
    }
  }
}

TEST(Docs, ConfigReferenceIsCurrent) {
  expect_committed("docs/config.md", reference_markdown());
}

TEST(Docs, SchemaIsCurrent) {
  expect_committed("config/ganglion.schema.json", json_schema());
}

TEST(Bar, BenchmarkConfigurationHasEveryFeatureOn) {
  LoadOptions options = with_env({{"UPSTREAM_PORT", "9001"}, {"PROXY_PORT", "9002"}, {"ADMIN_PORT", "9003"}});
  const LoadResult c = load_file(std::filesystem::path(GANGLION_SOURCE_DIR) / "bench/config/bar.yaml", options);
  ASSERT_TRUE(c) << format(c.error());
  ASSERT_EQ(c->warnings.size(), 1U);
  EXPECT_THAT(format(c->warnings[0]), HasSubstr("keys[0].secret: shorter than 16 bytes")) << "every gateway's there";
  EXPECT_EQ(c->server.port, 9002);
  EXPECT_EQ(c->admin.port, 9003);
  EXPECT_EQ(c->server.workers, 1U);
  EXPECT_EQ(c->remotes.at(0).upstream.base_url, "http://127.0.0.1:9001/v1");
  EXPECT_EQ(c->remotes[0].models.at(0).name, "gpt-4o-mini");
  const auto& key = c->gateway.keys.at(0);
  EXPECT_EQ(key.secret.reveal(), "sk-test");
  EXPECT_GE(key.limits.requests.amount, 1'000'000U);
  EXPECT_GE(key.limits.tokens.amount, 1'000'000'000U);
  EXPECT_GE(key.limits.neurons.amount, 1'000'000'000U);
  EXPECT_TRUE(c->cache.enabled);
  // Every request is looked up, and the same request again still reaches the upstream.
  EXPECT_TRUE(c->gateway.gateways.at(0).cache.keep_only_asked);
  EXPECT_EQ(c->ledger.directory, "data/bench-ledger");
}

TEST(Deploy, ContainerConfigurationLoads) {
  const std::string text = slurp(std::filesystem::path(GANGLION_SOURCE_DIR) / "deploy/docker/ganglion.yaml");
  const Config c = good(text, {{"GANGLION_KEY_PEPPER", "0123456789abcdef"}, {"GANGLION_KEY", "sk-first-0123456789"}});
  EXPECT_EQ(c.server.host, "0.0.0.0");
  EXPECT_EQ(c.gateway.keys.size(), 1U);
  EXPECT_EQ(c.admin.host, "127.0.0.1");
  EXPECT_TRUE(c.warnings.empty()) << format(c.warnings);
  EXPECT_THAT(report(text), HasSubstr("environment variable GANGLION_KEY is not set"));
}

}  // namespace
}  // namespace ganglion::config
