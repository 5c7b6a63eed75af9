// Every kind of mistake in a file, with the place that is blamed for it; and that good values arrive.

#include "config/loader.hpp"

#include "tests/unit/config/support.hpp"

namespace ganglion::config {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::Not;

TEST(Loader, ReadsEveryKindOfValue) {
  const Config c = good(R"(
server: {listen: "[::1]:9000", workers: 4, min_body_rate: 2KiB, header_timeout: 2500ms}
providers:
  - name: openai
    base_url: https://api.example.com/v1/
    api_key: ${KEY}
    models: [gpt-4o-mini, {name: small, upstream: gpt-4o-mini}]
    weight: 3
    timeouts: {connect: 1s, first_byte: 2m, idle: 30s}
    tls: {verify: true}
key_pepper: ${PEPPER}
keys:
  - {id: a, secret: "${CLIENT}", models: ["gpt-*", small], tier: fast, tier_fixed: true,
     limits: {requests: 60/min, tokens: {rate: 10k/s, burst: 25000}}}
gateways: [{name: default, cache: {ttl: 0, only_deterministic: true}, retry: {attempts: 3, backoff: 50ms}}]
pricing: {schedule: launch-2023, usd_per_1000_neurons: {fast: 0.125}, daily_free_neurons: none,
          models: [{model: "*", unit: usd, input_per_1m: 0.15}]}
ledger: {commit_interval: 500us}
shutdown: {drain: 1m30s}
)",
                        {{"KEY", "sk-upstream"}, {"PEPPER", "0123456789abcdef"}, {"CLIENT", "sk-client-0123456789"}});
  EXPECT_EQ(c.server.host, "::1");
  EXPECT_EQ(c.server.port, 9000);
  EXPECT_EQ(c.server.workers, 4U);
  EXPECT_EQ(c.server.body_rate_min, 2048U);
  EXPECT_EQ(c.server.header_timeout, 2500ms);
  EXPECT_EQ(c.admin.port, 8081);
  ASSERT_EQ(c.remotes.size(), 1U);
  EXPECT_EQ(c.remotes[0].upstream.base_url, "https://api.example.com/v1");
  EXPECT_EQ(c.remotes[0].api_key.reveal(), "sk-upstream");
  EXPECT_EQ(c.remotes[0].weight, 3U);
  EXPECT_EQ(c.remotes[0].upstream.first_byte_timeout, 2min);
  ASSERT_EQ(c.remotes[0].models.size(), 2U);
  EXPECT_EQ(c.remotes[0].models[0].name, "gpt-4o-mini");
  EXPECT_EQ(c.remotes[0].models[0].upstream, "");
  EXPECT_EQ(c.remotes[0].models[1].upstream, "gpt-4o-mini");
  ASSERT_EQ(c.gateway.keys.size(), 1U);
  const auto& key = c.gateway.keys[0];
  EXPECT_EQ(key.secret.reveal(), "sk-client-0123456789");
  EXPECT_EQ(key.tier, api::Tier::fast);
  EXPECT_TRUE(key.tier_fixed);
  EXPECT_THAT(key.models, testing::ElementsAre("gpt-*", "small"));
  EXPECT_EQ(key.limits.requests.amount, 60U);
  EXPECT_EQ(key.limits.tokens.amount, 10'000U);
  EXPECT_EQ(key.limits.tokens.period_s, 1U);
  EXPECT_EQ(key.limits.tokens.burst, 25'000U);
  EXPECT_EQ(key.limits.neurons.amount, 0U);
  EXPECT_EQ(c.gateway.gateways.at(0).cache.ttl, 0s);
  EXPECT_TRUE(c.gateway.gateways[0].cache.only_deterministic);
  EXPECT_EQ(c.gateway.gateways[0].retry.attempts_max, 3U);
  EXPECT_EQ(c.pricing.schedule, "launch-2023");
  EXPECT_EQ(c.pricing.usd_per_1000_neurons_fast, "0.125");
  EXPECT_FALSE(c.pricing.usd_per_1000_neurons_regular.has_value());
  EXPECT_EQ(c.pricing.daily_free_neurons, 0U);
  EXPECT_EQ(c.pricing.models.at(0).per_1m_input_tokens, "0.15");
  EXPECT_EQ(c.ledger.commit_interval_max, 500us);
  EXPECT_EQ(c.shutdown.drain, 90s);
  EXPECT_EQ(c.source, "c.yaml");
  EXPECT_TRUE(c.warnings.empty()) << format(c.warnings);
}

TEST(Loader, ReportsEverythingAtOnceInOrder) {
  EXPECT_EQ(report(R"(server:
  lisen: 127.0.0.1:8080
  workers: many
request: {timeout: 10, max_body: 10mb}
local:
  - name: demo
  - {name: demo, path: x, quantize: int7}
log: {level: inf}
server: {}
key_pepper: ${NOT_SET}
)"),
            R"(c.yaml:2:3: server: unknown key `lisen` (did you mean `listen`?)
c.yaml:3:12: server.workers: expected a whole number from 0 to 1024 or auto, got "many"
c.yaml:4:20: request.timeout: expected a duration with its unit, such as 250ms, 10s or 5m, got "10"
c.yaml:4:34: request.max_body: expected a size such as 65536, 64KiB or 10MiB, got "10mb"
c.yaml:6:5: local[0]: `path` is missing
c.yaml:7:12: local[1].name: `demo` is defined twice, first on line 6
c.yaml:7:37: local[1].quantize: expected one of none, int8, w8a8, fp8, int4, got "int7" (did you mean `int8`?)
c.yaml:8:14: log.level: expected one of debug, info, warn, error, off, got "inf" (did you mean `info`?)
c.yaml:9:1: server: given twice, first on line 1
c.yaml:10:13: key_pepper: environment variable NOT_SET is not set
)");
}

TEST(Loader, SyntaxErrorHasItsPlace) {
  EXPECT_THAT(report("server:\n  listen: [127.0.0.1\nadmin: 5\n"), testing::StartsWith("c.yaml:3:6: YAML syntax: "));
  EXPECT_THAT(report("a: 1\n\tb: 2\n"), HasSubstr("YAML syntax"));
  EXPECT_THAT(report(kBase + "---\nserver: {}\n"), HasSubstr("c.yaml:3:1: a configuration is one YAML document"));
  EXPECT_THAT(report("a: &x [*x]\n"), HasSubstr("YAML syntax"));
  EXPECT_EQ(report("a: 1\nb: x\x01\n"), "c.yaml:2:5: YAML syntax: a control character\n");
}

TEST(Loader, WrongKinds) {
  EXPECT_THAT(report("server: 5\n"), HasSubstr("c.yaml:1:9: server: expected a map (key: value), got a single value"));
  EXPECT_THAT(report("local: {name: x}\n"),
              HasSubstr("c.yaml:1:8: local: expected a list (items that begin with \"- \"), got a map"));
  EXPECT_THAT(report("- a\n"), HasSubstr("c.yaml:1:1: expected a map (key: value), got a list"));
  EXPECT_THAT(report(kBase + "log: {level: [info]}\n"),
              HasSubstr("log.level: expected one of debug, info, warn, error, off, got a list"));
  EXPECT_THAT(report(kBase + "log: {level: }\n"), HasSubstr("got nothing"));
  EXPECT_THAT(report(kBase + "log: {access_log: \"true\"}\n"), HasSubstr("expected true or false, got \"true\""));
  EXPECT_THAT(report(kBase + "log: {access_log: yes}\n"), HasSubstr("expected true or false, got \"yes\""));
  EXPECT_THAT(report(kBase + "server: {workers: \"4\"}\n"), HasSubstr("got \"4\""));
  EXPECT_THAT(report(kBase + "server: {workers: 1.5}\n"), HasSubstr("got \"1.5\""));
  EXPECT_THAT(report(kBase + "{a: b}: c\n"), HasSubstr("c.yaml:2:"));
}

TEST(Loader, Ranges) {
  EXPECT_THAT(report(kBase + "server: {workers: 5000}\n"),
              HasSubstr("c.yaml:2:19: server.workers: expected a whole number from 0 to 1024 or auto, got 5000"));
  EXPECT_THAT(report(kBase + "request: {timeout: 500ms}\n"), HasSubstr("500ms is out of range, allowed are 1s to 24h"));
  EXPECT_THAT(report(kBase + "cache: {max_memory: 1}\n"), HasSubstr("1 is out of range, allowed are 1MiB to 1024GiB"));
  EXPECT_THAT(report(kBase + "shutdown: {drain: 100us}\n"), HasSubstr("100us is too fine, the step is 1ms"));
  EXPECT_THAT(report(kBase + "server: {listen: 127.0.0.1:70000}\n"), HasSubstr("port from 0 to 65535"));
  EXPECT_THAT(report(kBase + "limits: {models: [{model: demo-chat, requests: 0/s}]}\n"),
              HasSubstr("limits.models[0].requests: a rate of 0"));
  EXPECT_THAT(report(kBase + "limits: {models: [{model: demo-chat, requests: {burst: 5}}]}\n"),
              HasSubstr("limits.models[0].requests: `rate` is missing"));
  EXPECT_THAT(report(kBase + "limits: {models: [{model: demo-chat, requests: {rate: 5/s, brst: 5}}]}\n"),
              HasSubstr("did you mean `burst`?"));
}

TEST(Loader, EnvironmentInNumbersAndStrings) {
  const Config c = good(
      "server: {listen: \"127.0.0.1:${P}\", workers: ${W}}\nadmin: {listen: 127.0.0.1:${A}}\n"
      "log: {access_log: \"${L:-false}\"}\n" +
          kBase,
      {{"P", "18080"}, {"W", "3"}, {"A", "18081"}});
  EXPECT_EQ(c.server.port, 18080);
  EXPECT_EQ(c.server.workers, 3U);
  EXPECT_EQ(c.admin.port, 18081);
  EXPECT_FALSE(c.log.access_log);
  EXPECT_THAT(report("server: {workers: ${W}}\n" + kBase, {{"W", "x"}}), HasSubstr("c.yaml:1:19: server.workers: "));
}

TEST(Loader, VariablesNeedNoQuotesInFlowMaps) {
  const Config c = good("server: {listen: 127.0.0.1:${P}, workers: ${W:-2}}\nlog: {access_log_file: a$${b}}\n" + kBase,
                        {{"P", "7"}});
  EXPECT_EQ(c.server.port, 7);
  EXPECT_EQ(c.server.workers, 2U);
  EXPECT_EQ(c.log.access_log_file, "a${b}");
  EXPECT_THAT(report("server: {workers: ${X}, listn: ${P\n}\n" + kBase), HasSubstr("c.yaml:"));
}

TEST(Loader, ASecretIsNeverShown) {
  const Env env = {{"KEY", "sk-very-secret"}};
  // In a wrong place: shown as it is written.
  const std::string text = report(kBase + "log: {level: \"${KEY}\"}\nrequest: {timeout: \"${KEY}\"}\n", env);
  EXPECT_THAT(text, HasSubstr("got ${KEY}"));
  EXPECT_THAT(text, Not(HasSubstr("very-secret")));
  // Pasted where its hash belongs, or with a newline in it.
  EXPECT_THAT(report(kBase + "keys: [{id: a, hash: sk-very-secret}]\n"), Not(HasSubstr("very-secret")));
  EXPECT_THAT(report(kBase + "key_pepper: \"sk-very-secret\\n\"\n"), Not(HasSubstr("very-secret")));
  EXPECT_THAT(report(kBase + "providers: [{name: a, base_url: \"https://u:sk-very-secret@h/\", models: [m]}]\n"),
              Not(HasSubstr("very-secret")));
}

TEST(Loader, ASecretInTheFileIsTakenWithAWarning) {
  const LoadResult result = load(kBase + "key_pepper: 0123456789abcdef-literal\n");
  ASSERT_TRUE(result) << format(result.error());
  EXPECT_EQ(result->gateway.key_pepper.reveal(), "0123456789abcdef-literal");
  const std::string text = format(result->warnings);
  EXPECT_THAT(text, HasSubstr("c.yaml:2:13: warning: key_pepper: a secret stands in the file itself"));
  EXPECT_THAT(text, Not(HasSubstr("literal")));
  EXPECT_THAT(report(kBase + "key_pepper: ${EMPTY}\n", {{"EMPTY", ""}}), HasSubstr("set to nothing"));
}

TEST(Loader, AnchorsAndEmptySections) {
  const Config c = good(
      "local:\n  - &m {name: a, path: p, max_batch: 7}\n  - {name: b, path: p}\nserver:\n  # all defaults\nkeys:\n");
  EXPECT_EQ(c.local_models.size(), 2U);
  EXPECT_EQ(c.local_models[0].batch_max, 7U);
  // An alias is a copy, so a repeated name is a repeated name.
  EXPECT_THAT(report("local: [&m {name: a, path: p}, *m]\n"), HasSubstr("defined twice"));
}

TEST(Loader, AliasesCannotBlowUp) {
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 9; ++i) {
    const std::string before = "*a" + std::to_string(i - 1);
    bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + before;
    for (int j = 0; j < 9; ++j) bomb += ", " + before;
    bomb += "]\n";
  }
  EXPECT_THAT(report(bomb), HasSubstr("too many nodes"));
}

TEST(Loader, FilesThatCannotBeRead) {
  const TempFolder folder;
  EXPECT_THAT(format(load_file(folder / "missing.yaml").error()), HasSubstr("cannot be read: No such file"));
  EXPECT_THAT(format(load_file(folder / "").error()), HasSubstr("is a folder"));
  folder.write("big.yaml", std::string(kFileBytesMax + 1, '#'));
  EXPECT_THAT(format(load_file(folder / "big.yaml").error()), HasSubstr("larger than 4 MiB"));
}

TEST(Loader, ModelFoldersAndTlsFilesAreResolved) {
  const TempFolder folder;
  folder.write("models/m/config.json", "{}");
  folder.write("cert.pem", "x");
  folder.write("c.yaml",
               "local: [{name: m, path: models/m}, {name: n, path: models/n}]\n"
               "server: {tls: {cert: cert.pem, key: key.pem}}\n");
  const LoadResult bad = load_file(folder / "c.yaml");
  ASSERT_FALSE(bad);
  EXPECT_THAT(format(bad.error()), HasSubstr(":1:52: local[1].path: no model folder (one with a config.json) at " +
                                             (folder / "models/n").string()));
  EXPECT_THAT(format(bad.error()), HasSubstr(":2:37: server.tls.key: cannot read " + (folder / "key.pem").string()));
  folder.write("models/n/config.json", "{}");
  folder.write("key.pem", "x");
  const LoadResult loaded = load_file(folder / "c.yaml");
  ASSERT_TRUE(loaded) << format(loaded.error());
  EXPECT_EQ(loaded->local_models[1].directory, (folder / "models/n").string());
  EXPECT_EQ(loaded->server.tls.cert_file, (folder / "cert.pem").string());
}

TEST(Loader, ADraftsFolderIsResolvedAsItsModels) {
  const TempFolder folder;
  folder.write("models/m/config.json", "{}");
  folder.write("c.yaml", "local: [{name: m, path: models/m, draft: {path: models/d, tokens: 3, quantize: int8}}]\n");
  const LoadResult bad = load_file(folder / "c.yaml");
  ASSERT_FALSE(bad);
  EXPECT_THAT(format(bad.error()), HasSubstr(": local[0].draft.path: no model folder (one with a config.json) at " +
                                             (folder / "models/d").string()));
  folder.write("models/d/config.json", "{}");
  const LoadResult loaded = load_file(folder / "c.yaml");
  ASSERT_TRUE(loaded) << format(loaded.error());
  const backends::LocalDraftOptions& draft = loaded->local_models[0].draft;
  EXPECT_EQ(draft.directory, (folder / "models/d").string());
  EXPECT_EQ(draft.tokens, 3U);
  EXPECT_EQ(draft.quantize, "int8");
  EXPECT_THAT(report("local: [{name: m, path: p, draft: {tokens: 3}}]\n"),
              HasSubstr("local[0].draft: names no model: `path` is missing"));
  EXPECT_THAT(report("local: [{name: m, path: p, draft: {path: d, tokens: 0}}]\n"), HasSubstr("local[0].draft.tokens"));
}

TEST(Loader, ModelFolderOrderOfPlaces) {
  const TempFolder data;
  const TempFolder conf;
  const EnvLookup env = [&](std::string_view name) -> std::optional<std::string> {
    return name == "GANGLION_DATA_DIR" ? std::optional((data / "").string()) : std::nullopt;
  };
  data.write("m/config.json", "{}");
  EXPECT_EQ(*resolve_model_dir("m", conf / "c.yaml", env), data / "m");
  conf.write("m/config.json", "{}");
  EXPECT_EQ(*resolve_model_dir("m", conf / "c.yaml", env), conf / "m");
  EXPECT_EQ(*resolve_model_dir((data / "m").string(), conf / "c.yaml", env), data / "m");
  const auto none = resolve_model_dir("nowhere", "", env);
  ASSERT_FALSE(none);
  EXPECT_THAT(none.error(), HasSubstr("share/ganglion/nowhere"));
}

}  // namespace
}  // namespace ganglion::config
