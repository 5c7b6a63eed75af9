// The table of fields: what operators name themselves - providers, local models, keys, tenants, gateways, prices.

#include <algorithm>

#include "config/tables.hpp"

namespace ganglion::config {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Extra kRequired{.required = true};
constexpr Extra kRestart{.reloads = Reloads::restart};

Codec<api::Tier> tier() {
  const Codec<std::string> words = choice({"regular", "fast"});
  return {.info = words.info,
          .read = [read = words.read](Reader& reader, const Node& node) -> std::optional<api::Tier> {
            const auto word = read(reader, node);
            return word ? api::parse_tier(*word) : std::nullopt;
          },
          .write = [](const api::Tier& t, Secrets) { return Value{std::string(api::name(t))}; }};
}

Table<ratelimit::LimitSet> limit_set_table() {
  using T = ratelimit::LimitSet;
  return {{
      entry<T>("requests", &T::requests, rate(), "Requests."),
      entry<T>("tokens", &T::tokens, rate(),
               "Tokens, input and output together; estimated at admission, settled after."),
      entry<T>("neurons", &T::neurons, rate(), "Neurons; estimated at admission, settled after."),
      entry<T>("running", &T::running, integer_or("unlimited", 0, 1, 1'000'000),
               "Requests at once, streams included. Each gateway counts its own, with `redis` too."),
  }};
}

template <class T>
Field<T> limits_field(std::string whose) {
  return section<T>("limits", &T::limits, limit_set_table(),
                    "Limits of " + std::move(whose) + "; what is left out is unlimited.");
}

Table<net::UpstreamOptions> timeouts_table() {
  using T = net::UpstreamOptions;
  return {{
      entry<T>("connect", &T::connect_timeout, duration(milliseconds{10}, seconds{120}), "Name lookup, TCP and TLS."),
      entry<T>("first_byte", &T::first_byte_timeout, duration(milliseconds{10}, hours{1}),
               "From the request sent to the first byte of a streamed answer, or of embeddings."),
      entry<T>("whole", &T::whole_timeout, duration(milliseconds{10}, hours{1}),
               "The same for other answers: they begin when they are complete. To be less than request.timeout."),
      entry<T>("idle", &T::idle_timeout, duration(milliseconds{10}, hours{1}), "Between two pieces of an answer."),
      entry<T>("pool_idle", &T::pool_idle_timeout, duration(milliseconds{0}, hours{1}),
               "An unused pooled connection is closed after this."),
  }};
}

Table<net::TlsClientOptions> tls_table() {
  using T = net::TlsClientOptions;
  return {{
      entry<T>("verify", &T::verify, boolean(), "Check the provider's certificate. Turn it off only in a test."),
      entry<T>("ca", &T::ca_file, path(),
               "PEM file of trusted authorities, relative to this file; unset: the system's."),
  }};
}

Table<backends::ModelAlias> alias_table() {
  using T = backends::ModelAlias;
  return {{
      entry<T>("name", &T::name, model_name(), "What clients ask for.", kRequired),
      entry<T>("upstream", &T::upstream, model_name(), "What the provider is asked for; unset: the same name."),
      entry<T>(
          "max_output", &T::output_tokens_max, integer_or("unknown", 0, 0, 100'000'000),
          "Tokens of the longest answer, reasoning included: what budgets reserve for a request without a maximum."),
  }};
}

// A word for each value of an enum, in its order.
template <class E>
Codec<E> words(std::vector<std::string> all) {
  const Codec<std::string> text = choice(all);
  return {.info = text.info,
          .read = [read = text.read, all](Reader& reader, const Node& node) -> std::optional<E> {
            const auto word = read(reader, node);
            if (!word) return std::nullopt;
            return static_cast<E>(std::ranges::find(all, *word) - all.begin());
          },
          .write = [all](const E& value, Secrets) { return Value{all[static_cast<std::size_t>(value)]}; }};
}

Codec<cache::InvalidateOn> invalidate_on() {
  return words<cache::InvalidateOn>({"never", "policy", "price", "policy_and_price"});
}

Codec<cache::Replay> replay() {
  return words<cache::Replay>({"at_once", "recorded"});
}

// The refusals that reach clients as the provider said them (gateway/billed_call.cpp), less 429, whose retry-after
// would be wrong later.
Codec<int> refusal() {
  const std::vector<std::string> all{"400", "404", "409", "413", "415", "422"};
  const Codec<std::string> text = choice(all);
  return {.info = text.info,
          .read = [read = text.read](Reader& reader, const Node& node) -> std::optional<int> {
            const auto word = read(reader, node);
            return word ? std::optional{std::stoi(*word)} : std::nullopt;
          },
          .write = [](const int& status, Secrets) { return Value{std::to_string(status)}; }};
}

Table<cache::NegativeTtl> negative_table() {
  using T = cache::NegativeTtl;
  return {{
      entry<T>("status", &T::status, refusal(), "Of the upstream's answer.", kRequired),
      entry<T>("ttl", &T::ttl, duration(seconds{1}, hours{1}, seconds{1}), "How long it is kept."),
  }};
}

Table<cache::SemanticPolicy> semantic_policy_table() {
  using T = cache::SemanticPolicy;
  return {{
      entry<T>("embedding_model", &T::embedding_model, model_name(),
               "Model that embeds questions, local or a provider's; unset: the semantic cache is off. Each miss of the "
               "exact cache then costs one embedding, which nobody is billed for."),
      entry<T>("threshold", &T::threshold, fraction(0.5, 1),
               "Cosine from which two questions count as the same. See docs/semantic-cache.md before you lower it."),
      entry<T>("max_length_difference", &T::length_difference_max_percent, percent(0, 100),
               "Between the two texts, of the longer one."),
      entry<T>("same_numbers", &T::same_numbers, boolean(), "The numbers in both texts must be the same, in order."),
      entry<T>("max_temperature", &T::temperature_max, fraction(0, 2),
               "Requests above are not answered so; one without a temperature counts as 1."),
      entry<T>("timeout", &T::timeout, duration(milliseconds{1}, seconds{10}),
               "For the embedding; past it the request is a plain miss."),
  }};
}

Table<cache::CachePolicy> cache_policy_table() {
  using T = cache::CachePolicy;
  return {{
      entry<T>(
          "ttl", &T::ttl, duration(seconds{0}, hours{24 * 30}, seconds{1}),
          "How long answers are kept without being asked for by a header; 0: only requests with `cf-aig-cache-ttl` "
          "are cached."),
      entry<T>("keep_only_asked", &T::keep_only_asked, boolean(),
               "Look every request up, keep only answers to requests that ask with `cf-aig-cache-ttl` or "
               "`cf-aig-cache-key`; other misses go to the backend one by one."),
      entry<T>("only_deterministic", &T::only_deterministic, boolean(),
               "Cache only requests with temperature 0 or a seed, and embeddings."),
      entry<T>("stale_while_revalidate", &T::stale_while_revalidate, duration(seconds{0}, hours{24 * 30}, seconds{1}),
               "After its ttl an answer is still served for so long, while one call in the background fetches a new "
               "one, billed to the key of the request that caused it."),
      entry<T>("stale_if_error", &T::stale_if_error, duration(seconds{0}, hours{24 * 30}, seconds{1}),
               "After its ttl an answer is kept for so long, to be served when the backends fail."),
      objects<T>("negative", &T::negative, negative_table(),
                 "Refusals of the upstream that are kept as answers are, in memory only.",
                 {.example = "- {status: 404, ttl: 10s}"}),
      entry<T>("invalidate_on", &T::invalidate_on, invalidate_on(),
               "What change of the configuration, beside where the model's name leads, forgets the answers kept so "
               "far: that of this gateway's cache and retry settings, that of the model's price, both, or neither."),
      entry<T>("replay", &T::replay, replay(),
               "How recorded streams are sent: at once, or at the pace at which they were recorded. "
               "`x-ganglion-cache-replay` asks for one of them."),
      section<T>("semantic", &T::semantic, semantic_policy_table(), "Stored answers for questions that mean the same."),
  }};
}

Table<backends::RetryOptions> retry_table() {
  using T = backends::RetryOptions;
  return {{
      entry<T>(
          "attempts", &T::attempts_max, integer(1, 10),
          "All tries over all backends, the first one included. Nothing is retried after the first byte of an answer. "
          "Where a kept connection closes without a byte of it, the request goes out once more on another."),
      entry<T>("backoff", &T::backoff_base, duration(milliseconds{0}, seconds{60}),
               "Wait before the second try, doubled for each further one, with full jitter."),
      entry<T>("max_backoff", &T::backoff_max, duration(milliseconds{0}, seconds{300}),
               "The longest wait, also for a provider's Retry-After."),
  }};
}

}  // namespace

void read_plain_model(Reader& reader, const Node& node, backends::ModelAlias& model) {
  if (auto name = model_name().read(reader, node)) model.name = *std::move(name);
}

Table<backends::RemoteOptions> provider_table() {
  using T = backends::RemoteOptions;
  const auto up = [](auto member) { return [member](auto& remote) -> auto& { return remote.upstream.*member; }; };
  using U = net::UpstreamOptions;
  return {{
      entry<T>("name", &T::name, identifier(), "The backend's name in logs and metrics.", kRequired),
      entry<T>("base_url", up(&U::base_url), url(), "Where its OpenAI-compatible API begins, usually ending in /v1.",
               kRequired),
      entry<T>("api_key", &T::api_key, secret(),
               "Sent as `Authorization: Bearer`; unset: none is sent. Never shown to clients."),
      objects<T>("models", &T::models, alias_table(), "Models that it serves: plain names, or name and upstream name.",
                 kRequired, read_plain_model),
      entry<T>("weight", &T::weight, integer(1, 1'000), "Share of a model's traffic among the backends that serve it."),
      entry<T>("max_connections", up(&U::connections_max), integer(1, 100'000), "Connections per worker."),
      section<T>(
          "timeouts", [](auto& remote) -> auto& { return remote.upstream; }, timeouts_table(),
          "Limits of one attempt."),
      entry<T>("dns_ttl", up(&U::dns_ttl), duration(milliseconds{0}, hours{24}),
               "How long a name lookup is remembered."),
      section<T>("tls", up(&U::tls), tls_table(), "TLS towards the provider."),
      entry<T>("public_only", up(&U::public_only), boolean(),
               "Connect only to addresses of the public Internet, whatever the name resolves to: not to loopback, "
               "private, carrier or test networks. Link-local addresses (cloud metadata) are refused in any case, "
               "unless `base_url` itself names one."),
  }};
}

Table<backends::LocalAdapterOptions> adapter_table() {
  using T = backends::LocalAdapterOptions;
  return {{
      entry<T>("id", &T::id, identifier(), "What requests name in `lora`.", kRequired),
      entry<T>("path", &T::directory, path(),
               "Folder with `adapter_config.json` and `adapter_model.safetensors`, looked up as a model's.", kRequired),
  }};
}

Table<backends::LocalDraftOptions> draft_table() {
  using T = backends::LocalDraftOptions;
  return {{
      entry<T>("path", &T::directory, path(0), "The draft model's folder, looked up as a model's; empty: no draft.",
               kRestart),
      entry<T>("tokens", &T::tokens, integer(1, 32), "Its guesses for a request in one step, at most.", kRestart),
      entry<T>("quantize", &T::quantize, choice({"none", "int8", "w8a8", "fp8", "int4"}),
               "Its weights, as the model's.", kRestart),
  }};
}

Table<backends::LocalModelOptions> local_table() {
  using T = backends::LocalModelOptions;
  return {{
      entry<T>("name", &T::name, model_name(), "What clients ask for.",
               {.reloads = Reloads::restart, .required = true}),
      entry<T>("path", &T::directory, path(),
               "Folder in Hugging Face format. A relative path is looked up beside this file, then in "
               "$GANGLION_DATA_DIR, then in ../share/ganglion of the program.",
               {.reloads = Reloads::restart, .required = true}),
      entry<T>("device", &T::device, device(),
               "Where a text model runs: `cpu`; `cuda:0` and so on; `cuda:0,1`: cut over these GPUs (needs NCCL); or "
               "`auto`: the GPU with most room where the program was built with CUDA and finds one, the fewest that it "
               "must be cut over where one is too small, else the CPU. Embedding models run on the CPU.",
               kRestart),
      entry<T>("replicas", &T::replicas, integer(1, 64),
               "Engines of this model. With `auto` each finds a GPU of its own, as long as there is room. A request "
               "goes where the beginning of its prompt is known, else to the one that has least to do.",
               kRestart),
      entry<T>("gpu_memory", &T::gpu_bytes, size(0, 1ULL << 42),
               "Memory that the model may take of each of its GPUs, keys and values included; 0: what is free. Say it "
               "where models share a GPU.",
               kRestart),
      entry<T>("quantize", &T::quantize, choice({"none", "int8", "w8a8", "fp8", "int4"}),
               "Weights are quantised when they are loaded: `int8` and `fp8` per channel, `int4` in groups of 64. "
               "`w8a8` is `int8` with activations in int8, per token, also in a GPU's steps of more than a few tokens. "
               "`fp8` and `int4` need a GPU.",
               kRestart),
      entry<T>(
          "kv_type", &T::kv_type, choice({"auto", "fp16", "bf16", "int8", "fp8"}),
          "How keys and values are kept. `auto`: `fp16`, on a CPU fp32 where weights are fp32. `bf16` has fp16's size, "
          "fewer digits and no limit at 65,504. `int8`, with a scale for each token and head, and `fp8` halve "
          "them. `bf16` and `fp8` need a GPU.",
          kRestart),
      entry<T>("prefix_sharing", &T::prefix_sharing, choice({"tenant", "all", "off"}),
               "Whose requests find computed what an earlier prompt began with: those of the same tenant, all, or "
               "nobody's. `all` lets a tenant tell by the time an answer takes whether another has asked the same.",
               kRestart),
      entry<T>("speculation", &T::speculation, choice({"off", "prompt_lookup"}),
               "Whether a step checks guesses at the next tokens, with the same answers: `prompt_lookup` guesses what "
               "followed the last few tokens earlier in the text. For texts that quote or repeat.",
               kRestart),
      entry<T>("speculation_tokens", &T::speculation_tokens, integer(1, 32),
               "Guesses for a request in one step, at most.", kRestart),
      entry<T>("speculation_batch_max", &T::speculation_batch_max, integer(1, 1024),
               "With more requests running than this nobody guesses.", kRestart),
      section<T>(
          "draft", &T::draft, draft_table(),
          "A small model with the same vocabulary that guesses the next tokens, which one step of the model then "
          "checks; answers are the same. It runs on the model's (first) device and takes a share of its memory; "
          "beside `speculation` it guesses where that finds nothing. Not for embedding models."),
      entry<T>("threads", &T::threads, integer_or("auto", 0, 0, 1024), "Compute threads; `auto`: one per core.",
               kRestart),
      entry<T>("kv_memory", &T::kv_bytes, size(1 << 20, 1ULL << 42),
               "Memory for the keys and values of running requests. A GPU uses what is free, if that is more.",
               kRestart),
      entry<T>("max_queue", &T::queue_max, integer(1, 100'000),
               "Requests waiting for a place; past it 429 with Retry-After.", kRestart),
      entry<T>("max_batch", &T::batch_max, integer(1, 1024), "Requests computed in one step.", kRestart),
      entry<T>("max_context", &T::context_max, integer_or("auto", 0, 0, 10'000'000),
               "Prompt and answer tokens together; `auto`: what the model was made for.", kRestart),
      entry<T>("weight", &T::weight, integer(1, 1'000),
               "Share of the model's traffic, where a provider serves the same name.", kRestart),
      objects<T>("adapters", &T::adapters, adapter_table(),
                 "Low-rank adapters (LoRA, PEFT's files) that requests name in `lora`. Requests with different ones "
                 "and with none share steps; see docs/models.md.",
                 {.reloads = Reloads::restart, .example = "- {id: support, path: adapters/support}"}),
  }};
}

Table<gateway::KeyOptions> key_table() {
  using T = gateway::KeyOptions;
  return {{
      entry<T>("id", &T::id, identifier(), "Public name of the key in logs, metrics and the ledger.", kRequired),
      entry<T>(
          "hash", &T::hash, hex64(),
          "HMAC-SHA-256 of the key under `key_pepper`, as `ganglion keys create` prints it. Either this or `secret`."),
      entry<T>("secret", &T::secret, secret(), "The key itself, from the environment. Either this or `hash`."),
      entry<T>("tenant", &T::tenant, identifier(), "Account that pays."),
      entry<T>("gateway", &T::gateway, identifier(), "Policy in force."),
      entry<T>("models", &T::models, model_patterns(), "Models that it may use; unset: all."),
      entry<T>("tier", &T::tier, tier(), "Tier of requests that name none."),
      entry<T>("tier_fixed", &T::tier_fixed, boolean(), "Requests may not pick another tier."),
      entry<T>("revoked", &T::revoked, boolean(), "The key is refused from the next reload on."),
      limits_field<T>("this key"),
  }};
}

Table<gateway::TenantOptions> tenant_table() {
  using T = gateway::TenantOptions;
  return {{entry<T>("name", &T::name, identifier(), "The account.", kRequired),
           limits_field<T>("all its keys together"),
           entry<T>("free_only", &T::free_only, boolean(),
                    "Requests are refused once the daily free neurons are used (`pricing.daily_free_neurons`).")}};
}

Table<gateway::GatewayPolicy> gateway_table() {
  using T = gateway::GatewayPolicy;
  return {{
      entry<T>("name", &T::name, identifier(), "The policy's name.", kRequired),
      section<T>("cache", &T::cache, cache_policy_table(), "What is cached."),
      limits_field<T>("all requests under this policy together"),
      section<T>("retry", &T::retry, retry_table(), "Tries after an upstream failure."),
  }};
}

Table<gateway::ModelLimits> model_limits_table() {
  using T = gateway::ModelLimits;
  Table<T> table{{entry<T>("model", &T::model, model_name(), "The model as clients name it.", kRequired)}};
  const auto limit = [](auto member) { return [member](auto& object) -> auto& { return object.limits.*member; }; };
  using L = ratelimit::LimitSet;
  table.fields.push_back(entry<T>("requests", limit(&L::requests), rate(), "Requests."));
  table.fields.push_back(entry<T>("tokens", limit(&L::tokens), rate(), "Tokens, input and output together."));
  table.fields.push_back(entry<T>("neurons", limit(&L::neurons), rate(), "Neurons."));
  table.fields.push_back(entry<T>("running", limit(&L::running), integer_or("unlimited", 0, 1, 1'000'000),
                                  "Requests at once; each gateway counts its own."));
  return table;
}

Table<sinks::SinkOptions> sink_table() {
  using T = sinks::SinkOptions;
  const auto tls = [](auto& sink) -> auto& { return sink.tls; };
  constexpr std::uint64_t kMiB = 1 << 20;
  return {{
      entry<T>("name", &T::name, identifier(), "Its name in logs, metrics and /admin/sinks.",
               {.reloads = Reloads::restart, .required = true}),
      entry<T>(
          "type", &T::type, choice({"file", "cloudevents", "postgres"}),
          "`file`: JSON lines in a directory. `cloudevents`: over HTTP, as OpenMeter takes them. `postgres`: a table.",
          {.reloads = Reloads::restart, .required = true}),
      entry<T>("batch", &T::batch_max, integer(1, 10'000), "Records delivered at once.", kRestart),
      entry<T>("interval", &T::interval, duration(milliseconds{10}, hours{1}),
               "Time between two looks at the ledger when there was nothing new.", kRestart),
      entry<T>("max_backoff", &T::backoff_max, duration(milliseconds{100}, hours{1}),
               "The longest wait before a failed delivery is tried again.", kRestart),
      entry<T>("directory", &T::directory, path(0),
               "`file`: where the files are written, relative to the working directory; of this gateway alone.",
               kRestart),
      entry<T>("rotate_size", &T::rotate_bytes, size(64 * 1024, 1024 * kMiB * 16),
               "`file`: size at which a new file is begun.", kRestart),
      entry<T>("rotate_daily", &T::rotate_daily, boolean(), "`file`: begin a new file each UTC day.", kRestart),
      entry<T>("url", &T::url, url(), "`cloudevents`: where events are posted.", kRestart),
      entry<T>("token", &T::token, secret(), "`cloudevents`: sent as `Authorization: Bearer`; unset: none is sent.",
               kRestart),
      entry<T>("format", &T::format, choice({"batch", "lines"}),
               "`cloudevents`: `batch`, one JSON array a request (application/cloudevents-batch+json), or `lines`, one "
               "event "
               "a line (application/x-ndjson).",
               kRestart),
      entry<T>("source", &T::source, path(0),
               "`cloudevents`: the events' source; empty: `urn:uuid:` and the ledger's id.", kRestart),
      entry<T>("event_type", &T::event_type, identifier(), "`cloudevents`: the events' type.", kRestart),
      entry<T>("timeout", &T::timeout, duration(milliseconds{100}, hours{1}), "`cloudevents`: of one request.",
               kRestart),
      section<T>("tls", tls, tls_table(), "`cloudevents`: TLS towards the receiver."),
      entry<T>("dsn", &T::dsn, secret(),
               "`postgres`: connection string of libpq, `postgresql://user:password@host/database` or key=value pairs.",
               kRestart),
      entry<T>("schema", &T::schema, identifier(), "`postgres`: schema of the tables, made where it is not there.",
               kRestart),
  }};
}

Table<metering::ModelPrice> price_table() {
  using T = metering::ModelPrice;
  Codec<std::string> model = model_name();
  model.info.constraint += ", or `*` for every model without a price";
  model.info.pattern = "^([A-Za-z0-9._/@:+-]{1,128}|\\*)$";
  model.read = [read = model.read](Reader& reader, const Node& node) -> std::optional<std::string> {
    if (node.kind == Node::Kind::scalar && node.text == "*") return "*";
    return read(reader, node);
  };
  return {{
      entry<T>("model", &T::model, model, "The model as clients name it.", kRequired),
      entry<T>("unit", &T::unit, choice({"neurons", "usd"}), "What the amounts below are in."),
      entry<T>("input_per_1m", &T::per_1m_input_tokens, decimal(), "A million input tokens."),
      entry<T>("cached_input_per_1m", &T::per_1m_cached_input_tokens, decimal(),
               "A million input tokens that the provider had cached; unset: as input."),
      entry<T>("output_per_1m", &T::per_1m_output_tokens, decimal(), "A million output tokens."),
      entry<T>("per_request", &T::per_request, decimal(), "A request."),
      entry<T>("per_gpu_second", &T::per_gpu_second, decimal(),
               "A second that the device of a local model worked for the request. Budgets do not reserve for it."),
  }};
}

}  // namespace ganglion::config
