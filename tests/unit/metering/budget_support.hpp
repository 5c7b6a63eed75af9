#pragma once
// Short ways to budgets in tests.

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "metering/budgets.hpp"

namespace ganglion::metering {

struct CountingHooks final : BudgetHooks {
  void crossed(const BudgetAlert& alert) override {
    const std::lock_guard lock(mutex);
    alerts.push_back(alert);
  }
  void refused(std::string_view) override { ++refusals; }
  void overrun(std::string_view) override { ++overruns; }
  std::mutex mutex;
  std::vector<BudgetAlert> alerts;
  std::atomic<int> refusals{0};
  std::atomic<int> overruns{0};
};

inline std::shared_ptr<const BudgetRules> rules_of(const std::vector<BudgetOptions>& options,
                                                   const std::vector<std::string>& free_only = {},
                                                   std::uint64_t free_neurons = 10'000) {
  auto rules = BudgetRules::make(options, free_only, free_neurons);
  EXPECT_TRUE(rules) << rules.error().message;
  return *rules;
}

inline BudgetCost neurons(std::uint64_t count) {
  return {.neurons = BudgetAmount{count} * kPartsPerNeuron};
}

// Budgets under these rules, with an empty history.
inline void use(Budgets& budgets, const std::vector<BudgetOptions>& options) {
  budgets.prepare(rules_of(options));
  budgets.ready();
}

inline BudgetState state_of(const Budgets& budgets, std::string_view name, std::string_view value = {}) {
  for (BudgetState& state : budgets.states()) {
    if (state.budget == name && state.value == value) return state;
  }
  ADD_FAILURE() << "no budget " << name;
  return {};
}

}  // namespace ganglion::metering
