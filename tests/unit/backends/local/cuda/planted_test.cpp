// What scripts/gpu-check sanitize runs first under each tool, which has to report it: GANGLION_PLANTED names the tool.

#include <cstdlib>
#include <string_view>

#include "tests/unit/backends/local/cuda/device_fixture.hpp"
#include "tests/unit/backends/local/cuda/planted.hpp"

namespace ganglion::local {
namespace {

class PlantedMistake : public DeviceTest {};

TEST_F(PlantedMistake, IsForTheSanitizerToFind) {
  const char* named = std::getenv("GANGLION_PLANTED");
  if (named == nullptr) GTEST_SKIP() << "for scripts/gpu-check sanitize";
  const std::string_view tool = named;
  constexpr std::size_t kWords = 300;  // end within the allocator's 512 bytes: the word behind is nobody's
  int *words = nullptr, *out = nullptr;
  ASSERT_EQ(cudaMalloc(&words, kWords * sizeof(int)), cudaSuccess);
  ASSERT_EQ(cudaMalloc(&out, kWords * sizeof(int)), cudaSuccess);
  if (tool == "racecheck") {
    run(cuda::race_on_purpose(out, stream.get()));
  } else if (tool == "memcheck") {
    run(cuda::write_behind(words, kWords, stream.get()));
  } else if (tool == "initcheck") {
    run(cuda::act_on(words, out, stream.get()));
  } else {
    FAIL() << "no mistake is planted for " << tool;
  }
  cudaFree(words);
  cudaFree(out);
}

}  // namespace
}  // namespace ganglion::local
