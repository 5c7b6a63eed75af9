#pragma once
// Who may use the admin listener: the Host header against DNS rebinding, and the operator's token. Not thread-safe: it
// belongs to the admin listener's thread.

#include <cstdint>
#include <optional>
#include <string>

#include "core/digest.hpp"
#include "core/error.hpp"
#include "gateway/options.hpp"
#include "net/http_types.hpp"

namespace ganglion::gateway {

// What turned a request away.
enum class AdminRefusal : std::uint8_t { host, token };

class AdminGate {
 public:
  // `bound_host`: the address that the listener is bound to.
  AdminGate(std::string bound_host, const AdminAccess& access);
  // Another token and other names, from the next request on.
  void use(const AdminAccess& access);

  bool on_loopback() const { return on_loopback_; }
  // Nothing: the request may pass. `/healthz` and `/readyz` need no token: whoever restarts a process that hangs should
  // not hold its operator's secret, and all that they tell is whether it runs.
  std::optional<AdminRefusal> judge(const net::RequestHead& head) const;

 private:
  bool accepts_host(std::string_view host) const;
  bool accepts_token(std::string_view authorization) const;

  const std::string bound_host_;
  const bool on_loopback_;
  std::vector<std::string> hosts_;
  bool asks_token_ = false;
  core::Sha256 token_digest_{};  // equal lengths to compare, whatever a caller sends
};

core::Error refusal_error(AdminRefusal refusal);

}  // namespace ganglion::gateway
