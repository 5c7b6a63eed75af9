// The table of fields: the process-wide sections. Lists of things that operators name are in tables_lists.cpp.

#include <algorithm>

#include "config/tables.hpp"

namespace ganglion::config {
namespace {

using std::chrono::hours;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::uint64_t kKiB = 1024;
constexpr std::uint64_t kMiB = 1024 * kKiB;
constexpr std::uint64_t kGiB = 1024 * kMiB;
constexpr Extra kRestart{.reloads = Reloads::restart};

// For sections that spread over several structs.
constexpr auto kSelf = [](auto& self) -> auto& { return self; };

// `server` is a callable from object& to net::ServerOptions&.
template <class T, class Server>
Field<T> listen_field(Server server, std::string doc) {
  Field<T> field;
  const Codec<Listen> codec = listen();
  field.info = {.key = "listen", .type = codec.info, .doc = std::move(doc), .reloads = Reloads::restart};
  field.read = [codec, server](Reader& reader, const Node& node, T& object) {
    if (auto value = codec.read(reader, node)) {
      server(object).host = std::move(value->host);
      server(object).port = value->port;
    }
  };
  field.write = [codec, server](const T& object, Secrets secrets) {
    return codec.write({.host = server(object).host, .port = server(object).port}, secrets);
  };
  field.keep = [server](const T& from, T& to) {
    server(to).host = server(from).host;
    server(to).port = server(from).port;
  };
  return field;
}

Table<net::TlsServerOptions> tls_table() {
  using T = net::TlsServerOptions;
  return {{
      entry<T>("cert", &T::cert_file, path(),
               "PEM file with the certificate chain; relative to this file. With `key`, the listener speaks TLS 1.2+."),
      entry<T>("key", &T::key_file, path(), "PEM file with the private key; relative to this file."),
      entry<T>("client_ca", &T::client_ca_file, path(),
               "PEM file of authorities; with it, a client without a certificate of theirs is refused. Relative to "
               "this file."),
  }};
}

template <class T, class Access>
Field<T> max_connections_field(Access access) {
  return entry<T>("max_connections", access, integer(1, 1'000'000),
                  "Open client connections, whole process; past it a new one gets 503 and is closed.", kRestart);
}

bool is_host_name(std::string_view text) {
  return !text.empty() && text.size() <= 253 && std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.';
  });
}

Codec<std::vector<std::string>> host_names() {
  using Names = std::vector<std::string>;
  return {.info = {.kind = TypeInfo::Kind::strings, .name = "list of names", .constraint = "host names without port"},
          .read = [](Reader& reader, const Node& node) -> std::optional<Names> {
            if (node.kind != Node::Kind::list) {
              reader.error(node,
                           "expected a list of host names such as [ops.internal], got " + std::string(kind_name(node)));
              return std::nullopt;
            }
            Names names;
            for (std::size_t i = 0; i < node.size(); ++i) {
              const Reader::Scope scope(reader, i);
              auto value = reader.scalar(node.items[i], "a host name such as ops.internal");
              if (!value) continue;
              if (!is_host_name(value->text)) {
                reader.error(node.items[i],
                             "\"" + value->text + "\" is no host name such as ops.internal (without port)");
                continue;
              }
              names.push_back(std::move(value->text));
            }
            return names;
          },
          .write =
              [](const Names& names, Secrets) {
                ValueList out;
                for (const std::string& name : names) out.push_back(Value{name});
                return Value{std::move(out)};
              }};
}

Table<Config> limits_table() {
  const auto buckets = [](auto& c) -> auto& { return c.limiter.buckets_max; };
  const auto shared = [](auto& c) -> auto& { return c.limiter.shared; };
  const auto gateways = [](auto& c) -> auto& { return c.limiter.gateways; };
  const auto models = [](auto& c) -> auto& { return c.gateway.model_limits; };
  return {{
      entry<Config>("max_buckets", buckets, integer(1'000, 100'000'000),
                    "Token buckets held in memory; idle full ones are forgotten first.", kRestart),
      entry<Config>("shared", shared, boolean(), "With `redis`: limits hold over all gateways together.", kRestart),
      entry<Config>("gateways", gateways, integer_or("auto", 0, 0, 10'000),
                    "How many gateways share the limits. While Redis cannot be used, each enforces this part of them; "
                    "`auto`: as many as were seen last (one, if Redis was never reached).",
                    kRestart),
      objects<Config>(
          "models", models, model_limits_table(), "Limits of a model over all keys and tenants.",
          {.example = "- model: gpt-4o-mini\n  requests: 600/min\n  tokens: {rate: 1M/min, burst: 2000000}"}),
  }};
}

Table<gateway::RequestOptions> request_table() {
  using T = gateway::RequestOptions;
  return {{
      entry<T>("timeout", &T::timeout, duration(seconds{1}, hours{24}),
               "The one deadline of a request, from its first byte to the last byte of its answer."),
      entry<T>("max_body", &T::body_bytes_max, size(kKiB, kGiB), "Largest request body; past it 413."),
  }};
}

Table<ratelimit::AdmissionOptions> admission_table() {
  using T = ratelimit::AdmissionOptions;
  return {{
      entry<T>("max_in_flight", &T::in_flight_max, integer(1, 1'000'000),
               "Calls to backends at once, whole process; past it requests wait (see `tiers`)."),
      entry<T>("max_body_memory", &T::body_memory_bytes_max, size(kMiB, 1024 * kGiB),
               "Memory for request bodies, whole process; past it 503 with Retry-After."),
      entry<T>(
          "max_memory", &T::memory_bytes_max, size(0, 1024 * kGiB),
          "Resident memory of the process. From 85 % of it on regular requests get 503 with Retry-After, from 95 % "
          "on fast ones too, and free memory is given back to the system; 0: no limit. Leave room below what the "
          "machine or the container grants, and count in the caches."),
  }};
}

Table<ratelimit::TierOptions> fast_tier_table() {
  using T = ratelimit::TierOptions;
  return {{
      entry<T>(
          "reserved_share", &T::fast_reserved_percent, percent(0, 90),
          "Of calls in flight, body memory, connections to a provider, and the local engine's batch and queue: the "
          "part that regular requests may not take. Local engines take a new value at the next start."),
      entry<T>("max_wait", &T::fast_wait_max, duration(milliseconds{0}, hours{1}),
               "The longest wait for a place or a connection; past it 503 with Retry-After."),
  }};
}

Table<ratelimit::TierOptions> regular_tier_table() {
  using T = ratelimit::TierOptions;
  return {{entry<T>("max_wait", &T::regular_wait_max, duration(milliseconds{0}, hours{1}),
                    "As of the fast tier. Fast requests are served first.")}};
}

Table<ratelimit::TierOptions> tiers_table() {
  using T = ratelimit::TierOptions;
  return {{
      section<T>("fast", kSelf, fast_tier_table(), "The tier that is served first."),
      section<T>("regular", kSelf, regular_tier_table(), "The tier that takes spare capacity."),
      entry<T>(
          "max_queue", &T::queue_max, integer(0, 1'000'000),
          "Requests waiting for a place, both tiers, whole process. Past it a regular one gets 503; a fast one takes "
          "the place of the regular one that came last."),
  }};
}

Table<cache::DiskOptions> cache_disk_table() {
  using T = cache::DiskOptions;
  return {{
      entry<T>("path", &T::directory, path(0),
               "Directory of its own, for one process; empty: no disk tier. Answers lie there in the clear, readable "
               "by the gateway's user alone.",
               kRestart),
      entry<T>("max_bytes", &T::bytes_max, size(kMiB, 1024 * 1024 * kGiB), "Bytes of its files, all together.",
               kRestart),
      entry<T>("max_entry", &T::entry_bytes_max, size(kKiB, kGiB),
               "Larger answers are not written there (as compressed); at most a 64th of max_bytes counts.", kRestart),
      entry<T>("timeout", &T::timeout, duration(milliseconds{1}, seconds{10}),
               "A request waits for the disk so long at most.", kRestart),
  }};
}

Table<cache::RedisCacheOptions> cache_redis_table() {
  using T = cache::RedisCacheOptions;
  return {{
      entry<T>("enabled", &T::enabled, boolean(), "Use Redis for answers too, where `redis` says there is one.",
               kRestart),
      entry<T>("max_entry", &T::entry_bytes_max, size(kKiB, 32 * kMiB),
               "Larger answers are not written there (as compressed). All together are bounded by Redis's maxmemory.",
               kRestart),
      entry<T>("timeout", &T::timeout, duration(milliseconds{1}, seconds{10}),
               "A request waits for a look into Redis so long at most.", kRestart),
      entry<T>("lease", &T::lease, duration(milliseconds{100}, seconds{300}),
               "A gateway that fetches an answer for all holds this lease and renews it; when it dies, another takes "
               "over after so long at most.",
               kRestart),
      entry<T>("wait", &T::wait, duration(milliseconds{0}, seconds{600}),
               "A miss waits so long for another gateway's call for the same answer, then makes its own; 0: never "
               "waits.",
               kRestart),
  }};
}

Table<cache::SemanticOptions> semantic_table() {
  using T = cache::SemanticOptions;
  return {{
      entry<T>("max_entries", &T::entries_max, integer(1, 10'000'000),
               "Questions kept, all gateways; the one used longest ago leaves first.", kRestart),
      entry<T>("max_partition_entries", &T::partition_entries_max, integer(1, 1'000'000),
               "Of one tenant, gateway, model and context.", kRestart),
      entry<T>("max_text", &T::text_bytes_max, size(1, kMiB), "Longer questions are not looked up.", kRestart),
      entry<T>("max_concurrent", &T::concurrent_max, integer(1, 10'000),
               "Embeddings at once; past it a request is a plain miss.", kRestart),
      entry<T>("log_size", &T::log_size, integer(0, 100'000), "Looks kept for GET /admin/cache/semantic.", kRestart),
      entry<T>("show_texts", &T::show_texts, boolean(),
               "Keep the questions' texts in memory and show them there. They are your users' words.", kRestart),
  }};
}

Table<cache::CacheOptions> cache_table() {
  using T = cache::CacheOptions;
  return {{
      entry<T>("enabled", &T::enabled, boolean(), "Off: nothing is looked up or kept.", kRestart),
      entry<T>("max_memory", &T::memory_bytes_max, size(kMiB, 1024 * kGiB), "Memory for cached answers.", kRestart),
      entry<T>("max_entry", &T::entry_bytes_max, size(kKiB, kGiB), "Larger answers are relayed and not kept.",
               kRestart),
      entry<T>("shards", &T::shards, integer(1, 1024), "Independent parts of the cache, each with its own lock.",
               kRestart),
      entry<T>("secret", &T::secret, secret(),
               "Names and seals what `disk` and Redis hold, so that nobody else can make or read an entry's name or "
               "forge an answer; the same for all gateways that share a Redis. Unset: derived from `key_pepper`, and "
               "without that the disk tier makes one of its own.",
               {.reloads = Reloads::restart, .example = "${GANGLION_CACHE_SECRET}"}),
      entry<T>("compress_above", &T::compress_above, size(0, kGiB),
               "Answers larger than this are compressed on disk and in Redis; 0: none.", kRestart),
      entry<T>("max_queue", &T::queue_bytes_max, size(kMiB, 1024 * kGiB),
               "Memory for answers on their way to disk and Redis; past it they are dropped and counted.", kRestart),
      section<T>("disk", &T::disk, cache_disk_table(), "Answers on this machine's disk, found again after a restart."),
      section<T>("redis", &T::redis, cache_redis_table(),
                 "Answers in the Redis of `redis`, shared with other gateways."),
      section<T>("semantic", &T::semantic, semantic_table(), "Bounds of the semantic cache, where a gateway has one."),
  }};
}

// A member that may stay unset.
template <class T, class M, class C>
Field<T> maybe(const char* key, std::optional<M> T::* member, Codec<C> codec, std::string doc) {
  Field<T> field;
  field.info = {.key = key, .type = codec.info, .doc = std::move(doc)};
  field.read = [=](Reader& reader, const Node& node, T& object) {
    if (auto value = codec.read(reader, node)) object.*member = convert<M>(*std::move(value));
  };
  field.write = [=](const T& object, Secrets secrets) {
    return (object.*member) ? codec.write(convert<C>(*(object.*member)), secrets) : Value{};
  };
  return field;
}

template <class T>
Table<T> price_per_tier_table(const std::string& unset) {
  return {{
      maybe<T>("regular", &T::usd_per_1000_neurons_regular, decimal(),
               "USD for 1,000 neurons of the regular tier; unset: " + unset + "."),
      maybe<T>("fast", &T::usd_per_1000_neurons_fast, decimal(),
               "USD for 1,000 neurons of the fast tier; unset: " + unset + "."),
  }};
}

Codec<std::string> schedule() {
  return choice({"cloudflare-2026", "launch-2023"});
}

Table<metering::PriceChange> price_change_table() {
  using T = metering::PriceChange;
  return {{
      entry<T>("from", &T::from, instant(), "The instant from which it is in force.", {.required = true}),
      maybe<T>("schedule", &T::schedule, schedule(), "As `pricing.schedule`; unset: as before."),
      section<T>("usd_per_1000_neurons", kSelf, price_per_tier_table<T>("as before"),
                 "What neurons cost from then on."),
      maybe<T>("daily_free_neurons", &T::daily_free_neurons, integer_or("none", 0, 0, 1'000'000'000'000),
               "Free neurons of each day that begins after that instant; unset: as before."),
      objects<T>("models", &T::models, price_table(),
                 "Your own prices from then on, the whole list; unset: as before."),
  }};
}

Table<metering::PricingOptions> pricing_table() {
  using T = metering::PricingOptions;
  return {{
      entry<T>("schedule", &T::schedule, schedule(), "Built-in price table for models without a price of their own."),
      section<T>("usd_per_1000_neurons", kSelf, price_per_tier_table<T>("the schedule's"),
                 "What neurons cost, where the schedule's price is not yours."),
      entry<T>("daily_free_neurons", &T::daily_free_neurons, integer_or("none", 0, 0, 1'000'000'000'000),
               "Neurons a tenant gets free each day, from 00:00 UTC on."),
      objects<T>("models", &T::models, price_table(),
                 "Your own prices, before the schedule's. An amount may stand in neurons or in USD.",
                 {.example = "- model: gpt-4o-mini\n  unit: usd\n  input_per_1m: 0.15\n  cached_input_per_1m: 0.075\n  "
                             "output_per_1m: 0.6"}),
      objects<T>(
          "changes", &T::changes, price_change_table(),
          "Dated changes, in order of time: a request pays the price of the instant it is sent to its backend, and "
          "what was billed before stays as it was.",
          {.example = "- from: 2026-12-01T00:00:00Z\n  usd_per_1000_neurons: {regular: 0.012}"}),
  }};
}

Table<metering::LedgerOptions> ledger_table() {
  using T = metering::LedgerOptions;
  return {{
      entry<T>("directory", &T::directory, path(),
               "Folder of the usage ledger, made if it is not there; relative to the working directory.", kRestart),
      entry<T>("commit_interval", &T::commit_interval_max, duration(microseconds{0}, milliseconds{5}, microseconds{1}),
               "The longest a record waits to be made durable together with others.", kRestart),
      entry<T>("segment_size", &T::segment_bytes, size(kMiB, 4 * kGiB), "Size at which a new ledger file is begun.",
               kRestart),
      entry<T>("reserve", &T::reserve_bytes, size(64 * kKiB, kGiB),
               "Space of each ledger file that is kept for the ends of running requests when the disk is full; at most "
               "`segment_size`.",
               kRestart),
      entry<T>("retention", &T::retention, duration(hours{0}, hours{24 * 3650}, hours{1}),
               "Full ledger files older than this are dropped, once their usage is summed up and every sink has taken "
               "it; 0: all are kept. Sums and invoices lose nothing.",
               kRestart),
  }};
}

Table<idempotency::IdempotencyOptions> idempotency_table() {
  using T = idempotency::IdempotencyOptions;
  return {{
      entry<T>("ttl", &T::ttl, duration(hours{1}, hours{24 * 30}, seconds{1}),
               "An answer is repeated to requests with its Idempotency-Key for so long.", kRestart),
      entry<T>("shared", &T::shared, boolean(),
               "Keys hold over all gateways on one Redis, which then keeps the answers too, in the clear. Without "
               "`redis` every gateway has its own.",
               kRestart),
      entry<T>("max_answer", &T::answer_bytes_max, size(kKiB, kGiB),
               "A larger answer is not kept: it is sent once, and its key is refused with 409 after that.", kRestart),
      entry<T>(
          "max_size", &T::store_bytes_max, size(kMiB, 1024 * kGiB),
          "Disk for kept answers. Past it the oldest are let go and their keys refused with 409, so that nothing is "
          "billed twice.",
          kRestart),
      entry<T>("max_keys", &T::keys_max, integer(100, 100'000'000),
               "Keys remembered at once, about 120 bytes of memory each; past it requests with a new key get 503.",
               kRestart),
  }};
}

Table<metrics::LogOptions> log_table() {
  using T = metrics::LogOptions;
  return {{
      entry<T>("level", &T::level, choice({"debug", "info", "warn", "error", "off"}),
               "Least severe level of the process log (stderr)."),
      entry<T>("access_log", &T::access_log, boolean(),
               "One JSON line a request. Prompts and answers are never logged.", kRestart),
      entry<T>("access_log_file", &T::access_log_file, path(0),
               "File of the access log, relative to the working directory; empty: stdout. SIGHUP opens it anew.",
               kRestart),
  }};
}

Table<metrics::MetricsOptions> metrics_table() {
  using T = metrics::MetricsOptions;
  return {{entry<T>("max_label_values", &T::label_values_max, integer(1, 100'000),
                    "Distinct models and tenants that keep their own time series; later ones count as \"other\".",
                    kRestart)}};
}

Table<ShutdownOptions> shutdown_table() {
  using T = ShutdownOptions;
  return {{entry<T>("drain", &T::drain, duration(milliseconds{0}, hours{1}),
                    "After SIGTERM, time for running requests to finish."),
           entry<T>(
               "upgrade_drain", &T::upgrade_drain, duration(milliseconds{0}, hours{24}),
               "After an upgrade (SIGUSR2, `ganglion upgrade`), time for the requests of the old process to finish.")}};
}

}  // namespace

Table<Config> server_table() {
  using T = Config;
  using S = net::ServerOptions;
  const auto in = [](auto member) { return [member](auto& c) -> auto& { return c.server.*member; }; };
  return {{
      listen_field<T>([](auto& c) -> auto& { return c.server; }, "Where clients connect."),
      entry<T>("workers", in(&S::workers), integer_or("auto", 0, 0, 1024), "Worker threads; `auto`: one per core.",
               kRestart),
      section<T>("tls", in(&S::tls), tls_table(), "TLS towards clients."),
      max_connections_field<T>(in(&S::connections_max)),
      entry<T>("max_connections_per_address", &T::address_connections_max, integer_or("unlimited", 0, 0, 1'000'000),
               "Open connections from one client address (IPv6: from one /64); past it a new one gets 429 and is "
               "closed. Behind a load balancer all clients share its address.",
               kRestart),
      entry<T>("header_timeout", in(&S::header_timeout), duration(milliseconds{100}, seconds{300}),
               "Time for one request's header block; past it 408.", kRestart),
      entry<T>("keep_alive_timeout", in(&S::keep_alive_timeout), duration(milliseconds{0}, hours{1}),
               "Idle time between two requests of a connection.", kRestart),
      entry<T>("write_timeout", in(&S::write_timeout), duration(milliseconds{100}, hours{1}),
               "A client that takes no byte for so long is cut off.", kRestart),
      entry<T>("min_body_rate", in(&S::body_rate_min), size(0, kGiB),
               "Bytes a second that a request body must arrive with after its first 10 s; 0: any.", kRestart),
  }};
}

Table<Config> admin_table() {
  using T = Config;
  const auto server = [](auto& c) -> auto& { return c.admin; };
  const auto tls = [](auto& c) -> auto& { return c.admin.tls; };
  const auto connections = [](auto& c) -> auto& { return c.admin.connections_max; };
  const auto token = [](auto& c) -> auto& { return c.admin_access.token; };
  const auto hosts = [](auto& c) -> auto& { return c.admin_access.hosts; };
  return {{
      listen_field<T>(server,
                      "Where /metrics, /healthz, /readyz and /admin/* answer. Beyond loopback it needs `tls`, and "
                      "`token` or `tls.client_ca`."),
      entry<T>("token", token, secret(),
               "Asked for as `Authorization: Bearer` everywhere but at /healthz and /readyz; unset: no token is asked "
               "for.",
               {.example = "${GANGLION_ADMIN_TOKEN}"}),
      entry<T>("hosts", hosts, host_names(),
               "Further names by which it may be addressed. On loopback, a request whose Host header is neither one of "
               "these nor localhost nor a loopback address is refused: a web page may not reach it through a name of "
               "its own (DNS rebinding). Beyond loopback, names are checked where some are given.",
               {.example = "[ops.internal]"}),
      section<T>("tls", tls, tls_table(), "TLS of the admin listener."),
      max_connections_field<T>(connections),
  }};
}

Table<Config> root_table() {
  const auto request = [](auto& c) -> auto& { return c.gateway.request; };
  const auto pepper = [](auto& c) -> auto& { return c.gateway.key_pepper; };
  const auto tiers = [](auto& c) -> auto& { return c.gateway.tiers; };
  const auto keys = [](auto& c) -> auto& { return c.gateway.keys; };
  const auto tenants = [](auto& c) -> auto& { return c.gateway.tenants; };
  const auto gateways = [](auto& c) -> auto& { return c.gateway.gateways; };
  const auto budgets = [](auto& c) -> auto& { return c.gateway.budgets; };
  const auto reserve = [](auto& c) -> auto& { return c.gateway.reserve; };
  using T = Config;
  return {{
      section<T>("server", kSelf, server_table(), "The proxy listener, where applications connect."),
      section<T>("admin", kSelf, admin_table(), "The admin listener, for operators and Prometheus."),
      objects<T>("providers", &T::remotes, provider_table(), "Remote OpenAI-compatible providers.",
                 {.example = "- name: openai\n  base_url: https://api.openai.com/v1\n  api_key: ${OPENAI_API_KEY}\n"
                             "  models:\n    - gpt-4o-mini\n    - {name: small, upstream: gpt-4o-mini}"}),
      objects<T>("local", &T::local_models, local_table(), "Models served by the built-in engine.",
                 {.reloads = Reloads::restart,
                  .example = "- name: my-llama\n  path: /srv/models/llama-3.2-1b\n  quantize: int8"}),
      entry<T>("key_pepper", pepper, secret(), "Secret under which keys are hashed; needed as soon as there is a key.",
               {.example = "${GANGLION_KEY_PEPPER}"}),
      objects<T>(
          "keys", keys, key_table(),
          "API keys of clients. Without any, everyone who reaches the listener may use it, so it must be on loopback.",
          {.example = "- id: alice-laptop\n  hash: 0000000000000000000000000000000000000000000000000000000000000000  # "
                      "ganglion keys create\n"
                      "  tenant: default\n  limits: {requests: 60/min, tokens: {rate: 100k/min, burst: 200000}}"}),
      objects<T>("tenants", tenants, tenant_table(), "Accounts that keys belong to; `default` is always there.",
                 {.example = "- name: acme\n  limits: {neurons: 100k/day}"}),
      objects<T>(
          "gateways", gateways, gateway_table(), "Named policies that keys use; `default` is always there.",
          {.example = "- name: production\n  cache: {ttl: 1h, only_deterministic: true}\n  retry: {attempts: 3}"}),
      objects<T>(
          "budgets", budgets, budget_table(),
          "Hard limits on what may be spent. A request must fit every budget that binds it, and reserves the "
          "most that it may cost before it is dispatched.",
          {.example = "- name: acme-monthly\n  tenant: default\n  usd: 200\n- name: each-key-daily\n  per: key\n  "
                      "neurons: 10000\n  window: day"}),
      section<T>("budget_reserve", reserve, budget_reserve_table(),
                 "What is reserved where a request does not say how long its answer may be."),
      section<T>("budget_alerts", &T::budget_alerts, budget_alerts_table(),
                 "A webhook that is told when a budget's use passes one of its percentages."),
      section<T>("budget_sharing", &T::budget_sharing, budget_sharing_table(),
                 "How gateways on one Redis share their budgets."),
      section<T>("request", request, request_table(), "Bounds of every request."),
      section<T>("admission", &T::admission, admission_table(), "Caps of the whole process."),
      section<T>("tiers", tiers, tiers_table(), "What regular and fast requests get when capacity is short."),
      section<T>("limits", kSelf, limits_table(), "Rate limits that belong to no key, tenant or gateway."),
      section<T>("cache", &T::cache, cache_table(),
                 "The response cache's size; what is cached is each gateway's policy."),
      section<T>("redis", &T::redis, redis_table(),
                 "What several gateways share, so that they act as one: rate limits, budgets, cached answers. Without "
                 "addresses each gateway "
                 "stands alone. No request fails because Redis does."),
      section<T>("pricing", &T::pricing, pricing_table(), "What requests cost."),
      section<T>("ledger", &T::ledger, ledger_table(), "The durable record of usage, which bills are made from."),
      objects<T>("sinks", &T::sinks, sink_table(),
                 "Where the ledger's records are sent, each exactly once; docs/sinks.md says how.",
                 {.reloads = Reloads::restart,
                  .example = "- {name: warehouse, type: postgres, dsn: \"${GANGLION_POSTGRES_DSN}\"}\n"
                             "- {name: openmeter, type: cloudevents, url: \"http://openmeter:8888/api/v1/events\"}\n"
                             "- {name: archive, type: file, directory: data/usage}"}),
      section<T>(
          "idempotency", &T::idempotency, idempotency_table(),
          "Requests with an Idempotency-Key header: one call, one charge, the same answer again. Kept beside the "
          "ledger, in `idempotency/`."),
      section<T>("log", &T::log, log_table(), "Process log and access log."),
      section<T>("metrics", &T::metrics, metrics_table(), "Prometheus metrics."),
      section<T>("shutdown", &T::shutdown, shutdown_table(), "How the process stops."),
  }};
}

}  // namespace ganglion::config
