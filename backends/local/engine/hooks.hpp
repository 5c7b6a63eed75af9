#pragma once
// What an engine gets from outside besides its settings: how its runner is made, and whom it tells of trouble. Tests
// put runners of their own here.

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "backends/local/engine/options.hpp"
#include "core/error.hpp"

namespace ganglion::local {

class Encoder;
class Runner;
struct ModelConfig;

// Reads the weights and makes a runner; `note` is set to what is worth telling (why not on a GPU). Called at the start
// and, on the engine's thread, after each failure that the runner does not survive; then with the device that was
// chosen at the start. What it throws there counts as a failed attempt.
using RunnerFactory =
    std::function<core::Result<std::unique_ptr<Runner>>(const EngineOptions&, const ModelConfig&, std::string& note)>;

struct EngineHooks {
  RunnerFactory make_runner;  // empty: by options.device
  // "engine_step_failed", "engine_out_of_service", "engine_restart_failed", "engine_restarted", "draft_failed",
  // "draft_off" (and the engine goes on without), and the problem. On the engine's thread; empty: nobody listens.
  std::function<void(std::string_view event, std::string_view problem)> notice;
  // Around the events of a step: true before the first, false after the last. On the engine's thread; empty: nobody
  // minds.
  std::function<void(bool begins)> telling;
};

// The same for embeddings.
using EncoderFactory = std::function<core::Result<std::unique_ptr<Encoder>>(const EmbeddingOptions&, const ModelConfig&,
                                                                            std::string& note)>;

struct EmbeddingHooks {
  EncoderFactory make_encoder;  // empty: by options.device
  // "engine_step_failed", "engine_out_of_service", "engine_restart_failed", "engine_restarted"; as above.
  std::function<void(std::string_view event, std::string_view problem)> notice;
};

}  // namespace ganglion::local
