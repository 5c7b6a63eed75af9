// A reload in a running process: what is restart-only stays as it was at the start, and no model is lost meanwhile.

#include "config/in_force.hpp"

#include "config/describe.hpp"
#include "config/tables.hpp"
#include "tests/unit/config/support.hpp"

namespace ganglion::config {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

const Env kEnv = {{"PEPPER", "0123456789abcdef"}, {"K", "sk-one"}, {"L", "sk-two"}, {"SECRET", "0123456789abcdef"}};
const std::string kChat = "local: [{name: chat, path: p}]\n";
const std::string kTalk = "local: [{name: talk, path: p}]\n";
const std::string kUp = "providers: [{name: up, base_url: \"http://127.0.0.1:1/v1\", models: [m]}]\n";
const std::string kUpWithTalk = "providers: [{name: up, base_url: \"http://127.0.0.1:1/v1\", models: [m, talk]}]\n";

constexpr std::chrono::microseconds kTime = std::chrono::seconds{1'780'000'000};  // in May 2026

std::expected<InForce, Diagnostic> try_take(const Config& started, const Config& now, const Config& file) {
  return in_force(started, now, file, kTime);
}

InForce take(const Config& started, const Config& now, const Config& file) {
  auto taken = try_take(started, now, file);
  if (!taken) {
    ADD_FAILURE() << format(taken.error());
    return {};
  }
  return *std::move(taken);
}

InForce take(const Config& started, const Config& file) {
  return take(started, started, file);
}

TEST(InForce, WhatIsRestartOnlyIsPutBackAndNothingElse) {
  const std::string reloadable =
      "tenants: [{name: acme}]\nshutdown: {drain: 5s}\nrequest: {timeout: 5s}\n"
      "providers: [{name: up, base_url: \"http://127.0.0.1:1/v1\", models: [m]}]\n";
  const Config started = good(kBase, kEnv);
  const Config file = good(reloadable + R"(local: [{name: demo-chat, path: models/demo-chat, max_batch: 3}]
server: {listen: "127.0.0.1:9", workers: 2, max_connections: 7, max_connections_per_address: 7, header_timeout: 1s,
         keep_alive_timeout: 1s, write_timeout: 1s, min_body_rate: 1}
admin: {listen: "127.0.0.1:7", max_connections: 7, hosts: [ops.internal]}
limits: {max_buckets: 2000, gateways: 3, models: [{model: m, requests: 5/s}]}
cache: {max_memory: 2MiB, max_entry: 1MiB, secret: "${SECRET}", disk: {path: x}, redis: {lease: 1s}, semantic: {log_size: 1}}
redis: {addresses: ["127.0.0.1:6379"], password: "${SECRET}", tls: {enabled: true, verify: false}}
budget_alerts: {webhook: "http://127.0.0.1:1/hook", secret: "${SECRET}"}
budget_sharing: {gateways: 4}
ledger: {directory: x, retention: 8784h}
idempotency: {ttl: 2h}
sinks: [{name: s, type: file, directory: x}]
log: {level: warn, access_log_file: x}
metrics: {max_label_values: 7}
)",
                           kEnv);
  const Config wanted = good(kBase + reloadable +
                                 "admin: {hosts: [ops.internal]}\nlog: {level: warn}\n"
                                 "limits: {models: [{model: m, requests: 5/s}]}\n",
                             kEnv);
  const InForce taken = take(started, file);
  EXPECT_EQ(describe_redacted(taken.config), describe_redacted(wanted));
  EXPECT_EQ(taken.config.hash, wanted.hash) << "secrets too";
  EXPECT_THAT(changed_not_reloadable(started, taken.config), IsEmpty());
  EXPECT_EQ(taken.needs_restart, changed_not_reloadable(started, file));
  EXPECT_GE(taken.needs_restart.size(), 20U);
  EXPECT_THAT(taken.until_restart, IsEmpty());
}

void expect_reloadable(const std::vector<FieldInfo>& fields, const std::string& path) {
  for (const FieldInfo& field : fields) {
    EXPECT_EQ(field.reloads, Reloads::yes)
        << path << field.key << ": the items of a list that reloads are not compared";
    expect_reloadable(field.type.children, path + field.key + ".");
  }
}

void look_for_lists(const std::vector<FieldInfo>& fields, const std::string& path) {
  for (const FieldInfo& field : fields) {
    if (field.type.kind == TypeInfo::Kind::object) look_for_lists(field.type.children, path + field.key + ".");
    if (field.type.kind != TypeInfo::Kind::objects || field.reloads == Reloads::restart) continue;
    expect_reloadable(field.type.children, path + field.key + "[].");
  }
}

TEST(InForce, ListsAreRestartOnlyAsAWholeOrNotAtAll) {
  look_for_lists(infos(root_table()), "");
}

TEST(InForce, AFileThatChangesNothingIsInForceAsItIs) {
  const Config started = good(kBase);
  const InForce taken = take(started, good(kBase));
  EXPECT_EQ(taken.config.hash, started.hash);
  EXPECT_THAT(taken.needs_restart, IsEmpty());
  EXPECT_THAT(taken.until_restart, IsEmpty());
}

TEST(InForce, IsComparedWithTheStartAndNotWithTheLastFile) {
  const Config started = good(kBase);
  const Config moved = good(kBase + "server: {listen: 127.0.0.1:9}\n");
  const InForce first = take(started, moved);
  EXPECT_THAT(first.needs_restart, ElementsAre("server.listen"));
  EXPECT_EQ(first.config.server.port, 8080);
  EXPECT_THAT(take(started, first.config, moved).needs_restart, ElementsAre("server.listen")) << "not active yet";
  EXPECT_THAT(take(started, first.config, good(kBase)).needs_restart, IsEmpty()) << "it is what runs";
}

std::vector<std::string> local_names(const Config& config) {
  std::vector<std::string> out;
  for (const auto& model : config.local_models) out.push_back(model.name);
  return out;
}

TEST(InForce, LocalModelsStayAsTheyWereLoaded) {
  const Config started = good(kChat + kUp);
  const InForce renamed = take(started, good(kTalk + kUp));
  EXPECT_THAT(local_names(renamed.config), ElementsAre("chat"));
  EXPECT_THAT(renamed.needs_restart, ElementsAre("local"));
  EXPECT_THAT(renamed.until_restart,
              ElementsAre(HasSubstr("local model `chat`, which the file no longer has, is served until a restart"),
                          HasSubstr("local model `talk` is loaded at the next start")));

  const InForce removed = take(started, good(kUp));
  EXPECT_THAT(local_names(removed.config), ElementsAre("chat"));
  EXPECT_THAT(removed.until_restart, ElementsAre(HasSubstr("`chat`")));

  const InForce added = take(started, good("local: [{name: chat, path: p}, {name: talk, path: p}]\n" + kUp));
  EXPECT_THAT(local_names(added.config), ElementsAre("chat"));
  EXPECT_THAT(added.until_restart, ElementsAre(HasSubstr("`talk`")));

  const InForce changed = take(started, good("local: [{name: chat, path: q}]\n" + kUp));
  EXPECT_EQ(changed.config.local_models.at(0).directory, "p");
  EXPECT_THAT(changed.until_restart, IsEmpty());
}

// The file cannot name a model that it no longer has, so what belongs to it is kept without being asked for.
TEST(InForce, WhatBelongsToAModelThatRunsOnStays) {
  const std::string keys = kUp + "key_pepper: \"${PEPPER}\"\n";
  const Config started = good(kChat + keys + R"(keys:
  - {id: one, secret: "${K}", models: [chat, m]}
  - {id: all, secret: "${L}"}
limits: {models: [{model: chat, requests: 5/s}]}
budgets:
  - {name: chats, model: chat, neurons: 100}
  - {name: mine, model: chat, neurons: 200}
  - {name: both, model: chat, neurons: 300}
)",
                              kEnv);
  const Config file = good(kTalk + keys + R"(keys:
  - {id: one, secret: "${K}", models: [talk, m]}
  - {id: all, secret: "${L}", models: [m]}
limits: {models: [{model: talk, requests: 7/s}]}
budgets:
  - {name: chats, model: talk, neurons: 1}
  - {name: both, model: m, neurons: 3}
)",
                           kEnv);
  const auto expect = [](const Config& config) {
    const auto& options = config.gateway;
    EXPECT_THAT(options.keys.at(0).models, ElementsAre("talk", "m", "chat"));
    EXPECT_THAT(options.keys.at(1).models, ElementsAre("m")) << "its list is new: that narrows it";
    ASSERT_EQ(options.model_limits.size(), 2U);
    EXPECT_EQ(options.model_limits[1].model, "chat");
    EXPECT_EQ(options.model_limits[1].limits.requests.amount, 5U);
    std::vector<std::string> budgets;
    for (const auto& b : options.budgets) budgets.push_back(b.name + " " + b.model + " " + b.limit_neurons);
    EXPECT_THAT(budgets, ElementsAre("chats chat 100", "both m 3", "mine chat 200", "both (chat) chat 300"));
  };
  const InForce first = take(started, file);
  expect(first.config);
  const InForce again = take(started, first.config, file);
  expect(again.config);
  EXPECT_EQ(again.config.hash, first.config.hash);
  EXPECT_EQ(take(started, again.config, started).config.hash, started.hash) << "as if nothing had been";
}

TEST(InForce, AKeyKeepsTheModelThatItsPatternMatched) {
  const std::string keys = kUp + "key_pepper: \"${PEPPER}\"\nkeys: [{id: one, secret: \"${K}\", models: ";
  const InForce taken = take(good(kChat + keys + "[\"ch*\", m]}]\n", kEnv), good(kTalk + keys + "[talk]}]\n", kEnv));
  EXPECT_THAT(taken.config.gateway.keys.at(0).models, ElementsAre("talk", "chat"));
}

TEST(InForce, AModelThatRunsOnAtEverybodysPriceKeepsThatToo) {
  const Config started = good(kChat + kUp + "pricing: {models: [{model: '*', per_request: 1}]}\n");
  const Config file = good(kTalk + kUp + "pricing: {models: [{model: '*', per_request: 2}]}\n");
  const InForce taken = take(started, file);
  const auto& list = taken.config.pricing.models;
  ASSERT_EQ(list.size(), 2U);
  EXPECT_EQ(list[0].model + list[0].per_request, "*2");
  EXPECT_EQ(list[1].model + list[1].per_request, "chat1");
}

TEST(InForce, AModelThatRunsOnKeepsThePriceOfNow) {
  const Config started = good(kChat + kUp + R"(pricing:
  models: [{model: chat, per_request: 1}]
  changes:
    - from: 2026-01-01T00:00:00Z
      models: [{model: chat, per_request: 2}, {model: m, per_request: 1}]
    - from: 2029-01-01T00:00:00Z
      models: [{model: chat, per_request: 3}]
)");
  const Config file = good(kTalk + kUp + R"(pricing:
  models: [{model: talk, per_request: 9}]
  changes:
    - from: 2028-01-01T00:00:00Z
      models: [{model: talk, per_request: 9}]
    - from: 2028-06-01T00:00:00Z
      daily_free_neurons: none
    - from: 2030-01-01T00:00:00Z
      models: [{model: talk, per_request: 9}]
)");
  const InForce taken = take(started, file);
  const auto price = [](const std::vector<metering::ModelPrice>& list) {
    return list.size() == 2 && list[1].model == "chat" ? list[1].per_request : "none";
  };
  const auto& pricing = taken.config.pricing;
  EXPECT_EQ(price(pricing.models), "2") << "the list of 2026 is in force, not the first one";
  ASSERT_EQ(pricing.changes.size(), 3U);
  EXPECT_EQ(price(pricing.changes[0].models), "2");
  EXPECT_THAT(pricing.changes[1].models, IsEmpty()) << "it goes on with the list before it";
  EXPECT_EQ(price(pricing.changes[2].models), "3");
}

TEST(InForce, AnEmbeddingModelThatIsNotLoadedYetIsNotUsed) {
  const auto gateway = [](const std::string& model, const std::string& threshold) {
    return "gateways: [{name: default, cache: {semantic: {embedding_model: " + model + ", threshold: " + threshold +
           "}}}]\n";
  };
  const Config started = good(kChat + kUp + gateway("chat", "0.9"));
  const InForce renamed = take(started, good(kTalk + kUp + gateway("talk", "0.8")));
  const auto& kept = renamed.config.gateway.gateways.at(0).cache.semantic;
  EXPECT_EQ(kept.embedding_model, "chat");
  EXPECT_DOUBLE_EQ(kept.threshold, 0.9) << "which is made for that model";
  EXPECT_THAT(renamed.until_restart, testing::Contains(HasSubstr("the semantic cache goes on with `chat`")));

  const InForce fresh = take(good(kChat + kUp), good(kTalk + kUp + gateway("talk", "0.8")));
  EXPECT_FALSE(fresh.config.gateway.gateways.at(0).cache.semantic.on());
  EXPECT_THAT(fresh.until_restart, testing::Contains(HasSubstr("the semantic cache is off")));
}

TEST(InForce, AModelThatAProviderServesIsNotTakenAwayBeforeItIsLoaded) {
  const Config started = good(kUpWithTalk);
  const auto moved = try_take(started, started, good(kTalk + kUp));
  ASSERT_FALSE(moved);
  EXPECT_THAT(moved.error().message, HasSubstr("`talk` moves from `providers` to `local`"));
  EXPECT_EQ(moved.error().file, "c.yaml");
  const InForce both = take(started, good(kTalk + kUpWithTalk));
  EXPECT_THAT(local_names(both.config), IsEmpty());
  EXPECT_THAT(both.needs_restart, ElementsAre("local"));
  EXPECT_THAT(both.until_restart, IsEmpty()) << "the provider serves it";
}

TEST(InForce, AModelThatAProviderTakesOverIsNamedByTheFile) {
  const Config started = good(kTalk + kUp + "pricing: {models: [{model: talk, per_request: 1}]}\n");
  const InForce taken = take(started, good(kUpWithTalk + "pricing: {models: [{model: talk, per_request: 2}]}\n"));
  ASSERT_EQ(taken.config.pricing.models.size(), 1U);
  EXPECT_EQ(taken.config.pricing.models[0].per_request, "2");
  EXPECT_THAT(local_names(taken.config), ElementsAre("talk"));
}

}  // namespace
}  // namespace ganglion::config
