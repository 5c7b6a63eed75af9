// See gateway/admin_usage.hpp.

#include "gateway/admin_usage.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <utility>

#include "api/error_body.hpp"
#include "core/thread.hpp"
#include "metering/usage.hpp"

namespace ganglion::gateway {
namespace {

// "a=b&c=d" with percent escapes and '+' for a blank; std::nullopt where an escape is broken.
std::optional<std::vector<std::pair<std::string, std::string>>> parameters(std::string_view query) {
  std::vector<std::pair<std::string, std::string>> out;
  while (!query.empty()) {
    const std::string_view one = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), one.size() + 1));
    if (one.empty()) continue;
    const std::size_t equals = one.find('=');
    std::string value{equals == std::string_view::npos ? std::string_view{} : one.substr(equals + 1)};
    std::ranges::replace(value, '+', ' ');
    auto name = net::percent_decode(one.substr(0, equals));
    auto decoded = net::percent_decode(value);
    if (!name || !decoded) return std::nullopt;
    out.emplace_back(std::move(*name), std::move(*decoded));
  }
  return out;
}

}  // namespace

UsageEndpoint::UsageEndpoint(std::string directory, std::function<metering::FreeAllocation()> free)
    : directory_(std::move(directory)), free_(std::move(free)) {
  boost::asio::post(pool_, [] { core::name_this_thread("usage"); });
}

UsageEndpoint::~UsageEndpoint() {
  pool_.join();
}

UsageEndpoint::Page UsageEndpoint::refuse(const core::Error& error) {
  return {.status = core::face(error.kind).http_status, .body = api::openai_error_body(error)};
}

UsageEndpoint::Page UsageEndpoint::answer(const std::string& query, const metering::FreeAllocation& free) const {
  using core::ErrorKind;
  const auto given = parameters(query);
  if (!given) return refuse(core::make_error(ErrorKind::invalid_value, "the query has a broken percent escape"));
  metering::UsageQuery what{.by = {metering::UsageKey::key, metering::UsageKey::model, metering::UsageKey::tier},
                            .daily_free_neurons = free};
  bool csv = false;
  for (const auto& [name, value] : *given) {
    if (name == "format") {
      if (value != "json" && value != "csv")
        return refuse(core::make_error(ErrorKind::invalid_value, "format is json or csv", "format"));
      csv = value == "csv";
      continue;
    }
    auto set = metering::set_usage_option(what, name, value);
    if (!set) {
      set.error().param = name;
      return refuse(set.error());
    }
    if (!*set)
      return refuse(
          core::make_error(ErrorKind::invalid_value,
                           "there is no parameter \"" + name.substr(0, 40) +
                               "\"; use by, from, to, key, tenant, gateway, model, tier, tag (NAME=VALUE) and format",
                           name.substr(0, 40)));
  }
  const auto report = metering::usage(directory_, what);
  if (!report) return refuse(report.error());
  if (csv) return {.content_type = "text/csv; charset=utf-8", .body = metering::format_csv(*report)};
  return {.body = metering::format_json(*report)};
}

net::Handler UsageEndpoint::handler() {
  return [this](net::Exchange& exchange) -> boost::asio::awaitable<void> {
    const net::RequestHead& head = exchange.head();
    Page page;
    if (head.method != net::Method::get && head.method != net::Method::head) {
      page = refuse(core::make_error(core::ErrorKind::method_not_allowed, "/admin/usage takes GET"));
    } else {
      auto work = [this, query = std::string{head.query}, free = free_()]() -> boost::asio::awaitable<Page> {
        co_return answer(query, free);
      };
      page = co_await boost::asio::co_spawn(pool_, std::move(work), boost::asio::use_awaitable);
    }
    // A reader that went away is nobody's error.
    [[maybe_unused]] const auto sent =
        co_await exchange.respond({.status = page.status, .content_type = page.content_type}, page.body);
  };
}

}  // namespace ganglion::gateway
