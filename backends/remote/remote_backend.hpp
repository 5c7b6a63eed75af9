#pragma once
// A remote OpenAI-compatible provider (vLLM, llama.cpp server, Ollama, hosted). Where it connects and which key it
// sends come from the configuration alone. One per worker: it owns the worker's pool of connections to the provider.

#include <boost/asio/any_io_executor.hpp>
#include <string>

#include "backends/backend.hpp"
#include "backends/remote/options.hpp"
#include "net/http_client.hpp"

namespace ganglion::backends {

class RemoteBackend final : public Backend {
 public:
  // Throws std::invalid_argument for a base_url or CA file that cannot be used. `hooks` outlives this.
  RemoteBackend(boost::asio::any_io_executor executor, const RemoteOptions& options, net::UpstreamHooks& hooks);

  std::string_view name() const override { return name_; }
  boost::asio::awaitable<core::Result<std::unique_ptr<Answer>>> start(const Call& call, Rejection* rejection) override;

 private:
  std::string name_;
  std::string authorization_;  // "Bearer ...", "" if the provider wants none
  core::Secret api_key_;
  net::UpstreamClient client_;
};

// Retry-After (seconds or HTTP date) and the retry-after-ms of OpenAI's API; nullopt if neither is there.
std::optional<std::chrono::milliseconds> parse_retry_after(std::string_view retry_after,
                                                           std::string_view retry_after_ms,
                                                           std::chrono::system_clock::time_point now);

}  // namespace ganglion::backends
