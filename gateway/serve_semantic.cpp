// The semantic look: between the exact look-up that missed and the call to a backend. Whatever goes wrong here is a
// plain miss.

#include "api/json_text.hpp"
#include "cache/semantic_question.hpp"
#include "gateway/embed.hpp"
#include "gateway/pipeline.hpp"

namespace ganglion::gateway {
namespace {

using cache::SemanticResult;

constexpr std::uint64_t kOdd = 0x9E3779B97F4A7C15ULL;

SemanticResult result_of(const core::Error& error) {
  return error.kind == core::ErrorKind::deadline_exceeded ? SemanticResult::timed_out : SemanticResult::failed;
}

}  // namespace

// Embeds the question and looks for a similar one. On a hit the stored answer; else null, and where the answer to come
// may be kept, `request.semantic` is what the index will need of it.
boost::asio::awaitable<std::shared_ptr<const cache::Entry>> Worker::look_alike(Request& request,
                                                                               const cache::KeyScope& scope) {
  const Snapshot& snapshot = request.runtime->snapshot();
  const cache::SemanticPolicy& policy = snapshot.policy(request.who->gateway).cache.semantic;
  SemanticCache& semantic = services_.semantic;
  const auto question = cache::semantic_question(request.view, request.body, policy, semantic.options());
  const ModelEntry* embedder = question ? snapshot.model(policy.embedding_model) : nullptr;
  if (embedder == nullptr || !request.caching.custom_key.empty()) co_return nullptr;
  std::string text;
  api::append_unescaped(text, question->of(request.body).substr(1, question->length - 2));
  // Vectors of two embedders must not be compared.
  cache::KeyScope guarded = scope;
  guarded.policy_version = scope.policy_version * kOdd + embedder->version;
  const auto partition = keys_.from_body(guarded, cache::semantic_guard(request.body, *question));
  if (!partition) co_return nullptr;
  SemanticLogLine line{.tenant = request.who->tenant,
                       .gateway = request.who->gateway,
                       .model = request.model->name,
                       .threshold = policy.threshold,
                       .asked_bytes = text.size(),
                       .asked_digest = semantic.digest(text)};
  SemanticCache::Running running(semantic);
  if (!running) {
    line.result = SemanticResult::busy;
    semantic.note(std::move(line));
    co_return nullptr;
  }
  auto embedded = co_await embed(*request.runtime, {.model = embedder,
                                                    .text = text,
                                                    .request_id = request.id.view(),
                                                    .tier = request.tier,
                                                    .deadline = request.deadline.capped(policy.timeout),
                                                    .cancel = &request.exchange.cancel()});
  running.done(embedded ? embedded->tokens : 0, embedder->name);
  if (!embedded) {
    line.result = result_of(embedded.error());
    semantic.note(std::move(line));
    co_return nullptr;
  }
  cache::SemanticPoint point{.partition = *partition,
                             .vector = std::move(embedded->vector),
                             .text_bytes = text.size(),
                             .numbers = cache::numbers_of(text),
                             .text_digest = line.asked_digest,
                             .text = semantic.options().show_texts ? text : std::string{}};
  cache::SemanticLook look = semantic.look(point, policy);
  std::shared_ptr<const cache::Entry> answer;
  if (look.result == SemanticResult::hit) {
    answer = co_await fetch_alike(request, *look.match);
    if (!answer) {
      look.result = SemanticResult::gone;
      // A disk that is still being read again after a start may have it.
      if (services_.tiers.settled()) semantic.forget(point.partition, look.match->answer);
    }
  }
  line.result = look.result;
  if (look.match) {
    line.score = look.match->score;
    line.stored_bytes = look.match->text_bytes;
    line.stored_digest = look.match->text_digest;
    if (semantic.options().show_texts) line.stored = look.match->text;
  }
  if (semantic.options().show_texts) line.asked = text;
  if (answer) request.semantic_score = look.match->score;
  if (!answer && request.caching.store) request.semantic = std::move(point);
  semantic.note(std::move(line));
  co_return answer;
}

// The answer that a similar question was given, from memory or from below. The tenant and the gateway are compared once
// more, as text.
boost::asio::awaitable<std::shared_ptr<const cache::Entry>> Worker::fetch_alike(Request& request,
                                                                                const cache::SemanticMatch& match) {
  const Principal& who = *request.who;
  auto entry = services_.cache.lookup_again(match.answer, who.tenant, who.gateway);
  if (entry || !tiers_ || !match.name) co_return entry;
  const cache::TierAnswer below = co_await tiers_->find({.name = *match.name,
                                                         .key = match.answer,
                                                         .tenant = who.tenant,
                                                         .gateway = who.gateway,
                                                         .cancel = &request.exchange.cancel(),
                                                         .deadline = request.deadline});
  if (below.found.freshness != cache::Freshness::fresh) co_return nullptr;
  co_return below.found.entry;
}

}  // namespace ganglion::gateway
