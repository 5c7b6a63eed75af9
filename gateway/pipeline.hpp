#pragma once
// One request, forward only: the stages in the order of docs/life_of_a_request.md. A Worker is one thread's pipeline:
// it owns what that thread needs and handles every exchange of its connections.

#include <boost/asio/io_context.hpp>
#include <memory>
#include <optional>
#include <string>

#include "api/openai_request.hpp"
#include "api/tags.hpp"
#include "cache/key.hpp"
#include "cache/policy.hpp"
#include "cache/semantic_index.hpp"
#include "core/ids.hpp"
#include "gateway/access_log.hpp"
#include "gateway/answer_headers.hpp"
#include "gateway/billed_call.hpp"
#include "gateway/flight_pump.hpp"
#include "gateway/idempotency.hpp"
#include "gateway/router.hpp"
#include "gateway/runtime.hpp"
#include "gateway/worker_load.hpp"
#include "metrics/worker_metrics.hpp"
#include "net/exchange.hpp"
#include "net/redis_client.hpp"
#include "ratelimit/lease_broker.hpp"
#include "ratelimit/redis_leases.hpp"

namespace ganglion::gateway {

// Everything known of one request, filled stage by stage; dies with it.
struct Request {
  explicit Request(net::Exchange& e) : exchange(e) {}

  net::Exchange& exchange;
  std::shared_ptr<Runtime> runtime;
  core::RequestId id;
  Route route;  // of what is not served the endpoint alone
  const Principal* who = nullptr;
  metrics::GaugeGuard counted;
  ratelimit::Ticket ticket;
  std::string_view body;
  api::ParserScratch scratch;
  api::RequestView view;
  const ModelEntry* model = nullptr;
  api::Tier tier = api::Tier::regular;
  api::Tags tags;  // of cf-aig-metadata
  core::Deadline deadline;
  ratelimit::LimiterHandle limits;
  ratelimit::Estimate estimate;
  ratelimit::Permit permit;
  CallBudget budget;
  metering::BudgetHandle budgets;  // that bind it; known once an upstream call is due
  std::string budget_header;
  int turns = 0;  // flights followed whose leader had no budget
  cache::CacheDecision caching;
  std::uint64_t outlined = 0;                    // which of the worker's outlines is the body's; 0: none
  std::optional<core::Error> caching_error;      // of its cache headers
  std::optional<cache::SemanticPoint> semantic;  // of the question, where its answer may be found by similar ones
  std::optional<double> semantic_score;          // answered by a similar question's answer
  std::string_view stale;                        // x-ganglion-cache, where a stale answer is served
  bool replayed = false;                         // the answer of an earlier request with the same Idempotency-Key

  // How it ended.
  metrics::CacheOutcome cache = metrics::CacheOutcome::off;
  Bill bill;
  bool dispatched = false;
  bool streamed = false;
  core::Error error;  // kind kCount: none
  int status = 0;     // as sent
  core::SteadyTime first_text{};
};

// A wait that was called off says who called it off: only a client that is gone is owed no answer.
core::Error name_cancel(core::Error error, core::CancelReason reason);

class Worker {
 public:
  // `access_fd` < 0: no access log. `redis` may be null. Both and `services` outlive the worker, and `load` outlives
  // `io`; everything here runs on `io`'s one thread.
  Worker(boost::asio::io_context& io, WorkerLoad& load, Services& services, int access_fd,
         net::RedisClient* redis = nullptr);

  // The configuration for requests from now on; running ones keep theirs. Throws std::invalid_argument.
  void use(std::shared_ptr<const Snapshot> snapshot);

  boost::asio::awaitable<void> handle(net::Exchange& exchange);

 private:
  using Done = core::Result<void>;
  boost::asio::awaitable<Done> serve(Request& request);
  static Done check_origin(const Request& request);
  static Done label(Request& request);
  boost::asio::awaitable<Done> read(Request& request);
  Done parse(Request& request);
  Done resolve(Request& request);
  Done weigh(Request& request);
  // Nothing: shared limits have to be borrowed from first, so admit() is to be awaited.
  std::optional<Done> try_admit(Request& request);
  boost::asio::awaitable<Done> admit(Request& request);
  Done admitted(Request& request, core::Result<ratelimit::Permit> permit);
  boost::asio::awaitable<Done> reserve(Request& request);
  Done try_reserve(Request& request);
  boost::asio::awaitable<Done> list_models(Request& request);

  bool has_idempotency_key(const Request& request) const;
  boost::asio::awaitable<Done> serve_idempotent(Request& request);
  void start_idempotent(Request& request, Idempotency::Known& known, const std::shared_ptr<Bill>& bill);
  boost::asio::awaitable<core::Result<KeyShare::Claimed>> meet(Request& request, const idempotency::Digest& key,
                                                               const idempotency::Digest& asked,
                                                               Idempotency::Known& known);
  boost::asio::awaitable<Done> serve_replay(Request& request, const idempotency::Digest& key);
  boost::asio::awaitable<Done> replay(Request& request, std::shared_ptr<const idempotency::StoredAnswer> answer);
  void record_replay(const Request& request, const Done& done);

  boost::asio::awaitable<Done> serve_from_cache(Request& request);
  core::Result<cache::CacheKey> cache_key(const Request& request, const cache::KeyScope& scope);
  // A request as the cache knows it.
  struct Asked {
    cache::CacheKey key;
    std::optional<cache::StoreKey> name;        // where there are tiers below memory
    std::shared_ptr<const cache::Entry> stale;  // what memory has, past its ttl
  };
  boost::asio::awaitable<std::shared_ptr<const cache::Entry>> fetch_alike(Request& request,
                                                                          const cache::SemanticMatch& match);
  boost::asio::awaitable<std::shared_ptr<const cache::Entry>> look_alike(Request& request,
                                                                         const cache::KeyScope& scope);
  boost::asio::awaitable<Done> serve_entry(Request& request, const std::shared_ptr<const cache::Entry>& entry);
  boost::asio::awaitable<Done> serve_paced(Request& request, const cache::Entry& entry, const net::ResponseHead& head);
  boost::asio::awaitable<Done> serve_stale(Request& request, const Asked& asked, bool after_error);
  boost::asio::awaitable<Done> serve_flight(Request& request, cache::Join join, Asked asked);
  boost::asio::awaitable<Done> serve_found(Request& request, Asked asked, const cache::RecordedHead& head,
                                           FlightLead* lead);
  std::unique_ptr<Pump> make_pump(Request& request, std::unique_ptr<cache::Recorder> recorder, const Asked& asked);
  void start_refresh(Request& request, const Asked& asked);
  void record_hit(const Request& request, int status);
  boost::asio::awaitable<Done> serve_direct(Request& request);

  boost::asio::awaitable<Done> relay_stream(Request& request, BilledCall& call);
  boost::asio::awaitable<Done> relay_flight(Request& request, cache::Reader& reader, const std::shared_ptr<Bill>& bill);
  void record_follower(const Request& request, const Done& done);
  void fill_head(Request& request, net::ResponseHead& head, AnswerHeaders& headers, const backends::AnswerHead& answer);
  boost::asio::awaitable<void> answer_error(Request& request);
  void finish(Request& request);
  CallSpec call_spec(Request& request);

  Services& services_;
  boost::asio::io_context& io_;
  WorkerLoad& load_;
  // Limits shared with other gateways; null: this process alone.
  struct Leases {
    Leases(boost::asio::io_context& io, Services& services, net::RedisClient& redis)
        : store(redis), broker(io.get_executor(), services.limiter, store, services.lease_metrics) {}
    ratelimit::RedisLeases store;
    ratelimit::LeaseBroker broker;
  };
  std::unique_ptr<Leases> leases_;
  std::shared_ptr<Runtime> runtime_;
  core::RequestIds ids_;
  cache::KeyMaker keys_;
  api::JsonOutline outline_;                  // of the body that was read last for a key
  std::unique_ptr<cache::TierReader> tiers_;  // null: there are none below memory
  metrics::WorkerMetrics metrics_;
  AccessLog access_log_;
};

}  // namespace ganglion::gateway
