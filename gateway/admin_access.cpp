// See gateway/admin_access.hpp.

#include "gateway/admin_access.hpp"

#include <algorithm>

#include "core/secret.hpp"
#include "core/text.hpp"
#include "gateway/host_name.hpp"

namespace ganglion::gateway {
namespace {

std::string_view digest_bytes(const core::Sha256& digest) {
  return {reinterpret_cast<const char*>(digest.data()), digest.size()};
}

}  // namespace

AdminGate::AdminGate(std::string bound_host, const AdminAccess& access)
    : bound_host_(std::move(bound_host)), on_loopback_(is_loopback_host(bound_host_)) {
  use(access);
}

void AdminGate::use(const AdminAccess& access) {
  hosts_ = access.hosts;
  asks_token_ = !access.token.empty();
  token_digest_ = core::sha256(access.token.reveal());
}

std::optional<AdminRefusal> AdminGate::judge(const net::RequestHead& head) const {
  if (!accepts_host(head.host)) return AdminRefusal::host;
  if (head.path == "/healthz" || head.path == "/readyz") return std::nullopt;
  if (!accepts_token(head.header("authorization"))) return AdminRefusal::token;
  return std::nullopt;
}

bool AdminGate::accepts_host(std::string_view host) const {
  if (!on_loopback_ && hosts_.empty()) return true;
  // HTTP/1.0 knows no Host; no browser sends it.
  if (host.empty()) return on_loopback_;
  const std::string_view name = without_port(host);
  if (is_loopback_host(host) || core::iequals(name, bound_host_)) return true;
  return std::ranges::any_of(hosts_, [&](const std::string& known) { return core::iequals(name, known); });
}

bool AdminGate::accepts_token(std::string_view authorization) const {
  if (!asks_token_) return true;
  constexpr std::string_view kScheme = "bearer ";
  if (authorization.size() <= kScheme.size() || !core::iequals(authorization.substr(0, kScheme.size()), kScheme)) {
    return false;
  }
  const core::Sha256 given = core::sha256(authorization.substr(kScheme.size()));
  return core::equal_constant_time(digest_bytes(given), digest_bytes(token_digest_));
}

core::Error refusal_error(AdminRefusal refusal) {
  if (refusal == AdminRefusal::token) {
    return core::make_error(core::ErrorKind::unauthorized,
                            "the admin listener asks for its token: send Authorization: Bearer and admin.token");
  }
  return core::make_error(core::ErrorKind::forbidden,
                          "the Host header names no address of this listener; if it is yours, add it to admin.hosts");
}

}  // namespace ganglion::gateway
