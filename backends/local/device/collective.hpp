#pragma once
// Sums over several GPUs through NCCL, which is looked for at run time: only a model that is cut over GPUs needs it.

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "core/error.hpp"

namespace ganglion::local {

// One device's end of a group. Each end is used by one thread at a time; a sum comes to an end when every device of the
// group has queued it, so a group of which one could not must be given up.
class Collective {
 public:
  // One end for each of `devices`, in order. unsupported: NCCL is not installed, or the devices cannot talk.
  static core::Result<std::vector<std::unique_ptr<Collective>>> make(std::span<const int> devices);
  ~Collective();
  Collective(const Collective&) = delete;
  Collective& operator=(const Collective&) = delete;

  // Replaces `count` bf16 values by their sums over the group; queued on `stream`.
  core::Result<void> sum(cudaStream_t stream, void* values, std::size_t count);
  // Ends what waits for the others. Nothing more will come of this group.
  void give_up();

 private:
  struct Library;
  explicit Collective(std::shared_ptr<Library> library) : library_(std::move(library)) {}
  std::shared_ptr<Library> library_;
  void* communicator_ = nullptr;
};

}  // namespace ganglion::local
