#pragma once
// A LocalBackend over a tiny golden model, and one call of it from start to end.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "backends/local/local_backend.hpp"
#include "backends/local/local_parts.hpp"
#include "tests/support/coroutine.hpp"

namespace ganglion::backends {

using nlohmann::json;

inline LocalModelOptions tiny(const std::string& name) {
  return {.name = name,
          .directory = GANGLION_SOURCE_DIR "/tests/data/local/" + name,
          .threads = 1,
          .kv_bytes = 8ULL << 20,
          .queue_max = 64,
          .batch_max = 8};
}

inline std::shared_ptr<LocalModel> load(const LocalModelOptions& options) {
  auto model = load_local_model(options);
  if (!model) throw std::runtime_error(model.error().message);
  return *model;
}

struct Reply {
  std::optional<core::Error> error;  // of start() or next()
  bool began = false;                // start() gave an answer
  AnswerHead head;
  std::string body;
  std::vector<std::string> pieces;
  std::optional<api::Usage> usage;

  json parsed() const { return json::parse(body); }
};

struct Ask {
  api::Endpoint endpoint = api::Endpoint::chat_completions;
  json body;
  api::Tier tier = api::Tier::regular;
  core::Deadline deadline;
  std::string tenant;
};

inline boost::asio::awaitable<Reply> ask(LocalBackend& backend, const Ask& what) {
  const std::string body = what.body.dump();
  core::CancelSource cancel;
  const Call call{.endpoint = what.endpoint,
                  .model = backend.name(),
                  .body = body,
                  .stream = what.body.value("stream", false),
                  .tier = what.tier,
                  .request_id = "01TEST",
                  .tenant = what.tenant,
                  .deadline = what.deadline,
                  .cancel = &cancel};
  Reply reply;
  auto answer = co_await backend.start(call, nullptr);
  if (!answer) {
    reply.error = answer.error();
    co_return reply;
  }
  reply.began = true;
  reply.head = (*answer)->head();
  while (true) {
    const auto piece = co_await (*answer)->next();
    if (!piece) {
      reply.error = piece.error();
      break;
    }
    if (piece->empty()) break;
    reply.body += *piece;
    reply.pieces.emplace_back(*piece);
  }
  reply.usage = (*answer)->usage();
  co_return reply;
}

inline Reply ask(const std::shared_ptr<LocalModel>& model, const Ask& what) {
  boost::asio::io_context io(1);
  LocalBackend backend(model, io.get_executor());
  Reply reply;
  test::run_coroutine(io, [&]() -> boost::asio::awaitable<void> { reply = co_await ask(backend, what); });
  return reply;
}

inline Reply chat(const std::shared_ptr<LocalModel>& model, json fields) {
  json body = {{"model", model->name()}, {"messages", {{{"role", "user"}, {"content", "What is a cache?"}}}}};
  body.update(fields);
  return ask(model, {.body = body});
}

inline Reply complete(const std::shared_ptr<LocalModel>& model, json fields) {
  json body = {{"model", model->name()}, {"prompt", "The cat sat"}};
  body.update(fields);
  return ask(model, {.endpoint = api::Endpoint::completions, .body = body});
}

// The events of a stream; the last must be [DONE], which is not among them.
inline std::vector<json> events(const std::string& body) {
  std::vector<json> out;
  bool done = false;
  for (std::size_t at = 0; at < body.size();) {
    const std::size_t end = body.find("\n\n", at);
    const std::string event = body.substr(at, end - at);
    EXPECT_TRUE(event.starts_with("data: ")) << event;
    EXPECT_FALSE(done) << "an event after [DONE]";
    if (event == "data: [DONE]") {
      done = true;
    } else {
      out.push_back(json::parse(event.substr(6)));
    }
    if (end == std::string::npos) break;
    at = end + 2;
  }
  EXPECT_TRUE(done) << "no [DONE]";
  return out;
}

struct Streamed {
  std::string text;
  std::string finish_reason;
  json logprobs = json::array();
};

// The choices that a stream's events add up to.
inline std::vector<Streamed> joined(const std::vector<json>& all) {
  std::vector<Streamed> out;
  for (const json& event : all) {
    for (const json& choice : event.at("choices")) {
      const auto index = choice.at("index").get<std::size_t>();
      if (out.size() <= index) out.resize(index + 1);
      Streamed& one = out[index];
      EXPECT_EQ(one.finish_reason, "") << "something after the finish of choice " << index;
      one.text += choice.contains("delta") ? choice["delta"].value("content", "") : choice.value("text", "");
      if (choice["logprobs"].is_object() && choice["logprobs"].contains("content")) {
        for (const json& entry : choice["logprobs"]["content"]) one.logprobs.push_back(entry);
      }
      if (choice["finish_reason"].is_string()) one.finish_reason = choice["finish_reason"];
    }
  }
  return out;
}

// Waits until the engine holds nothing more, for at most `limit`.
inline bool idle(const LocalModel& model, std::chrono::milliseconds limit = std::chrono::seconds{60}) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (std::chrono::steady_clock::now() < end) {
    const local::EngineStats s = model.stats();
    if (s.running_now[0] + s.running_now[1] == 0 && s.queued_now[0] + s.queued_now[1] == 0 &&
        s.kv_pages_used_now == 0 && s.finished == s.accepted)
      return true;
    std::this_thread::sleep_for(std::chrono::milliseconds{1});
  }
  return false;
}

}  // namespace ganglion::backends
