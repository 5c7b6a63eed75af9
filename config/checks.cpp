// Checks across fields. Each reports at the narrowest node that is to blame.

#include "config/checks.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "config/checks_names.hpp"
#include "config/units.hpp"

namespace ganglion::config {
namespace {

// Every name that a client may ask for.
Names model_names(const Place& place, const Config& config, const Names& local) {
  Names names = local;
  for (std::size_t i = 0; i < config.remotes.size(); ++i) {
    const auto& models = config.remotes[i].models;
    const std::string_view providers = "providers";
    if (models.empty()) {
      const Node* const list = at(place.root, {providers, i}).find("models");
      names.complete = false;
      if (list != nullptr && list->size() == 0) {
        place.error({providers, i, "models"}, "a provider without models serves nothing; list at least one");
      }
    }
    std::set<std::string> seen;
    for (std::size_t j = 0; j < models.size(); ++j) {
      if (models[j].name.empty()) {
        names.complete = false;
      } else if (!seen.insert(models[j].name).second) {
        place.error({providers, i, "models", j}, "`" + models[j].name + "` is listed twice for this provider");
      } else if (!names.has(models[j].name)) {
        names.all.push_back(models[j].name);
      }
    }
  }
  return names;
}

void check_listeners(const Place& place, const Config& config) {
  const auto& server = config.server;
  const bool open = config.gateway.keys.empty();
  if (open && !is_loopback(server.host)) {
    place.error({"server", "listen"},
                server.host +
                    " is reachable from other machines and no keys are configured, so anyone could use your "
                    "providers. Add `keys:` (make one with `ganglion keys create`), or listen on 127.0.0.1");
  }
  if (!is_loopback(config.admin.host)) {
    const bool tls = !config.admin.tls.cert_file.empty();
    const bool asks = !config.admin_access.token.empty() || !config.admin.tls.client_ca_file.empty();
    if (!tls || !asks) {
      place.error({"admin", "listen"},
                  config.admin.host + " is reachable from other machines, where the admin listener needs " +
                      (tls    ? ""
                       : asks ? "`admin.tls` (cert and key)"
                              : "`admin.tls` (cert and key) and ") +
                      (asks ? "" : "`admin.token` or `admin.tls.client_ca`") + "; add that, or listen on 127.0.0.1");
    }
  }
  if (const auto token = config.admin_access.token.reveal(); !token.empty() && token.size() < 16) {
    place.error({"admin", "token"}, "shorter than 16 bytes; make one with `openssl rand -hex 32`");
  }
  if (server.port != 0 && server.port == config.admin.port && server.host == config.admin.host) {
    place.error({"admin", "listen"}, "the proxy listens on " + format_listen({server.host, server.port}) + " already");
  }
  const auto tls = [&](std::string_view section, const net::TlsServerOptions& t) {
    if (!t.client_ca_file.empty() && t.cert_file.empty() && t.key_file.empty()) {
      place.error({section, "tls", "client_ca"}, "client certificates need TLS: give cert and key too");
    }
    if (t.cert_file.empty() == t.key_file.empty()) return;
    const std::string missing = t.cert_file.empty() ? "cert" : "key";
    place.error({section, "tls"}, "`" + missing + "` is missing: TLS needs both cert and key");
  };
  tls("server", server.tls);
  tls("admin", config.admin.tls);
}

void check_keys(const Place& place, const Config& config, const Names& tenants, const Names& gateways,
                const Names& models) {
  const auto& keys = config.gateway.keys;
  names_of(place, "keys", "id", keys, [](const auto& k) -> const std::string& { return k.id; });
  std::map<std::string, std::size_t> hashes;
  bool pepper_needed = false;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const auto& key = keys[i];
    const Node& node = at(place.root, {"keys", i});
    pepper_needed |= true;
    if (node.find("hash") != nullptr && node.find("secret") != nullptr) {
      place.error({"keys", i}, "give `hash` or `secret`, not both");
    } else if (node.kind == Node::Kind::map && node.find("hash") == nullptr && node.find("secret") == nullptr) {
      place.error({"keys", i},
                  "`hash` is missing; `ganglion keys create` makes a key and its hash (or give `secret: ${NAME}`)");
    }
    if (!key.hash.empty()) {
      const auto [found, fresh] = hashes.emplace(key.hash, i);
      if (!fresh) place.error({"keys", i, "hash"}, "the same key as `" + keys[found->second].id + "`");
    }
    for (std::size_t j = 0; j < i; ++j) {
      if (key.secret.empty() || !core::equal_constant_time(key.secret.reveal(), keys[j].secret.reveal())) continue;
      place.error({"keys", i, "secret"}, "the same key as `" + keys[j].id + "`");
    }
    if (!key.secret.empty() && key.secret.reveal().size() < 16) {
      place.warn({"keys", i, "secret"}, "shorter than 16 bytes; `ganglion keys create` makes a key and its hash");
    }
    check_reference(place, {"keys", i, "tenant"}, tenants, key.tenant, "tenant");
    check_reference(place, {"keys", i, "gateway"}, gateways, key.gateway, "gateway");
    for (std::size_t j = 0; j < key.models.size(); ++j) {
      const std::string& pattern = key.models[j];
      if (!pattern.ends_with('*')) {
        check_reference(place, {"keys", i, "models", j}, models, pattern, "model");
        continue;
      }
      const std::string_view stem = std::string_view(pattern).substr(0, pattern.size() - 1);
      if (models.complete && std::ranges::none_of(models.all, [&](const auto& m) { return m.starts_with(stem); })) {
        place.warn({"keys", i, "models", j}, "no model matches `" + pattern + "`");
      }
    }
  }
  if (pepper_needed && config.gateway.key_pepper.empty() && place.root.find("key_pepper") == nullptr) {
    place.error({"keys"},
                "keys need `key_pepper: ${GANGLION_KEY_PEPPER}`, the secret that their hashes are made with "
                "(make one with `openssl rand -hex 32`)");
  }
  if (!config.gateway.key_pepper.empty() && config.gateway.key_pepper.reveal().size() < 16) {
    place.warn({"key_pepper"}, "shorter than 16 bytes; make one with `openssl rand -hex 32`");
  }
}

void check_price_list(const Place& place, const std::vector<metering::ModelPrice>& prices, const Names& models,
                      const std::vector<Step>& list) {
  const auto path = [&](std::initializer_list<Step> more) {
    std::vector<Step> out = list;
    out.insert(out.end(), more);
    return out;
  };
  std::set<std::string> seen;
  for (std::size_t i = 0; i < prices.size(); ++i) {
    const auto& p = prices[i];
    if (p.model.empty()) continue;
    if (!seen.insert(p.model).second) place.error(path({i, "model"}), "`" + p.model + "` has a price already");
    if (p.model != "*") check_reference(place, path({i, "model"}), models, p.model, "model");
    const bool priced = !(p.per_1m_input_tokens.empty() && p.per_1m_cached_input_tokens.empty() &&
                          p.per_1m_output_tokens.empty() && p.per_request.empty() && p.per_gpu_second.empty());
    if (!priced) place.warn(path({i}), "no amount is given, so `" + p.model + "` is free");
  }
}

void check_prices(const Place& place, const Config& config, const Names& models) {
  check_price_list(place, config.pricing.models, models, {"pricing", "models"});
  const auto& changes = config.pricing.changes;
  for (std::size_t i = 0; i < changes.size(); ++i) {
    if (i > 0 && changes[i].from <= changes[i - 1].from && changes[i].from.count() != 0)
      place.error({"pricing", "changes", i, "from"}, "must be later than the change before it");
    check_price_list(place, changes[i].models, models, {"pricing", "changes", i, "models"});
  }
}

// After a crash the ledger says which calls with a key were billed, so it must remember for longer than the keys do.
void check_retention(const Place& place, const Config& config) {
  const auto retention = config.ledger.retention;
  if (retention.count() == 0 || retention > config.idempotency.ttl) return;
  place.error({"ledger", "retention"}, "must be longer than idempotency.ttl (" +
                                           format_duration(config.idempotency.ttl) +
                                           "), or 0: after a crash the ledger says what a key was billed for");
}

// The default of `reserve` gives way to a small segment; what was asked for would not.
void check_reserve(const Place& place, const Config& config) {
  const auto& ledger = config.ledger;
  if (ledger.reserve_bytes <= ledger.segment_bytes || at(place.root, {"ledger"}).find("reserve") == nullptr) return;
  place.error({"ledger", "reserve"},
              "larger than segment_size (" + format_size(ledger.segment_bytes) + "); it is a part of each segment");
}

void check_providers(const Place& place, const Config& config) {
  for (std::size_t i = 0; i < config.remotes.size(); ++i) {
    const auto& remote = config.remotes[i];
    const std::string& url = remote.upstream.base_url;
    if (!remote.api_key.empty() && url.starts_with("http://")) {
      const std::string_view rest = std::string_view(url).substr(7);
      std::string_view host = rest.substr(0, rest.find_first_of(rest.starts_with('[') ? "]" : ":/"));
      if (host.starts_with('[')) host.remove_prefix(1);
      if (host != "localhost" && !is_loopback(host)) {
        place.warn({"providers", i, "base_url"}, "the api_key will cross the network unencrypted; use https://");
      }
    }
    if (!remote.upstream.tls.verify && url.starts_with("https://")) {
      place.warn({"providers", i, "tls", "verify"}, "the provider's certificate is not checked");
    }
  }
  for (std::size_t i = 0; i < config.gateway.gateways.size(); ++i) {
    const auto& retry = config.gateway.gateways[i].retry;
    if (retry.backoff_base > retry.backoff_max) {
      place.error({"gateways", i, "retry", "backoff"}, "longer than max_backoff");
    }
  }
}

void check_redis(const Place& place, const net::RedisOptions& redis) {
  if (!redis.enabled()) return;
  if (redis.tls_cert_file.empty() != redis.tls_key_file.empty()) {
    place.error({"redis", "tls"}, "`" + std::string(redis.tls_cert_file.empty() ? "cert" : "key") + "` is missing");
  }
  if (redis.tls && !redis.tls_client.verify) {
    place.warn({"redis", "tls", "verify"}, "Redis's certificate is not checked");
  }
  if (redis.cluster == net::RedisCluster::on && redis.database != 0) {
    place.error({"redis", "database"}, "a cluster has only database 0");
  }
  if (!redis.username.empty() && redis.password.empty()) {
    place.error({"redis", "username"}, "a user needs a `password: ${REDIS_PASSWORD}`");
  }
  if (redis.password.empty() || redis.tls) return;
  for (std::size_t i = 0; i < redis.addresses.size(); ++i) {
    std::string_view host = std::string_view(redis.addresses[i]).substr(0, redis.addresses[i].rfind(':'));
    if (host.starts_with('[')) host = host.substr(1, host.size() - 2);
    if (host == "localhost" || is_loopback(std::string(host))) continue;
    place.warn({"redis", "addresses", i},
               "the password will cross the network unencrypted; set `tls: {enabled: true}`");
  }
}

void check_sinks(const Place& place, const Config& config) {
  names_of(place, "sinks", "name", config.sinks, [](const auto& sink) -> const std::string& { return sink.name; });
  for (std::size_t i = 0; i < config.sinks.size(); ++i) {
    const auto& sink = config.sinks[i];
    // A value that could not be read has its own message.
    const auto need = [&](std::string_view type, std::string_view key, bool missing) {
      if (sink.type != type || !missing || at(place.root, {"sinks", i}).find(key) != nullptr) return;
      place.error({"sinks", i}, "a sink of type `" + sink.type + "` needs `" + std::string{key} + "`");
    };
    need("file", "directory", sink.directory.empty());
    need("cloudevents", "url", sink.url.empty());
    need("postgres", "dsn", sink.dsn.empty());
    for (std::size_t j = 0; j < i; ++j) {
      if (sink.type != "file" || config.sinks[j].type != "file" || sink.directory.empty()) continue;
      if (sink.directory != config.sinks[j].directory) continue;
      place.error({"sinks", i, "directory"}, "`" + config.sinks[j].name + "` writes there already");
    }
    if (!sink.token.empty() && sink.url.starts_with("http://")) {
      const std::string_view rest = std::string_view(sink.url).substr(7);
      const std::string_view host = rest.substr(0, rest.find_first_of(":/"));
      if (host != "localhost" && !is_loopback(host)) {
        place.warn({"sinks", i, "url"}, "the token will cross the network unencrypted; use https://");
      }
    }
  }
}

}  // namespace

void check_meaning(Reader& reader, const Node& root, const Config& config) {
  const Place place{reader, root};
  const auto name = [](const auto& item) -> const std::string& { return item.name; };
  check_listeners(place, config);
  check_providers(place, config);
  names_of(place, "providers", "name", config.remotes, name);
  const Names local = names_of(place, "local", "name", config.local_models, name);
  for (std::size_t i = 0; i < config.local_models.size(); ++i) {
    const backends::LocalDraftOptions& draft = config.local_models[i].draft;
    if (draft.directory.empty() && draft != backends::LocalDraftOptions{}) {
      place.error({"local", i, "draft"}, "names no model: `path` is missing");
    }
  }
  const Names models = model_names(place, config, local);
  if (models.all.empty() && models.complete) {
    reader.error(root, "nothing to serve: add `providers:` or `local:`");
  }
  Names tenants = names_of(place, "tenants", "name", config.gateway.tenants, name);
  Names gateways = names_of(place, "gateways", "name", config.gateway.gateways, name);
  tenants.all.emplace_back("default");
  gateways.all.emplace_back("default");
  check_keys(place, config, tenants, gateways, models);
  check_budgets(place, config, tenants, gateways, models);
  for (std::size_t i = 0; i < config.gateway.gateways.size(); ++i) {
    const std::string& embedder = config.gateway.gateways[i].cache.semantic.embedding_model;
    if (embedder.empty()) continue;
    check_reference(place, {"gateways", i, "cache", "semantic", "embedding_model"}, models, embedder, "model");
  }
  const auto& limits = config.gateway.model_limits;
  std::set<std::string> limited;
  for (std::size_t i = 0; i < limits.size(); ++i) {
    if (limits[i].model.empty()) continue;
    check_reference(place, {"limits", "models", i, "model"}, models, limits[i].model, "model");
    if (!limited.insert(limits[i].model).second) {
      place.error({"limits", "models", i, "model"}, "`" + limits[i].model + "` has limits already");
    }
  }
  check_prices(place, config, models);
  check_retention(place, config);
  check_reserve(place, config);
  check_redis(place, config.redis);
  check_sinks(place, config);
  if (config.cache.entry_bytes_max > config.cache.memory_bytes_max) {
    place.error({"cache", "max_entry"}, "larger than max_memory");
  }
  if (!config.cache.secret.empty() && config.cache.secret.reveal().size() < 16) {
    place.warn({"cache", "secret"}, "shorter than 16 bytes; make one with `openssl rand -hex 32`");
  }
}

void resolve_files(Reader& reader, const Node& root, Config& config) {
  const Place place{reader, root};
  const std::filesystem::path file = config.source;
  const auto resolve = [&](std::string& path, const std::vector<Step>& where) {
    if (path.empty()) return;
    std::filesystem::path full = path;
    if (full.is_relative()) full = std::filesystem::absolute(file.parent_path() / full);
    path = full.lexically_normal().string();
    if (!std::ifstream(path).good()) place.error(where, "cannot read " + path);
  };
  resolve(config.server.tls.cert_file, {"server", "tls", "cert"});
  resolve(config.server.tls.key_file, {"server", "tls", "key"});
  resolve(config.server.tls.client_ca_file, {"server", "tls", "client_ca"});
  resolve(config.admin.tls.client_ca_file, {"admin", "tls", "client_ca"});
  resolve(config.admin.tls.cert_file, {"admin", "tls", "cert"});
  resolve(config.admin.tls.key_file, {"admin", "tls", "key"});
  resolve(config.redis.tls_client.ca_file, {"redis", "tls", "ca"});
  resolve(config.redis.tls_cert_file, {"redis", "tls", "cert"});
  resolve(config.redis.tls_key_file, {"redis", "tls", "key"});
  for (std::size_t i = 0; i < config.remotes.size(); ++i) {
    resolve(config.remotes[i].upstream.tls.ca_file, {"providers", i, "tls", "ca"});
  }
  for (std::size_t i = 0; i < config.sinks.size(); ++i) {
    resolve(config.sinks[i].tls.ca_file, {"sinks", i, "tls", "ca"});
  }
  for (std::size_t i = 0; i < config.local_models.size(); ++i) {
    std::string& directory = config.local_models[i].directory;
    if (directory.empty()) continue;
    auto found = resolve_model_dir(directory, file, reader.options().env);
    if (found) {
      directory = found->string();
    } else {
      place.error({"local", i, "path"}, found.error());
    }
    if (backends::LocalDraftOptions& draft = config.local_models[i].draft; !draft.directory.empty()) {
      auto folder = resolve_model_dir(draft.directory, file, reader.options().env);
      if (folder) {
        draft.directory = folder->string();
      } else {
        place.error({"local", i, "draft", "path"}, folder.error());
      }
    }
    std::set<std::string> ids;
    for (std::size_t a = 0; a < config.local_models[i].adapters.size(); ++a) {
      auto& adapter = config.local_models[i].adapters[a];
      if (!ids.insert(adapter.id).second) {
        place.error({"local", i, "adapters", a, "id"}, "\"" + adapter.id + "\" is defined twice");
      }
      auto folder = resolve_model_dir(adapter.directory, file, reader.options().env, "adapter_config.json");
      if (folder) {
        adapter.directory = folder->string();
      } else {
        place.error({"local", i, "adapters", a, "path"}, folder.error());
      }
    }
  }
}

}  // namespace ganglion::config
