#pragma once
// Budgets that several gateways share: what one gateway tells the others of a budget, and what it is allowed in return.
// No I/O: whoever speaks with the store moves these values. Amounts are whole micro-neurons or nano-USD, so that a Lua
// script can add them exactly; what is used is rounded up, what is allowed is never rounded up.

#include <cstdint>
#include <string>

#include "metering/budget_rules.hpp"

namespace ganglion::metering {

using LeaseUnits = std::int64_t;

BudgetAmount lease_unit(BudgetUnit unit);
LeaseUnits lease_units_up(BudgetUnit unit, BudgetAmount amount);

// A budget's counts of this gateway, to be published. By absolute numbers, so that sending twice does no harm.
struct LeaseAsk {
  std::string account;  // names the budget to Budgets::leased()
  std::string digest;   // names budget and window in the store; the same in every gateway
  std::int64_t slot = 0;
  LeaseUnits limit = 0;
  LeaseUnits spent = 0;
  LeaseUnits used = 0;      // spent and reserved
  LeaseUnits keep = 0;      // >= used: what this gateway goes on using up to, whatever the answer
  LeaseUnits need = 0;      // on top of `used`, for a request that waits
  std::int64_t kept_s = 0;  // how long the store must remember it
};

struct LeaseGrant {
  LeaseUnits cap = 0;  // spent and reserved here may come to this
  LeaseUnits others_spent = 0;
  LeaseUnits others_held = 0;  // >= others_spent: what their use may come to
  LeaseUnits slack = 0;        // what may be held beyond use while nobody else is short
  bool others_are_short = false;
  bool rebuilding = false;  // the store has lost its data and grants nothing yet: `cap` is what was kept
};

// Which budgets an exchange is about.
enum class LeaseRound : std::uint8_t {
  waiting,  // those that a request waits for
  due,      // those in use, and of the others what is to be told, given back or kept alive
  all,      // and those that were told before: the store has forgotten
};

// How budgets are shared now.
enum class Sharing : std::uint8_t {
  off,     // this gateway has them to itself
  leased,  // within what was granted
  alone,   // the store does not answer: within what was granted, and of windows that it granted nothing of, a share
};

}  // namespace ganglion::metering
