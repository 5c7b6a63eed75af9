#pragma once
// The sentence-transformers files beside an embedding model: which pooling, whether to normalise, how much text.

#include <filesystem>

#include "backends/local/weights/model_config.hpp"

namespace ganglion::local {

// Fills pooling, normalize and max_seq_length of a bert config whose max_position is already known. Without
// modules.json the directory is a bare transformer: mean pooling, no normalisation.
core::Result<void> read_sentence_config(const std::filesystem::path& dir, ModelConfig& config);

}  // namespace ganglion::local
