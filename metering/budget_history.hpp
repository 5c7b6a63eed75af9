#pragma once
// Budgets' counts from the ledger, which is the truth: at start, and for budgets that a reload adds.

#include <memory>
#include <string>

#include "metering/budgets.hpp"

namespace ganglion::metering {

// Puts `rules` in force. Where a rule has no history yet it is read from the rollups and, behind them, the ledger:
// blocking, for the time that takes. On ledger_unavailable the rules from before are in force, with their counts.
core::Result<void> apply_rules(Budgets& budgets, std::shared_ptr<const BudgetRules> rules, const core::Clock& clock,
                               const std::string& ledger_directory);

}  // namespace ganglion::metering
