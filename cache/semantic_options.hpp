#pragma once
// Settings of the semantic cache: answers to questions that mean the same. Off unless a gateway names an embedding
// model. See docs/semantic-cache.md.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

namespace ganglion::cache {

// Per gateway.
struct SemanticPolicy {
  std::string embedding_model;                       // as clients would name it; empty: off
  double threshold = 0.95;                           // cosine; at least so alike
  std::uint32_t length_difference_max_percent = 25;  // between the asked and the stored text, of the longer one
  bool same_numbers = true;                          // the numbers in both texts must be the same, in order
  double temperature_max = 0.3;                      // a request without a temperature counts as 1
  std::chrono::milliseconds timeout{100};            // for the embedding; past it: a plain miss
  bool on() const { return !embedding_model.empty(); }
};

// Whole process.
struct SemanticOptions {
  std::size_t entries_max = 20'000;
  std::size_t partition_entries_max = 2'000;  // of one tenant, gateway, model and context
  std::size_t graph_min = 4'096;              // entries of a partition from which a graph pays for itself
  std::size_t text_bytes_max = 4'096;         // longer questions are not for it
  std::uint32_t concurrent_max = 32;          // embeddings at once; past it: a plain miss
  std::size_t log_size = 256;                 // looks kept for GET /admin/cache/semantic
  bool show_texts = false;                    // there, and kept in memory
};

}  // namespace ganglion::cache
