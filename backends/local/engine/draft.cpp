// See draft.hpp. The first round of a step also computes what the draft does not have of a text yet: the tokens since
// it was last asked, or the whole prompt in chunks of a step's budget, a chunk with each step of the engine.

#include "backends/local/engine/draft.hpp"

#include <algorithm>
#include <chrono>
#include <exception>
#include <new>
#include <utility>

#include "backends/local/engine/active_request.hpp"
#include "backends/local/kernels/cpu/table.hpp"
#include "backends/local/tokenizer/tokenizer.hpp"

namespace ganglion::local {

using core::ErrorKind;
using core::Result;

namespace {

// One device: a draft is too small to be cut.
std::string device_for(const Runner& target) {
  const std::string device = target.device();
  return device.substr(0, device.find_first_of(" ,"));
}

Result<void> in_draft(const core::Error& error, const std::string& dir) {
  core::Error named = error;
  named.message = "draft " + dir + ": " + error.message;
  named.param = "draft";
  return std::unexpected(std::move(named));
}

}  // namespace

struct Draft::Ahead {
  ActiveRequest* request;
  int most;
  std::optional<grammar::Matcher> matcher;
  std::optional<TokenHistory> history;  // with the guesses, where penalties look back on them
  bool over = false;
  int tail = 0;  // guesses that were computed
};

Draft::Draft(ModelConfig config, int step_tokens_max, std::int64_t target_vocab)
    : config_(std::move(config)),
      step_tokens_max_(step_tokens_max),
      vocab_(config_.vocab_size),
      target_vocab_(target_vocab) {}

Result<std::unique_ptr<Draft>> Draft::load(const EngineOptions& options, const EngineHooks& hooks,
                                           const Tokenizer& tokenizer, const Runner& target) {
  const std::string& dir = options.draft.dir;
  const auto wrong = [&](const core::Error& error) { return std::unexpected(in_draft(error, dir).error()); };
  if (!target.verifies()) {
    return core::fail(ErrorKind::unsupported, "draft " + dir + ": the model's runner cannot check guesses", "draft");
  }
  auto config = load_model_config(dir);
  if (!config) return wrong(config.error());
  if (config->family == ModelFamily::bert) {
    return core::fail(ErrorKind::unsupported, "draft " + dir + ": a bert model makes embeddings; it cannot guess text",
                      "draft");
  }
  auto its = Tokenizer::load(dir);
  if (!its) return wrong(its.error());
  if (auto same = same_vocabulary(tokenizer, *its); !same) return wrong(same.error());
  const EngineOptions own = draft_options(options, device_for(target));
  auto draft = std::unique_ptr<Draft>(new Draft(std::move(*config), own.step_tokens_max, target.vocab_size()));
  std::string note;
  if (hooks.make_runner) {
    auto runner = hooks.make_runner(own, draft->config_, note);
    if (!runner) return wrong(runner.error());
    draft->runner_ = std::move(*runner);
  } else {
    auto checkpoint = Checkpoint::open(dir);
    if (!checkpoint) return wrong(checkpoint.error());
    auto runner = make_runner(std::move(*checkpoint), draft->config_, own, note);
    if (!runner) return wrong(runner.error());
    draft->runner_ = std::move(*runner);
  }
  draft->choices_.resize(static_cast<std::size_t>(own.batch_max));
  return draft;
}

Result<void> Draft::reserve_pages(std::int64_t pages) {
  if (auto reserved = runner_->reserve_pages(pages); !reserved) return reserved;
  pages_.emplace(static_cast<std::int32_t>(pages));
  tree_.emplace(*pages_);
  constexpr double kCpuOperationsByte = 15, kGpuOperationsByte = 170;  // as the model's
  share_ =
      WorkShare(config_, {.weight_bytes = static_cast<double>(runner_->weight_bytes()),
                          .kv_token_bytes = static_cast<double>(runner_->page_bytes()) / kPageTokens,
                          .operations_byte = runner_->device() == "cpu" ? kCpuOperationsByte : kGpuOperationsByte});
  return {};
}

bool Draft::is_long(std::size_t tokens) const {
  return config_.rope.type == RopeType::longrope &&
         static_cast<std::int64_t>(tokens) > config_.rope.original_max_position;
}

std::string Draft::space_of(const ActiveRequest& r) const {
  return (r.draft.long_positions ? "l" : "s") + r.space;
}

bool Draft::grow(DraftState& state, int tokens) {
  const auto wanted = static_cast<std::size_t>((tokens + kPageTokens - 1) / kPageTokens);
  widen_table(state.pages, wanted);
  while (state.pages.size() < wanted) {
    const auto page = tree_->take();
    if (!page) return false;
    state.pages.push_back(*page);
  }
  return true;
}

// Which of the guesses computed behind the text have become text. Its last token is computed in any case: what follows
// it is wanted.
void Draft::agree(ActiveRequest& r) {
  DraftState& s = r.draft;
  const int last = static_cast<int>(r.tokens.size()) - 1;
  for (const std::int32_t id : s.tail) {
    if (s.computed >= last || r.tokens[static_cast<std::size_t>(s.computed)] != id) break;
    ++s.computed;
  }
  s.tail.clear();
  s.computed = std::min(s.computed, last);
}

// Whole pages short of the text's last token: nothing in them is ever written again.
void Draft::publish(ActiveRequest& r) {
  DraftState& s = r.draft;
  const int whole = std::min(s.computed, static_cast<int>(r.tokens.size()) - 1);
  if (r.space.empty() || whole / kPageTokens <= s.known) return;
  s.known = tree_->publish(space_of(r), std::span(r.tokens).first(static_cast<std::size_t>(whole)), s.pages, s.known);
}

void Draft::drop(ActiveRequest& r) {
  DraftState& s = r.draft;
  agree(r);
  try {
    publish(r);
  } catch (const std::bad_alloc&) {  // it is computed anew
  }
  tree_->release(s.pages);
  s.computed = s.known = 0;
  s.owner = nullptr;
}

void Draft::forget() {
  tree_->forget_all();
}

const SamplingParams& Draft::params_of(ActiveRequest& r) const {
  auto& params = r.draft.params;
  if (!params) {
    params = r.request.sampling;
    params->logprobs = false;
    params->top_logprobs = 0;
    std::erase_if(params->logit_bias, [&](const auto& bias) { return bias.first >= vocab_; });  // rows of padding
  }
  return *params;
}

// False: there is no drafting for it in this step.
bool Draft::begin(ActiveRequest& r, int most) {
  DraftState& s = r.draft;
  const bool long_positions = is_long(r.tokens.size());
  if (s.owner != nullptr && s.long_positions != long_positions) drop(r);  // other angles: computed anew
  if (s.owner == nullptr) {
    s.owner = this;
    s.long_positions = long_positions;
    const auto all = std::span(r.tokens).first(r.tokens.size() - 1);
    if (!r.space.empty()) tree_->match(space_of(r), all, s.pages);
    s.known = static_cast<int>(s.pages.size());
    s.computed = s.known * kPageTokens;
  }
  agree(r);
  const auto fed = std::span(r.tokens).subspan(static_cast<std::size_t>(s.computed));
  // A row of the model's padding is no token of the draft's.
  s.off = std::ranges::any_of(fed, [&](std::int32_t id) { return id >= vocab_; });
  if (!s.off && grow(s, static_cast<int>(r.tokens.size()) + most - 1)) return true;
  drop(r);
  return false;
}

const std::uint32_t* Draft::mask_of(Ahead& a) {
  if (!a.matcher) return nullptr;
  const auto words = [](std::int64_t vocab) { return static_cast<std::size_t>((vocab + 31) / 32); };
  const std::size_t from = masks_.size();
  masks_.resize(from + std::max(words(vocab_), words(target_vocab_)), 0);
  if (!a.matcher->fill(std::span(masks_).subspan(from, words(target_vocab_)))) a.over = true;
  return masks_.data() + from;
}

// The slices of a round. In the first, what is missing of each text, as far as the step's budget goes; in the others
// the guess before.
void Draft::plan_round(std::span<Ahead> all, int round) {
  const std::size_t words = static_cast<std::size_t>((std::max(vocab_, target_vocab_) + 31) / 32);
  round_.clear(), slices_.clear(), samplings_.clear(), masks_.clear(), fed_.clear(), work_.clear();
  samplings_.reserve(all.size());  // the slices point into these
  masks_.reserve(all.size() * words);
  fed_.reserve(all.size());
  int left = step_tokens_max_;
  for (Ahead& a : all) {
    ActiveRequest& r = *a.request;
    const DraftState& s = r.draft;
    const int size = static_cast<int>(r.tokens.size());
    if (a.over || left == 0) continue;
    std::span<const std::int32_t> tokens;
    int position = s.computed;
    bool sampled = true;
    if (round == 0) {
      const int pending = size - s.computed, taken = std::min(pending, left);
      tokens = std::span(r.tokens).subspan(static_cast<std::size_t>(s.computed), static_cast<std::size_t>(taken));
      sampled = taken == pending;
    } else {
      fed_.push_back(r.guesses.back());
      tokens = std::span(fed_).last(1);
      position = size + round - 1;
    }
    const std::uint32_t* mask = sampled ? mask_of(a) : nullptr;
    if (a.over) continue;  // no token goes on as the grammar wants
    left -= static_cast<int>(tokens.size());
    if (sampled) {
      samplings_.push_back({params_of(r), a.history ? *a.history : r.history, r.seed,
                            static_cast<std::uint64_t>(r.generated + round), mask});
    }
    slices_.push_back({.tokens = tokens,
                       .pages = s.pages.data(),
                       .position = position,
                       .sampling = sampled ? &samplings_.back() : nullptr,
                       .long_positions = s.long_positions});
    round_.push_back({&a, static_cast<int>(tokens.size()), sampled});
    work_.push_back({position, static_cast<int>(tokens.size())});
  }
}

Result<void> Draft::compute(const std::atomic<bool>& give_up, const std::function<void()>& meanwhile, Done& done) {
  const auto began = std::chrono::steady_clock::now();
  Result<void> ok;
  if (runner_->overlaps()) {
    ok = runner_->submit(slices_);
    if (!ok) return ok;
    std::exception_ptr broke;  // what was submitted is collected whatever becomes of the text
    try {
      if (meanwhile) meanwhile();
    } catch (const std::exception&) {
      broke = std::current_exception();
    }
    ok = runner_->collect(choices_);
    if (broke) std::rethrow_exception(broke);
  } else {
    ok = runner_->step(slices_, choices_, &give_up);
  }
  double seconds = runner_->device_seconds();
  if (seconds < 0) seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  done.seconds += seconds;
  const auto shares = share_.of(work_);
  for (std::size_t i = 0; i < round_.size(); ++i) {
    round_[i].ahead->request->engine_seconds += shares[i] * seconds;
  }
  return ok;
}

// What the draft has chosen, as a guess.
void Draft::take(Ahead& a, const Choice& choice) {
  ActiveRequest& r = *a.request;
  const bool ends = choice.ok && r.end_tokens.contains(choice.id);
  if (!choice.ok || choice.id >= target_vocab_ ||
      (a.matcher && (!a.matcher->advance(choice.id) || (a.matcher->over() && !ends)))) {
    a.over = true;
    return;
  }
  r.guesses.push_back(choice.id);
  a.over = ends || static_cast<int>(r.guesses.size()) >= a.most;
  if (a.history) ++a.history->generated[choice.id];
}

Result<Draft::Done> Draft::propose(std::span<const Job> jobs, const std::atomic<bool>& give_up,
                                   const std::function<void()>& meanwhile) {
  Done done;
  std::vector<Ahead> all;
  for (const Job& job : jobs) {
    ActiveRequest& r = *job.request;
    r.guesses.clear();
    const auto room = context_max() - static_cast<std::int64_t>(r.tokens.size());
    const int most = static_cast<int>(std::min<std::int64_t>(job.most, room));
    if (most <= 0 || r.draft.off || !begin(r, most)) continue;
    all.push_back({.request = &r, .most = most, .matcher = r.matcher, .history = std::nullopt});
    const SamplingParams& p = r.request.sampling;
    const bool looks_back = p.repetition_penalty != 1.0f || p.frequency_penalty != 0 || p.presence_penalty != 0;
    if (looks_back) all.back().history = r.history;
  }
  for (int round = 0;; ++round) {
    plan_round(all, round);
    if (slices_.empty() || give_up) break;
    const auto ok = compute(give_up, round == 0 ? meanwhile : nullptr, done);
    if (!ok && ok.error().kind == ErrorKind::cancelled) break;
    if (!ok) {
      for (const Ahead& a : all) a.request->guesses.clear();
      return std::unexpected(ok.error());
    }
    std::size_t chosen = 0;
    for (const Part& part : round_) {
      Ahead& a = *part.ahead;
      done.tokens += part.tokens;
      if (round == 0) {
        a.request->draft.computed += part.tokens;
        done.caught_up += part.tokens - 1;
      } else {
        ++a.tail;
      }
      if (part.sampled) {
        take(a, choices_[chosen++]);
      } else {
        a.over = true;
      }
    }
    if (round > 0) continue;
    for (Ahead& a : all) {
      publish(*a.request);
      // Whom the budget did not reach has no guess that the next round could go on from.
      a.over = a.over || a.request->guesses.empty();
    }
  }
  for (const Ahead& a : all) {
    const auto& guesses = a.request->guesses;
    a.request->draft.tail.assign(guesses.begin(), guesses.begin() + a.tail);
  }
  return done;
}

}  // namespace ganglion::local
