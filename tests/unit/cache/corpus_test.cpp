// The fuzzers' properties over their kept corpus, so that a case once found stays found in every build.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/fuzz/properties.hpp"

namespace ganglion {
namespace {

void replay(const std::string& name, void (*check)(std::string_view)) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator{GANGLION_SOURCE_DIR "/tests/fuzz/corpus/" + name}) {
    std::ifstream file{entry.path(), std::ios::binary};
    std::ostringstream bytes;
    bytes << file.rdbuf();
    SCOPED_TRACE(entry.path().string());
    check(bytes.str());
    ++files;
  }
  EXPECT_GT(files, 3) << name;
}

TEST(FuzzCorpus, Sse) {
  replay("sse", fuzz::check_sse);
}
TEST(FuzzCorpus, OpenaiRequest) {
  replay("openai_request", fuzz::check_openai_request);
}
TEST(FuzzCorpus, OpenaiStream) {
  replay("openai_stream", fuzz::check_openai_stream);
}
TEST(FuzzCorpus, CacheKey) {
  replay("cache_key", fuzz::check_cache_key);
}

}  // namespace
}  // namespace ganglion
