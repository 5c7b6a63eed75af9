// See keep_running.hpp.

#include "net/keep_running.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include "core/log.hpp"
#include "net/retry_for_memory.hpp"

namespace ganglion::net {
namespace {

namespace asio = boost::asio;

// What makes it end at once each time must not keep the thread busy.
constexpr std::chrono::milliseconds kPause{50};

struct Keeper {
  Keeper(const asio::any_io_executor& executor, const Kept& k) : kept(k), timer(executor) {}
  Kept kept;
  asio::steady_timer timer;
  std::string why;        // the last exception
  bool returned = false;  // which its completion, for want of memory, may not have told
};

void begin(const std::shared_ptr<Keeper>& keeper);

void say_it_begins_again(Keeper& keeper) {
  try {
    const std::string why = std::exchange(keeper.why, {});
    core::log(core::LogLevel::error, "coroutine_begins_again",
              {{"name", keeper.kept.name}, {"why", why.empty() ? "it was destroyed, as for want of memory" : why}});
  } catch (const std::exception&) {  // it begins unsaid
  }
}

void begin_later(const std::shared_ptr<Keeper>& keeper) {
  if (keeper->returned || !keeper->kept.wanted()) return;
  retry_for_memory([&] {
    keeper->timer.expires_after(kPause);
    keeper->timer.async_wait([keeper](boost::system::error_code /*error*/) {
      if (!keeper->kept.wanted()) return;
      say_it_begins_again(*keeper);
      begin(keeper);
    });
  });
}

// Called at the coroutine's end; destroyed uncalled where its frames were.
class Ended {
 public:
  explicit Ended(std::shared_ptr<Keeper> keeper) : keeper_(std::move(keeper)) {}
  Ended(Ended&&) noexcept = default;
  Ended(const Ended&) = delete;
  Ended& operator=(Ended&&) = delete;
  Ended& operator=(const Ended&) = delete;
  ~Ended() {
    if (keeper_) begin_later(keeper_);
  }
  void operator()(std::exception_ptr error) {
    const auto keeper = std::exchange(keeper_, nullptr);
    if (!error) return;
    try {
      std::rethrow_exception(std::move(error));
    } catch (const std::exception& thrown) {
      retry_for_memory([&] { keeper->why = thrown.what(); });
    } catch (...) {
      retry_for_memory([&] { keeper->why = "something that is no std::exception"; });
    }
    begin_later(keeper);
  }

 private:
  std::shared_ptr<Keeper> keeper_;
};

asio::awaitable<void> run(std::shared_ptr<Keeper> keeper) {
  if (!keeper->kept.wanted()) co_return;  // any more: it may have been posted
  co_await keeper->kept.begin();
  keeper->returned = true;
}

void begin(const std::shared_ptr<Keeper>& keeper) {
  if (!keeper->kept.wanted()) return;
  Ended ended(keeper);
  try {
    asio::co_spawn(keeper->timer.get_executor(), run(keeper), std::move(ended));
  } catch (const std::bad_alloc&) {  // then `ended` was destroyed uncalled, or is now
  }
}

}  // namespace

void keep_running(const asio::any_io_executor& executor, const Kept& kept) {
  std::shared_ptr<Keeper> keeper;
  retry_for_memory([&] { keeper = std::make_shared<Keeper>(executor, kept); });
  begin(keeper);
}

}  // namespace ganglion::net
