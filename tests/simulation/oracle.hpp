#pragma once
// What must hold when all lives of a seed are over: the ledger against what clients and providers saw. Each violation
// is a sentence; none: all holds.

#include <map>
#include <set>
#include <string>
#include <vector>

#include "metering/record.hpp"
#include "tests/simulation/world.hpp"

namespace ganglion::sim {

struct Verdict {
  std::vector<std::string> violations;
  std::size_t records = 0, billed = 0, aborted = 0;
  std::vector<std::string> lines;  // the records, in words
};

// The sum of a family's samples on a metrics page; -1: there is none.
double metric(const std::string& page, const std::string& family);

class Oracle {
 public:
  Oracle(const World& world, std::string root) : world_(world), root_(std::move(root)) {}

  int gateways = 1;  // that share what they may
  std::string ledger(int gateway) const {
    return root_ + "/ledger" + (gateway == 0 ? "" : std::to_string(gateway + 1));
  }

  std::set<int> power_lost;                // lives that ended so
  std::map<int, std::set<int>> served;     // gateway: lives in which it came so far: what was before is on its disk
  std::set<int> absent;                    // lives in which one did not come so far
  std::map<int, unsigned> redis_troubles;  // life: how many
  std::set<int> never_alone;               // lives in which each gateway's limits were the shared ones all the time
  bool redis_troubled = false, redis_lost_data = false;
  bool share_in_outage = true;
  bool killed = false;                                    // by whatever, in any life
  std::int64_t budget_nano = 0;                           // of key "a"; 0: none
  bool budget_refuses = false;                            // at the end it has no room for one token
  std::vector<std::string> budgets_pages, metrics_pages;  // of the last life, when nothing ran any more
  int burst_b = 0;
  double per_second_b = 0;

  // Nothing but Redis was ill: no request may fail.
  void calm(int life, bool is) {
    if (is) calm_.insert(life);
  }
  // After an orderly end: what the running count was when nothing ran any more.
  void life_ended(int life, int gateway, const std::string& page);
  Verdict judge();

 private:
  using Records = std::vector<metering::LedgerRecord>;
  void wrong(std::string what) { verdict_.violations.push_back(std::move(what)); }
  void read();
  bool may_be_lost(int life) const;
  void nothing_fails_for_redis();
  void limit_holds(int life);
  void no_record_is_invented();
  void every_answer_is_billed_once();
  void every_attempt_is_covered();
  void keys_are_charged_once();
  void limits_hold();
  void nothing_is_left();
  void page_agrees(const std::string& when, const std::string& page, std::int64_t spent);

  const World& world_;
  const std::string root_;
  std::set<int> calm_;
  Records records_;
  std::map<int, const metering::LedgerRecord*> by_number_;
  std::map<int, const metering::LedgerRecord*> of_attempt_;
  std::vector<std::int64_t> spent_;  // by key "a", at each gateway
  std::map<int, const Asked*> asked_;
  std::map<std::string, std::vector<const metering::LedgerRecord*>> by_prompt_;
  Verdict verdict_;
};

}  // namespace ganglion::sim
