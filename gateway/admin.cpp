// See gateway/admin.hpp.

#include "gateway/admin.hpp"

#include "api/error_body.hpp"
#include "metrics/registry.hpp"

namespace ganglion::gateway {
namespace {

struct Page {
  int status = 200;
  std::string_view content_type = "text/plain; charset=utf-8";
  std::string body;
};

Page render(const AdminSources& sources, const net::RequestHead& head) {
  if (head.method != net::Method::get && head.method != net::Method::head) {
    const auto error = core::make_error(core::ErrorKind::method_not_allowed, "the admin listener takes GET");
    return {.status = 405, .content_type = "application/json", .body = api::openai_error_body(error)};
  }
  if (head.path == "/metrics") return {.content_type = metrics::kExpositionContentType, .body = sources.metrics()};
  if (head.path == "/healthz") return {.body = "ok\n"};
  if (head.path == "/readyz") {
    const std::string why = sources.not_ready();
    if (why.empty()) return {.body = "ready\n"};
    return {.status = 503, .body = "not ready: " + why + "\n"};
  }
  if (head.path == "/admin/cache/semantic") {
    return {.content_type = "application/json", .body = sources.semantic_json()};
  }
  if (head.path == "/admin/config") return {.content_type = "application/json", .body = sources.config_json()};
  if (head.path == "/admin/sinks") return {.content_type = "application/json", .body = sources.sinks_json()};
  std::string more;
  for (const auto& [path, handler] : sources.routes) more += ", " + path;
  const auto error = core::make_error(core::ErrorKind::not_found,
                                      "no such path; served here are /metrics, /healthz, /readyz, /admin/config, "
                                      "/admin/cache/semantic, /admin/sinks" +
                                          more);
  return {.status = 404, .content_type = "application/json", .body = api::openai_error_body(error)};
}

boost::asio::awaitable<void> refuse(net::Exchange& exchange, AdminRefusal refusal) {
  const core::Error error = refusal_error(refusal);
  net::ResponseHead head{.status = core::face(error.kind).http_status, .content_type = "application/json"};
  if (refusal == AdminRefusal::token) head.headers.add("www-authenticate", "Bearer");
  const std::string body = api::openai_error_body(error);
  [[maybe_unused]] const auto sent = co_await exchange.respond(head, body);
}

}  // namespace

net::Handler admin_handler(const AdminSources& sources, const AdminGate& gate, net::ServerHooks& hooks) {
  return [&](net::Exchange& exchange) -> boost::asio::awaitable<void> {
    if (const auto refusal = gate.judge(exchange.head())) {
      hooks.request_refused(refusal_error(*refusal).kind);
      co_return co_await refuse(exchange, *refusal);
    }
    if (const auto route = sources.routes.find(exchange.head().path); route != sources.routes.end()) {
      co_await route->second(exchange);
      co_return;
    }
    const Page page = render(sources, exchange.head());
    // A scraper that went away is nobody's error.
    [[maybe_unused]] const auto sent =
        co_await exchange.respond({.status = page.status, .content_type = page.content_type}, page.body);
  };
}

}  // namespace ganglion::gateway
