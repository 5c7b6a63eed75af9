// The entry points of NCCL that are needed, by its stable C interface (nccl.h of version 2).

#include "backends/local/device/collective.hpp"

#include <dlfcn.h>

#include <atomic>
#include <cstdlib>
#include <string>
#include <thread>

namespace ganglion::local {

using core::ErrorKind;
using core::Result;

namespace {
constexpr int kSuccess = 0;   // ncclSuccess
constexpr int kBfloat16 = 9;  // ncclBfloat16
constexpr int kSum = 0;       // ncclSum
}  // namespace

struct Collective::Library {
  void* handle = nullptr;
  int (*init_all)(void** communicators, int count, const int* devices) = nullptr;
  int (*all_reduce)(const void* from, void* to, std::size_t count, int type, int operation, void* communicator,
                    cudaStream_t stream) = nullptr;
  int (*destroy)(void* communicator) = nullptr;
  int (*abort)(void* communicator) = nullptr;
  const char* (*text)(int status) = nullptr;

  ~Library() {
    if (handle != nullptr) dlclose(handle);
  }
  template <class F>
  bool find(F& function, const char* name) {
    function = reinterpret_cast<F>(dlsym(handle, name));
    return function != nullptr;
  }
  bool load() {
    // Multicast over NVLink can put GPUs out of service for everybody on the host when a process dies in it.
    setenv("NCCL_NVLS_ENABLE", "0", 1);
    for (const char* name : {"libnccl.so.2", "libnccl.so"}) {
      if (handle = dlopen(name, RTLD_NOW | RTLD_LOCAL); handle != nullptr) break;
    }
    return handle != nullptr && find(init_all, "ncclCommInitAll") && find(all_reduce, "ncclAllReduce") &&
           find(destroy, "ncclCommDestroy") && find(abort, "ncclCommAbort") && find(text, "ncclGetErrorString");
  }
};

struct Collective::Meeting {
  explicit Meeting(int threads) : count(threads) {}
  const int count;
  std::atomic<int> arrived{0};
  std::atomic<unsigned> round{0};
  std::atomic<bool> failed{false};

  // Until all have come; false: one will not.
  bool wait() {
    const unsigned mine = round.load();
    if (arrived.fetch_add(1) + 1 == count) {
      arrived.store(0);
      round.store(mine + 1);
    }
    while (round.load() == mine) {
      if (failed.load()) return false;
      std::this_thread::yield();
    }
    return true;
  }
};

Result<std::vector<std::unique_ptr<Collective>>> Collective::make(std::span<const int> devices) {
  auto library = std::make_shared<Library>();
  if (!library->load()) {
    return core::fail(ErrorKind::unsupported, "NCCL (libnccl.so.2) was not found; a model over several GPUs needs it");
  }
  std::vector<void*> communicators(devices.size());
  if (const int status = library->init_all(communicators.data(), static_cast<int>(devices.size()), devices.data());
      status != kSuccess) {
    return core::fail(ErrorKind::unsupported, std::string("NCCL could not join the GPUs: ") + library->text(status));
  }
  const auto meeting = std::make_shared<Meeting>(static_cast<int>(devices.size()));
  std::vector<std::unique_ptr<Collective>> out;
  for (void* communicator : communicators) {
    out.emplace_back(new Collective(library, meeting));
    out.back()->communicator_ = communicator;
  }
  return out;
}

Collective::~Collective() {
  if (communicator_ != nullptr) library_->destroy(communicator_);
}

Result<void> Collective::sum(cudaStream_t stream, void* values, std::size_t count) {
  if (communicator_ == nullptr) return core::fail(ErrorKind::overloaded, "the group of GPUs was given up");
  const int status = library_->all_reduce(values, values, count, kBfloat16, kSum, communicator_, stream);
  if (status != kSuccess) {
    return core::fail(ErrorKind::overloaded, std::string("a sum over the GPUs failed: ") + library_->text(status));
  }
  if (!meeting_->wait()) return core::fail(ErrorKind::overloaded, "another GPU of the group failed");
  return {};
}

void Collective::fail() {
  meeting_->failed.store(true);
}

void Collective::give_up() {
  if (communicator_ != nullptr) library_->abort(communicator_);
  communicator_ = nullptr;
}

}  // namespace ganglion::local
