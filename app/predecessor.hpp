#pragma once
// The old process's side of an upgrade: starts the new one, gives it sockets and state, and from then on asks it for
// what the requests still need that run here. docs/upgrade.md tells the whole.

#include <sys/types.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "app/handover_channel.hpp"
#include "gateway/idempotency.hpp"
#include "metering/budgets.hpp"
#include "metering/ledger_heir.hpp"
#include "ratelimit/limiter.hpp"

namespace ganglion::app {

// The program as it was started: what an upgrade runs is whatever lies at that path then.
void remember_program();

class Predecessor final : public metering::LedgerHeir, public metering::BudgetHeir {
 public:
  // Runs the program with `arguments` behind its name. Error: internal, for the operator.
  static core::Result<std::unique_ptr<Predecessor>> spawn(const std::vector<std::string>& arguments);
  ~Predecessor() override;  // a process that was not committed to is ended

  HandoverChannel& channel() { return channel_; }
  pid_t pid() const { return pid_; }
  bool give_listeners(const std::vector<int>& proxy, const std::vector<int>& admin);
  bool give_state(const std::vector<ratelimit::TakenUnits>& taken, const std::vector<metering::BudgetHold>& holds,
                  const HandedNumbers& numbers);
  // The new process serves: calls below are answered from here on. `gone`: it ended; called once, on another thread.
  void commit(std::function<void()> gone);
  void give_connection(int fd, std::string_view received);  // closes it here
  // Nobody is answered any more.
  void stop();

  core::Result<std::uint64_t> intent(std::string_view payload) override;
  core::Result<void> attempt(std::string_view payload) override;
  void terminal(std::string_view payload, std::function<void(core::Result<void>)> done) override;
  core::Result<void> raise(const std::vector<metering::BudgetHold>& more, bool running) override;
  void settle(const std::vector<metering::BudgetHold>& released, const metering::BudgetSubject& subject,
              const metering::BudgetCost& cost, std::string_view request_id) override;
  void read_ready(std::string_view payload);
  gateway::Idempotency::Heir key_heir();

 private:
  using Answer = core::Result<std::uint64_t>;
  Predecessor(int fd, pid_t pid) : channel_(fd), pid_(pid) {}
  void key_ended(const idempotency::Digest& key, gateway::Idempotency::End end, std::uint64_t bytes);
  core::Result<gateway::Idempotency::Found> claim_key(const idempotency::KeyRow& row);
  void ask(PacketType type, std::string_view payload, std::function<void(Answer)> done);
  Answer ask_and_wait(PacketType type, std::string_view payload);
  void read_answers();
  void fail_all();

  HandoverChannel channel_;
  const pid_t pid_;
  bool committed_ = false;
  bool claims_keys_ = false;  // the new process does, for this one
  std::function<void()> gone_;
  std::thread reader_;
  std::mutex mutex_;  // guards all below
  std::map<std::uint64_t, std::function<void(Answer)>> waiting_;
  std::uint64_t last_call_ = 0;
  bool over_ = false;
};

// Shared with the other side.
void write_holds(PacketWriter& out, const std::vector<metering::BudgetHold>& holds);
std::vector<metering::BudgetHold> read_holds(PacketReader& in);
void write_digest(PacketWriter& out, const idempotency::Digest& digest);
bool read_digest(PacketReader& in, idempotency::Digest& digest);  // false: it is none

}  // namespace ganglion::app
