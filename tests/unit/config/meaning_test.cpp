// What no single field can see: references, duplicates and unsafe combinations.

#include "tests/unit/config/support.hpp"

namespace ganglion::config {
namespace {

using testing::HasSubstr;
using testing::Not;

const std::string kHash(64, 'a');
const Env kEnv = {{"PEPPER", "0123456789abcdef"},
                  {"K", "sk-one-0123456789"},
                  {"L", "sk-two-0123456789"},
                  {"SHORT", "sk-0123456789ab"}};
const std::string kPepper = "key_pepper: ${PEPPER}\n";

TEST(Meaning, ReferencesToUndefinedNames) {
  const std::string text = report(kBase + kPepper + "keys: [{id: a, hash: " + kHash +
                                      ", tenant: acmee, gateway: prod, models: [demo-chatt]}]\n"
                                      "tenants: [{name: acme}]\nlimits: {models: [{model: gpt}]}\npricing: {models: "
                                      "[{model: demochat, per_request: 1}]}\n",
                                  kEnv);
  EXPECT_THAT(text, HasSubstr("keys[0].tenant: there is no tenant `acmee` (did you mean `acme`?)"));
  EXPECT_THAT(text, HasSubstr("keys[0].gateway: there is no gateway `prod`\n"));
  EXPECT_THAT(text, HasSubstr("keys[0].models[0]: there is no model `demo-chatt` (did you mean `demo-chat`?)"));
  EXPECT_THAT(text, HasSubstr("limits.models[0].model: there is no model `gpt`"));
  EXPECT_THAT(text, HasSubstr("pricing.models[0].model: there is no model `demochat` (did you mean `demo-chat`?)"));
}

TEST(Meaning, SinksNeedWhatTheirTypeNeeds) {
  const std::string text = report(kBase + R"(sinks:
  - {name: a, type: file}
  - {name: b, type: cloudevents}
  - {name: c, type: postgres}
  - {name: d, type: file, directory: x}
  - {name: d, type: file, directory: x}
  - {name: e, type: cloudevents, url: "http://meter.example/api/v1/events", token: "${K}"}
  - {name: f, type: kafka}
  - {name: g}
)",
                                  kEnv);
  EXPECT_THAT(text, HasSubstr("sinks[0]: a sink of type `file` needs `directory`"));
  EXPECT_THAT(text, HasSubstr("sinks[1]: a sink of type `cloudevents` needs `url`"));
  EXPECT_THAT(text, HasSubstr("sinks[2]: a sink of type `postgres` needs `dsn`"));
  EXPECT_THAT(text, HasSubstr("sinks[4].name: `d` is defined twice"));
  EXPECT_THAT(text, HasSubstr("sinks[4].directory: `d` writes there already"));
  EXPECT_THAT(text, HasSubstr("sinks[5].url: the token will cross the network unencrypted"));
  EXPECT_THAT(text, HasSubstr("kafka"));
  EXPECT_THAT(text, HasSubstr("`type`"));
}

TEST(Meaning, AModelThatFailedToReadIsNotReportedTwice) {
  const std::string text = report(
      "local: [{name: \"bad name\", path: p}]\n" + kPepper + "keys: [{id: a, hash: " + kHash + ", models: [x]}]\n",
      kEnv);
  EXPECT_THAT(text, HasSubstr("local[0].name: expected model name"));
  EXPECT_THAT(text, Not(HasSubstr("there is no model")));
}

TEST(Meaning, DuplicatesOfEveryName) {
  const std::string text = report(kPepper + R"(providers:
  - {name: p, base_url: "http://127.0.0.1:1/v1", models: [m, m]}
  - {name: p, base_url: "http://127.0.0.1:2/v1", models: [m]}
tenants: [{name: t}, {name: t}]
gateways: [{name: g}, {name: g}]
limits: {models: [{model: m}, {model: m}]}
pricing: {models: [{model: m, per_request: 1}, {model: m, per_request: 1}]}
keys:
  - {id: a, secret: "${K}"}
  - {id: a, secret: "${K}"}
  - {id: b, hash: )" + kHash +
                                      "}\n  - {id: c, hash: " + std::string(64, 'A') + "}\n",
                                  kEnv);
  EXPECT_THAT(text, HasSubstr("c.yaml:3:62: providers[0].models[1]: `m` is listed twice"));
  EXPECT_THAT(text, HasSubstr("c.yaml:4:12: providers[1].name: `p` is defined twice, first on line 3"));
  EXPECT_THAT(text, HasSubstr("tenants[1].name: `t` is defined twice"));
  EXPECT_THAT(text, HasSubstr("gateways[1].name: `g` is defined twice"));
  EXPECT_THAT(text, HasSubstr("limits.models[1].model: `m` has limits already"));
  EXPECT_THAT(text, HasSubstr("pricing.models[1].model: `m` has a price already"));
  EXPECT_THAT(text, HasSubstr("keys[1].id: `a` is defined twice"));
  EXPECT_THAT(text, HasSubstr("keys[1].secret: the same key as `a`"));
  EXPECT_THAT(text, HasSubstr("keys[3].hash: the same key as `b`"));
}

TEST(Meaning, OneModelOnSeveralBackendsIsFine) {
  const Config c = good(R"(providers:
  - {name: p, base_url: "http://127.0.0.1:1/v1", models: [demo-chat]}
  - {name: q, base_url: "http://127.0.0.1:2/v1", models: [demo-chat]}
)" + kBase);
  EXPECT_EQ(c.remotes.size(), 2U);
}

TEST(Meaning, KeysNeedAPepperAndOneForm) {
  EXPECT_THAT(report(kBase + "keys: [{id: a, hash: " + kHash + "}]\n"),
              HasSubstr("c.yaml:2:7: keys: keys need `key_pepper"));
  EXPECT_THAT(report(kBase + kPepper + "keys: [{id: a}]\n", kEnv), HasSubstr("keys[0]: `hash` is missing"));
  EXPECT_THAT(report(kBase + kPepper + "keys: [{id: a, hash: " + kHash + ", secret: \"${K}\"}]\n", kEnv),
              HasSubstr("not both"));
  EXPECT_THAT(report(kBase + kPepper + "keys: [{id: a, secret: \"${K}\", models: []}]\n", kEnv),
              HasSubstr("an empty list would allow no model"));
  EXPECT_THAT(report(kBase + kPepper + "keys: [{id: a, secret: \"${K}\", models: [\"*x\"]}]\n", kEnv),
              HasSubstr("* may stand at the end only"));
  EXPECT_THAT(report(kBase + kPepper + "keys: [{id: a, secret: \"${K}\", models: [\"zz*\"]}]\n", kEnv),
              HasSubstr("warning: keys[0].models[0]: no model matches `zz*`"));
  EXPECT_EQ(
      report(kBase + kPepper + "keys: [{id: a, secret: \"${K}\"}, {id: b, secret: \"${L}\", models: [\"*\"]}]\n", kEnv),
      "");
}

TEST(Meaning, AKeyThatCanBeGuessedIsSaid) {
  EXPECT_THAT(report(kBase + kPepper + "keys: [{id: a, secret: \"${K}\"}, {id: b, secret: \"${SHORT}\"}]\n", kEnv),
              HasSubstr("warning: keys[1].secret: shorter than 16 bytes"));
}

TEST(Meaning, OpenListenerWithoutKeysIsRefused) {
  EXPECT_THAT(
      report(kBase + "server: {listen: 0.0.0.0:8080}\n"),
      HasSubstr("c.yaml:2:18: server.listen: 0.0.0.0 is reachable from other machines and no keys are configured"));
  EXPECT_THAT(report(kBase + "server: {listen: \"[::]:8080\"}\n"), HasSubstr("ganglion keys create"));
  EXPECT_EQ(report(kBase + kPepper + "server: {listen: 0.0.0.0:8080}\nkeys: [{id: a, secret: \"${K}\"}]\n", kEnv), "");
}

TEST(Meaning, AdminBeyondLoopbackNeedsTlsAndTokenOrClientCertificates) {
  const Env env = {{"T", "0123456789abcdef"}, {"SHORT", "0123456789abcde"}};
  const auto said = [&](const std::string& more) {
    return report(kBase + "admin: {listen: 0.0.0.0:8081" + more + "}\n", env);
  };
  EXPECT_THAT(said(""),
              HasSubstr("c.yaml:2:17: admin.listen: 0.0.0.0 is reachable from other machines, where the admin "
                        "listener needs `admin.tls` (cert and key) and `admin.token` or "
                        "`admin.tls.client_ca`; add that, or listen on 127.0.0.1"));
  EXPECT_FALSE(load(kBase + "admin: {listen: 0.0.0.0:8081}\n"));
  EXPECT_THAT(said(", token: \"${T}\""), HasSubstr("needs `admin.tls` (cert and key); add that"));
  EXPECT_THAT(said(", tls: {cert: a.pem, key: b.pem}"), HasSubstr("needs `admin.token` or `admin.tls.client_ca`; add"));
  EXPECT_EQ(said(", token: \"${T}\", tls: {cert: a.pem, key: b.pem}"), "");
  EXPECT_EQ(said(", tls: {cert: a.pem, key: b.pem, client_ca: c.pem}"), "");
  EXPECT_THAT(report(kBase + "admin: {tls: {client_ca: c.pem}}\n"), HasSubstr("client certificates need TLS"));
  EXPECT_THAT(report(kBase + "admin: {token: \"${SHORT}\"}\n", env), HasSubstr("admin.token: shorter than 16 bytes"));
  EXPECT_THAT(report(kBase + "admin: {hosts: [\"ops.internal:8081\"]}\n"),
              HasSubstr("\"ops.internal:8081\" is no host name such as ops.internal (without port)"));
  EXPECT_THAT(report(kBase + "admin: {hosts: ops.internal}\n"), HasSubstr("expected a list of host names"));
}

TEST(Meaning, ListenersMayNotShareAPort) {
  EXPECT_THAT(report(kBase + "admin: {listen: 127.0.0.1:8080}\n"),
              HasSubstr("the proxy listens on 127.0.0.1:8080 already"));
  EXPECT_EQ(report(kBase + "server: {listen: 127.0.0.1:0}\nadmin: {listen: 127.0.0.1:0}\n"), "");
}

TEST(Meaning, NothingToServe) {
  EXPECT_EQ(report(""), "c.yaml:1:1: nothing to serve: add `providers:` or `local:`\n");
  EXPECT_THAT(report("local: []\n"), HasSubstr("nothing to serve"));
  EXPECT_THAT(report("providers: [{name: p, base_url: \"http://h/v1\", models: []}]\n"),
              HasSubstr("providers[0].models: a provider without models serves nothing"));
  EXPECT_THAT(report("providers: [{name: p, base_url: \"http://h/v1\"}]\n"),
              HasSubstr("providers[0]: `models` is missing"));
}

TEST(Meaning, BaseUrls) {
  const auto provider = [](const std::string& url) {
    return report("providers: [{name: p, base_url: \"" + url + "\", api_key: \"${K}\", models: [m]}]\n", kEnv);
  };
  for (const char* fine :
       {"http://127.0.0.1:11434/v1", "http://[::1]:80", "https://api.example.com/v1", "http://localhost/v1"}) {
    EXPECT_EQ(provider(fine), "") << fine;
  }
  EXPECT_THAT(provider("http://api.example.com/v1"), HasSubstr("unencrypted"));
  for (const char* bad :
       {"api.example.com", "ftp://h/", "http://", "http://h:0/", "http://h:99999/", "https://h/v1?x=1",
        "https://h/v1#x", "https://u:p@h/", "https://a b/", "http://[::1", "http://:80/"}) {
    EXPECT_THAT(provider(bad), HasSubstr("c.yaml:1:33: providers[0].base_url: ")) << bad;
  }
}

TEST(Meaning, DatedPricesAreCheckedAndAnUnknownScheduleIsSuggested) {
  const std::string base = "providers: [{name: p, base_url: \"http://127.0.0.1:1/v1\", models: [m]}]\npricing:\n";
  const auto loaded_good = load_text(base +
                                         "  changes:\n    - from: 2026-12-01T00:00:00Z\n      schedule: launch-2023\n"
                                         "      usd_per_1000_neurons: {regular: 0.02}\n"
                                         "    - from: 2027-01-01\n      daily_free_neurons: none\n"
                                         "      models: [{model: m, per_request: 2}]\n",
                                     "test.yaml", with_env({}));
  ASSERT_TRUE(loaded_good) << format(loaded_good.error());
  ASSERT_EQ(loaded_good->pricing.changes.size(), 2U);
  EXPECT_EQ(loaded_good->pricing.changes[0].from, std::chrono::seconds{1'796'083'200});
  EXPECT_EQ(loaded_good->pricing.changes[0].schedule, "launch-2023");
  EXPECT_EQ(loaded_good->pricing.changes[0].usd_per_1000_neurons_regular, "0.02");
  EXPECT_FALSE(loaded_good->pricing.changes[0].daily_free_neurons.has_value());
  EXPECT_EQ(loaded_good->pricing.changes[1].daily_free_neurons, 0U);
  EXPECT_EQ(loaded_good->pricing.changes[1].models.size(), 1U);
  const std::pair<const char*, const char*> bad[] = {
      {"  schedule: launch-2032\n", "did you mean `launch-2023`?"},
      {"  changes: [{from: 2026-12-01T00:00:00Z, schedule: cloudflare-2025}]\n", "did you mean `cloudflare-2026`?"},
      {"  changes: [{from: tomorrow}]\n", "2026-12-01T00:00:00Z"},
      {"  changes: [{from: 2026-02-30}]\n", "2026-12-01T00:00:00Z"},
      {"  changes: [{schedule: launch-2023}]\n", "from"},
      {"  changes: [{from: 2027-01-01}, {from: 2026-01-01}]\n", "later than the change before it"},
      {"  changes: [{from: 2027-01-01, models: [{model: n, per_request: 1}]}]\n", "there is no model `n`"}};
  for (const auto& [text, why] : bad) {
    const auto loaded = load(base + text);
    ASSERT_FALSE(loaded) << text;
    EXPECT_NE(format(loaded.error()).find(why), std::string::npos) << format(loaded.error());
  }
}

TEST(Meaning, PairsThatContradict) {
  EXPECT_THAT(report(kBase + "server: {tls: {cert: a.pem}}\n"), HasSubstr("server.tls: `key` is missing"));
  EXPECT_THAT(report(kBase + "admin: {tls: {key: a.pem}}\n"), HasSubstr("admin.tls: `cert` is missing"));
  EXPECT_THAT(report(kBase + "cache: {max_memory: 1MiB, max_entry: 2MiB}\n"),
              HasSubstr("c.yaml:2:38: cache.max_entry: larger than max_memory"));
  EXPECT_THAT(report(kBase + "ledger: {segment_size: 1MiB, reserve: 2MiB}\n"),
              HasSubstr("c.yaml:2:39: ledger.reserve: larger than segment_size (1MiB)"));
  EXPECT_EQ(report(kBase + "ledger: {segment_size: 2MiB, reserve: 2MiB}\n"), "");
  EXPECT_EQ(report(kBase + "ledger: {segment_size: 1MiB}\n"), "") << "the default gives way";
  EXPECT_THAT(report(kBase + "gateways: [{name: g, retry: {backoff: 10s, max_backoff: 1s}}]\n"),
              HasSubstr("gateways[0].retry.backoff: longer than max_backoff"));
  EXPECT_THAT(report(kBase + "pricing: {models: [{model: demo-chat}]}\n"),
              HasSubstr("warning: pricing.models[0]: no amount is given"));
}

}  // namespace
}  // namespace ganglion::config
