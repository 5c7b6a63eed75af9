#pragma once
// Which alerts of budgets were raised and which were sent, in a file of JSON lines, so that an alert is raised once
// a window and sent at least once, whatever is restarted or killed in between. Blocking; one thread at a time.

#include <string>
#include <unordered_map>
#include <vector>

#include "core/error.hpp"
#include "metering/budgets.hpp"

namespace ganglion::gateway {

class AlertJournal {
 public:
  struct Pending {
    std::string id;
    std::string body;  // what is sent
  };

  // Reads the file, if there is one; a torn last line (a crash) is dropped. Entries that no window can refer to any
  // more are left out when the file is written anew here.
  static core::Result<AlertJournal> open(std::string path, core::WallTime now);
  AlertJournal(AlertJournal&& other) noexcept;
  AlertJournal& operator=(AlertJournal&&) = delete;
  ~AlertJournal();

  // This alert was raised before: the same percentage of the same budget in this window.
  bool raised(const metering::BudgetAlert& alert) const;
  // Durable when it returns.
  core::Result<void> raise(const metering::BudgetAlert& alert, const std::string& body);
  // Sent, or given up.
  core::Result<void> done(const std::string& id);
  // Raised and not done, oldest first: what a restart has to send.
  std::vector<Pending> pending() const;

 private:
  struct Entry {
    std::string series;
    std::int64_t raised_s = 0;
    std::string body;  // empty once done
  };
  explicit AlertJournal(std::string path) : path_(std::move(path)) {}
  void take(const std::string& line);
  core::Result<void> append(const std::string& line);
  core::Result<void> rewrite(core::WallTime now);

  std::string path_;
  int fd_ = -1;
  std::vector<std::string> order_;
  std::unordered_map<std::string, Entry> entries_;                // by id
  std::unordered_map<std::string, std::int64_t> last_by_series_;  // seconds; of sliding windows
};

}  // namespace ganglion::gateway
