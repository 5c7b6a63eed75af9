// Which device serves a model.

#include "backends/local/engine/runner.hpp"

#include <algorithm>

#ifdef GANGLION_CUDA
#include "backends/local/device/devices.hpp"
#include "backends/local/engine/draft.hpp"
#include "backends/local/engine/placement.hpp"
#endif

namespace ganglion::local {

core::Result<void> Runner::submit(std::span<const Slice>) {
  return core::fail(core::ErrorKind::internal, "this runner computes within step()");
}
core::Result<void> Runner::collect(std::span<Choice>) {
  return core::fail(core::ErrorKind::internal, "this runner computes within step()");
}

#ifdef GANGLION_CUDA
namespace {

// The GPUs that the options name or the planner finds; none: the CPU, and `note` says why.
core::Result<std::vector<int>> choose_gpus(const ModelConfig& config, const EngineOptions& options, std::string& note) {
  if (options.device != "auto") return parse_devices(options.device);
  const auto found = find_devices();
  if (!found) {
    note = found.error().message;
    return std::vector<int>{};
  }
  std::vector<GpuRoom> rooms;
  for (const DeviceInfo& gpu : *found) rooms.push_back({gpu.index, gpu.free_bytes});
  GpuNeed need = need_of(config, options);
  if (!options.draft.dir.empty()) {
    const auto draft = load_model_config(options.draft.dir);
    if (!draft) return std::unexpected(draft.error());
    need = with_draft(std::move(need), need_of(*draft, draft_options(options, "auto")));
  }
  auto placed = place(rooms, need);
  if (placed) return placed;
  note = placed.error().message;
  return std::vector<int>{};
}

}  // namespace
#endif

core::Result<std::unique_ptr<Runner>> make_runner(Checkpoint checkpoint, const ModelConfig& config,
                                                  const EngineOptions& options, std::string& note) {
#ifdef GANGLION_CUDA
  const auto devices = choose_gpus(config, options, note);
  if (!devices) return std::unexpected(devices.error());
  if (!devices->empty()) {
    EngineOptions wide = options;
    wide.step_tokens_max = std::max(options.step_tokens_max, kGpuStepTokens);
    auto runner = make_cuda_runner(checkpoint, config, wide, *devices);
    if (runner || options.device != "auto") return runner;
    note = runner.error().message;
  }
#else
  if (options.device != "auto" && options.device != "cpu") {
    return core::fail(core::ErrorKind::unsupported,
                      "device " + options.device + ": this program was built without CUDA", "device");
  }
  note.clear();
#endif
  return make_cpu_runner(std::move(checkpoint), config, options);
}

}  // namespace ganglion::local
