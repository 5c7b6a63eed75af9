// How a generation of the local backend ends: aborts, cancels, deadlines, a full queue, many at once.

#include <atomic>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "core/limits.hpp"
#include "tests/unit/backends/local/local_fixture.hpp"

namespace ganglion::backends {
namespace {

using boost::asio::awaitable;
using Clock = std::chrono::steady_clock;

json long_chat(const std::string& model, int max_tokens = 200) {
  return {{"model", model},
          {"messages", {{{"role", "user"}, {"content", "Count."}}}},
          {"max_tokens", max_tokens},
          {"ignore_eos", true},
          {"seed", 1},
          {"stream", true}};
}

// One call whose parts live as long as the test needs.
struct Held {
  Held(LocalBackend& backend, json request) : body(request.dump()) {
    call = {.endpoint = api::Endpoint::chat_completions,
            .model = backend.name(),
            .body = body,
            .stream = true,
            .request_id = "01HELD",
            .cancel = &cancel};
  }
  std::string body;
  core::CancelSource cancel;
  Call call;
};

// The tiny model makes 200 tokens in milliseconds. On a busy machine it may be through before this thread comes to
// look; then the case is tried again.
constexpr int kTries = 50;

TEST(LocalLifecycle, DroppingAnAnswerFreesItsPlaceAndPagesAtOnce) {
  for (int tries = 0; tries < kTries; ++tries) {
    const auto model = load(tiny("llama3_tiny"));
    boost::asio::io_context io(1);
    LocalBackend backend(model, io.get_executor());
    local::EngineStats before;
    test::run_coroutine(io, [&]() -> awaitable<void> {
      Held held(backend, long_chat("llama3_tiny"));
      auto answer = co_await backend.start(held.call, nullptr);
      EXPECT_TRUE(answer) << answer.error().message;
      if (!answer) co_return;
      const auto piece = co_await (*answer)->next();
      EXPECT_TRUE(piece && !piece->empty());
      before = model->stats();
      answer->reset();
    });
    EXPECT_TRUE(idle(*model));
    const local::EngineStats stats = model->stats();
    EXPECT_EQ(stats.finished, 1U);
    if (stats.cancelled == 0 && stats.generated_tokens == 200) continue;
    EXPECT_EQ(stats.cancelled, 1U);
    EXPECT_EQ(before.running_now[0], 1);
    EXPECT_GT(before.kv_pages_used_now, 0);
    EXPECT_LT(stats.generated_tokens, 200U) << "the generation ran on to its end";
    return;
  }
  FAIL() << "no generation was caught in its middle";
}

TEST(LocalLifecycle, CancelEndsAWaitAtOnceAndSaysWhatWasUsed) {
  for (int tries = 0; tries < kTries; ++tries) {
    const auto model = load(tiny("llama3_tiny"));
    boost::asio::io_context io(1);
    LocalBackend backend(model, io.get_executor());
    bool ended_first = false;
    test::run_coroutine(io, [&]() -> awaitable<void> {
      Held held(backend, long_chat("llama3_tiny"));
      auto answer = co_await backend.start(held.call, nullptr);
      EXPECT_TRUE(answer);
      if (!answer) co_return;
      boost::asio::post(io, [&] { held.cancel.cancel(core::CancelReason::client_gone); });
      core::Result<std::string_view> piece;
      while ((piece = co_await (*answer)->next()) && !piece->empty()) {
      }
      const auto used = (*answer)->usage();
      ended_first = piece || (used && used->output_tokens == 200);
      if (ended_first) co_return;
      EXPECT_EQ(piece.error().kind, core::ErrorKind::cancelled);
      EXPECT_TRUE(used && used->input_tokens > 0 && used->output_tokens > 0 && used->output_tokens < 200);
    });
    EXPECT_TRUE(idle(*model));
    if (!ended_first) return;
  }
  FAIL() << "no generation was caught in its middle";
}

TEST(LocalLifecycle, WhatWasProducedWhileTheWorkerWasBusyIsBilledWhenTheClientLeaves) {
  const auto model = load(tiny("llama3_tiny"));
  int tries = 0;
  for (int streams = 0; streams < 2;) {
    ASSERT_LT(tries++, 2 * kTries) << "no generation was caught in its middle";
    const bool stream = streams == 1;
    boost::asio::io_context io(1);
    LocalBackend backend(model, io.get_executor());
    json request = long_chat("llama3_tiny");
    request["stream"] = stream;
    Held held(backend, std::move(request));
    held.call.stream = stream;
    std::optional<core::Result<std::unique_ptr<Answer>>> answer;
    boost::asio::co_spawn(
        io, [&]() -> awaitable<void> { answer = co_await backend.start(held.call, nullptr); }, boost::asio::detached);
    const std::uint64_t before = model->stats().generated_tokens;
    io.run_one();  // as far as it comes without the engine; then the worker is busy elsewhere
    for (int i = 0; i < 10'000 && model->stats().generated_tokens < before + 5; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds{1});
    }
    if (answer) {  // this thread stood still while the engine went on
      answer.reset();
      EXPECT_TRUE(idle(*model));
      continue;
    }
    ++streams;
    held.cancel.cancel(core::CancelReason::client_gone);
    std::optional<core::Error> end;
    boost::asio::co_spawn(
        io,
        [&]() -> awaitable<void> {
          while (!answer) co_await boost::asio::post(io, boost::asio::use_awaitable);
          EXPECT_TRUE(*answer) << "nothing would be billed";
          if (!*answer) co_return;
          const auto piece = co_await (**answer)->next();
          if (!piece) end = piece.error();
        },
        boost::asio::detached);
    io.run();
    ASSERT_TRUE(answer && *answer);
    ASSERT_TRUE(end);
    EXPECT_EQ(end->kind, core::ErrorKind::cancelled);
    const auto used = (**answer)->usage();
    EXPECT_GT(used->input_tokens, 0U);
    EXPECT_GE(used->output_tokens, 4U);
    answer.reset();
    EXPECT_TRUE(idle(*model));
  }
}

// A model with one place, taken by an answer that nobody reads.
struct OnePlace {
  explicit OnePlace(std::uint32_t queue_max) {
    LocalModelOptions options = tiny("llama3_tiny");
    options.batch_max = 1;
    options.queue_max = queue_max;
    model = load(options);
    backend.emplace(model, io.get_executor());
    blocker.emplace(*backend, long_chat("llama3_tiny", 230));
  }
  std::shared_ptr<LocalModel> model;
  boost::asio::io_context io{1};
  std::optional<LocalBackend> backend;
  std::optional<Held> blocker;
};

TEST(LocalLifecycle, AFullQueueIsRefusedWithATimeToRetry) {
  OnePlace place(2);
  std::vector<Reply> replies(24);
  int refused = 0;
  test::run_coroutine(place.io, [&]() -> awaitable<void> {
    std::size_t done = 0;
    for (Reply& reply : replies) {
      boost::asio::co_spawn(
          place.io,
          [&]() -> awaitable<void> {
            reply = co_await ask(*place.backend, {.body = long_chat("llama3_tiny", 60)});
            ++done;
          },
          boost::asio::detached);
    }
    boost::asio::steady_timer timer(place.io);
    while (done < replies.size()) {
      timer.expires_after(std::chrono::milliseconds{1});
      co_await timer.async_wait(boost::asio::use_awaitable);
    }
  });
  for (const Reply& reply : replies) {
    if (!reply.error) {
      EXPECT_EQ(reply.usage->output_tokens, 60U);
      continue;
    }
    ++refused;
    EXPECT_FALSE(reply.began);
    EXPECT_EQ(reply.error->kind, core::ErrorKind::queue_full);
    EXPECT_EQ(core::face(reply.error->kind).http_status, 429);
    EXPECT_GT(reply.error->retry_after.count(), 0);
  }
  EXPECT_GE(refused, 10);
  EXPECT_LT(refused, 24);
  EXPECT_EQ(place.model->stats().rejected_queue_full, static_cast<std::uint64_t>(refused));
}

TEST(LocalLifecycle, OfRefusedChoicesNoneStays) {
  OnePlace place(2);
  json body = long_chat("llama3_tiny", 100);
  body["n"] = 8;
  Reply reply;
  test::run_coroutine(place.io, [&]() -> awaitable<void> { reply = co_await ask(*place.backend, {.body = body}); });
  ASSERT_TRUE(reply.error);
  EXPECT_EQ(reply.error->kind, core::ErrorKind::queue_full);
  EXPECT_TRUE(idle(*place.model));
}

TEST(LocalLifecycle, AQueuedRequestObeysItsDeadlineAndItsCancel) {
  OnePlace place(8);
  test::run_coroutine(place.io, [&]() -> awaitable<void> {
    auto blocking = co_await place.backend->start(place.blocker->call, nullptr);
    EXPECT_TRUE(blocking);
    Reply late = co_await ask(*place.backend, {.body = long_chat("llama3_tiny"),
                                               .deadline = core::Deadline{Clock::now() - std::chrono::seconds{1}}});
    EXPECT_TRUE(late.error && late.error->kind == core::ErrorKind::deadline_exceeded);
    Held waiting(*place.backend, long_chat("llama3_tiny"));
    boost::asio::post(place.io, [&] { waiting.cancel.cancel(core::CancelReason::client_gone); });
    const auto refused = co_await place.backend->start(waiting.call, nullptr);
    EXPECT_TRUE(!refused && refused.error().kind == core::ErrorKind::cancelled);
  });
  EXPECT_TRUE(idle(*place.model));
}

TEST(LocalLifecycle, AnAnswerThatNobodyReadsHoldsNobodyUp) {
  const auto model = load(tiny("llama3_tiny"));
  boost::asio::io_context io(1);
  LocalBackend backend(model, io.get_executor());
  test::run_coroutine(io, [&]() -> awaitable<void> {
    Held held(backend, long_chat("llama3_tiny", 50));
    auto slow = co_await backend.start(held.call, nullptr);
    EXPECT_TRUE(slow);
    const Reply other = co_await ask(backend, {.body = long_chat("llama3_tiny", 80)});
    EXPECT_FALSE(other.error);
    // The engine finished the slow one meanwhile; all of it is still there to be read.
    EXPECT_TRUE(idle(*model));
    std::string body;
    while (true) {
      const auto piece = co_await (*slow)->next();
      EXPECT_TRUE(piece);
      if (!piece || piece->empty()) break;
      EXPECT_LE(piece->size(), core::kStreamBufferBytesMax);
      body += *piece;
    }
    EXPECT_EQ(joined(events(body))[0].finish_reason, "length");
    EXPECT_EQ((*slow)->usage()->output_tokens, 50U);
  });
}

TEST(LocalLifecycle, TwoWorkersShareOneEngineUnderManyStreams) {
  LocalModelOptions options = tiny("llama3_tiny");
  options.queue_max = 64;
  const auto model = load(options);
  constexpr int kStreams = 16;
  std::atomic<int> completed = 0;
  std::atomic<int> aborted = 0;
  const auto worker = [&](int number) {
    boost::asio::io_context io(1);
    LocalBackend backend(model, io.get_executor());
    for (int i = 0; i < kStreams; ++i) {
      boost::asio::co_spawn(
          io,
          [&, i]() -> awaitable<void> {
            json body = long_chat("llama3_tiny", 20 + i);
            body["seed"] = number * 100 + i;
            if (i % 4 != 3) {
              const Reply reply = co_await ask(backend, {.body = body});
              if (!reply.error && reply.usage->output_tokens == static_cast<std::uint64_t>(20 + i)) ++completed;
              co_return;
            }
            Held held(backend, body);
            auto answer = co_await backend.start(held.call, nullptr);
            if (answer && (co_await (*answer)->next())) ++aborted;
          },
          boost::asio::detached);
    }
    io.run_for(std::chrono::seconds{60});
  };
  std::thread first(worker, 1);
  std::thread second(worker, 2);
  first.join();
  second.join();
  EXPECT_EQ(completed, 2 * kStreams * 3 / 4);
  EXPECT_EQ(aborted, 2 * kStreams / 4);
  EXPECT_TRUE(idle(*model));
  EXPECT_EQ(model->stats().finished, static_cast<std::uint64_t>(2 * kStreams));
}

TEST(LocalLifecycle, AWorkerMayEndWithAnswersUnderWay) {
  const auto model = load(tiny("llama3_tiny"));
  {
    boost::asio::io_context io(1);
    LocalBackend backend(model, io.get_executor());
    bool got_one = false;
    boost::asio::co_spawn(
        io,
        [&]() -> awaitable<void> {
          Held held(backend, long_chat("llama3_tiny"));
          auto answer = co_await backend.start(held.call, nullptr);
          got_one = answer.has_value();
          io.stop();
          while (answer) {
            const auto piece = co_await (*answer)->next();
            if (!piece || piece->empty()) break;
          }
        },
        boost::asio::detached);
    io.run_for(std::chrono::seconds{60});
    EXPECT_TRUE(got_one);
  }
  EXPECT_TRUE(idle(*model));
}

}  // namespace
}  // namespace ganglion::backends
