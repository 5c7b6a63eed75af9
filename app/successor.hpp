#pragma once
// The new process's side of an upgrade: gets sockets and state from the process that it replaces, and does for that
// one's running requests what only one process may do. docs/upgrade.md tells the whole.

#include <boost/asio/io_context.hpp>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "app/handover_channel.hpp"
#include "gateway/budget_share.hpp"
#include "gateway/idempotency.hpp"
#include "metering/budgets.hpp"
#include "metering/ledger.hpp"
#include "net/server.hpp"
#include "ratelimit/limiter.hpp"

namespace ganglion::app {

struct InheritedSockets {
  std::vector<int> proxy, admin;
};

// Of a service manager (LISTEN_FDS). They are taken once.
InheritedSockets sockets_of_service_manager();
// Tells a service manager (NOTIFY_SOCKET), if there is one.
void notify_service_manager(const std::string& state);

class Successor {
 public:
  // nullptr: this process replaces none.
  static std::unique_ptr<Successor> from_environment();
  explicit Successor(int fd);
  ~Successor();  // the old process goes on alone, if it has not handed over
  Successor(const Successor&) = delete;
  Successor& operator=(const Successor&) = delete;

  InheritedSockets take_sockets();
  // Tells that all is loaded and waits for the old process to stop. False: it ended meanwhile, so there is nobody to
  // take over from, and its requests are those of a crash.
  bool take_over();
  std::vector<ratelimit::TakenUnits>& taken() { return taken_; }
  const std::vector<metering::BudgetHold>& holds() const { return holds_; }
  const HandedNumbers& numbers() const { return numbers_; }
  void failed(std::string_view why);

  struct Parts {
    boost::asio::io_context& io;  // where waits for the ledger run
    metering::Ledger& ledger;
    metering::Budgets& budgets;
    gateway::BudgetShare* budget_share;  // nullptr: budgets are not shared
    gateway::Idempotency& idempotency;
    net::Server& proxy;
  };
  // It serves. All of `parts` outlive stop().
  void commit(const Parts& parts);
  void stop();

 private:
  class Service;
  HandoverChannel channel_;
  InheritedSockets sockets_;
  std::vector<ratelimit::TakenUnits> taken_;
  std::vector<metering::BudgetHold> holds_;
  HandedNumbers numbers_;
  std::unique_ptr<Service> service_;
};

}  // namespace ganglion::app
