#pragma once
// An engine over the tiny golden models, and sinks that keep what they get.

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "backends/local/engine/engine.hpp"
#include "backends/local/tokenizer/tokenizer.hpp"
#include "backends/local/weights/model_config.hpp"

namespace ganglion::local {

inline std::string model_dir(const std::string& model) {
  return std::string(GANGLION_SOURCE_DIR) + "/tests/data/local/" + model;
}

// Far more than anything here takes; under compute-sanitizer, with other processes on its GPU, a request took more than
// the minute.
#ifdef GANGLION_CHECKED
inline constexpr auto kPatience = std::chrono::seconds(600);
#else
inline constexpr auto kPatience = std::chrono::seconds(60);
#endif

class KeepingSink : public GenerateSink {
 public:
  void on_event(GenerateEvent&& event) noexcept override {
    const std::lock_guard lock(mutex_);
    if (ended_) ++late_;
    ended_ = ended_ || event.kind != GenerateEvent::Kind::token;
    events_.push_back(std::move(event));
    changed_.notify_all();
  }
  // Waits for the end; everything that came, joined.
  struct Outcome {
    std::string text;
    std::vector<std::int32_t> tokens;
    std::vector<TokenLogprobs> logprobs;
    GenerateEvent last;
    int events = 0;
  };
  Outcome wait() {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, kPatience, [&] { return ended_; })) << "the request did not end";
    EXPECT_EQ(late_, 0) << "events after the end";
    Outcome out;
    out.events = static_cast<int>(events_.size());
    for (const GenerateEvent& e : events_) {
      out.text += e.text;
      out.tokens.insert(out.tokens.end(), e.tokens.begin(), e.tokens.end());
      out.logprobs.insert(out.logprobs.end(), e.logprobs.begin(), e.logprobs.end());
    }
    if (!events_.empty()) out.last = events_.back();
    return out;
  }
  void wait_for_events(std::size_t n) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, kPatience, [&] { return events_.size() >= n || ended_; }));
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<GenerateEvent> events_;
  bool ended_ = false;
  int late_ = 0;
};

// Holds the thread that enters it until told to go on.
class Gate {
 public:
  void enter() {
    std::unique_lock lock(mutex_);
    entered_ = true;
    changed_.notify_all();
    changed_.wait_for(lock, kPatience, [&] { return open_; });
  }
  void wait_until_entered() {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, kPatience, [&] { return entered_; }));
  }
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool entered_ = false, open_ = false;
};

// Holds the engine's thread inside its first event until told to go on: what is submitted meanwhile stays queued.
class GateSink : public KeepingSink {
 public:
  void on_event(GenerateEvent&& event) noexcept override {
    KeepingSink::on_event(std::move(event));
    gate_.enter();
  }
  void wait_until_entered() { gate_.wait_until_entered(); }
  void open() { gate_.open(); }

 private:
  Gate gate_;
};

// Of either engine: it is in service, after so many restarts.
template <class AnyEngine>
bool in_service_again(const AnyEngine& engine, std::uint64_t restarts) {
  for (int i = 0; i < 20'000; ++i) {
    const EngineStats s = engine.stats();
    if (s.in_service && s.restarts == restarts) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

inline std::unique_ptr<Engine> load_engine(const std::string& model, EngineOptions options = {}) {
  options.dir = model_dir(model);
  if (options.threads == 0) options.threads = 2;
  auto engine = Engine::load(options);
  if (!engine) {
    ADD_FAILURE() << engine.error().message;
    return nullptr;
  }
  return std::move(*engine);
}

inline GenerateRequest greedy(std::vector<std::int32_t> prompt, int max_tokens) {
  GenerateRequest r;
  r.prompt = std::move(prompt);
  r.max_tokens = max_tokens;
  r.sampling.temperature = 0;
  r.ignore_eos = true;
  return r;
}

inline KeepingSink::Outcome generate(Engine& engine, GenerateRequest request) {
  auto sink = std::make_shared<KeepingSink>();
  const auto handle = engine.submit(std::move(request), sink);
  if (!handle) {
    ADD_FAILURE() << handle.error().message;
    return {};
  }
  return sink->wait();
}

}  // namespace ganglion::local
