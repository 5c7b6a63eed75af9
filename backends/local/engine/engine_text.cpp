// From sampled tokens to what is shown: text, stop strings, log-probabilities, the last event.

#include <utility>
#include <vector>

#include "backends/local/engine/engine_impl.hpp"

namespace ganglion::local {

using core::ErrorKind;

void Engine::Impl::tell() {
  for (Untold& token : untold_) tell(token);
  untold_.clear();
}

// What a fast request waits for does not wait for the next step to be queued.
void Engine::Impl::tell_first() {
  const auto first = [](const Untold& t) { return t.number == 1 && t.request->priority == Priority::fast; };
  for (Untold& token : untold_) {
    if (first(token)) tell(token);
  }
  std::erase_if(untold_, first);
}

void Engine::Impl::tell(Untold& token) {
  ActiveRequest& r = *token.request;
  if (r.stopped) return;
  std::optional<TokenLogprobs> logprobs;
  if (r.request.sampling.logprobs) logprobs = logprobs_of(token.choice);
  auto release = r.text.push(token.choice.id, std::move(logprobs));
  if (release.stopped) {
    r.stopped = true;
    r.generated = token.number;  // what was sampled since does not count
    stopped_.push_back(r.id);
  }
  send(r, std::move(release));
}

// The last events go out when the pages are free and the counters say so: who sees the end may rely on it.
void Engine::Impl::deliver() {
  for (auto& [sequence, reason] : endings_) {
    auto& request = static_cast<ActiveRequest&>(*sequence);
    if (reason == FinishReason::error && request.no_room) {
      fail(request,
           core::make_error(ErrorKind::overloaded, "the requests of one step bias or penalise too many tokens"));
    } else if (reason == FinishReason::error) {
      const char* why = request.stuck ? "the model's vocabulary has no token that goes on as the schema wants"
                                      : "the model's output is not a number";
      fail(request, core::make_error(ErrorKind::internal, why));
    } else {
      finish(request, request.stopped ? FinishReason::stop : reason);
    }
    sequence.reset();
  }
  endings_.clear();
}

TokenLogprobs Engine::Impl::logprobs_of(const Choice& choice) const {
  TokenLogprobs out;
  out.chosen = {choice.id, choice.logprob, tokenizer_.token_bytes(choice.id)};
  for (const auto& [id, logprob] : choice.top) out.top.push_back({id, logprob, tokenizer_.token_bytes(id)});
  return out;
}

void Engine::Impl::send(ActiveRequest& r, TextStream::Release&& release) {
  if (release.text.empty() && release.tokens.empty()) return;
  GenerateEvent event;
  event.text = std::move(release.text);
  event.tokens = std::move(release.tokens);
  event.logprobs = std::move(release.logprobs);
  event.usage = r.usage();
  r.sink->on_event(std::move(event));
}

void Engine::Impl::finish(ActiveRequest& r, FinishReason reason) {
  if (reason == FinishReason::length || reason == FinishReason::stop) {
    auto rest = r.text.finish();
    if (rest.stopped) reason = FinishReason::stop;
    send(r, std::move(rest));
  }
  GenerateEvent event;
  event.kind = GenerateEvent::Kind::done;
  event.finish = reason;
  event.usage = r.usage();
  {
    const std::lock_guard lock(mutex_);
    ++stats_.finished;
    if (reason == FinishReason::cancelled) ++stats_.cancelled;
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - r.queued_at;
    request_seconds_ += 0.1 * (took.count() - request_seconds_);
  }
  r.sink->on_event(std::move(event));
}

void Engine::Impl::fail(ActiveRequest& r, const core::Error& error) {
  GenerateEvent event;
  event.kind = GenerateEvent::Kind::error;
  event.finish = FinishReason::error;
  event.usage = r.usage();
  event.error = copy_to_tell(error);
  {
    const std::lock_guard lock(mutex_);
    ++stats_.finished;
    ++stats_.failed;
  }
  r.sink->on_event(std::move(event));
}

}  // namespace ganglion::local
