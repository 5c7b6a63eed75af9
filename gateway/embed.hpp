#pragma once
// One text's embedding from a configured model, local or remote, through the same backends as everybody's. For the
// gateway's own use: no place in the queue, no ledger, no retry; the caller's deadline is short.

#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <string_view>
#include <vector>

#include "core/cancel.hpp"
#include "core/deadline.hpp"
#include "core/error.hpp"
#include "gateway/runtime.hpp"

namespace ganglion::gateway {

struct Embedding {
  std::vector<float> vector;
  std::uint64_t tokens = 0;  // as the backend reports them; 0: it did not
};

struct EmbedRequest {
  const ModelEntry* model = nullptr;
  std::string_view text;
  std::string_view request_id;
  api::Tier tier = api::Tier::regular;
  core::Deadline deadline;
  core::CancelSource* cancel = nullptr;
};

// Errors: as of a backend's start; upstream_protocol where the answer is no embedding.
boost::asio::awaitable<core::Result<Embedding>> embed(Runtime& runtime, EmbedRequest request);

// Reads {"data":[{"embedding":[...]}],"usage":{"prompt_tokens":n}}. For tests.
core::Result<Embedding> read_embedding(std::string_view body);

}  // namespace ganglion::gateway
