#pragma once
// GET /admin/usage: sums of the ledger, as JSON or CSV. Reads files, so it works on a thread of its own and never holds
// up the admin listener.

#include <boost/asio/thread_pool.hpp>
#include <functional>
#include <string>

#include "metering/bill.hpp"
#include "net/exchange.hpp"

namespace ganglion::gateway {

class UsageEndpoint {
 public:
  // `free` is asked on the listener's thread.
  UsageEndpoint(std::string directory, std::function<metering::FreeAllocation()> free);
  ~UsageEndpoint();  // waits for a sum that is being made
  UsageEndpoint(const UsageEndpoint&) = delete;
  UsageEndpoint& operator=(const UsageEndpoint&) = delete;

  // Lives no longer than the endpoint.
  net::Handler handler();

 private:
  struct Page {
    int status = 200;
    std::string_view content_type = "application/json";
    std::string body;
  };
  static Page refuse(const core::Error& error);
  Page answer(const std::string& query, const metering::FreeAllocation& free) const;

  const std::string directory_;
  const std::function<metering::FreeAllocation()> free_;
  boost::asio::thread_pool pool_{1};
};

}  // namespace ganglion::gateway
