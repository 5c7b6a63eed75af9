// See gateway/call_budget.hpp.

#include "gateway/call_budget.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "gateway/budget_share.hpp"
#include "gateway/estimate.hpp"
#include "metering/calendar.hpp"

namespace ganglion::gateway {
namespace {

// What a chat template may add: roles and separators per message, a standing system prompt with a date.
constexpr std::uint64_t kTokensPerItem = 16;
constexpr std::uint64_t kTokensOfTemplate = 256;
// Beside the text of a body with media: its other fields.
constexpr std::uint64_t kBytesBesideText = 2'048;
// A stream that has used up its reservation holds so much more at once, so that it asks rarely.
constexpr std::uint64_t kStreamStepTokens = 256;
// Tokens of a stream that show no text: roles, ends, the syntax of tool calls; per choice.
constexpr std::uint64_t kUnseenTokens = 16;
// While a stream is within its maximum: texts of more bytes a token are rare, so no more than this is suspicious.
constexpr std::uint64_t kBytesPerTokenMax = 8;
constexpr std::uint64_t kCountEveryTokens = 32;
constexpr std::chrono::milliseconds kWaitMax{25};

std::uint64_t choices_of(const api::RequestView& view) {
  const std::uint64_t each = std::max(view.n, view.best_of);
  const bool prompts = view.endpoint == api::Endpoint::completions;
  return each * (prompts ? std::max<std::uint64_t>(view.prompt_items, 1) : 1);
}

std::uint64_t prompt_bound(const api::RequestView& view, std::size_t body_bytes,
                           const metering::ReserveOptions& reserve) {
  const std::uint64_t added = view.prompt_items * kTokensPerItem + kTokensOfTemplate;
  if (view.media_parts == 0) return body_bytes + added;
  const std::uint64_t text = view.prompt_text_bytes + view.tools_bytes + kBytesBesideText;
  return std::min<std::uint64_t>(text, body_bytes) + added + view.media_parts * reserve.media_tokens;
}

}  // namespace

TokenBound token_bound(const api::RequestView& view, std::size_t body_bytes, const backends::Target& target,
                       const metering::ReserveOptions& reserve) {
  TokenBound bound{.input = prompt_bound(view, body_bytes, reserve)};
  const std::uint64_t context = target.context_tokens_max;
  if (view.endpoint == api::Endpoint::embeddings) {
    if (context != 0) bound.input = std::min(bound.input, context * std::max<std::uint64_t>(view.prompt_items, 1));
    return bound;
  }
  std::uint64_t output = view.max_tokens.value_or(0);
  if (!view.max_tokens) {
    output = target.output_tokens_max != 0 ? target.output_tokens_max : reserve.output_max;
    if (view.stream && reserve.stream_step != 0) output = std::min(output, reserve.stream_step);
  }
  if (context != 0) {
    const std::uint64_t prompts =
        view.endpoint == api::Endpoint::completions ? std::max<std::uint64_t>(view.prompt_items, 1) : 1;
    bound.input = std::min(bound.input, context * prompts);
    output = std::min(output, context);
  }
  // The price counts no more than that either.
  if (__builtin_mul_overflow(std::min(output, metering::kUnitsPerRequestMax), choices_of(view), &bound.output)) {
    bound.output = metering::kUnitsPerRequestMax;
  }
  bound.output = std::min(bound.output, metering::kUnitsPerRequestMax);
  return bound;
}

metering::BudgetSubject budget_subject(const Principal& who, const ModelEntry& model, std::span<const api::Tag> tags) {
  return {.key = who.key_id, .tenant = who.tenant, .gateway = who.gateway, .model = model.name, .tags = tags};
}

std::string budget_header(const metering::BudgetView& view) {
  if (!view.limited) return {};
  const auto resets = std::chrono::floor<std::chrono::seconds>(view.resets).time_since_epoch();
  std::string at = metering::format_time(resets);
  if (const auto point = at.find('.'); point != std::string::npos) at = at.substr(0, point) + "Z";
  return std::string{view.budget} + "; remaining=" + metering::amount_text(view.unit, view.left) +
         "; limit=" + metering::amount_text(view.unit, view.limit) +
         "; unit=" + std::string{metering::name(view.unit)} + "; reset=" + at;
}

core::Result<CallBudget> CallBudget::reserve(Services& services, Runtime& runtime, const Of& call) {
  CallBudget out;
  out.services_ = &services;
  if (!services.budgets.any()) return out;
  out.snapshot_ = &runtime.snapshot();
  out.prices_ = &out.snapshot_->prices(services.clock.wall());
  out.model_ = &call.model;
  out.tier_ = call.tier;
  out.view_ = call.view;
  out.view_.model = out.view_.user = out.view_.service_tier = {};
  out.body_bytes_ = call.body.size();
  auto handle = runtime.budgets(call.who, call.model, call.tags);
  if (!handle) return std::unexpected(std::move(handle.error()));
  out.handle_ = *handle;
  const metering::ReserveOptions& reserve = out.snapshot_->reserve();
  out.stepwise_ = reserve.stream_step != 0 && call.view.stream && !call.view.max_tokens;
  bool local = true;
  bool first = true;
  for (const backends::Target& target : runtime.backends_of(call.model).targets()) {
    const TokenBound bound = token_bound(call.view, call.body.size(), target, reserve);
    // A slice can be waited for here and not between two targets, so then it is taken for the dearest.
    const bool most = services.budgets.sharing() == metering::Sharing::leased;
    const auto pick = [&](std::uint64_t a, std::uint64_t b) { return most ? std::max(a, b) : std::min(a, b); };
    out.bound_.input = first ? bound.input : pick(out.bound_.input, bound.input);
    out.bound_.output = first ? bound.output : pick(out.bound_.output, bound.output);
    first = false;
    local = local && target.context_tokens_max != 0;
  }
  auto held = services.budgets.reserve(out.handle_, out.cost(out.bound_));
  if (!held && local && services.token_counter.exact() && call.view.media_parts == 0) {
    // Near the limit it is worth counting: the tokenizer of a model served here makes no more tokens than it says.
    const auto own = services.local_models.find(call.model.name);
    if (own != services.local_models.end()) {
      const std::uint64_t counted =
          count_prompt_tokens(call.view.endpoint, call.body, backends::LocalModel::counter(own->second));
      out.bound_.input =
          std::min(out.bound_.input, counted + call.view.prompt_items * kTokensPerItem + kTokensOfTemplate);
      out.counted_ = true;
      held = services.budgets.reserve(out.handle_, out.cost(out.bound_));
    }
  }
  if (!held) return std::unexpected(std::move(held.error()));
  out.held_ = std::move(*held);
  return out;
}

boost::asio::awaitable<bool> BudgetWait::again() {
  if (services_.budget_share == nullptr || waited_ >= services_.budget_share->patience()) co_return false;
  services_.budget_share->kick();
  const bool waited = co_await backends::pause(next_, deadline_, cancel_);
  waited_ += next_;
  next_ = std::min<std::chrono::milliseconds>(next_ * 2, kWaitMax);
  co_return waited;
}

metering::BudgetCost CallBudget::cost(const TokenBound& bound) const {
  const std::uint64_t vectors = view_.endpoint == api::Endpoint::embeddings ? view_.prompt_items : 0;
  const auto priced = [&](std::uint64_t cached) {
    const api::Usage usage{.input_tokens = bound.input, .cached_input_tokens = cached, .output_tokens = bound.output};
    return metering::cost_of(prices_->price(model_->name, tier_, metering::units_of(view_.endpoint, usage, vectors)));
  };
  return metering::larger(priced(0), priced(bound.input));  // an operator may price cached tokens higher
}

core::Result<void> CallBudget::raise(const TokenBound& bound, bool running) {
  if (auto done = services_->budgets.raise(held_, cost(bound), running); !done) return done;
  bound_ = bound;
  return {};
}

core::Result<void> CallBudget::check(const backends::Target& target, const metering::PriceBook& prices) {
  if (!held_.binds()) return {};
  const bool repriced = std::exchange(prices_, &prices) != &prices;
  const TokenBound bound = token_bound(view_, body_bytes_, target, snapshot_->reserve());
  // A prompt that was counted stays counted, and so it does for a target that takes as much of it.
  const std::uint64_t input = counted_ && target.context_tokens_max != 0 ? bound_.input : bound.input;
  if (bound.output <= bound_.output && input <= bound_.input && !repriced) return {};
  return raise({.input = std::max(input, bound_.input), .output = std::max(bound.output, bound_.output)}, false);
}

core::Result<void> CallBudget::go_on(const api::StreamInspector& seen, const std::function<std::uint64_t()>& count) {
  if (!held_.binds()) return {};
  const std::uint64_t unseen = kUnseenTokens * choices_of(view_);
  const std::uint64_t used =
      stepwise_ ? seen.text_bytes() + unseen : std::max(seen.text_events(), seen.text_bytes() / kBytesPerTokenMax);
  if (used <= bound_.output || used < count_again_at_) return {};
  const std::uint64_t step = std::max(snapshot_->reserve().stream_step, kStreamStepTokens);
  auto raised = raise({.input = bound_.input, .output = used + step}, true);
  if (raised || stepwise_) return raised;
  // The quick count may be too high: an upstream that sends a token in several events.
  if (count() <= bound_.output) {
    count_again_at_ = used + kCountEveryTokens;
    return {};
  }
  return raised;
}

api::Usage CallBudget::cap(api::Usage usage) const {
  if (!held_.binds()) return usage;
  usage.input_tokens = std::min(usage.input_tokens, bound_.input);
  usage.cached_input_tokens = std::min(usage.cached_input_tokens, usage.input_tokens);
  usage.output_tokens = std::min(usage.output_tokens, bound_.output);
  return usage;
}

void CallBudget::settle(const metering::BudgetSubject& subject, const metering::Charge& charge,
                        std::string_view request_id) {
  Services* const services = std::exchange(services_, nullptr);
  if (services == nullptr || (!held_.binds() && !services->budgets.any())) return;
  services->budgets.settle(held_, subject, metering::cost_of(charge), request_id);
}

std::string budget_end(api::Endpoint endpoint, std::string_view events, std::string_view request_id,
                       std::string_view model, const api::StreamInspector& seen) {
  using Json = nlohmann::ordered_json;
  const bool chat = endpoint == api::Endpoint::chat_completions;
  Json head = {{"id", request_id}, {"object", chat ? "chat.completion.chunk" : "text_completion"}, {"model", model}};
  api::SseParser parser;
  parser.feed(events);
  if (const auto event = parser.next(); event && *event) {
    const Json first = Json::parse((*event)->data, nullptr, false);
    for (const char* key : {"id", "object", "created", "model"}) {
      if (first.is_object() && first.contains(key)) head[key] = first[key];
    }
  }
  std::string out;
  for (std::size_t i = 0; i < api::StreamInspector::kChoicesMax; ++i) {
    if (!seen.open(i)) continue;
    Json choice = {{"index", i}};
    choice[chat ? "delta" : "text"] = chat ? Json::object() : Json("");
    choice["finish_reason"] = "budget_exceeded";
    head["choices"] = Json::array({std::move(choice)});
    out += "data: " + head.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n\n";
  }
  return out;
}

}  // namespace ganglion::gateway
