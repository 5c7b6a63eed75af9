// The fuzzers' properties over their kept corpus, so that a case once found stays found in every build.

#include <gtest/gtest.h>

#include "tests/fuzz/cache_entry_property.hpp"
#include "tests/fuzz/properties.hpp"
#include "tests/support/corpus.hpp"

namespace ganglion {
namespace {

void replay(const std::string& name, void (*check)(std::string_view)) {
  const auto cases = test::corpus(name);
  EXPECT_GT(cases.size(), 3U) << name;
  for (const auto& [file, bytes] : cases) {
    SCOPED_TRACE(file);
    check(bytes);
  }
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
TEST(FuzzCorpus, CacheEntry) {
  int entries = 0;
  for (const auto& [file, bytes] : test::corpus("cache_entry")) {
    SCOPED_TRACE(file);
    entries += fuzz::check_cache_entry(bytes) ? 1 : 0;
  }
  EXPECT_EQ(entries, 6) << "whole and compressed, a stream, a refusal, an empty one, one from the future";
}

}  // namespace
}  // namespace ganglion
