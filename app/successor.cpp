// See app/successor.hpp.

#include "app/successor.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "app/predecessor.hpp"
#include "core/log.hpp"
#include "core/thread.hpp"
#include "metering/record_codec.hpp"

namespace ganglion::app {
namespace {

constexpr int kFirstInherited = 3;  // as service managers pass them

std::string variable(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? std::string{} : std::string{value};
}

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> out;
  for (std::size_t from = 0; from <= text.size();) {
    const std::size_t to = std::min(text.find(at, from), text.size());
    out.push_back(text.substr(from, to - from));
    from = to + 1;
  }
  return out;
}

metering::Subject subject_of(const metering::LedgerRecord& record) {
  return {.request_id = record.request_id,
          .tenant = record.tenant,
          .key_id = record.key_id,
          .gateway = record.gateway,
          .model = record.model,
          .endpoint = record.endpoint,
          .tier = record.tier,
          .tags = record.tags};
}

// The end that a record tells, as the ledger takes it. `record` outlives it.
metering::Terminal terminal_of(const metering::LedgerRecord& record, std::vector<metering::Attempt>& attempts) {
  for (const auto& each : record.attempts) attempts.push_back({each.backend, each.http_status, each.reason});
  return {.outcome = record.outcome,
          .reason = record.reason,
          .units = record.units,
          .estimated = record.estimated,
          .charge = {.nano_neurons = record.nano_neurons,
                     .exact = record.exact,
                     .usd_pico_per_neuron = record.usd_pico_per_neuron,
                     .schedule = record.schedule,
                     .source = record.price_source},
          .http_status = record.http_status,
          .latency = record.latency,
          .attempts = attempts};
}

}  // namespace

InheritedSockets sockets_of_service_manager() {
  InheritedSockets out;
  const std::string pid = variable("LISTEN_PID");
  const int count = std::atoi(variable("LISTEN_FDS").c_str());
  const std::vector<std::string> names = split(variable("LISTEN_FDNAMES"), ':');
  for (const char* name : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}) ::unsetenv(name);
  if (pid != std::to_string(::getpid())) return out;
  for (int i = 0; i < count; ++i) {
    const int fd = kFirstInherited + i;
    ::fcntl(fd, F_SETFD, FD_CLOEXEC);
    const std::string name = static_cast<std::size_t>(i) < names.size() ? names[static_cast<std::size_t>(i)] : "";
    // Without a name: the first is where applications connect, the second the operators'.
    (name == "admin" || (name != "proxy" && i == 1) ? out.admin : out.proxy).push_back(fd);
  }
  return out;
}

void notify_service_manager(const std::string& state) {
  const std::string path = variable("NOTIFY_SOCKET");
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  if (path.empty() || path.size() >= sizeof address.sun_path) return;
  path.copy(address.sun_path, path.size());
  if (address.sun_path[0] == '@') address.sun_path[0] = '\0';
  const int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  if (::sendto(fd, state.data(), state.size(), MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&address), size) < 0)
    core::log(core::LogLevel::warn, "notify_failed", {{"error", std::strerror(errno)}});
  ::close(fd);
}

// Answers the old process, on a thread of its own; ends of requests wait for the disk on `io`.
class Successor::Service {
 public:
  Service(HandoverChannel& channel, const Parts& parts) : channel_(channel), parts_(parts) {
    for (const metering::IntentId id : parts_.ledger.open_ids()) open_.emplace(id.sequence, id);
    thread_ = core::start_thread("handover", [this] { run(); });
  }
  ~Service() {
    stopping_ = true;
    channel_.shut();
    thread_.join();
    parts_.idempotency.settle_claims();  // the last of them are answered, to nobody
  }

 private:
  void run() {
    while (auto packet = channel_.receive()) {
      if (serve(*packet)) continue;
      core::log(core::LogLevel::error, "handover_unreadable", {{"packet", static_cast<std::int64_t>(packet->type)}});
      break;
    }
    channel_.shut();
    // What this process's own end leaves open is its next start's to decide.
    if (!stopping_) predecessor_gone();
  }

  void predecessor_gone() {
    std::size_t aborted = 0;
    {
      const std::lock_guard lock(mutex_);
      for (const auto& [sequence, id] : open_) aborted += parts_.ledger.abort(id, "process_ended") ? 1 : 0;
      open_.clear();
    }
    [[maybe_unused]] const auto durable = parts_.ledger.flush();
    parts_.budgets.drop_adopted();
    parts_.idempotency.predecessor_gone();
    core::log(core::LogLevel::info, "upgrade_done", {{"aborted", aborted}});
  }

  void reply(std::uint64_t call, const core::Result<std::uint64_t>& result) {
    PacketWriter out;
    if (result) {
      out.number(0).number(*result).text({});
    } else {
      const core::Error& error = result.error();
      out.number(static_cast<std::uint64_t>(error.kind) + 1).number(error.retryable ? 1 : 0).text(error.message);
    }
    channel_.send(PacketType::reply, call, out.str());
  }

  // False: it cannot be read.
  bool serve(Packet& packet) {
    switch (packet.type) {
      case PacketType::intent:
        return intent(packet);
      case PacketType::attempt:
        return attempt(packet);
      case PacketType::terminal:
        return terminal(packet);
      case PacketType::budget_raise: {
        PacketReader in(packet.payload);
        const bool running = in.number() != 0;
        const auto done = parts_.budgets.raise_adopted(read_holds(in), running);
        // Other gateways may have room: the old process asks again, as who waits here does.
        if (!done && done.error().retryable && parts_.budget_share != nullptr) parts_.budget_share->kick();
        reply(packet.call, done ? core::Result<std::uint64_t>{0} : std::unexpected(done.error()));
        return in.ok();
      }
      case PacketType::budget_settle:
        return settle(packet);
      case PacketType::key_ended: {
        PacketReader in(packet.payload);
        idempotency::Digest key{};
        if (!read_digest(in, key)) return false;
        const std::uint64_t end = in.number();
        if (end > 2) return false;
        parts_.idempotency.ended_elsewhere(key, static_cast<gateway::Idempotency::End>(end), in.number());
        return in.ok();
      }
      case PacketType::key_claim: {
        PacketReader in(packet.payload);
        idempotency::KeyRow row;
        if (!read_digest(in, row.key) || !read_digest(in, row.request)) return false;
        row.request_id = in.text();
        row.expires_ms = static_cast<std::int64_t>(in.number());
        if (!in.ok()) return false;
        parts_.idempotency.claim_elsewhere(
            std::move(row), [this, call = packet.call](core::Result<gateway::Idempotency::Found> found) {
              reply(call, found ? core::Result<std::uint64_t>{static_cast<std::uint64_t>(*found)}
                                : std::unexpected(found.error()));
            });
        return true;
      }
      case PacketType::connection:
        for (const int fd : packet.fds) parts_.proxy.adopt(fd, packet.payload);
        return true;
      default:
        return false;
    }
  }

  std::optional<metering::IntentId> find(std::uint64_t sequence, bool ends) {
    const std::lock_guard lock(mutex_);
    const auto found = open_.find(sequence);
    if (found == open_.end()) return std::nullopt;
    const metering::IntentId id = found->second;
    if (ends) open_.erase(found);
    return id;
  }

  bool intent(const Packet& packet) {
    metering::OpenIntent open;
    metering::LedgerRecord record;
    if (!metering::decode_intent(packet.payload, metering::kFormatVersion, open) ||
        !metering::decode_subject(open, record))
      return false;
    const std::vector<std::string> backends = metering::decode_backends(open);
    const auto id = parts_.ledger.intent(subject_of(record), backends.empty() ? std::string{} : backends.front());
    if (id) {
      const std::lock_guard lock(mutex_);
      open_.emplace(id->sequence, *id);
    }
    reply(packet.call, id ? core::Result<std::uint64_t>{id->sequence} : std::unexpected(id.error()));
    return true;
  }

  bool attempt(const Packet& packet) {
    std::uint64_t sequence = 0;
    std::uint32_t number = 0;
    std::string backend;
    if (!metering::decode_attempt(packet.payload, sequence, number, backend)) return false;
    const auto id = find(sequence, false);
    const auto done = id ? parts_.ledger.attempt(*id, number, backend)
                         : core::fail(core::ErrorKind::internal, "attempt of a request that has ended");
    reply(packet.call, done ? core::Result<std::uint64_t>{0} : std::unexpected(done.error()));
    return true;
  }

  bool terminal(const Packet& packet) {
    struct End {
      metering::LedgerRecord record;
      std::vector<metering::Attempt> attempts;
      metering::Terminal terminal;
    };
    auto end = std::make_shared<End>();
    std::uint64_t sequence = 0;
    if (!metering::decode_terminal(packet.payload, metering::kFormatVersion, end->record, sequence)) return false;
    end->terminal = terminal_of(end->record, end->attempts);
    if (sequence == 0) {
      parts_.ledger.record_async(subject_of(end->record), end->terminal);
      reply(packet.call, 0);
      return true;
    }
    const auto id = find(sequence, true);
    if (!id) {
      reply(packet.call, core::fail(core::ErrorKind::internal, "a request has two ends"));
      return true;
    }
    // Appended here, in the order of the packets; durable there.
    auto waiting = parts_.ledger.terminal(*id, end->terminal);
    boost::asio::co_spawn(
        parts_.io,
        [this, call = packet.call, waiting = std::move(waiting)]() mutable -> boost::asio::awaitable<void> {
          const auto done = co_await std::move(waiting);
          reply(call, done ? core::Result<std::uint64_t>{0} : std::unexpected(done.error()));
        },
        boost::asio::detached);
    return true;
  }

  bool settle(const Packet& packet) {
    PacketReader in(packet.payload);
    metering::BudgetSubject subject;
    subject.key = in.text();
    subject.tenant = in.text();
    subject.gateway = in.text();
    subject.model = in.text();
    const std::string_view request_id = in.text();
    metering::BudgetCost cost;
    cost.neurons = in.wide();
    cost.usd = in.wide();
    api::Tags tags;
    for (std::uint64_t left = in.number(); left > 0 && in.ok(); --left) {
      api::Tag tag;
      tag.name = in.text();
      tag.type = static_cast<api::TagType>(in.number());
      tag.value = in.text();
      tags.push_back(std::move(tag));
    }
    subject.tags = tags;
    const auto released = read_holds(in);
    if (!in.ok()) return false;
    parts_.budgets.settle_adopted(released, subject, cost, request_id);
    return true;
  }

  HandoverChannel& channel_;
  const Parts parts_;
  std::mutex mutex_;
  std::unordered_map<std::uint64_t, metering::IntentId> open_;  // of the old process
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

std::unique_ptr<Successor> Successor::from_environment() {
  const std::string fd = variable("GANGLION_HANDOVER_FD");
  ::unsetenv("GANGLION_HANDOVER_FD");
  if (fd.empty()) return nullptr;
  return std::make_unique<Successor>(std::atoi(fd.c_str()));
}

Successor::Successor(int fd) : channel_(fd) {
  ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  const auto packet = channel_.receive();
  if (!packet || packet->type != PacketType::listeners) return;
  PacketReader in(packet->payload);
  const std::uint64_t proxies = in.number();
  for (std::size_t i = 0; i < packet->fds.size(); ++i) {
    (i < proxies ? sockets_.proxy : sockets_.admin).push_back(packet->fds[i]);
  }
}

Successor::~Successor() {
  stop();
}

void Successor::stop() {
  service_.reset();
}

InheritedSockets Successor::take_sockets() {
  return std::exchange(sockets_, {});
}

bool Successor::take_over() {
  if (!channel_.send(PacketType::ready, 0, PacketWriter{}.number(1).str())) return false;
  while (const auto packet = channel_.receive()) {
    PacketReader in(packet->payload);
    switch (packet->type) {
      case PacketType::limits:
        while (in.more()) {
          ratelimit::TakenUnits taken{.id = std::string{in.text()}};
          for (std::uint64_t& units : taken.units) units = in.number();
          if (in.ok()) taken_.push_back(std::move(taken));
        }
        break;
      case PacketType::budgets:
        for (metering::BudgetHold& hold : read_holds(in)) holds_.push_back(std::move(hold));
        break;
      case PacketType::take:
        if (in.more()) numbers_ = {in.number(), in.number(), in.number()};
        return true;
      default:
        return false;
    }
  }
  taken_.clear();
  holds_.clear();
  return false;
}

void Successor::failed(std::string_view why) {
  channel_.send(PacketType::failed, 0, why);
}

void Successor::commit(const Parts& parts) {
  service_ = std::make_unique<Service>(channel_, parts);
  channel_.send(PacketType::committed, 0, {});
}

}  // namespace ganglion::app
