// See app/application.hpp. Shutdown is app/shutdown.cpp; scraping of what components keep themselves is app/scrape.cpp.

#include "app/application.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <boost/asio/post.hpp>
#include <cerrno>
#include <csignal>
#include <system_error>
#include <thread>
#include <utility>

#include "app/build_info.hpp"
#include "app/cache_tiers.hpp"
#include "app/preflight.hpp"
#include "app/worker_thread.hpp"
#include "config/describe.hpp"
#include "core/log.hpp"
#include "core/run_loop.hpp"
#include "gateway/purge_admin.hpp"
#include "metering/budget_history.hpp"

namespace ganglion::app {
namespace {

using core::LogLevel;

// At shutdown, for answers that are still on their way to Redis and disk.
constexpr std::chrono::milliseconds kCacheFlush{300};
constexpr int kLockTries = 100;
constexpr std::chrono::milliseconds kLockAgain{20};

LogLevel parse_level(std::string_view text) {
  if (text == "debug") return LogLevel::debug;
  if (text == "warn") return LogLevel::warn;
  if (text == "error") return LogLevel::error;
  if (text == "off") return LogLevel::off;
  return LogLevel::info;
}

std::string url(const net::ServerOptions& options, std::uint16_t port) {
  const bool v6 = options.host.find(':') != std::string::npos;
  return std::string{options.tls.cert_file.empty() ? "http://" : "https://"} + (v6 ? "[" : "") + options.host +
         (v6 ? "]" : "") + ":" + std::to_string(port);
}

void log_diagnostics(LogLevel level, std::string_view event, const std::vector<config::Diagnostic>& diagnostics) {
  for (const config::Diagnostic& diagnostic : diagnostics)
    core::log(level, event, {{"problem", config::format(diagnostic)}});
}

}  // namespace

Application::Application(std::shared_ptr<const config::Config> config, ModelLoader load_model)
    : config_(std::move(config)),
      load_model_(std::move(load_model)),
      metrics_(config_->metrics, {.version = std::string{kVersion}, .commit = std::string{kCommit}}, clock_),
      commit_seconds_(metrics_.registry().shared().histogram(metrics::Family::ledger_commit_seconds)),
      batch_records_(metrics_.registry().shared().histogram(metrics::Family::ledger_batch_records)),
      ledger_bytes_(metrics_.registry().shared().counter(metrics::Family::ledger_bytes_total)),
      ledger_errors_(metrics_.registry().shared().counter(metrics::Family::ledger_errors_total)),
      commits_in_place_(metrics_.registry().shared().counter(metrics::Family::ledger_commits_in_place_total)),
      budget_watch_(metrics_.registry()),
      budgets_(clock_, budget_watch_),
      limiter_(config_->limiter, clock_, config_->redis.enabled() && config_->limiter.shared),
      admission_(config_->admission, config_->gateway.tiers),
      cache_(config_->cache, clock_, &purges_),
      flights_(&cache_, config_->cache.entry_bytes_max),
      semantic_(config_->cache.semantic, clock_, metrics_.registry()),
      backends_(metrics_.registry(),
                [this](std::string_view name) {
                  return std::make_unique<gateway::UpstreamMetrics>(metrics_.registry(), name);
                }),
      proxy_hooks_(metrics_.registry(), "proxy"),
      admin_hooks_(metrics_.registry(), "admin"),
      redis_hooks_(metrics_.registry()),
      signals_(control_, SIGTERM, SIGINT, SIGHUP),
      drain_timer_(control_),
      settle_timer_(control_),
      upgrade_timer_(control_) {
  signals_.add(SIGUSR2);
}

Application::~Application() {
  scrape_token_ = {};
  if (upgrade_) upgrade_->stop();  // first: a worker may wait for its answer
  for (auto& worker : workers_) worker->stop();
  if (successor_) successor_->stop();
  proxy_.reset();
  admin_.reset();
  // Before the workers' contexts: the commit thread answers waiters by posting to them. A request that is destroyed
  // after this stays open in the ledger and is closed as aborted by the next start.
  if (sinks_) sinks_->stop();
  if (keeper_ && ledger_->flush()) {
    [[maybe_unused]] const auto summed = keeper_->run_once();  // else the next start does it
  }
  keeper_.reset();
  if (ledger_) ledger_->close();
  if (idempotency_) idempotency_->stop();
  if (cache_tiers_) {
    cache_tiers_->flush(kCacheFlush);  // what is late then is fetched again some day
    cache_tiers_->stop();
  }
  limiter_.drop_waiters();
  workers_.clear();
  if (access_fd_ > 2) ::close(access_fd_);
}

void Application::committed(const metering::CommitFacts& facts) {
  commit_seconds_.observe(facts.sync);
  batch_records_.observe_count(facts.records);
  ledger_bytes_.add(facts.bytes);
  if (facts.commit == metering::Commit::in_place) commits_in_place_.add();
  committed_at_.store(clock_.steady(), std::memory_order_relaxed);
}

void Application::state_changed(metering::LedgerState state, std::string_view why) {
  if (state == metering::LedgerState::ok) {
    core::log(LogLevel::info, "ledger_ok", {{"why", why}});
    return;
  }
  ledger_errors_.add();
  core::log(LogLevel::error, state == metering::LedgerState::full ? "ledger_full" : "ledger_broken", {{"why", why}});
}

core::Result<void> Application::open_ledger(metering::OpenIntents open) {
  auto ledger = metering::Ledger::open(config_->ledger, clock_, *this, nullptr, open);
  // A process that was killed while it handed over may not be quite gone.
  for (int left = kLockTries; !ledger && successor_ && left > 0; --left) {
    std::this_thread::sleep_for(kLockAgain);
    ledger = metering::Ledger::open(config_->ledger, clock_, *this, nullptr, open);
  }
  if (!ledger) return std::unexpected(std::move(ledger.error()));
  ledger_ = std::move(*ledger);
  const metering::RecoveryReport& recovery = ledger_->recovery();
  core::log(LogLevel::info, "ledger_open",
            {{"directory", config_->ledger.directory},
             {"segments", recovery.segments},
             {"torn_bytes", recovery.torn_bytes},
             {"aborted", recovery.intents_aborted},
             {"ms", recovery.took.count() / 1000}});
  return follow_ledger();
}

core::Result<void> Application::follow_ledger() {
  if (auto done = make_sinks(); !done) return done;
  metering::LedgerKeeper::Holds holds;  // what a sink has not taken, retention keeps
  if (!sinks_->empty()) holds.emplace_back("sinks", [this] { return sinks_->min_position(); });
  auto keeper = metering::LedgerKeeper::open(config_->ledger, *ledger_, clock_, {}, std::move(holds));
  if (!keeper) return std::unexpected(std::move(keeper.error()));
  keeper_ = std::move(*keeper);
  sinks_->start();
  return {};
}

core::Result<void> Application::start() {
  auto done = start_all();
  if (!done && successor_) successor_->failed(done.error().message);
  return done;
}

core::Result<void> Application::start_all() {
  core::set_log_level(parse_level(config_->log.level));
  log_diagnostics(LogLevel::warn, "config_warning", config_->warnings);
  successor_ = Successor::from_environment();
  sockets_ = successor_ ? successor_->take_sockets() : sockets_of_service_manager();
  // What takes long or may fail comes before this process takes another's place.
  if (auto done = preflight(*config_); successor_ && !done) return done;
  if (auto done = load_models(); !done) return done;
  const bool took_over = successor_ && successor_->take_over();
  const auto open = took_over ? metering::OpenIntents::keep : metering::OpenIntents::abort;
  if (auto done = open_ledger(open); !done) return done;
  idempotency::IdempotencyOptions keys = config_->idempotency;
  keys.shared = keys.shared && config_->redis.enabled();
  idempotency_ = std::make_unique<gateway::Idempotency>(keys, config_->ledger.directory, *ledger_, clock_,
                                                        metrics_.registry(), open);
  if (auto done = open_alerts(); !done) return done;
  if (auto done = apply_budgets(*config_); !done) return done;
  if (took_over) {
    budgets_.adopt(successor_->holds());
    limiter_.restore(std::move(successor_->taken()));
    const HandedNumbers& before = successor_->numbers();
    generation_ = before.generation + 1;
    snapshot_version_ = before.config_version;
    // Until Redis says how many there are now: it may not answer.
    if (config_->limiter.gateways == 0) limiter_.set_gateways(static_cast<std::uint32_t>(before.gateways));
  }
  cache_tiers_ =
      make_cache_tiers(*config_, clock_, cache_, purges_, metrics_.registry(), redis_hooks_, successor_ != nullptr);
  const bool disk = cache_tiers_->disk_on();
  // What lies on the disk is found again by keys that outlive the process.
  const auto seed = disk ? cache::KeySeed::of(cache_tiers_->secret()) : cache::KeySeed::random();
  if (disk) semantic_.persist(config_->cache.disk.directory + "/semantic", cache_tiers_->secret(), seed);
  services_.emplace(gateway::Services{
      .clock = clock_,
      .metrics = metrics_,
      .ledger = *ledger_,
      .limiter = limiter_,
      .budgets = budgets_,
      .lease_metrics = gateway::lease_metrics(metrics_.registry()),
      .admission = admission_,
      .cache_options = config_->cache,
      .cache = cache_,
      .flights = flights_,
      .semantic = semantic_,
      .tiers = *cache_tiers_,
      .cache_seed = seed,
      .backends = backends_,
      .intents_written = metrics_.registry().shared().counter(metrics::Family::ledger_records_total, {"intent"}),
      .terminals_written = metrics_.registry().shared().counter(metrics::Family::ledger_records_total, {"terminal"}),
      .tier_wait = {metrics_.registry().shared().histogram(metrics::Family::tier_wait_seconds, {"regular"}),
                    metrics_.registry().shared().histogram(metrics::Family::tier_wait_seconds, {"fast"})},
      .local_models = std::move(models_),
      .idempotency = idempotency_.get(),
      .token_counter = token_counter_});
  if (auto done = share_budgets(); !done) return done;
  if (auto done = share_keys(); !done) return done;
  if (auto done = keep_leases(); !done) return done;
  if (auto done = open_access_log(); !done) return done;
  if (auto done = listen(); !done) return done;
  scrape_token_ = metrics_.registry().add_source([this](metrics::Scrape& out) { scrape(out); });
  metrics_.config_loaded(config_->hash, snapshot_version_);
  metrics_.process_serves(generation_);
  return {};
}

core::Result<void> Application::make_sinks() {
  try {
    sinks_ = std::make_unique<sinks::SinkSet>(
        config_->sinks, config_->ledger.directory, ledger_->id(), [this] { return ledger_->stats().durable_sequence; },
        clock_);
  } catch (const std::invalid_argument& error) {
    return core::fail(core::ErrorKind::internal, std::string{"sinks: "} + error.what());
  }
  return {};
}

core::Result<void> Application::open_alerts() {
  auto journal = gateway::AlertJournal::open(config_->ledger.directory + "/budget-alerts.jsonl", clock_.wall());
  if (!journal) return std::unexpected(std::move(journal.error()));
  alerts_ = std::make_unique<gateway::AlertSender>(control_, config_->budget_alerts, std::move(*journal), clock_,
                                                   metrics_.registry());
  budget_watch_.send_to([this](const metering::BudgetAlert& alert) { alerts_->push(alert); });
  return {};
}

// One client for what the control thread asks: budgets and limits.
core::Result<void> Application::connect_redis() {
  if (control_redis_) return {};
  try {
    control_redis_ = std::make_unique<net::RedisClient>(control_.get_executor(), config_->redis, redis_hooks_);
  } catch (const std::exception& error) {
    return core::fail(core::ErrorKind::internal, std::string{"redis: "} + error.what());
  }
  control_redis_->start();
  return {};
}

// Counts the gateways that share the limits, fetches slices ahead of need, gives idle ones back.
core::Result<void> Application::keep_leases() {
  if (!limiter_.shared()) return {};
  if (auto done = connect_redis(); !done) return done;
  lease_store_ = std::make_unique<ratelimit::RedisLeases>(*control_redis_);
  lease_keeper_ = std::make_unique<ratelimit::LeaseKeeper>(control_.get_executor(), limiter_, *lease_store_,
                                                           services_->lease_metrics);
  lease_keeper_->start();
  return {};
}

core::Result<void> Application::share_budgets() {
  if (!config_->redis.enabled() || !config_->budget_sharing.enabled) return {};
  if (auto done = connect_redis(); !done) return done;
  budget_share_ = std::make_unique<gateway::BudgetShare>(control_, *control_redis_, budgets_, config_->budget_sharing,
                                                         ledger_->id(), metrics_.registry());
  services_->budget_share = budget_share_.get();
  return {};
}

core::Result<void> Application::share_keys() {
  if (!idempotency_->options().shared) return {};
  constexpr std::chrono::milliseconds kWithAnswer{2'000};  // the most that a command with an answer in it may take
  net::RedisOptions redis = config_->redis;  // connections of its own: a large answer must not hold up the limits
  redis.command_timeout = std::max(redis.command_timeout, kWithAnswer);
  try {
    key_redis_ = std::make_unique<net::RedisClient>(control_.get_executor(), redis, redis_hooks_);
  } catch (const std::exception& error) {
    return core::fail(core::ErrorKind::internal, std::string{"redis: "} + error.what());
  }
  key_share_ = std::make_unique<gateway::KeyShare>(control_, *key_redis_,
                                                   gateway::KeyShareOptions{.ttl = config_->idempotency.ttl},
                                                   ledger_->id(), metrics_.registry());
  services_->key_share = key_share_.get();
  idempotency_->share(*key_share_);
  return {};
}

core::Result<void> Application::apply_budgets(const config::Config& config) {
  std::vector<std::string> free_only;
  for (const gateway::TenantOptions& tenant : config.gateway.tenants) {
    if (tenant.free_only) free_only.push_back(tenant.name);
  }
  auto rules =
      metering::BudgetRules::make(config.gateway.budgets, free_only, metering::free_allocation(config.pricing));
  if (!rules) return std::unexpected(std::move(rules.error()));
  return metering::apply_rules(budgets_, std::move(*rules), clock_, config_->ledger.directory);
}

core::Result<void> Application::load_models() {
  for (backends::LocalModelOptions options : config_->local_models) {
    options.fast_reserved_percent = config_->gateway.tiers.fast_reserved_percent;
    const auto began = clock_.steady();
    auto model = load_model_ ? load_model_(options) : backends::load_local_model(options);
    if (!model) {
      model.error().message = "local model '" + options.name + "': " + model.error().message;
      return std::unexpected(std::move(model.error()));
    }
    if (!token_counter_.exact()) token_counter_ = backends::LocalModel::counter(*model);
    const std::string device = (*model)->device();
    models_.emplace(options.name, std::move(*model));
    core::log(LogLevel::info, "model_loaded",
              {{"model", options.name},
               {"device", device},
               {"ms", std::chrono::duration_cast<std::chrono::milliseconds>(clock_.steady() - began).count()}});
  }
  return {};
}

core::Result<void> Application::open_access_log() {
  if (!config_->log.access_log) return {};
  if (config_->log.access_log_file.empty()) {
    access_fd_ = STDOUT_FILENO;
    return {};
  }
  access_fd_ = ::open(config_->log.access_log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
  if (access_fd_ < 0) {
    return core::fail(core::ErrorKind::internal, "cannot open the access log " + config_->log.access_log_file);
  }
  return {};
}

// The workers' descriptor stays; what it leads to is another file from one line to the next.
void Application::reopen_access_log() {
  if (access_fd_ <= 2) return;
  const std::string& path = config_->log.access_log_file;
  const int fresh = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
  if (fresh < 0 || ::dup3(fresh, access_fd_, O_CLOEXEC) < 0) {
    core::log(core::LogLevel::error, "access_log_not_reopened",
              {{"file", path}, {"why", std::generic_category().message(errno)}});
  }
  if (fresh >= 0) ::close(fresh);
}

core::Result<void> Application::listen() {
  auto snapshot = gateway::Snapshot::make(snapshot_input(*config_), ++snapshot_version_);
  if (!snapshot) return std::unexpected(std::move(snapshot.error()));
  const unsigned count =
      config_->server.workers != 0 ? config_->server.workers : std::max(1U, std::thread::hardware_concurrency());
  std::vector<net::ServerWorker> server_workers;
  for (unsigned i = 0; i < count; ++i) {
    workers_.push_back(std::make_unique<WorkerThread>(*services_, access_fd_, config_->redis, redis_hooks_));
    gateway::Worker& worker = workers_.back()->worker();
    worker.use(*snapshot);
    server_workers.push_back({.io = &workers_.back()->io(),
                              .handler = [&worker](net::Exchange& exchange) { return worker.handle(exchange); }});
  }
  publish_prices((*snapshot)->prices());
  admin_sources_ = {.metrics = [this] { return metrics_.expose(); },
                    .not_ready = [this] { return not_ready(); },
                    .config_json = [this] { return config::describe_redacted(*config_); },
                    .semantic_json = [this] { return semantic_.json(); },
                    .sinks_json = [this] { return sinks_->json(); }};
  usage_endpoint_.emplace(config_->ledger.directory, [this] { return metering::free_allocation(config_->pricing); });
  admin_sources_.routes["/admin/usage"] = usage_endpoint_->handler();
  admin_sources_.routes["/admin/budgets"] = gateway::budgets_page(budgets_);
  admin_sources_.routes["/admin/cache/purge"] = [this](net::Exchange& exchange) {
    return gateway::serve_purge(exchange, *cache_tiers_);
  };
  admin_gate_.emplace(config_->admin.host, config_->admin_access);
  net::ServerWorker admin_worker{.io = &control_,
                                 .handler = gateway::admin_handler(admin_sources_, *admin_gate_, admin_hooks_)};
  admin_ = std::make_unique<net::Server>(config_->admin, std::vector<net::ServerWorker>{std::move(admin_worker)},
                                         admin_hooks_);
  proxy_ = std::make_unique<net::Server>(config_->server, std::move(server_workers), proxy_hooks_);
  proxy_->limit_addresses(config_->address_connections_max, [refused = metrics_.registry().shared().counter(
                                                                 metrics::Family::connections_refused_total,
                                                                 {"proxy", "address"})]() mutable { refused.add(); });
  const auto admin_port = admin_->listen(std::exchange(sockets_.admin, {}));
  if (!admin_port) return std::unexpected(admin_port.error());
  const auto proxy_port = proxy_->listen(std::exchange(sockets_.proxy, {}));
  if (!proxy_port) return std::unexpected(proxy_port.error());
  bound_to_loopback_ = config_->server.host.starts_with("127.") || config_->server.host == "::1";
  admin_port_ = *admin_port;
  proxy_port_ = *proxy_port;
  core::log(LogLevel::info, "listening", {{"listener", "admin"}, {"url", url(config_->admin, *admin_port)}});
  core::log(LogLevel::info, "listening",
            {{"listener", "proxy"}, {"url", url(config_->server, *proxy_port)}, {"workers", count}});
  if ((*snapshot)->keys()->open()) {
    core::log(LogLevel::info, "open_access",
              {{"why",
                "no API key is configured, so anyone on this machine may use the gateway; it listens on loopback "
                "only. `ganglion keys create` makes a key."}});
  }
  return {};
}

void Application::publish_prices(const metering::PriceBook& prices) {
  for (const auto tier : {api::Tier::regular, api::Tier::fast}) {
    metrics_.set_neuron_price(api::name(tier), static_cast<double>(prices.usd_pico_per_neuron(tier)) * 1e-12);
  }
}

int Application::run() {
  wait_for_signal();
  if (!config_->source.empty()) {
    reloader_ = std::make_unique<config::Reloader>(config_->source, config_, clock_);
    if (reloader_->fd() >= 0) {
      reload_fd_.emplace(control_, ::dup(reloader_->fd()));
      watch_config();
    }
  }
  for (std::size_t i = 0; i < workers_.size(); ++i) workers_[i]->start(i);
  if (successor_) {
    successor_->commit({.io = control_,
                        .ledger = *ledger_,
                        .budgets = budgets_,
                        .budget_share = budget_share_.get(),
                        .idempotency = *idempotency_,
                        .proxy = *proxy_});
  }
  notify_service_manager("READY=1\nMAINPID=" + std::to_string(::getpid()));
  memory_watch_.emplace(control_, admission_, [this] {
    for (auto& worker : workers_) boost::asio::post(worker->io(), release_free_memory);
  });
  memory_watch_->start();
  core::run_loop(control_);
  return 0;
}

void Application::apply(const config::Reload& reload) {
  if (reload.kind == config::Reload::Kind::unchanged) return;
  if (reload.kind == config::Reload::Kind::rejected) {
    metrics_.config_reload_failed();
    log_diagnostics(LogLevel::error, "config_rejected", reload.errors);
    return;
  }
  const auto refuse = [this](std::string_view problem) {
    metrics_.config_reload_failed();
    core::log(LogLevel::error, "config_rejected", {{"problem", problem}});
    reloader_->put_back(config_);
  };
  // Of the file itself: files that it names for the next start must work too, and those of this start may be gone.
  if (auto usable = preflight(*reload.file); !usable) return refuse(usable.error().message);
  const auto snapshot = gateway::Snapshot::make(snapshot_input(*reload.snapshot), ++snapshot_version_);
  if (!snapshot) return refuse(snapshot.error().message);
  if ((*snapshot)->keys()->open() && !bound_to_loopback_) {
    // The file may say loopback, but the listener was bound when the process started.
    return refuse("it has no keys, and the gateway listens beyond loopback until it is restarted");
  }
  if (!admin_gate_->on_loopback() && reload.snapshot->admin_access.token.empty() &&
      reload.snapshot->admin.tls.client_ca_file.empty()) {
    return refuse(
        "it asks for no admin token and no client certificate, and the admin listener is bound beyond loopback until "
        "the gateway is restarted");
  }
  if (auto done = apply_budgets(*reload.snapshot); !done) return refuse(done.error().message);
  config_ = reload.snapshot;
  admin_gate_->use(config_->admin_access);
  admission_.configure(config_->admission, config_->gateway.tiers);
  core::set_log_level(parse_level(config_->log.level));
  log_diagnostics(LogLevel::warn, "config_warning", config_->warnings);
  for (const std::string& key : reload.needs_restart) {
    core::log(LogLevel::warn, "config_needs_restart", {{"key", key}});
  }
  for (const std::string& what : reload.until_restart) {
    core::log(LogLevel::warn, "config_until_restart", {{"what", what}});
  }
  for (auto& worker : workers_) {
    boost::asio::post(worker->io(), [&worker = worker->worker(), snapshot = *snapshot] {
      try {
        worker.use(snapshot);
      } catch (const std::exception& error) {  // a CA file that vanished after the check
        core::log(LogLevel::error, "config_not_applied", {{"problem", error.what()}});
      }
    });
  }
  // A failure is logged there; the old certificate stays.
  [[maybe_unused]] const auto proxy_tls = proxy_->reload_tls(config_->server.tls);
  [[maybe_unused]] const auto admin_tls = admin_->reload_tls(config_->admin.tls);
  publish_prices((*snapshot)->prices());
  metrics_.config_loaded(config_->hash, snapshot_version_);
  core::log(LogLevel::info, "config_applied", {{"hash", config_->hash}, {"version", snapshot_version_}});
}

// Looks at the file; while a change has not settled, again after the hint.
void Application::settle_config() {
  if (upgrade_) return;  // the new process reads it
  apply(reloader_->check());
  const auto hint = reloader_->wait_hint();
  if (!hint) return;
  settle_timer_.expires_after(*hint);
  settle_timer_.async_wait([this](boost::system::error_code error) {
    if (!error && !draining_) settle_config();
  });
}

void Application::watch_config() {
  reload_fd_->async_wait(boost::asio::posix::descriptor_base::wait_read, [this](boost::system::error_code error) {
    if (error || draining_) return;
    settle_config();
    watch_config();
  });
}

}  // namespace ganglion::app
