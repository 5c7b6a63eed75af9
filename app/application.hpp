#pragma once
// The running gateway: everything wired as members, destroyed in reverse order. One thread per worker; the caller's
// thread runs signals, reloads and the admin listener.

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "app/memory_watch.hpp"
#include "app/predecessor.hpp"
#include "app/successor.hpp"
#include "app/worker_thread.hpp"
#include "config/config.hpp"
#include "config/watcher.hpp"
#include "core/clock.hpp"
#include "core/error.hpp"
#include "gateway/admin.hpp"
#include "gateway/admin_usage.hpp"
#include "gateway/alert_sender.hpp"
#include "gateway/budget_share.hpp"
#include "gateway/budget_watch.hpp"
#include "gateway/idempotency.hpp"
#include "gateway/key_share.hpp"
#include "gateway/net_hooks.hpp"
#include "gateway/pipeline.hpp"
#include "gateway/redis_metrics.hpp"
#include "gateway/services.hpp"
#include "metering/ledger_keeper.hpp"
#include "net/server.hpp"
#include "sinks/sink_set.hpp"

namespace ganglion::app {

using ModelLoader =
    std::function<core::Result<std::shared_ptr<backends::LocalModel>>(const backends::LocalModelOptions&)>;

// Where a running gateway says how an upgrade went.
std::string upgrade_status_path(const std::string& ledger_directory);

class Application final : private metering::LedgerHooks {
 public:
  // `load_model`: where local models come from, in tests; empty: from their folders.
  explicit Application(std::shared_ptr<const config::Config> config, ModelLoader load_model = {});
  ~Application();
  Application(const Application&) = delete;
  Application& operator=(const Application&) = delete;

  // Opens the ledger, loads models, listens. The error's message is for the operator.
  core::Result<void> start();
  // Serves until a signal has been answered by a drain. Returns the exit code.
  int run();
  // As the first SIGTERM does; any thread.
  void request_stop();
  std::uint16_t proxy_port() const { return proxy_port_; }  // after start()
  std::uint16_t admin_port() const { return admin_port_; }

 private:
  void committed(const metering::CommitFacts& facts) override;
  void state_changed(metering::LedgerState state, std::string_view why) override;

  core::Result<void> start_all();
  core::Result<void> open_ledger(metering::OpenIntents open);
  core::Result<void> follow_ledger();  // sinks and the keeper
  core::Result<void> make_sinks();
  core::Result<void> load_models();
  core::Result<void> open_access_log();
  void reopen_access_log();  // its file may have been moved away
  core::Result<void> listen();
  core::Result<void> open_alerts();
  core::Result<void> connect_redis();
  core::Result<void> keep_leases();
  core::Result<void> share_budgets();
  core::Result<void> share_keys();
  core::Result<void> apply_budgets(const config::Config& config);
  void publish_prices(const metering::PriceBook& prices);
  void apply(const config::Reload& reload);
  void settle_config();
  void watch_config();
  void wait_for_signal();
  void begin_shutdown();
  void begin_upgrade();
  void await_upgrade();
  void give_up_upgrade_after(std::chrono::milliseconds limit, const char* why);
  void quiet_upgrade(core::SteadyTime limit);
  void hand_over();
  void handed_over();
  void upgrade_failed(const std::string& why);
  void tell_upgrade(const std::string& status);
  void poll_drain(core::SteadyTime give_up, bool cancelled);
  bool said_farewell();
  void scrape(metrics::Scrape& out) const;
  std::string not_ready() const;

  std::shared_ptr<const config::Config> config_;  // in force: what is restart-only in it is the start's
  ModelLoader load_model_;
  std::unique_ptr<Predecessor> upgrade_;  // this process is being replaced; outlives what follows it
  core::SystemClock clock_;
  metrics::Metrics metrics_;
  metrics::Histogram commit_seconds_, batch_records_;
  metrics::Counter ledger_bytes_, ledger_errors_, commits_in_place_;
  std::atomic<core::SteadyTime> committed_at_{};  // the last commit
  std::unique_ptr<metering::Ledger> ledger_;
  std::unique_ptr<metering::LedgerKeeper> keeper_;
  gateway::BudgetWatch budget_watch_;
  metering::Budgets budgets_;
  ratelimit::Limiter limiter_;
  ratelimit::Admission admission_;
  cache::PurgeLog purges_;
  cache::MemoryCache cache_;
  cache::SingleFlight flights_;
  gateway::SemanticCache semantic_;
  gateway::BackendRegistry backends_;
  gateway::ServerMetrics proxy_hooks_, admin_hooks_;
  std::unique_ptr<gateway::Idempotency> idempotency_;
  gateway::RedisMetrics redis_hooks_;
  std::unique_ptr<sinks::SinkSet> sinks_;
  std::unique_ptr<cache::Tiers> cache_tiers_;
  std::optional<gateway::Services> services_;
  std::uint64_t snapshot_version_ = 0;  // both count on over upgrades
  std::uint64_t generation_ = 1;
  int access_fd_ = -1;

  boost::asio::io_context control_{1};  // signals, reloads, admin listener
  boost::asio::signal_set signals_;
  boost::asio::steady_timer drain_timer_, settle_timer_, upgrade_timer_;
  std::optional<boost::asio::posix::stream_descriptor> upgrade_fd_;
  bool paused_ = false;                   // the listeners wait for that
  bool frozen_ = false;                   // whether this process keeps the ledger is not settled
  std::unique_ptr<Successor> successor_;  // this process replaces another
  InheritedSockets sockets_;
  std::map<std::string, std::shared_ptr<const backends::LocalModel>, std::less<>> models_;
  backends::TokenCounter token_counter_;
  std::unique_ptr<gateway::AlertSender> alerts_;
  std::unique_ptr<net::RedisClient>
      control_redis_;  // the control thread's; null: neither budgets nor limits are shared
  std::unique_ptr<gateway::BudgetShare> budget_share_;
  std::unique_ptr<net::RedisClient> key_redis_;  // null: idempotency keys are not shared
  std::unique_ptr<gateway::KeyShare> key_share_;
  std::unique_ptr<config::Reloader> reloader_;
  std::optional<boost::asio::posix::stream_descriptor> reload_fd_;
  bool draining_ = false;
  std::size_t cut_ = 0;                // requests that a drain did not let end
  core::SteadyTime farewell_until_{};  // once nothing runs any more
  std::uint16_t proxy_port_ = 0, admin_port_ = 0;
  bool bound_to_loopback_ = true;
  gateway::AdminSources admin_sources_;
  std::optional<gateway::AdminGate> admin_gate_;  // used by the control thread
  std::optional<gateway::UsageEndpoint> usage_endpoint_;
  std::vector<std::unique_ptr<WorkerThread>> workers_;
  std::optional<MemoryWatch> memory_watch_;
  // Limits shared through Redis; null: none are.
  std::unique_ptr<ratelimit::RedisLeases> lease_store_;
  std::unique_ptr<ratelimit::LeaseKeeper> lease_keeper_;
  std::unique_ptr<net::Server> admin_;
  std::unique_ptr<net::Server> proxy_;
  metrics::Registry::Token scrape_token_;
};

}  // namespace ganglion::app
