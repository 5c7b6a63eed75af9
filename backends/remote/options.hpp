#pragma once
// One remote OpenAI-compatible provider.

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "core/secret.hpp"
#include "net/options.hpp"

namespace ganglion::backends {

struct ModelAlias {
  std::string name;                     // what clients ask for
  std::string upstream;                 // what the provider is asked for; empty: the same name
  std::uint64_t output_tokens_max = 0;  // the longest answer that it gives here; 0: not known
};

struct RetryOptions {
  std::uint32_t attempts_max = 2;                // all tries over all backends, the first one included
  std::chrono::milliseconds backoff_base{100};   // doubled per retry, full jitter
  std::chrono::milliseconds backoff_max{2'000};  // also the longest Retry-After that is waited out
};

struct RemoteOptions {
  std::string name;
  net::UpstreamOptions upstream;
  core::Secret api_key;  // sent as Authorization: Bearer; empty: none
  std::vector<ModelAlias> models;
  std::uint32_t weight = 1;
};

}  // namespace ganglion::backends
