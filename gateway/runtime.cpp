// See gateway/runtime.hpp and gateway/services.hpp.

#include "gateway/runtime.hpp"

#include "backends/remote/remote_backend.hpp"

namespace ganglion::gateway {

UpstreamAttempts::UpstreamAttempts(metrics::Registry& registry, std::string_view backend)
    : shard_(registry.shared()),
      backend_(backend),
      ok_(shard_.counter(metrics::Family::upstream_attempts_total, {backend, "200"})),
      retries_(shard_.counter(metrics::Family::upstream_retries_total, {backend})),
      first_byte_(shard_.histogram(metrics::Family::upstream_first_byte_seconds, {backend})) {}

void UpstreamAttempts::attempted(const backends::Attempt& attempt, std::chrono::nanoseconds time, bool retry) {
  if (retry) retries_.add();
  if (attempt.status == 200) {
    ok_.add();
  } else {
    shard_.counter(metrics::Family::upstream_attempts_total, {backend_, std::to_string(attempt.status)}).add();
  }
  if (attempt.outcome == core::ErrorKind::kCount) {
    first_byte_.observe(time);
  } else {
    shard_.counter(metrics::Family::upstream_errors_total, {backend_, core::face(attempt.outcome).name}).add();
  }
}

BackendRegistry::Backend& BackendRegistry::get(std::string_view name) {
  const std::lock_guard lock(mutex_);
  auto it = backends_.find(name);
  if (it == backends_.end()) {
    it = backends_.try_emplace(std::string{name}).first;
    it->second.hooks = make_hooks_(name);
    it->second.attempts = std::make_unique<UpstreamAttempts>(registry_, name);
  }
  return it->second;
}

BackendRegistry::Backend::Model BackendRegistry::model(std::string_view backend, std::string_view upstream_model) {
  Backend& of = get(backend);
  const std::lock_guard lock(mutex_);
  return of.models[std::string{upstream_model}];
}

void BackendRegistry::each(const std::function<void(std::string_view name, const Backend&)>& visit) const {
  const std::lock_guard lock(mutex_);
  for (const auto& [name, backend] : backends_) visit(name, backend);
}

namespace {

std::uint64_t context_max(const Services& services, const Destination& to, std::string_view name) {
  const auto local = services.local_models.find(name);
  if (!to.local || local == services.local_models.end()) return 0;
  return static_cast<std::uint64_t>(std::max(local->second->context_max(), 0));
}

std::uint64_t output_max(const Services& services, const Destination& to, std::string_view name) {
  if (!to.local) return to.output_tokens_max;
  return std::min<std::uint64_t>(context_max(services, to, name), backends::kDefaultCompletionTokensMax);
}

}  // namespace

Runtime::Runtime(const boost::asio::any_io_executor& executor, Services& services,
                 std::shared_ptr<const Snapshot> snapshot)
    : services_(services), snapshot_(std::move(snapshot)), auth_(snapshot_->keys()) {
  const ratelimit::TierOptions& tiers = snapshot_->input().gateway.tiers;
  for (backends::RemoteOptions remote : snapshot_->input().remotes) {
    const std::size_t connections = remote.upstream.connections_max;
    remote.upstream.connections_urgent = connections - tiers.regular_share(connections);
    remotes_.push_back(
        std::make_unique<backends::RemoteBackend>(executor, remote, *services.backends.get(remote.name).hooks));
  }
  for (const backends::LocalModelOptions& local : snapshot_->input().local_models) {
    const auto loaded = services.local_models.find(local.name);
    // A local model added by a reload is served after a restart; until then its requests find no backend.
    locals_.push_back(loaded == services.local_models.end()
                          ? nullptr
                          : std::make_unique<backends::LocalBackend>(loaded->second, executor));
  }
  for (const ModelEntry& model : snapshot_->models()) {
    std::vector<backends::Target> targets;
    for (const Destination& to : model.destinations) {
      backends::Backend* backend = (to.local ? locals_ : remotes_)[to.index].get();
      if (backend == nullptr) continue;
      const BackendRegistry::Backend& shared = services.backends.get(backend->name());
      const BackendRegistry::Backend::Model of_model = services.backends.model(backend->name(), to.upstream_model);
      targets.push_back({.backend = backend,
                         .health = shared.health,
                         .latency = of_model.latency,
                         .rest = of_model.rest,
                         .upstream_model = to.upstream_model,
                         .weight = to.weight,
                         .hooks = shared.attempts.get(),
                         .output_tokens_max = output_max(services, to, backend->name()),
                         .context_tokens_max = context_max(services, to, backend->name())});
    }
    sets_.push_back(std::make_unique<backends::BackendSet>(model.name, std::move(targets)));
  }
}

backends::BackendSet& Runtime::backends_of(const ModelEntry& model) {
  return *sets_[static_cast<std::size_t>(&model - snapshot_->models().data())];
}

core::Result<ratelimit::LimiterHandle> Runtime::limits(const Principal& who, const ModelEntry& model) {
  const std::pair<const void*, const void*> key{&who, &model};
  if (const auto it = handles_.find(key); it != handles_.end()) return it->second;
  std::vector<ratelimit::ScopedLimits> limits{{ratelimit::Scope::key, who.key_id, who.limits}};
  if (const auto* of_tenant = snapshot_->tenant_limits(who.tenant)) {
    limits.push_back({ratelimit::Scope::tenant, who.tenant, *of_tenant});
  }
  limits.push_back({ratelimit::Scope::gateway, who.gateway, snapshot_->policy(who.gateway).limits});
  if (const auto* of_model = snapshot_->model_limits(model.name)) {
    limits.push_back({ratelimit::Scope::model, model.name, *of_model});
  }
  auto handle = services_.limiter.resolve(limits, snapshot_->version());
  if (handle) handles_.emplace(key, *handle);
  return handle;
}

core::Result<metering::BudgetHandle> Runtime::budgets(const Principal& who, const ModelEntry& model,
                                                      const api::Tags& tags) {
  const metering::BudgetSubject subject{
      .key = who.key_id, .tenant = who.tenant, .gateway = who.gateway, .model = model.name, .tags = tags};
  const std::pair<const void*, const void*> key{&who, &model};
  const auto it = budgets_.find(key);
  if (it != budgets_.end() && it->second.generation() == services_.budgets.generation() && !it->second.by_tag())
    return it->second;
  auto handle = services_.budgets.resolve(subject);
  if (handle && !handle->by_tag()) budgets_.insert_or_assign(key, *handle);
  return handle;
}

}  // namespace ganglion::gateway
