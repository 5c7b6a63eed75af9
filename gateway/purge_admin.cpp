// See gateway/purge_admin.hpp.

#include "gateway/purge_admin.hpp"

#include <nlohmann/json.hpp>

#include "api/error_body.hpp"
#include "api/json_cursor.hpp"
#include "core/log.hpp"

namespace ganglion::gateway {
namespace {

using core::ErrorKind;
using Json = nlohmann::json;

constexpr std::size_t kBodyBytesMax = 64 * 1024;

struct Field {
  const char* name;
  std::string cache::PurgeScope::* member;
};
constexpr Field kFields[] = {{"tenant", &cache::PurgeScope::tenant},
                             {"gateway", &cache::PurgeScope::gateway},
                             {"model", &cache::PurgeScope::model},
                             {"tag", &cache::PurgeScope::tag},
                             {"key", &cache::PurgeScope::key}};
constexpr std::string_view kExpected =
    "expected {\"all\": true} or at least one of \"tenant\", \"gateway\", \"model\", \"tag\" and \"key\"";

std::string told(const cache::PurgeReport& report) {
  using Cluster = cache::PurgeReport::Cluster;
  using Disk = cache::PurgeReport::Disk;
  Json out{{"purged", {{"memory_entries", report.memory_entries}}}};
  out["disk"] = report.disk == Disk::off ? "off" : report.disk == Disk::done ? "purged" : "not_durable";
  out["other_gateways"] = report.cluster == Cluster::off ? "off" : report.cluster == Cluster::told ? "told" : "pending";
  if (report.cluster == Cluster::pending) {
    out["detail"] = "Redis does not answer: this gateway is purged, the others are told as soon as it does";
  } else if (report.disk == Disk::failed) {
    out["detail"] = report.disk_problem;
  }
  return out.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

boost::asio::awaitable<void> refuse(net::Exchange& exchange, const core::Error& error, std::string_view allow = {}) {
  net::ResponseHead head{.status = api::http_status(error), .content_type = "application/json"};
  if (!allow.empty()) head.headers.add("allow", allow);
  const std::string body = api::openai_error_body(error);
  [[maybe_unused]] const auto sent = co_await exchange.respond(head, body);
}

}  // namespace

core::Result<cache::PurgeScope> parse_purge(std::string_view body) {
  if (auto good = api::check_json(body); !good) return std::unexpected(std::move(good.error()));
  const Json json = Json::parse(body, nullptr, false);
  if (!json.is_object()) return core::fail(ErrorKind::invalid_json, std::string{kExpected});
  cache::PurgeScope scope;
  bool all = false;
  for (const auto& [name, value] : json.items()) {
    if (name == "all") {
      if (value != true) return core::fail(ErrorKind::invalid_value, "'all' must be true or left out", "all");
      all = true;
      continue;
    }
    const auto field = std::ranges::find_if(kFields, [&](const Field& f) { return name == f.name; });
    if (field == std::end(kFields)) {
      return core::fail(ErrorKind::invalid_value,
                        "unknown field '" + name.substr(0, 64) + "'; " + std::string{kExpected}, name.substr(0, 64));
    }
    if (!value.is_string() || value.get_ref<const std::string&>().empty() ||
        value.get_ref<const std::string&>().size() > 1024) {
      return core::fail(ErrorKind::invalid_value, "'" + name + "' must be a string of 1 to 1024 bytes", name);
    }
    scope.*(field->member) = value.get<std::string>();
  }
  if (all && !scope.all()) {
    return core::fail(ErrorKind::invalid_value, "'all' purges everything and stands alone", "all");
  }
  // Nothing named is more likely a mistake than a wish to empty the cache.
  if (!all && scope.all()) return core::fail(ErrorKind::missing_field, std::string{kExpected});
  return scope;
}

boost::asio::awaitable<void> serve_purge(net::Exchange& exchange, cache::Tiers& tiers) {
  const net::RequestHead& head = exchange.head();
  if (head.method != net::Method::post) {
    co_return co_await refuse(exchange, core::make_error(ErrorKind::method_not_allowed, "this path takes POST"),
                              "POST");
  }
  // A page in the operator's browser cannot send this type across origins without asking first.
  if (!head.header("content-type").starts_with("application/json")) {
    co_return co_await refuse(exchange, core::make_error(ErrorKind::unsupported_media,
                                                         "send Content-Type: application/json", "content-type"));
  }
  const auto body = co_await exchange.read_body(kBodyBytesMax);
  if (!body) co_return co_await refuse(exchange, body.error());
  const auto scope = parse_purge(*body);
  if (!scope) co_return co_await refuse(exchange, scope.error());
  const cache::PurgeReport report = co_await tiers.purge(*scope);
  const bool pending = report.cluster == cache::PurgeReport::Cluster::pending;
  const bool failed = report.disk == cache::PurgeReport::Disk::failed;
  core::log(failed ? core::LogLevel::error : core::LogLevel::info, "cache_purged",
            {{"scope", cache::to_text(*scope)}, {"entries", report.memory_entries}, {"told", !pending}});
  const std::string answer = told(report);
  [[maybe_unused]] const auto sent = co_await exchange.respond({.status = failed    ? 500
                                                                          : pending ? 202
                                                                                    : 200,
                                                                .content_type = "application/json"},
                                                               answer);
}

}  // namespace ganglion::gateway
