// Requests to plans: parse, prompt, limits, submit. What comes back is in local_answer.cpp.

#include "backends/local/local_backend.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

#include "api/chat_request.hpp"
#include "backends/local/chat_prompt.hpp"
#include "backends/local/constraints.hpp"
#include "backends/local/local_answer.hpp"

namespace ganglion::backends {

namespace {

using core::ErrorKind;
using core::Result;
using AnswerResult = Result<std::unique_ptr<Answer>>;

api::AnswerIdentity identity(std::string_view prefix, const Call& call, std::string model) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return {.id = std::string{prefix} + std::string{call.request_id},
          .model = std::move(model),
          .created_s = std::chrono::duration_cast<std::chrono::seconds>(now).count()};
}

local::SamplingParams sampling_of(const api::SamplingFields& f, std::uint64_t choice) {
  local::SamplingParams out{.temperature = f.temperature,
                            .top_p = f.top_p,
                            .top_k = f.top_k,
                            .min_p = f.min_p,
                            .seed = f.seed,
                            .frequency_penalty = f.frequency_penalty,
                            .presence_penalty = f.presence_penalty,
                            .repetition_penalty = f.repetition_penalty,
                            .logit_bias = {f.logit_bias.begin(), f.logit_bias.end()},
                            .logprobs = f.logprobs,
                            .top_logprobs = f.top_logprobs};
  if (out.seed) *out.seed += choice;
  return out;
}

// Who finds what this request's prompt leaves behind. A tenant's name cannot be "*".
std::string prefix_space(const LocalModelOptions& options, const Call& call) {
  if (options.prefix_sharing == "off") return {};
  return options.prefix_sharing == "all" ? "*" : std::string{call.tenant};
}

GeneratePlan plan_of(api::Endpoint endpoint, const LocalModelOptions& options, const Call& call,
                     const api::SamplingFields& f, std::string model) {
  const std::string_view prefix = endpoint == api::Endpoint::chat_completions ? "chatcmpl-" : "cmpl-";
  return {.endpoint = endpoint,
          .identity = identity(prefix, call, std::move(model)),
          .request_id = std::string{call.request_id},
          .stream = f.stream,
          .include_usage = f.include_usage,
          .stop = f.stop,
          .stop_token_ids = f.stop_token_ids,
          .ignore_eos = f.ignore_eos,
          .priority = call.tier == api::Tier::fast ? local::Priority::fast : local::Priority::regular,
          .prefix_space = prefix_space(options, call),
          .adapter = f.lora};
}

// Sets the plan's max_tokens, or says in numbers why the longest prompt leaves no room.
Result<void> fit(const LocalModel& model, const api::SamplingFields& f, std::string_view param, GeneratePlan& plan) {
  std::size_t prompt = 0;
  for (const ChoicePlan& choice : plan.choices) {
    if (choice.prompt.empty())
      return core::fail(ErrorKind::invalid_value, "the prompt has no tokens", std::string{param});
    prompt = std::max(prompt, choice.prompt.size());
  }
  const auto context = static_cast<std::size_t>(model.context_max());
  const std::size_t wanted = f.max_tokens ? static_cast<std::size_t>(*f.max_tokens) : 1;
  if (prompt + wanted > context) {
    std::string message = "This model's maximum context length is " + std::to_string(context) + " tokens. However, ";
    message += f.max_tokens
                   ? "you requested " + std::to_string(prompt + wanted) + " tokens (" + std::to_string(prompt) +
                         " in the prompt, " + std::to_string(wanted) + " in the completion)"
                   : "your prompt has " + std::to_string(prompt) + " tokens";
    message += ". Please reduce the length of the prompt";
    message += f.max_tokens ? " or completion." : ".";
    return core::fail(ErrorKind::context_length, std::move(message), std::string{param});
  }
  const int most =
      plan.endpoint == api::Endpoint::completions ? kDefaultLegacyCompletionTokens : kDefaultCompletionTokensMax;
  plan.max_tokens = f.max_tokens.value_or(static_cast<std::int32_t>(std::min<std::size_t>(context - prompt, most)));
  return {};
}

// Adds the n choices of one prompt.
void add_choices(GeneratePlan& plan, const api::SamplingFields& f, std::vector<std::int32_t> prompt, std::string echo) {
  for (std::int32_t i = 0; i < f.n; ++i) {
    const std::uint64_t index = plan.choices.size();
    plan.choices.push_back(
        {.prompt = prompt, .first_of_prompt = i == 0, .echo = echo, .sampling = sampling_of(f, index)});
  }
}

Result<GeneratePlan> chat_plan(const LocalModel& model, const Call& call) {
  std::string spliced;
  auto request = api::parse_chat_request(call.body.whole(spliced));
  if (!request) return std::unexpected(request.error());
  const api::SamplingFields& f = request->sampling;
  auto prompt = chat_prompt(model.parts(), *request);
  if (!prompt) return std::unexpected(prompt.error());
  auto constraints = constraints_of(model.parts(), *request);
  if (!constraints) return std::unexpected(constraints.error());
  GeneratePlan plan = plan_of(api::Endpoint::chat_completions, model.parts().options, call, f, request->model);
  plan.constraints = std::move(*constraints);
  add_choices(plan, f, std::move(*prompt), {});
  if (auto ok = fit(model, f, "messages", plan); !ok) return std::unexpected(ok.error());
  return plan;
}

Result<GeneratePlan> completion_plan(const LocalModel& model, const Call& call) {
  std::string spliced;
  auto request = api::parse_completion_request(call.body.whole(spliced));
  if (!request) return std::unexpected(request.error());
  const api::SamplingFields& f = request->sampling;
  if (request->echo && f.logprobs) {
    return core::fail(ErrorKind::unsupported, "'echo' together with 'logprobs' is not supported by this model", "echo");
  }
  if (request->prompts.size() * static_cast<std::size_t>(f.n) > static_cast<std::size_t>(kSequencesMax)) {
    return core::fail(ErrorKind::invalid_value,
                      "prompts times n must be at most " + std::to_string(kSequencesMax) + " for this model", "prompt");
  }
  GeneratePlan plan = plan_of(api::Endpoint::completions, model.parts().options, call, f, request->model);
  for (const api::PromptItem& item : request->prompts) {
    auto prompt = plain_prompt(model.parts(), item, "prompt");
    if (!prompt) return std::unexpected(prompt.error());
    std::string echo;
    if (request->echo) {
      const auto* text = std::get_if<std::string>(&item);
      echo = text != nullptr ? *text : model.parts().tokenizer().decode(*prompt, true);
    }
    add_choices(plan, f, std::move(*prompt), std::move(echo));
  }
  if (auto ok = fit(model, f, "prompt", plan); !ok) return std::unexpected(ok.error());
  return plan;
}

struct EmbedPlan {
  std::string model;
  api::EncodingFormat format = api::EncodingFormat::float_array;
  std::vector<std::vector<std::int32_t>> inputs;
};

Result<EmbedPlan> embed_plan(const LocalModel& model, const Call& call) {
  std::string spliced;
  auto request = api::parse_embedding_request(call.body.whole(spliced));
  if (!request) return std::unexpected(request.error());
  const int dimensions = model.parts().embedder->dimensions();
  if (request->dimensions && *request->dimensions != dimensions) {
    return core::fail(ErrorKind::unsupported,
                      "this model's embeddings have " + std::to_string(dimensions) +
                          " dimensions and cannot be shortened to " + std::to_string(*request->dimensions),
                      "dimensions");
  }
  EmbedPlan plan{.model = request->model, .format = request->encoding_format, .inputs = {}};
  for (const api::PromptItem& item : request->inputs) {
    auto ids = plain_prompt(model.parts(), item, "input");
    if (!ids) return std::unexpected(ids.error());
    if (ids->size() > static_cast<std::size_t>(model.context_max())) {
      return core::fail(ErrorKind::context_length,
                        "This model's maximum context length is " + std::to_string(model.context_max()) +
                            " tokens. However, input " + std::to_string(plan.inputs.size()) + " has " +
                            std::to_string(ids->size()) + " tokens. Please reduce its length.",
                        "input");
    }
    plan.inputs.push_back(std::move(*ids));
  }
  return plan;
}

core::Error wrong_endpoint(const LocalModel& model, api::Endpoint endpoint) {
  const std::string_view does = model.kind() == LocalKind::embed ? "makes embeddings" : "generates text";
  return core::make_error(
      ErrorKind::unsupported,
      "model '" + model.name() + "' " + std::string{does} + " and does not serve " + std::string{api::name(endpoint)},
      "model");
}

// Waits as begin() does and hands the answer over.
template <class Made>
boost::asio::awaitable<AnswerResult> begun(Result<std::unique_ptr<Made>> answer, Rejection* rejection) {
  if (!answer) co_return std::unexpected(answer.error());
  if (auto ok = co_await (*answer)->begin(); !ok) {
    if (rejection != nullptr) rejection->engine_us = (*answer)->engine_us();
    co_return std::unexpected(ok.error());
  }
  co_return std::unique_ptr<Answer>(std::move(*answer));
}

}  // namespace

LocalBackend::LocalBackend(std::shared_ptr<const LocalModel> model, boost::asio::any_io_executor executor)
    : model_(std::move(model)), executor_(std::move(executor)) {}

std::string_view LocalBackend::name() const {
  return model_->name();
}

boost::asio::awaitable<AnswerResult> LocalBackend::start(const Call& call, Rejection* rejection) {
  if (call.endpoint == api::Endpoint::embeddings && model_->kind() == LocalKind::embed) {
    auto plan = embed_plan(*model_, call);
    if (!plan) co_return std::unexpected(plan.error());
    auto answer =
        EmbedAnswer::submit(model_, executor_, std::move(plan->inputs), std::move(plan->model), plan->format, call);
    co_return co_await begun(std::move(answer), rejection);
  }
  const bool chat = call.endpoint == api::Endpoint::chat_completions;
  if (model_->kind() != LocalKind::generate || (!chat && call.endpoint != api::Endpoint::completions)) {
    co_return std::unexpected(wrong_endpoint(*model_, call.endpoint));
  }
  auto plan = chat ? chat_plan(*model_, call) : completion_plan(*model_, call);
  if (!plan) co_return std::unexpected(plan.error());
  auto answer = GenerateAnswer::submit(model_, executor_, std::move(*plan), call);
  co_return co_await begun(std::move(answer), rejection);
}

}  // namespace ganglion::backends
