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

  // Replaces `count` bf16 values by their sums over the group; queued on `stream`. Returns when every device's has been
  // queued: a kernel that is loaded while another device's sum waits for this one could wait for it in turn.
  core::Result<void> sum(cudaStream_t stream, void* values, std::size_t count);
  // This device cannot take part: the others' threads need not wait in sum(). Any thread.
  void fail();
  // Ends what waits on the devices, when no thread is in sum() any more. Nothing more will come of this group.
  void give_up();

 private:
  struct Library;
  struct Meeting;  // of the threads
  Collective(std::shared_ptr<Library> library, std::shared_ptr<Meeting> meeting)
      : library_(std::move(library)), meeting_(std::move(meeting)) {}
  std::shared_ptr<Library> library_;
  std::shared_ptr<Meeting> meeting_;
  void* communicator_ = nullptr;
};

}  // namespace ganglion::local
