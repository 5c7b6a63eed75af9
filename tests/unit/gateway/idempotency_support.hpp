#pragma once
// What tests of idempotency share: digests of the keys and requests that they name, and what is awaited of a table.

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "gateway/idempotency.hpp"
#include "tests/support/coroutine.hpp"

namespace ganglion::gateway {

inline idempotency::Digest key(const std::string& name) {
  return idempotency::key_digest("t", "k", name);
}
inline idempotency::Digest body(const std::string& text) {
  return idempotency::request_digest(api::Endpoint::chat_completions, text);
}

// The claim of a lead, durable; and then its whole answer.
inline void write_claim(boost::asio::io_context& io, Idempotency::Known& lead) {
  test::run_coroutine(io, [&]() -> boost::asio::awaitable<void> { EXPECT_TRUE(co_await lead.claim->write({})); });
}
inline void keep_answer(boost::asio::io_context& io, Idempotency::Known& lead, const std::string& text) {
  test::run_coroutine(io, [&]() -> boost::asio::awaitable<void> {
    co_await lead.claim->keep(std::make_shared<const idempotency::StoredAnswer>(
        idempotency::StoredAnswer{.status = 200, .content_type = "text/plain", .body = text}));
  });
}
// What is kept for a key; "(none)".
inline std::string kept_answer(boost::asio::io_context& io, Idempotency& at, const std::string& name) {
  std::string out = "(none)";
  test::run_coroutine(io, [&]() -> boost::asio::awaitable<void> {
    const auto got = co_await at.answer(key(name), {});
    if (got && *got) out = (*got)->body;
  });
  return out;
}

}  // namespace ganglion::gateway
