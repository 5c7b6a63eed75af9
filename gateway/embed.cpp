// See gateway/embed.hpp.

#include "gateway/embed.hpp"

#include <cmath>
#include <limits>

#include "api/json_cursor.hpp"
#include "api/json_text.hpp"

namespace ganglion::gateway {
namespace {

using api::JsonCursor;
using api::JsonString;
using api::JsonType;
using core::ErrorKind;

constexpr std::size_t kAnswerBytesMax = 1UL << 20;  // 8,192 dimensions, written at length
constexpr std::size_t kDimensionsMax = 8'192;

bool read_vector(JsonCursor& cursor, std::vector<float>& out) {
  out.clear();
  for (bool more = cursor.begin_array(); more; more = cursor.next_element()) {
    std::string_view number;
    if (cursor.peek() != JsonType::number || !cursor.number(number) || out.size() == kDimensionsMax) return false;
    // One that no float holds would make every distance to it infinite, or none at all.
    const auto value = api::to_double(number);
    if (!value || std::abs(*value) > std::numeric_limits<float>::max()) return false;
    out.push_back(static_cast<float>(*value));
  }
  return cursor.ok();
}

bool read_first_item(JsonCursor& cursor, std::vector<float>& out) {
  bool first = true;
  for (bool more = cursor.begin_array(); more; more = cursor.next_element()) {
    JsonString key;
    for (bool member = cursor.begin_object(key); member; member = cursor.next_member(key)) {
      if (first && equals(key, "embedding") && cursor.peek() == JsonType::array) {
        if (!read_vector(cursor, out)) return false;
      } else if (!cursor.skip()) {
        return false;
      }
    }
    first = false;
  }
  return cursor.ok();
}

void read_usage(JsonCursor& cursor, std::uint64_t& tokens) {
  JsonString key;
  for (bool more = cursor.begin_object(key); more; more = cursor.next_member(key)) {
    std::string_view number;
    if (equals(key, "prompt_tokens") && cursor.peek() == JsonType::number) {
      if (cursor.number(number)) tokens = api::to_uint64(number).value_or(0);
    } else {
      cursor.skip();
    }
  }
}

}  // namespace

core::Result<Embedding> read_embedding(std::string_view body) {
  Embedding out;
  JsonCursor cursor(body);
  JsonString key;
  for (bool more = cursor.begin_object(key); more; more = cursor.next_member(key)) {
    if (equals(key, "data") && cursor.peek() == JsonType::array) {
      if (!read_first_item(cursor, out.vector)) {
        out.vector.clear();
        break;
      }
    } else if (equals(key, "usage") && cursor.peek() == JsonType::object) {
      read_usage(cursor, out.tokens);
    } else {
      cursor.skip();
    }
  }
  if (!cursor.ok() || !cursor.at_end() || out.vector.empty())
    return core::fail(ErrorKind::upstream_protocol, "the answer is no embedding");
  return out;
}

boost::asio::awaitable<core::Result<Embedding>> embed(Runtime& runtime, EmbedRequest request) {
  backends::Call call{.endpoint = api::Endpoint::embeddings,
                      .tier = request.tier,
                      .request_id = request.request_id,
                      .capacity_wait = std::chrono::duration_cast<std::chrono::milliseconds>(
                          request.deadline.left() + std::chrono::milliseconds{1}),
                      .deadline = request.deadline,
                      .cancel = request.cancel};
  std::string body;
  const backends::BodyFor body_for = [&](const backends::Target& target) -> core::Result<core::TextParts> {
    body = "{\"model\":";
    api::append_json_string(body, target.upstream_model);
    body += ",\"encoding_format\":\"float\",\"input\":";
    api::append_json_string(body, request.text);
    body += "}";
    return body;
  };
  std::vector<backends::Attempt> attempts;
  backends::Rejection rejection;
  const backends::RetryOptions once{.attempts_max = 1};
  auto started = co_await runtime.backends_of(*request.model).start(call, once, body_for, attempts, rejection);
  if (!started) co_return std::unexpected(std::move(started.error()));
  std::string answer;
  for (;;) {
    auto piece = co_await started->answer->next();
    if (!piece) co_return std::unexpected(std::move(piece.error()));
    if (piece->empty()) break;
    if (answer.size() + piece->size() > kAnswerBytesMax) {
      co_return core::fail(ErrorKind::upstream_protocol, "the embedding is too long");
    }
    answer += *piece;
  }
  auto out = read_embedding(answer);
  if (const auto exact = started->answer->usage(); out && exact) out->tokens = exact->input_tokens;
  co_return out;
}

}  // namespace ganglion::gateway
