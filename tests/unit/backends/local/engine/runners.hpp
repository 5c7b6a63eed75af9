#pragma once
// Runners for tests, around the CPU's: one that computes beside its caller as a GPU does, and one that fails on
// command.

#include <atomic>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <system_error>
#include <vector>

#include "backends/local/engine/hooks.hpp"
#include "backends/local/engine/runner.hpp"

namespace ganglion::local {

class WrappedRunner : public Runner {
 public:
  explicit WrappedRunner(std::unique_ptr<Runner> inner) : inner_(std::move(inner)) {}
  std::int64_t vocab_size() const override { return inner_->vocab_size(); }
  std::int64_t context_max() const override { return inner_->context_max(); }
  std::size_t weight_bytes() const override { return inner_->weight_bytes(); }
  std::int64_t page_bytes() const override { return inner_->page_bytes(); }
  std::uint64_t kv_bytes_max() const override { return inner_->kv_bytes_max(); }
  std::string device() const override { return inner_->device(); }
  bool verifies() const override { return inner_->verifies(); }
  core::Result<void> reserve_pages(std::int64_t pages) override { return inner_->reserve_pages(pages); }
  core::Result<void> step(std::span<const Slice> slices, std::span<Choice> choices,
                          const std::atomic<bool>* give_up) override {
    return inner_->step(slices, choices, give_up);
  }

 protected:
  std::unique_ptr<Runner> inner_;
};

// Takes copies of all that a step needs and computes on a thread of its own until it is collected.
class OverlappingRunner final : public WrappedRunner {
 public:
  OverlappingRunner(std::unique_ptr<Runner> inner, std::atomic<bool>* in_flight)
      : WrappedRunner(std::move(inner)), in_flight_(in_flight) {}
  ~OverlappingRunner() override {
    if (done_.valid()) done_.wait();
  }
  bool overlaps() const override { return true; }
  core::Result<void> submit(std::span<const Slice> slices) override {
    copies_.clear();
    for (const Slice& s : slices) {
      const int pages = (s.position + static_cast<int>(s.tokens.size()) + 15) / 16;
      copies_.push_back({s, {s.tokens.begin(), s.tokens.end()}, {s.pages, s.pages + pages}, {}});
      for (int i = 0; s.sampling != nullptr && i < s.samples; ++i) {
        const Sampling& from = s.sampling[i];
        copies_.back().samples.push_back({from.params, from.history, from.seed, from.index, {}});
        if (from.mask == nullptr) continue;
        copies_.back().samples.back().mask.assign(from.mask, from.mask + (inner_->vocab_size() + 31) / 32);
      }
    }
    if (in_flight_ != nullptr) *in_flight_ = true;
    done_ = std::async(std::launch::async, [this] { return compute(); });
    return {};
  }
  core::Result<void> collect(std::span<Choice> choices) override {
    auto done = done_.get();
    if (in_flight_ != nullptr) *in_flight_ = false;
    for (std::size_t i = 0; i < choices_.size(); ++i) choices[i] = std::move(choices_[i]);
    return done;
  }

 private:
  struct SampleCopy {
    SamplingParams params;
    TokenHistory history;
    std::uint64_t seed, index;
    std::vector<std::uint32_t> mask;
  };
  struct Copy {
    Slice slice;
    std::vector<std::int32_t> tokens, pages;
    std::vector<SampleCopy> samples;
  };
  core::Result<void> compute() {
    std::vector<Sampling> samplings;
    std::size_t count = 0;
    for (const Copy& c : copies_) count += c.samples.size();
    samplings.reserve(count);
    std::vector<Slice> slices;
    for (const Copy& c : copies_) {
      Slice& slice = slices.emplace_back(c.slice);
      slice.tokens = c.tokens;
      slice.pages = c.pages.data();
      slice.sampling = c.samples.empty() ? nullptr : samplings.data() + samplings.size();
      for (const SampleCopy& s : c.samples) {
        samplings.push_back({s.params, s.history, s.seed, s.index, s.mask.empty() ? nullptr : s.mask.data()});
      }
    }
    choices_.assign(samplings.size(), {});
    return inner_->step(slices, choices_, nullptr);
  }

  std::atomic<bool>* in_flight_;
  std::vector<Copy> copies_;
  std::vector<Choice> choices_;
  std::future<core::Result<void>> done_;
};

// What a test tells failing runners, and learns from them.
struct Trouble {
  std::atomic<int> fail_steps{0};       // so many steps from now on fail
  std::atomic<bool> lost{false};        // and the runner is broken by it
  std::atomic<int> refuse_restarts{0};  // so many attempts to make a runner fail
  std::atomic<int> throw_restarts{0};   // before these, so many throw
  std::atomic<int> made{0};
  std::mutex mutex;
  std::vector<std::string> notices, devices;  // devices: that were asked for, in order

  void note(std::string_view event) {
    const std::lock_guard lock(mutex);
    notices.emplace_back(event);
  }
  std::vector<std::string> noted() {
    const std::lock_guard lock(mutex);
    return notices;
  }
  // At the beginning of an attempt to make a runner on a device; whether it may be made.
  bool may_make(const std::string& device) {
    {
      const std::lock_guard lock(mutex);
      devices.push_back(device);
    }
    if (made++ == 0) return true;
    if (throw_restarts > 0) {
      --throw_restarts;
      throw std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again), "no thread");
    }
    if (refuse_restarts > 0) {
      --refuse_restarts;
      return false;
    }
    return true;
  }
  std::vector<std::string> asked() {
    const std::lock_guard lock(mutex);
    return devices;
  }
};

// Says that it is elsewhere.
class NamedRunner final : public WrappedRunner {
 public:
  NamedRunner(std::unique_ptr<Runner> inner, std::string name)
      : WrappedRunner(std::move(inner)), name_(std::move(name)) {}
  std::string device() const override { return name_; }

 private:
  std::string name_;
};

class FailingRunner final : public WrappedRunner {
 public:
  FailingRunner(std::unique_ptr<Runner> inner, std::shared_ptr<Trouble> trouble)
      : WrappedRunner(std::move(inner)), trouble_(std::move(trouble)) {}
  core::Result<void> step(std::span<const Slice> slices, std::span<Choice> choices,
                          const std::atomic<bool>* give_up) override {
    if (trouble_->fail_steps > 0) {
      --trouble_->fail_steps;
      broken_ = trouble_->lost;
      return core::fail(core::ErrorKind::overloaded, "the GPU failed at a step: cudaErrorECCUncorrectable");
    }
    return inner_->step(slices, choices, give_up);
  }
  bool broken() const override { return broken_; }

 private:
  std::shared_ptr<Trouble> trouble_;
  bool broken_ = false;
};

inline core::Result<std::unique_ptr<Runner>> plain_runner(const EngineOptions& options, const ModelConfig& config) {
  auto checkpoint = Checkpoint::open(options.dir);
  if (!checkpoint) return std::unexpected(checkpoint.error());
  return make_cpu_runner(std::move(*checkpoint), config, options);
}

inline RunnerFactory overlapping(std::atomic<bool>* in_flight = nullptr) {
  return [in_flight](const EngineOptions& options, const ModelConfig& config,
                     std::string&) -> core::Result<std::unique_ptr<Runner>> {
    auto inner = plain_runner(options, config);
    if (!inner) return inner;
    return std::make_unique<OverlappingRunner>(std::move(*inner), in_flight);
  };
}

inline RunnerFactory failing(std::shared_ptr<Trouble> trouble) {
  return [trouble = std::move(trouble)](const EngineOptions& options, const ModelConfig& config,
                                        std::string&) -> core::Result<std::unique_ptr<Runner>> {
    if (!trouble->may_make(options.device)) return core::fail(core::ErrorKind::overloaded, "the GPU is still lost");
    auto inner = plain_runner(options, config);
    if (!inner) return inner;
    return std::make_unique<FailingRunner>(std::move(*inner), trouble);
  };
}

}  // namespace ganglion::local
