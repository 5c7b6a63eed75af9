#pragma once
// The answers of the local engine: generated text as server-sent events or one JSON body, and embeddings. Each owns
// its requests in the engine; destroying it before the end cancels them.

#include <memory>
#include <string>
#include <vector>

#include "api/openai_answer.hpp"
#include "backends/backend.hpp"
#include "backends/local/constraints.hpp"
#include "backends/local/event_inbox.hpp"
#include "backends/local/local_parts.hpp"
#include "backends/local/tool_calls.hpp"

namespace ganglion::backends {

// One choice of a generation.
struct ChoicePlan {
  std::vector<std::int32_t> prompt;
  bool first_of_prompt = true;  // its prompt counts in the usage; those of further choices are the same one
  std::string echo;             // shown before the completion
  local::SamplingParams sampling;
};

struct GeneratePlan {
  api::Endpoint endpoint = api::Endpoint::chat_completions;
  api::AnswerIdentity identity;
  std::string request_id;
  bool stream = false;
  bool include_usage = false;
  int max_tokens = 0;
  std::vector<std::string> stop;
  std::vector<std::int32_t> stop_token_ids;
  bool ignore_eos = false;
  local::Priority priority = local::Priority::regular;
  std::string prefix_space;
  std::string adapter;
  Constraints constraints;
  std::vector<ChoicePlan> choices;
};

class GenerateAnswer final : public Answer {
 public:
  // Queues every choice; if one is refused, all are called off and its error is returned.
  static core::Result<std::unique_ptr<GenerateAnswer>> submit(std::shared_ptr<const LocalModel> model,
                                                              const boost::asio::any_io_executor& executor,
                                                              GeneratePlan plan, const Call& call);
  ~GenerateAnswer() override;

  // Waits for the first token: from then on there is something to bill, whoever leaves.
  boost::asio::awaitable<core::Result<void>> begin();

  const AnswerHead& head() const override { return head_; }
  boost::asio::awaitable<core::Result<std::string_view>> next() override;
  std::optional<api::Usage> usage() const override;
  std::uint64_t engine_us() const override;

 private:
  struct Choice {
    local::Handle handle;
    bool ended = false;
    std::string text;  // whole answers only
    std::vector<api::TokenLogprobEntry> logprobs;
    std::size_t characters = 0;  // sent so far
    std::string_view finish_reason;
    std::uint64_t prompt_tokens = 0;
    std::uint64_t cached_tokens = 0;
    std::uint64_t tokens = 0;
    std::optional<ToolCallReader> reader;  // where the answer may call functions
    std::vector<api::AnswerToolCall> calls;
  };

  GenerateAnswer(std::shared_ptr<const LocalModel> model, const boost::asio::any_io_executor& executor,
                 GeneratePlan plan, const Call& call);
  void absorb();  // takes the news; sets failure_
  void absorb(std::size_t index, ChoiceNews& news);
  void absorb_calls(std::size_t index, ChoiceNews& news);
  void write_events(std::size_t index, const ChoiceNews& news, std::vector<api::TokenLogprobEntry> logprobs);
  void finish();
  void call_off();

  std::shared_ptr<const LocalModel> model_;
  GeneratePlan plan_;
  core::Deadline deadline_;
  core::CancelSource* cancel_;
  AnswerHead head_;
  EventInbox::Waiter waiter_;
  std::vector<Choice> choices_;
  std::size_t ended_ = 0;
  bool started_ = false;
  bool finished_ = false;
  std::optional<core::Error> failure_;
  std::optional<api::StreamWriter> writer_;
  std::string out_;  // made and not yet handed out, from sent_ on
  std::size_t sent_ = 0;
};

class EmbedAnswer final : public Answer {
 public:
  static core::Result<std::unique_ptr<EmbedAnswer>> submit(std::shared_ptr<const LocalModel> model,
                                                           const boost::asio::any_io_executor& executor,
                                                           std::vector<std::vector<std::int32_t>> inputs,
                                                           std::string model_name, api::EncodingFormat format,
                                                           const Call& call);
  ~EmbedAnswer() override;

  boost::asio::awaitable<core::Result<void>> begin();  // waits for the vectors

  const AnswerHead& head() const override { return head_; }
  boost::asio::awaitable<core::Result<std::string_view>> next() override;
  std::optional<api::Usage> usage() const override;
  std::uint64_t engine_us() const override { return engine_us_; }

 private:
  EmbedAnswer(std::shared_ptr<const LocalModel> model, const boost::asio::any_io_executor& executor,
              std::string model_name, api::EncodingFormat format, const Call& call);

  std::shared_ptr<const LocalModel> model_;
  std::string model_name_;
  api::EncodingFormat format_;
  core::Deadline deadline_;
  core::CancelSource* cancel_;
  AnswerHead head_;
  EventInbox::Waiter waiter_;
  std::optional<local::Handle> handle_;  // while it is under way
  std::uint64_t prompt_tokens_ = 0;
  std::uint64_t engine_us_ = 0;
  std::string body_;
  std::size_t sent_ = 0;
};

}  // namespace ganglion::backends
