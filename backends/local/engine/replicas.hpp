#pragma once
// One model on several engines, each with a runner, a queue and pages of its own. A request goes where the beginning of
// its prompt was computed before, unless that engine has much more to do than another.

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "backends/local/engine/engine.hpp"

namespace ganglion::local {

// Which replica a request goes to. Knows no engine: it is tested alone. Any thread.
class ReplicaChooser {
 public:
  struct State {
    int load = 0;  // requests queued and running
    bool in_service = true;
  };
  static constexpr std::size_t kRememberedMax = 65'536;  // beginnings of prompts, whole pages
  static constexpr int kPagesMax = 256;                  // of one prompt that are looked at
  static constexpr int kPatience = 4;  // requests more than on the least loaded one, for the sake of found pages

  // `space`: prompts of different spaces find nothing of each other's; "": nothing is found. The choice is remembered
  // for the prompts to come. Out of service is chosen only when all are.
  std::size_t choose(const std::string& space, std::span<const std::int32_t> prompt, std::span<const State> states);

 private:
  struct Known {
    std::uint64_t beginning;
    std::size_t replica;
  };
  std::vector<std::uint64_t> beginnings(const std::string& space, std::span<const std::int32_t> prompt) const;
  void remember(std::span<const std::uint64_t> beginnings, std::size_t replica);

  std::mutex mutex_;
  std::list<Known> known_;  // looked at last first
  std::unordered_map<std::uint64_t, std::list<Known>::iterator> at_;
  std::size_t turn_ = 0;
};

// The doors of Engine, over `count` of them. A request that one refuses because its queue is full or its device is gone
// is offered to the others.
class Replicas {
 public:
  static core::Result<std::unique_ptr<Replicas>> load(const EngineOptions& options, int count,
                                                      const EngineHooks& hooks = {});

  core::Result<Handle> submit(GenerateRequest request, std::shared_ptr<GenerateSink> sink);
  void cancel(Handle handle);

  // Of the first one, which is good for all: they have the same vocabulary.
  core::Result<std::shared_ptr<const grammar::Grammar>> grammar(const grammar::Source& source) const {
    return engines_.front()->grammar(source);
  }

  EngineStats stats() const;  // sums; in service: any of them
  int context_max() const;    // of the smallest
  const Tokenizer& tokenizer() const { return engines_.front()->tokenizer(); }
  const ModelConfig& config() const { return engines_.front()->config(); }
  std::string device() const;  // all of them, for the log
  std::size_t count() const { return engines_.size(); }
  const Engine& engine(std::size_t index) const { return *engines_[index]; }

 private:
  Replicas() = default;
  Handle outer(Handle inner, std::size_t index) const { return {inner.id * engines_.size() + index}; }

  std::vector<std::unique_ptr<Engine>> engines_;
  ReplicaChooser chooser_;
};

}  // namespace ganglion::local
