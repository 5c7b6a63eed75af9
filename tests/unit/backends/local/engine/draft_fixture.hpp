#pragma once
// Engines with a draft model, requests that ask for everything at once, and shortened copies of models.

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/unit/backends/local/engine/engine_fixture.hpp"
#include "tests/unit/backends/local/engine/runners.hpp"
#include "tests/unit/backends/local/engine/sampled.hpp"

namespace ganglion::local {

// Drafting wherever it may be, whatever the clock says of it.
inline EngineOptions drafting(const std::string& draft_dir, EngineOptions options = {}) {
  options.draft = {.dir = draft_dir, .tokens = 4, .measured = false};
  return options;
}

// Request number `i` of many that differ in all that a sampler knows.
inline GenerateRequest varied(Engine& engine, int i, int max_tokens) {
  GenerateRequest r = greedy(engine.tokenizer().encode("the cat sat on the mat, the cat sat", true), max_tokens);
  SamplingParams& p = r.sampling;
  vary(p, i);
  if (i % 7 == 6) p.min_p = 0.05f;
  // A narrow choice, so that models that know nothing of each other agree now and then.
  if (i % 2 == 1) {
    for (std::int32_t id = 30; id < 34; ++id) p.logit_bias[id] = 30;
  }
  return r;
}

inline void expect_same_answer(const KeepingSink::Outcome& a, const KeepingSink::Outcome& b, const std::string& what) {
  EXPECT_EQ(a.tokens, b.tokens) << what;
  EXPECT_EQ(a.text, b.text) << what;
  EXPECT_EQ(a.last.finish, b.last.finish) << what;
  EXPECT_EQ(a.last.usage.completion_tokens, b.last.usage.completion_tokens) << what;
  ASSERT_EQ(a.logprobs.size(), b.logprobs.size()) << what;
  for (std::size_t i = 0; i < a.logprobs.size(); ++i) {
    EXPECT_EQ(a.logprobs[i].chosen.logprob, b.logprobs[i].chosen.logprob) << what << " at " << i;
  }
}

// A folder that goes with the test.
class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "ganglion-draft-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
    path_ = name;
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// The model in `from` with the first `layers` of its layers, over the same files; for the life of `in`.
inline std::string shortened(const std::string& from, int layers, const Folder& in) {
  const auto to = in.path() / ("layers-" + std::to_string(layers));
  std::filesystem::create_directory(to);
  for (const auto& entry : std::filesystem::directory_iterator(from)) {
    if (entry.path().filename() == "config.json") continue;
    std::filesystem::create_symlink(std::filesystem::absolute(entry.path()), to / entry.path().filename());
  }
  std::ifstream file(from + "/config.json");
  auto config = nlohmann::json::parse(file);
  config["num_hidden_layers"] = layers;
  std::ofstream(to / "config.json") << config;
  return to.string();
}

}  // namespace ganglion::local
