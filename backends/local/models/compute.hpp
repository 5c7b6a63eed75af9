#pragma once
// What a model computes with: borrowed by every model of one engine, owned by the engine.

#include "backends/local/kernels/cpu/table.hpp"
#include "backends/local/kernels/thread_pool.hpp"

namespace ganglion::local {

struct Compute {
  const Kernels* kernels = nullptr;
  ThreadPool* pool = nullptr;
};

}  // namespace ganglion::local
