#pragma once
// A fuzzer's kept corpus, for the unit tests that replay it: a case once found stays found in every build. And edits of
// it: without a fuzzer's knowledge of what they reach, but in every build and under every sanitizer.

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
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

// Bytes flipped, taken out, put in from another case, said twice. The same run after run; GANGLION_FUZZ_SEED makes
// another one, GANGLION_FUZZ_ROUNDS multiplies how many are made.
class Edits {
 public:
  explicit Edits(const std::vector<CorpusCase>& cases)
      : cases_(cases), random_(static_cast<std::uint32_t>(setting("GANGLION_FUZZ_SEED", 20261126))) {}

  static std::size_t rounds(std::size_t usual) { return usual * setting("GANGLION_FUZZ_ROUNDS", 1); }
  std::string of(std::string text) {
    for (std::size_t edits = 1 + below(4); edits > 0; --edits) {
      const std::size_t at = below(text.size());
      const std::string& other = cases_[below(cases_.size())].bytes;
      switch (below(5)) {
        case 0:
          text.erase(at, 1 + below(12));
          break;
        case 1:
          if (!text.empty()) text[at] = static_cast<char>(text[at] ^ static_cast<char>(1U << below(8)));
          break;
        case 2:
          text.insert(at, 1, static_cast<char>(below(256)));
          break;
        case 3:
          text.insert(at, text.substr(below(text.size()), below(40)));
          break;
        default:
          text.insert(at, other.substr(below(other.size()), below(40)));
      }
    }
    return text;
  }

 private:
  static std::size_t setting(const char* name, std::size_t otherwise) {
    const char* const text = std::getenv(name);
    return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
  }
  std::size_t below(std::size_t n) { return n == 0 ? 0 : random_() % n; }

  const std::vector<CorpusCase>& cases_;
  std::mt19937 random_;
};

}  // namespace ganglion::test
