#pragma once
// The model of tokenizer.json: from one word to ids.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backends/local/tokenizer/pre_tokenizer.hpp"
#include "backends/local/tokenizer/spec.hpp"
#include "backends/local/tokenizer/vocab.hpp"
#include "backends/local/tokenizer/word_cache.hpp"

namespace ganglion::local::tok {

struct MergeSymbol {
  std::int32_t id;
  std::int32_t prev;  // -1: none
  std::int32_t next;
  bool live;
};
struct MergeCandidate {
  std::uint32_t rank;
  std::int32_t at;
  std::int32_t id;
};
struct MergePair {  // a symbol and what it would become with the one after it
  std::int32_t id;
  std::uint32_t rank;
  std::int32_t merged;
};

// What one encode call works with, borrowed from the tokenizer's pool and given back.
struct Scratch {
  WordCache cache;
  Pieces pieces;
  std::vector<std::int32_t> symbols;
  std::vector<MergePair> pairs;
  std::vector<MergeSymbol> chain;
  std::vector<MergeCandidate> heap;
  std::string spelled;

  // Frees what one very long text has blown up.
  void trim();
};

class Model {
 public:
  virtual ~Model() = default;
  // Appends the ids of one non-empty word. byte_level: the word is raw bytes, the vocabulary spells the byte
  // alphabet. Thread-safe for distinct scratches.
  virtual void encode(std::string_view word, bool byte_level, Scratch& scratch,
                      std::vector<std::int32_t>& ids) const = 0;
  virtual const Vocab& vocab() const = 0;
};

// Throws LoadError; a model type that is not implemented is named.
std::unique_ptr<Model> make_model(const Spec& spec);

}  // namespace ganglion::local::tok
