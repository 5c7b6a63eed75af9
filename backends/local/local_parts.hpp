#pragma once
// What a loaded model consists of. For the files of the local backend only.

#include <memory>
#include <optional>
#include <string>

#include "backends/local/chat/chat_template.hpp"
#include "backends/local/engine/replicas.hpp"
#include "backends/local/local_backend.hpp"
#include "backends/local/special_tokens.hpp"
#include "backends/local/tokenizer/tokenizer.hpp"

namespace ganglion::backends {

struct LocalModel::Parts {
  LocalModelOptions options;
  std::unique_ptr<local::Replicas> engine;           // generate
  std::unique_ptr<local::EmbeddingEngine> embedder;  // embed
  std::optional<local::ChatFormat> chat;
  std::unique_ptr<SpecialTokenGuard> guard;
  std::size_t token_bytes_max = 1;  // of the longest token, for a first look at a prompt's size

  const local::Tokenizer& tokenizer() const { return engine ? engine->tokenizer() : embedder->tokenizer(); }
};

}  // namespace ganglion::backends
