// Which device serves a model.

#include "backends/local/engine/runner.hpp"

#include <algorithm>

#ifdef GANGLION_CUDA
#include "backends/local/device/devices.hpp"
#endif

namespace ganglion::local {

core::Result<void> Runner::submit(std::span<const Slice>) {
  return core::fail(core::ErrorKind::internal, "this runner computes within step()");
}
core::Result<void> Runner::collect(std::span<Choice>) {
  return core::fail(core::ErrorKind::internal, "this runner computes within step()");
}

core::Result<std::unique_ptr<Runner>> make_runner(Checkpoint checkpoint, const ModelConfig& config,
                                                  const EngineOptions& options, std::string& note) {
#ifdef GANGLION_CUDA
  const auto device = choose_device(options.device, note);
  if (!device) return std::unexpected(device.error());
  if (*device >= 0) {
    EngineOptions wide = options;
    wide.step_tokens_max = std::max(options.step_tokens_max, kGpuStepTokens);
    auto runner = make_cuda_runner(checkpoint, config, wide, *device);
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
