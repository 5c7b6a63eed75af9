// See cuda_ranks.hpp. A step that one device could not queue would leave the others waiting in a sum for ever: the
// group is given up then.

#include "backends/local/models/cuda/cuda_ranks.hpp"

#include <algorithm>
#include <chrono>

#include "core/thread.hpp"

namespace ganglion::local {

using core::ErrorKind;
using core::Result;

class CudaRanks::Hand {
 public:
  Hand() : thread_(core::start_thread("gpu", [this] { run(); })) {}
  ~Hand() {
    turn_.store(kStop, std::memory_order_release);
    turn_.notify_one();
    thread_.join();
  }
  // The work must outlive wait().
  void begin(const std::function<void()>& work) {
    work_ = &work;
    turn_.store(kWork, std::memory_order_release);
    turn_.notify_one();
  }
  void wait() { turn_.wait(kWork, std::memory_order_acquire); }

 private:
  static constexpr int kIdle = 0, kWork = 1, kStop = 2;
  void run() {
    for (;;) {
      turn_.wait(kIdle, std::memory_order_acquire);
      if (turn_.load(std::memory_order_acquire) == kStop) return;
      (*work_)();
      turn_.store(kIdle, std::memory_order_release);
      turn_.notify_one();
    }
  }
  const std::function<void()>* work_ = nullptr;
  std::atomic<int> turn_{kIdle};
  std::thread thread_;
};

Result<std::unique_ptr<CudaRanks>> CudaRanks::load(const Checkpoint* checkpoint, const ModelConfig& config,
                                                   const CudaOptions& options, std::span<const int> devices) {
  if (auto share = share_of(config, static_cast<int>(devices.size())); !share) return std::unexpected(share.error());
  if (devices.size() > 1 && !options.adapters.empty()) {
    return core::fail(ErrorKind::unsupported, "adapters are for a model on one GPU");
  }
  std::unique_ptr<CudaRanks> out(new CudaRanks);
  if (devices.size() > 1) {
    auto group = Collective::make(devices);
    if (!group) return std::unexpected(group.error());
    out->group_ = std::move(*group);
  }
  for (std::size_t i = 1; i < devices.size(); ++i) out->hands_.push_back(std::make_unique<Hand>());
  out->decoders_.resize(devices.size());
  auto loaded = out->everywhere([&](std::size_t rank) -> Result<void> {
    CudaOptions mine = options;
    mine.device = devices[rank];
    mine.shard = {static_cast<int>(rank), static_cast<int>(devices.size())};
    mine.group = devices.size() > 1 ? out->group_[rank].get() : nullptr;
    auto decoder =
        checkpoint != nullptr ? CudaDecoder::load(*checkpoint, config, mine) : CudaDecoder::random(config, mine, 7);
    if (!decoder) return std::unexpected(decoder.error());
    out->decoders_[rank] = std::move(*decoder);
    return {};
  });
  if (!loaded) return std::unexpected(loaded.error());
  return out;
}

CudaRanks::~CudaRanks() {
  hands_.clear();
  // A decoder waits for its stream as it goes; what waits in there for another device must be through before.
  if (lost_) give_up();
}

Result<void> CudaRanks::everywhere(const std::function<Result<void>(std::size_t rank)>& work) {
  std::vector<Result<void>> results(hands_.size() + 1);
  std::vector<std::function<void()>> tasks;
  for (std::size_t i = 0; i < hands_.size(); ++i) tasks.emplace_back([&, i] { results[i + 1] = work(i + 1); });
  for (std::size_t i = 0; i < hands_.size(); ++i) hands_[i]->begin(tasks[i]);
  results[0] = work(0);
  for (auto& hand : hands_) hand->wait();
  for (auto& result : results) {
    if (!result) return result;
  }
  return {};
}

void CudaRanks::give_up() {
  lost_ = true;
  for (auto& end : group_) end->give_up();
}

Result<void> CudaRanks::reserve_pages(std::int64_t pages) {
  return everywhere([&](std::size_t rank) { return decoders_[rank]->reserve_pages(pages); });
}

std::uint64_t CudaRanks::free_bytes() const {
  std::uint64_t least = UINT64_MAX;
  for (const auto& decoder : decoders_) least = std::min(least, decoder->free_bytes());
  return least;
}

std::uint64_t CudaRanks::device_bytes() const {
  std::uint64_t most = 0;
  for (const auto& decoder : decoders_) most = std::max<std::uint64_t>(most, decoder->device_bytes());
  return most;
}

Result<void> CudaRanks::submit(std::span<const CudaDecoder::Slice> slices) {
  auto queued = everywhere([&](std::size_t rank) {
    auto mine = decoders_[rank]->submit(slices);
    if (!mine && !group_.empty()) group_[rank]->fail();
    return mine;
  });
  if (!queued && !group_.empty()) give_up();
  return queued;
}

Result<void> CudaRanks::await() {
  if (group_.empty()) return {};
  const auto began = std::chrono::steady_clock::now();
  for (;;) {
    std::size_t through = 0;
    for (const auto& decoder : decoders_) {
      const auto done = decoder->done();
      if (!done) {
        give_up();
        return std::unexpected(done.error());
      }
      through += *done ? 1 : 0;
    }
    if (through == decoders_.size()) return {};
    if (std::chrono::steady_clock::now() - began < std::chrono::milliseconds(1)) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(30));
    }
  }
}

Result<std::span<const cuda::SampleResult>> CudaRanks::collect() {
  if (auto through = await(); !through) return std::unexpected(through.error());
  auto results = first().collect();
  for (std::size_t i = 1; i < decoders_.size() && results; ++i) {
    if (auto other = decoders_[i]->collect(); !other) results = std::unexpected(other.error());
  }
  if (!results && !group_.empty()) give_up();
  return results;
}

Result<std::vector<float>> CudaRanks::logits() {
  for (std::size_t i = 1; i < decoders_.size(); ++i) {
    if (auto other = decoders_[i]->collect(); !other) return std::unexpected(other.error());
  }
  return first().logits();
}

}  // namespace ganglion::local
