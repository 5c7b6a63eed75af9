// See redis_engine.hpp.

#include "net/redis_engine.hpp"

#include <algorithm>
#include <set>
#include <stdexcept>

#include "net/redis_pubsub.hpp"

namespace ganglion::net::redis {

namespace asio = boost::asio;
using core::SteadyTime;
using namespace std::chrono_literals;

namespace {

constexpr unsigned kRedirectsMax = 5;
constexpr auto kTryAgainPause = 5ms;
constexpr auto kRefreshPause = 100ms;     // between two questions for the slots, however many answers say MOVED
constexpr auto kTroubledRefresh = 300ms;  // while a node of the cluster is down or a slot has none
constexpr auto kCalmRefresh = 10s;

SteadyTime steady_now() {
  return std::chrono::steady_clock::now();
}

void ask_first(Command& command) {
  command.wire.insert(0, kAsking);
  command.asking = command.asked = true;
}

// [start, end, [host, port, ...], replicas...]; the host may be missing where it is that of the node asked.
struct Range {
  unsigned from = 0;
  unsigned to = 0;
  Address owner;
};
std::optional<Range> read_range(const RedisReply& item, const Address& asked) {
  if (!item.is_array() || item.items.size() < 3) return std::nullopt;
  const RedisReply& owner = item.items[2];
  if (!owner.is_array() || owner.items.size() < 2) return std::nullopt;
  const std::int64_t from = item.items[0].integer;
  const std::int64_t to = item.items[1].integer;
  const std::int64_t port = owner.items[1].integer;
  if (from < 0 || to < from || to >= kRedisSlots || port < 1 || port > 65535) return std::nullopt;
  const std::string& host = owner.items[0].text;
  return Range{
      .from = static_cast<unsigned>(from),
      .to = static_cast<unsigned>(to),
      .owner = {.host = host.empty() || host == "?" ? asked.host : host, .port = static_cast<std::uint16_t>(port)}};
}

}  // namespace

core::Result<SslContextPtr> make_tls(const RedisOptions& options) {
  auto made = make_client_context(options.tls_client);
  if (!made) return made;
  SSL_CTX_set_alpn_protos(made->get(), nullptr, 0);  // no HTTP here
  if (options.tls_cert_file.empty()) return made;
  if (SSL_CTX_use_certificate_chain_file(made->get(), options.tls_cert_file.c_str()) != 1 ||
      SSL_CTX_use_PrivateKey_file(made->get(), options.tls_key_file.c_str(), SSL_FILETYPE_PEM) != 1) {
    return core::fail(core::ErrorKind::internal,
                      "client certificate " + options.tls_cert_file + ": " + take_ssl_error());
  }
  return made;
}

Engine::Engine(asio::any_io_executor executor, RedisOptions options, RedisHooks& hooks)
    : context_(std::make_shared<Context>(
          Context{.executor = std::move(executor), .options = std::move(options), .hooks = &hooks, .tls = nullptr})),
      slots_(kRedisSlots, nullptr),
      refresh_timer_(context_->executor) {
  if (context_->options.tls) {
    auto tls = make_tls(context_->options);
    if (!tls) throw std::runtime_error("redis: " + tls.error().message);
    context_->tls = std::move(*tls);
  }
  for (const std::string& text : context_->options.addresses) {
    if (auto address = parse_address(text)) configured_.push_back(std::move(*address));
  }
  if (configured_.empty()) throw std::runtime_error("redis: no address of the form host:port");
  if (context_->options.cluster == RedisCluster::off) mode_ = Mode::standalone;
}

Engine::~Engine() = default;

void Engine::start() {
  if (!seed_ && mode_ != Mode::cluster) seed();
}

void Engine::seed() {
  if (stopped_ || seed_) return;
  std::vector<Address> all = addresses();
  for (const Address& address : configured_) {
    if (std::ranges::find(all, address) == all.end()) all.push_back(address);
  }
  seed_ = std::make_shared<Node>(context_, static_cast<NodeOwner&>(*this),
                                 mode_ == Mode::cluster ? std::move(all) : configured_);
  seed_->start();
}

void Engine::stop() {
  if (std::exchange(stopped_, true)) return;
  refresh_timer_.cancel();
  if (pubsub_) pubsub_->stop();
  if (seed_) seed_->stop();
  for (const auto& [address, node] : nodes_) node->stop();
  std::ranges::fill(slots_, nullptr);
  context_->hooks = nullptr;
}

core::SteadyTime Engine::limit(core::Deadline until) const {
  return until.capped(context_->options.command_timeout).at();
}

PubSub& Engine::pubsub() {
  if (!pubsub_) pubsub_ = std::make_unique<PubSub>(context_, [this] { return addresses(); });
  return *pubsub_;
}

std::vector<Address> Engine::addresses() const {
  std::vector<Address> up;
  if (mode_ != Mode::cluster) {
    if (seed_) up.push_back(seed_->address());
  }
  for (const auto& [address, node] : nodes_) {
    if (node->state() == RedisState::up) up.push_back(address);
  }
  return up.empty() ? configured_ : up;
}

// The node for a slot; in a cluster any that is up will do where nothing is known: it says MOVED.
Node* Engine::route(unsigned slot) const {
  if (mode_ != Mode::cluster) return seed_.get();
  if (slot < kRedisSlots && slots_[slot] != nullptr) return slots_[slot];
  for (const auto& [address, node] : nodes_) {
    if (node->state() == RedisState::up) return node.get();
  }
  return nodes_.empty() ? seed_.get() : nodes_.begin()->second.get();
}

void Engine::submit(CommandPtr command) {
  start();
  Node* const node = stopped_ ? nullptr : route(command->slot);
  if (node != nullptr) {
    node->submit(std::move(command));
    return;
  }
  context_->finish(*command,
                   std::unexpected(RedisError{.failure = stopped_ ? RedisFailure::closed : RedisFailure::unavailable,
                                              .message = "no node for this key is known"}));
}

bool Engine::available(unsigned slot) const {
  const Node* const node = stopped_ ? nullptr : route(slot);
  return node == nullptr ? !stopped_ && !seed_ : node->state() != RedisState::down;
}

RedisState Engine::state() const {
  if (mode_ != Mode::cluster || nodes_.empty()) return seed_ ? seed_->state() : RedisState::connecting;
  bool connecting = false;
  for (const auto& [address, node] : nodes_) {
    if (node->state() == RedisState::down) return RedisState::down;
    connecting = connecting || node->state() == RedisState::connecting;
  }
  return connecting ? RedisState::connecting : RedisState::up;
}

RedisDown Engine::why() const {
  if (mode_ != Mode::cluster || nodes_.empty()) return seed_ ? seed_->why() : RedisDown::none;
  for (const auto& [address, node] : nodes_) {
    if (node->state() == RedisState::down) return node->why();
  }
  return RedisDown::none;
}

void Engine::answered(Node& from, CommandPtr command, RedisReply reply) {
  if (reply.type != RedisReply::Type::error) {
    context_->finish(*command, std::move(reply));
    return;
  }
  const ErrorLine line = read_error(reply.text);
  const bool wanted = command->done && command->deadline > steady_now();
  if (wanted && line.ask == ErrorLine::Ask::try_again) return try_again(std::move(command));
  if (line.ask == ErrorLine::Ask::moved || line.ask == ErrorLine::Ask::ask) {
    return redirect(from, std::move(command), line);
  }
  context_->finish(*command, std::unexpected(RedisError{.failure = line.failure, .message = reply.text}));
  if (line.store_is_down) from.lost(fault_of({.failure = line.failure, .message = reply.text}));
}

void Engine::redirect(Node& from, CommandPtr command, const ErrorLine& line) {
  const bool ask = line.ask == ErrorLine::Ask::ask;
  if (context_->hooks != nullptr) context_->hooks->redirected(ask);
  if (mode_ != Mode::cluster || stopped_ || ++command->redirects > kRedirectsMax) {
    context_->finish(
        *command, std::unexpected(RedisError{
                      .failure = RedisFailure::redirected,
                      .message = mode_ == Mode::cluster ? "redirected too often" : "the server is part of a cluster"}));
    return;
  }
  Address to = line.to;
  if (to.host.empty()) to.host = from.address().host;
  const std::shared_ptr<Node> node = node_at(to);
  if (ask) {
    ask_first(*command);
  } else {
    command->asked = false;
    slots_[line.slot] = node.get();
    refresh_soon();
  }
  node->submit(std::move(command));
}

// Some keys of the command are here and some there: the slot is moving.
void Engine::try_again(CommandPtr command) {
  auto timer = std::make_shared<asio::steady_timer>(context_->executor, kTryAgainPause);
  timer->async_wait([self = shared_from_this(), timer, command = std::move(command)](
                        boost::system::error_code) mutable { self->submit(std::move(command)); });
}

const std::shared_ptr<Node>& Engine::node_at(const Address& address) {
  std::shared_ptr<Node>& node = nodes_[address];
  if (!node) {
    node = std::make_shared<Node>(context_, static_cast<NodeOwner&>(*this), std::vector{address});
    node->start();
  }
  return node;
}

// The seed tells first what kind of Redis this is.
asio::awaitable<Opened> Engine::before_up(std::shared_ptr<Node> node) {
  const auto self = shared_from_this();
  if (node != seed_ || mode_ == Mode::standalone) co_return Opened{};
  const RedisResult slots =
      co_await node->connection()->ask(RedisCommand{"CLUSTER", "SLOTS"}, steady_now() + options().connect_timeout);
  if (stopped_ || node->stopped()) co_return std::unexpected(Fault{});
  if (!slots) {
    const RedisFailure failure = slots.error().failure;
    const bool told = failure == RedisFailure::refused || failure == RedisFailure::denied;
    if (told && mode_ == Mode::unknown && options().cluster == RedisCluster::automatic) {
      mode_ = Mode::standalone;
      co_return Opened{};
    }
    refreshed(false);
    co_return std::unexpected(fault_of(slots.error()));
  }
  mode_ = Mode::cluster;
  const bool learnt = learn(*slots, node->address());
  refreshed(learnt);
  if (!learnt) {
    co_return std::unexpected(Fault{.why = RedisDown::loading, .detail = "the cluster has no slots assigned"});
  }
  auto waiting = node->take_waiting();
  seed_.reset();
  node->stop();
  for (CommandPtr& command : waiting) submit(std::move(command));
  co_return std::unexpected(Fault{});  // nobody asks any more
}

bool Engine::learn(const RedisReply& slots, const Address& asked) {
  std::vector<Node*> fresh(kRedisSlots, nullptr);
  bool any = false;
  for (const RedisReply& item : slots.items) {
    const auto range = read_range(item, asked);
    if (!range) continue;
    Node* const node = node_at(range->owner).get();
    std::fill(fresh.begin() + range->from, fresh.begin() + range->to + 1, node);
    any = true;
  }
  if (!any) return false;
  slots_ = std::move(fresh);
  forget_unused();
  return true;
}

void Engine::forget_unused() {
  const std::set<const Node*> used(slots_.begin(), slots_.end());
  std::erase_if(nodes_, [&](const auto& entry) {
    if (used.contains(entry.second.get()) || !entry.second->idle()) return false;
    entry.second->stop();
    return true;
  });
}

bool Engine::troubled() const {
  return std::ranges::any_of(slots_,
                             [](const Node* node) { return node == nullptr || node->state() == RedisState::down; });
}

void Engine::state_changed(Node& node) {
  if (mode_ == Mode::cluster && node.state() == RedisState::down) refresh_soon();
}

void Engine::refresh_soon() {
  if (stopped_ || refreshing_) return;
  const SteadyTime at = std::max(steady_now(), refreshed_ + kRefreshPause);
  if (refresh_timer_.expiry() > steady_now() && refresh_timer_.expiry() <= at) return;  // due even earlier
  refresh_timer_.expires_at(at);
  refresh_timer_.async_wait([weak = weak_from_this()](boost::system::error_code error) {
    const auto self = weak.lock();
    if (!error && self) self->refresh();
  });
}

void Engine::refresh() {
  if (stopped_ || mode_ != Mode::cluster || refreshing_) return;
  std::vector<std::shared_ptr<Node>> up;
  for (const auto& [address, node] : nodes_) {
    if (node->state() == RedisState::up) up.push_back(node);
  }
  if (up.empty()) {
    seed();
    refreshed(false);
    return;
  }
  const auto node = up[static_cast<std::size_t>(steady_now().time_since_epoch().count() / 1000) % up.size()];
  auto command = make_command(RedisCommand{"CLUSTER", "SLOTS"}, steady_now() + options().connect_timeout,
                              [weak = weak_from_this(), node](RedisResult slots) {
                                const auto self = weak.lock();
                                if (!self || self->stopped_) return;
                                self->refreshing_ = false;
                                self->refreshed(slots && self->learn(*slots, node->address()));
                              });
  command->internal = true;
  node->submit(std::move(command));
  refreshing_ = true;
}

void Engine::refreshed(bool ok) {
  refreshed_ = steady_now();
  if (context_->hooks != nullptr) context_->hooks->slots_refreshed(ok);
  refresh_timer_.expires_at(refreshed_ + (ok && !troubled() ? SteadyTime::duration{kCalmRefresh} : kTroubledRefresh));
  refresh_timer_.async_wait([weak = weak_from_this()](boost::system::error_code error) {
    const auto self = weak.lock();
    if (!error && self) self->refresh();
  });
}

}  // namespace ganglion::net::redis
