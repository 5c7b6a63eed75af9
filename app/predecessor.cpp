// See app/predecessor.hpp.

#include "app/predecessor.hpp"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <future>

#include "core/log.hpp"
#include "core/thread.hpp"

extern char** environ;

namespace ganglion::app {
namespace {

constexpr int kChildFd = 3;
constexpr std::size_t kStateBytesMax = 64UL * 1024;  // of one packet

std::string& program() {
  static std::string path;
  return path;
}

core::Error no_answer() {
  return core::make_error(core::ErrorKind::ledger_unavailable,
                          "usage cannot be recorded: the process that took this one's place is gone");
}

// The environment, without what is meant for this process alone.
std::vector<std::string> environment() {
  std::vector<std::string> out;
  for (char** each = environ; *each != nullptr; ++each) {
    const std::string_view entry = *each;
    if (!entry.starts_with("LISTEN_") && !entry.starts_with("GANGLION_HANDOVER_FD=")) out.emplace_back(entry);
  }
  out.push_back("GANGLION_HANDOVER_FD=" + std::to_string(kChildFd));
  return out;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (std::string& text : texts) out.push_back(text.data());
  out.push_back(nullptr);
  return out;
}

}  // namespace

void remember_program() {
  std::array<char, 4096> path{};
  const ssize_t size = ::readlink("/proc/self/exe", path.data(), path.size() - 1);
  if (size > 0) program().assign(path.data(), static_cast<std::size_t>(size));
}

core::Result<std::unique_ptr<Predecessor>> Predecessor::spawn(const std::vector<std::string>& arguments) {
  const auto failed = [](const std::string& what, int error) {
    return core::fail(core::ErrorKind::internal, what + ": " + std::strerror(error));
  };
  const auto [here, there] = HandoverChannel::make();
  if (here < 0) return failed("cannot make a socket pair", errno);
  std::vector<std::string> words{program()};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<std::string> variables = environment();
  // Nothing of this process's stays open in the other: a client would never see its connection closed.
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, there, kChildFd);
  posix_spawn_file_actions_addclosefrom_np(&actions, kChildFd + 1);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  pid_t pid = -1;
  const int error =
      ::posix_spawn(&pid, program().c_str(), &actions, &attributes, pointers(words).data(), pointers(variables).data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  ::close(there);
  if (error != 0) {
    ::close(here);
    return failed("cannot run " + program(), error);
  }
  return std::unique_ptr<Predecessor>{new Predecessor{here, pid}};
}

Predecessor::~Predecessor() {
  stop();
  if (!committed_) ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, committed_ ? WNOHANG : 0);
}

bool Predecessor::give_listeners(const std::vector<int>& proxy, const std::vector<int>& admin) {
  std::vector<int> all = proxy;
  all.insert(all.end(), admin.begin(), admin.end());
  return channel_.send(PacketType::listeners, 0, PacketWriter{}.number(proxy.size()).str(), all);
}

bool Predecessor::give_state(const std::vector<ratelimit::TakenUnits>& taken,
                             const std::vector<metering::BudgetHold>& holds, const HandedNumbers& numbers) {
  for (std::size_t i = 0; i < taken.size();) {
    PacketWriter out;
    for (; i < taken.size() && out.str().size() < kStateBytesMax; ++i) {
      out.text(taken[i].id);
      for (const std::uint64_t units : taken[i].units) out.number(units);
    }
    if (!channel_.send(PacketType::limits, 0, out.str())) return false;
  }
  for (std::size_t i = 0; i < holds.size();) {
    PacketWriter out;
    std::vector<metering::BudgetHold> part;
    for (std::size_t bytes = 0; i < holds.size() && bytes < kStateBytesMax; ++i) {
      bytes += holds[i].identity.size() + holds[i].value.size() + 40;
      part.push_back(holds[i]);
    }
    write_holds(out, part);
    if (!channel_.send(PacketType::budgets, 0, out.str())) return false;
  }
  PacketWriter out;
  out.number(numbers.gateways).number(numbers.generation).number(numbers.config_version);
  return channel_.send(PacketType::take, 0, out.str());
}

void Predecessor::commit(std::function<void()> gone) {
  committed_ = true;
  gone_ = std::move(gone);
  reader_ = core::start_thread("handover", [this] { read_answers(); });
}

void Predecessor::give_connection(int fd, std::string_view received) {
  channel_.send(PacketType::connection, 0, received, {&fd, 1});
  ::close(fd);
}

void Predecessor::stop() {
  channel_.shut();
  if (reader_.joinable()) reader_.join();
  fail_all();
}

void Predecessor::read_answers() {
  while (const auto packet = channel_.receive()) {
    if (packet->type != PacketType::reply) continue;
    std::function<void(Answer)> done;
    {
      const std::lock_guard lock(mutex_);
      const auto found = waiting_.find(packet->call);
      if (found == waiting_.end()) continue;
      done = std::move(found->second);
      waiting_.erase(found);
    }
    PacketReader in(packet->payload);
    const std::uint64_t kind = in.number();
    const std::uint64_t value = in.number();
    const std::string_view message = in.text();
    if (!in.ok() || kind > static_cast<std::uint64_t>(core::ErrorKind::kCount)) {
      done(std::unexpected(no_answer()));
    } else if (kind == 0) {
      done(value);
    } else {
      core::Error error = core::make_error(static_cast<core::ErrorKind>(kind - 1), std::string{message});
      error.retryable = value != 0;
      done(std::unexpected(std::move(error)));
    }
  }
  fail_all();
  if (gone_) gone_();
}

void Predecessor::fail_all() {
  std::map<std::uint64_t, std::function<void(Answer)>> left;
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
    left.swap(waiting_);
  }
  for (auto& [call, done] : left) done(std::unexpected(no_answer()));
}

void Predecessor::ask(PacketType type, std::string_view payload, std::function<void(Answer)> done) {
  std::uint64_t call = 0;
  {
    const std::lock_guard lock(mutex_);
    if (!over_) waiting_.emplace(call = ++last_call_, std::move(done));
  }
  if (call == 0) return done(std::unexpected(no_answer()));
  if (channel_.send(type, call, payload)) return;
  {
    const std::lock_guard lock(mutex_);
    const auto found = waiting_.find(call);
    if (found == waiting_.end()) return;  // told already
    done = std::move(found->second);
    waiting_.erase(found);
  }
  done(std::unexpected(no_answer()));
}

Predecessor::Answer Predecessor::ask_and_wait(PacketType type, std::string_view payload) {
  std::promise<Answer> answer;
  ask(type, payload, [&](Answer got) { answer.set_value(std::move(got)); });
  return answer.get_future().get();
}

core::Result<std::uint64_t> Predecessor::intent(std::string_view payload) {
  return ask_and_wait(PacketType::intent, payload);
}

core::Result<void> Predecessor::attempt(std::string_view payload) {
  if (auto done = ask_and_wait(PacketType::attempt, payload); !done) return std::unexpected(std::move(done.error()));
  return {};
}

void Predecessor::terminal(std::string_view payload, std::function<void(core::Result<void>)> done) {
  ask(PacketType::terminal, payload, [done = std::move(done)](Answer got) {
    if (got) return done({});
    done(std::unexpected(std::move(got.error())));
  });
}

core::Result<void> Predecessor::raise(const std::vector<metering::BudgetHold>& more, bool running) {
  PacketWriter out;
  out.number(running ? 1 : 0);
  write_holds(out, more);
  if (auto done = ask_and_wait(PacketType::budget_raise, out.str()); !done)
    return std::unexpected(std::move(done.error()));
  return {};
}

// In order with the ends of requests, which are sent before; nobody waits for it.
void Predecessor::settle(const std::vector<metering::BudgetHold>& released, const metering::BudgetSubject& subject,
                         const metering::BudgetCost& cost, std::string_view request_id) {
  PacketWriter out;
  for (const auto text : {subject.key, subject.tenant, subject.gateway, subject.model, request_id}) out.text(text);
  out.wide(cost.neurons).wide(cost.usd).number(subject.tags.size());
  for (const api::Tag& tag : subject.tags) {
    out.text(tag.name).number(static_cast<std::uint64_t>(tag.type)).text(tag.value);
  }
  write_holds(out, released);
  channel_.send(PacketType::budget_settle, 0, out.str());
}

void Predecessor::read_ready(std::string_view payload) {
  PacketReader in(payload);
  claims_keys_ = in.more() && in.number() != 0;
}

gateway::Idempotency::Heir Predecessor::key_heir() {
  gateway::Idempotency::Heir heir;
  heir.ended = [this](const idempotency::Digest& key, gateway::Idempotency::End end, std::uint64_t bytes) {
    key_ended(key, end, bytes);
  };
  if (claims_keys_) heir.claim = [this](const idempotency::KeyRow& row) { return claim_key(row); };
  return heir;
}

void Predecessor::key_ended(const idempotency::Digest& key, gateway::Idempotency::End end, std::uint64_t bytes) {
  PacketWriter out;
  write_digest(out, key);
  channel_.send(PacketType::key_ended, 0, out.number(static_cast<std::uint64_t>(end)).number(bytes).str());
}

core::Result<gateway::Idempotency::Found> Predecessor::claim_key(const idempotency::KeyRow& row) {
  PacketWriter out;
  write_digest(out, row.key);
  write_digest(out, row.request);
  out.text(row.request_id).number(static_cast<std::uint64_t>(row.expires_ms));
  auto found = ask_and_wait(PacketType::key_claim, out.str());
  if (!found) return std::unexpected(std::move(found.error()));
  if (*found > static_cast<std::uint64_t>(gateway::Idempotency::Found::doubt)) return std::unexpected(no_answer());
  return static_cast<gateway::Idempotency::Found>(*found);
}

void write_digest(PacketWriter& out, const idempotency::Digest& digest) {
  out.text({reinterpret_cast<const char*>(digest.data()), digest.size()});
}

bool read_digest(PacketReader& in, idempotency::Digest& digest) {
  const std::string_view bytes = in.text();
  if (bytes.size() != digest.size()) return false;
  bytes.copy(reinterpret_cast<char*>(digest.data()), digest.size());
  return true;
}

void write_holds(PacketWriter& out, const std::vector<metering::BudgetHold>& holds) {
  for (const metering::BudgetHold& hold : holds) out.text(hold.identity).text(hold.value).wide(hold.amount);
}

std::vector<metering::BudgetHold> read_holds(PacketReader& in) {
  std::vector<metering::BudgetHold> out;
  while (in.more()) {
    metering::BudgetHold hold;
    hold.identity = in.text();
    hold.value = in.text();
    hold.amount = in.wide();
    if (in.ok()) out.push_back(std::move(hold));
  }
  return out;
}

}  // namespace ganglion::app
