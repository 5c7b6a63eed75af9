#pragma once
// Reads the golden files of tests/data/local (made by transformers) and runs a decoder without the engine.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "backends/local/kernels/cpu/dispatch.hpp"
#include "backends/local/models/decoder.hpp"

namespace ganglion::local {

// The tiny models that have not been quantised: every family of decoders and every type of weights.
inline constexpr const char* kGoldenModels[] = {"llama2_tiny",     "llama3_tiny", "mistral_tiny",      "qwen2_tiny",
                                                "qwen3_tiny",      "llama_fp16",  "llama_bf16",        "llama_sharded",
                                                "llama_old_files", "gemma2_tiny", "gemma3_tiny",       "opt_tiny",
                                                "opt_post_tiny",   "phi3_tiny",   "phi3_partial_tiny", "mixtral_tiny"};
// Those of them whose goldens hold what enters every layer.
inline constexpr const char* kLayerGoldenModels[] = {"gemma2_tiny", "gemma3_tiny",       "opt_tiny",    "opt_post_tiny",
                                                     "phi3_tiny",   "phi3_partial_tiny", "mixtral_tiny"};

inline std::string data_dir(const std::string& model) {
  if (model.starts_with('/')) return model;
  return std::string(GANGLION_SOURCE_DIR) + "/tests/data/local/" + model;
}

struct GoldenCase {
  std::vector<std::int32_t> prompt, greedy;
  std::vector<float> margins;  // best minus second logit of each greedy step
  std::vector<int> positions;
  std::vector<std::vector<float>> logits;  // one row per position
  std::vector<std::vector<float>> hidden;  // where kept: what enters each layer at the prompt's last position
  bool long_positions = false;             // longrope: prompt and answer are longer than the model was first made for
};

inline std::vector<GoldenCase> read_goldens(const std::string& model) {
  std::ifstream file(data_dir(model) + "/goldens.json");
  const nlohmann::json json = nlohmann::json::parse(file);
  const auto vocab = json.at("vocab_size").get<std::size_t>();
  std::ifstream rows(data_dir(model) + "/logits.f32", std::ios::binary);
  std::vector<GoldenCase> out;
  for (const auto& item : json.at("cases")) {
    GoldenCase& c = out.emplace_back();
    item.at("prompt_ids").get_to(c.prompt);
    item.at("greedy_ids").get_to(c.greedy);
    item.at("greedy_margins").get_to(c.margins);
    item.at("positions").get_to(c.positions);
    rows.seekg(static_cast<std::streamoff>(item.at("logits_offset").get<std::size_t>() * vocab * 4));
    for (std::size_t i = 0; i < c.positions.size(); ++i) {
      auto& row = c.logits.emplace_back(vocab);
      rows.read(reinterpret_cast<char*>(row.data()), static_cast<std::streamsize>(vocab * 4));
    }
    EXPECT_TRUE(rows.good()) << model << ": logits.f32 is too short";
  }
  if (std::ifstream hidden(data_dir(model) + "/hidden.f32", std::ios::binary); hidden) {
    const auto width = json.at("hidden_size").get<std::size_t>(), layers = json.at("layers").get<std::size_t>();
    for (GoldenCase& c : out) {
      for (std::size_t i = 0; i < layers; ++i) {
        auto& row = c.hidden.emplace_back(width);
        hidden.read(reinterpret_cast<char*>(row.data()), static_cast<std::streamsize>(width * 4));
      }
    }
    EXPECT_TRUE(hidden.good()) << model << ": hidden.f32 is too short";
  }
  if (const auto config = load_model_config(data_dir(model)); config && config->rope.type == RopeType::longrope) {
    for (GoldenCase& c : out) {
      c.long_positions = static_cast<std::int64_t>(c.prompt.size()) > config->rope.original_max_position;
    }
  }
  return out;
}

inline double relative_error(const std::vector<float>& got, const std::vector<float>& want) {
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    difference += std::pow(static_cast<double>(got[i]) - want[i], 2);
    size += std::pow(static_cast<double>(want[i]), 2);
  }
  return std::sqrt(difference / size);
}

inline std::int32_t best_of(const std::vector<float>& logits) {
  return static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// A decoder with its own pool and pages; each sequence has a table of scattered pages.
class DecoderHarness {
 public:
  struct Options {
    Isa isa = best_isa();
    bool int8 = false;
    KvElement kv = KvElement::f32;
    int threads = 2;
    std::vector<std::string> adapters = {};  // folders of tests/data/local
  };
  explicit DecoderHarness(const std::string& model) : DecoderHarness(model, Options()) {}
  DecoderHarness(const std::string& model, Options options) : pool_(options.threads) {
    auto config = load_model_config(data_dir(model));
    auto checkpoint = Checkpoint::open(data_dir(model));
    if (!config || !checkpoint) {
      ADD_FAILURE() << (config ? checkpoint.error().message : config.error().message);
      return;
    }
    auto loaded =
        Decoder::load(std::move(*checkpoint), *config, {&kernels_for(options.isa), &pool_}, options.int8, 256);
    if (!loaded) {
      ADD_FAILURE() << loaded.error().message;
      return;
    }
    decoder = std::move(*loaded);
    for (const std::string& adapter : options.adapters) {
      const auto added = decoder->load_adapter(data_dir(adapter));
      EXPECT_TRUE(added) << (added ? "" : added.error().message);
    }
    kv = KvStore(decoder->kv_shape(options.kv), kPages);
  }

  struct Sequence {
    std::vector<std::int32_t> pages;
    int length = 0;
    int adapter = -1;
    bool long_positions = false;
  };
  Sequence sequence(int tokens, bool long_positions = false) {
    Sequence s;
    s.long_positions = long_positions;
    for (int t = 0; t < tokens; t += kPageTokens) s.pages.push_back(next_page_++ * 101 % kPages);
    EXPECT_LE(next_page_, kPages);
    return s;
  }

  // Appends tokens and returns the logits after the last one.
  std::vector<float> append(Sequence& s, std::span<const std::int32_t> tokens) {
    std::vector<float> logits(static_cast<std::size_t>(decoder->vocab_size()));
    DecoderSlice slice{tokens, s.pages.data(), s.length, true};
    slice.adapter = s.adapter;
    slice.long_positions = s.long_positions;
    EXPECT_TRUE(decoder->forward(kv, {&slice, 1}, logits.data()));
    s.length += static_cast<int>(tokens.size());
    return logits;
  }

  static constexpr int kPages = 256;
  std::unique_ptr<Decoder> decoder;
  KvStore kv;

 private:
  ThreadPool pool_;
  std::int32_t next_page_ = 0;
};

}  // namespace ganglion::local
