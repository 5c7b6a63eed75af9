#pragma once
// A fuzzer's kept corpus, for the unit tests that replay it: a case once found stays found in every build.

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace ganglion::test {

struct CorpusCase {
  std::string file;
  std::string bytes;
};

// Those of tests/fuzz/corpus/<name>, by name.
inline std::vector<CorpusCase> corpus(const std::string& name) {
  std::vector<CorpusCase> out;
  for (const auto& entry : std::filesystem::directory_iterator{GANGLION_SOURCE_DIR "/tests/fuzz/corpus/" + name}) {
    std::ifstream in{entry.path(), std::ios::binary};
    out.push_back({.file = entry.path().string(), .bytes = {std::istreambuf_iterator<char>{in}, {}}});
  }
  std::ranges::sort(out, {}, &CorpusCase::file);
  return out;
}

}  // namespace ganglion::test
