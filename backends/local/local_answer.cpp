// See local_answer.hpp. Everything here runs on the worker's thread.

#include "backends/local/local_answer.hpp"

#include <algorithm>
#include <utility>

#include "core/limits.hpp"

namespace ganglion::backends {

namespace {

// OpenAI's figure for "not at all likely", where JSON has no infinity.
constexpr float kLogprobMin = -9999.0F;

api::LogprobEntry entry(const local::TokenLogprob& t) {
  // Written so that NaN goes to the minimum too.
  return {.token = t.bytes, .logprob = t.logprob > kLogprobMin ? t.logprob : kLogprobMin};
}

std::vector<api::TokenLogprobEntry> entries(const std::vector<local::TokenLogprobs>& logprobs) {
  std::vector<api::TokenLogprobEntry> out;
  out.reserve(logprobs.size());
  for (const local::TokenLogprobs& token : logprobs) {
    api::TokenLogprobEntry& one = out.emplace_back();
    one.chosen = entry(token.chosen);
    for (const local::TokenLogprob& top : token.top) one.top.push_back(entry(top));
  }
  return out;
}

std::size_t characters(std::string_view text) {
  return static_cast<std::size_t>(
      std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

// The next piece of `buffer`, at most one stream buffer long.
std::string_view piece(const std::string& buffer, std::size_t& sent) {
  const std::string_view out = std::string_view(buffer).substr(sent, core::kStreamBufferBytesMax);
  sent += out.size();
  return out;
}

AnswerHead json_head() {
  return {.status = 200, .content_type = "application/json", .event_stream = false, .headers = {}};
}
AnswerHead stream_head() {
  return {.status = 200, .content_type = "text/event-stream; charset=utf-8", .event_stream = true, .headers = {}};
}

}  // namespace

GenerateAnswer::GenerateAnswer(std::shared_ptr<const LocalModel> model, const boost::asio::any_io_executor& executor,
                               GeneratePlan plan, const Call& call)
    : model_(std::move(model)),
      plan_(std::move(plan)),
      deadline_(call.deadline),
      cancel_(call.cancel),
      head_(plan_.stream ? stream_head() : json_head()),
      waiter_(std::make_shared<EventInbox>(executor, plan_.choices.size()), executor) {
  if (plan_.stream) writer_.emplace(plan_.endpoint, plan_.identity, plan_.include_usage);
}

core::Result<std::unique_ptr<GenerateAnswer>> GenerateAnswer::submit(std::shared_ptr<const LocalModel> model,
                                                                     const boost::asio::any_io_executor& executor,
                                                                     GeneratePlan plan, const Call& call) {
  std::unique_ptr<GenerateAnswer> answer(new GenerateAnswer(std::move(model), executor, std::move(plan), call));
  GeneratePlan& p = answer->plan_;
  local::Replicas& engine = *answer->model_->parts().engine;
  for (std::size_t i = 0; i < p.choices.size(); ++i) {
    ChoicePlan& choice = p.choices[i];
    const std::size_t prompt_tokens = choice.first_of_prompt ? choice.prompt.size() : 0;
    auto handle = engine.submit({.prompt = std::move(choice.prompt),
                                 .sampling = std::move(choice.sampling),
                                 .max_tokens = p.max_tokens,
                                 .stop = p.stop,
                                 .stop_token_ids = p.stop_token_ids,
                                 .ignore_eos = p.ignore_eos,
                                 .priority = p.priority,
                                 .prefix_space = p.prefix_space,
                                 .adapter = p.adapter,
                                 .grammar = p.constraints.grammar,
                                 .shown_ids = p.constraints.shown_ids},
                                answer->waiter_.inbox().choice_sink(i));
    if (!handle) return std::unexpected(handle.error());
    answer->choices_.push_back({.handle = *handle, .text = std::move(choice.echo), .prompt_tokens = prompt_tokens});
    if (!p.constraints.functions.empty()) {
      answer->choices_.back().reader.emplace(p.constraints.style, p.constraints.functions);
    }
  }
  return answer;
}

GenerateAnswer::~GenerateAnswer() {
  call_off();
}

void GenerateAnswer::call_off() {
  for (const Choice& choice : choices_) {
    if (!choice.ended) model_->parts().engine->cancel(choice.handle);
  }
}

boost::asio::awaitable<core::Result<void>> GenerateAnswer::begin() {
  const auto produced = [this] {
    return plan_.stream ? !out_.empty() : std::ranges::any_of(choices_, [](const Choice& c) { return c.tokens > 0; });
  };
  while (!finished_ && !failure_ && !produced()) {
    const auto waited = co_await waiter_.wait(deadline_, *cancel_);
    if (waited || waiter_.inbox().has_news()) absorb();
    // Called off: what the engine produced before this worker came to look has begun the answer, and is billed.
    if (!waited && !produced()) co_return waited;
  }
  if (failure_ && out_.empty()) co_return std::unexpected(*failure_);
  co_return core::Result<void>{};
}

boost::asio::awaitable<core::Result<std::string_view>> GenerateAnswer::next() {
  while (true) {
    if (cancel_->cancelled()) co_return core::fail(core::ErrorKind::cancelled, "the request was cancelled");
    if (sent_ < out_.size()) co_return piece(out_, sent_);
    if (failure_) co_return std::unexpected(*failure_);
    if (finished_) co_return std::string_view{};
    out_.clear();
    sent_ = 0;
    if (auto waited = co_await waiter_.wait(deadline_, *cancel_); !waited) co_return std::unexpected(waited.error());
    absorb();
  }
}

void GenerateAnswer::absorb() {
  News news = waiter_.inbox().take();
  if (plan_.stream && !std::exchange(started_, true)) {
    // A failure that nothing came before leaves the stream unbegun, so that it can still be an error status.
    const bool failed = std::ranges::any_of(news.choices, [](const ChoiceNews& n) { return n.error.has_value(); });
    for (std::size_t i = 0; !failed && i < choices_.size(); ++i) {
      writer_->role(static_cast<int>(i), out_);
      if (!choices_[i].text.empty()) {
        writer_->text(static_cast<int>(i), choices_[i].text, out_);
        choices_[i].characters = characters(choices_[i].text);
      }
    }
  }
  for (std::size_t i = 0; i < choices_.size(); ++i) {
    if (news.choices[i].started) absorb(i, news.choices[i]);
  }
  if (failure_) {
    call_off();
  } else if (ended_ == choices_.size()) {
    finish();
  }
}

void GenerateAnswer::absorb(std::size_t index, ChoiceNews& news) {
  Choice& choice = choices_[index];
  choice.tokens += static_cast<std::uint64_t>(news.tokens);
  choice.cached_tokens = static_cast<std::uint64_t>(news.usage.cached_prompt_tokens);
  if (news.ended) {
    choice.ended = true;
    ++ended_;
    choice.tokens = static_cast<std::uint64_t>(news.usage.completion_tokens);
    choice.finish_reason = news.finish == local::FinishReason::length ? "length" : "stop";
    if (news.error) {
      failure_ = std::move(news.error);
    } else if (news.finish == local::FinishReason::cancelled) {
      failure_ = core::make_error(core::ErrorKind::cancelled, "the generation was cancelled");
    }
  }
  if (failure_) return;
  if (choice.reader) absorb_calls(index, news);
  if (plan_.stream) return write_events(index, news, entries(news.logprobs));
  choice.text += news.text;
  std::ranges::move(entries(news.logprobs), std::back_inserter(choice.logprobs));
}

// Takes the calls out of the text; a stream tells both in the order in which they come.
void GenerateAnswer::absorb_calls(std::size_t index, ChoiceNews& news) {
  Choice& choice = choices_[index];
  std::vector<ToolCallReader::Piece> pieces;
  choice.reader->read(std::exchange(news.text, {}), pieces);
  if (news.ended) choice.reader->finish(pieces);
  const int number = static_cast<int>(index);
  for (ToolCallReader::Piece& piece : pieces) {
    using Kind = ToolCallReader::Piece::Kind;
    const int last = static_cast<int>(choice.calls.size()) - 1;
    if (piece.kind == Kind::text && plan_.stream) {
      writer_->text(number, piece.text, out_);
    } else if (piece.kind == Kind::text) {
      news.text += piece.text;
    } else if (piece.kind == Kind::call) {
      choice.calls.push_back(
          {.id = call_id(plan_.constraints.style, plan_.request_id, index, last + 1), .name = piece.text});
      if (plan_.stream) writer_->tool_call(number, last + 1, choice.calls.back().id, piece.text, out_);
    } else {
      choice.calls.back().arguments += piece.text;
      if (plan_.stream) writer_->tool_arguments(number, last, piece.text, out_);
    }
  }
  if (news.ended && !choice.calls.empty() && choice.finish_reason == "stop") choice.finish_reason = "tool_calls";
}

void GenerateAnswer::write_events(std::size_t index, const ChoiceNews& news,
                                  std::vector<api::TokenLogprobEntry> logprobs) {
  Choice& choice = choices_[index];
  const int number = static_cast<int>(index);
  if (!news.text.empty() || !logprobs.empty()) {
    writer_->text(number, news.text, out_, logprobs, choice.characters);
    choice.characters += characters(news.text);
  }
  if (news.ended) writer_->finish(number, choice.finish_reason, out_);
}

void GenerateAnswer::finish() {
  finished_ = true;
  const api::Usage used = *usage();
  if (plan_.stream) {
    if (plan_.include_usage) writer_->usage(used, out_);
    api::StreamWriter::done(out_);
    return;
  }
  std::vector<api::AnswerChoice> choices;
  for (Choice& choice : choices_) {
    choices.push_back({.text = std::move(choice.text),
                       .finish_reason = std::string{choice.finish_reason},
                       .logprobs = std::move(choice.logprobs),
                       .tool_calls = std::move(choice.calls)});
  }
  out_ = plan_.endpoint == api::Endpoint::chat_completions ? api::chat_body(plan_.identity, choices, used)
                                                           : api::completion_body(plan_.identity, choices, used);
}

std::optional<api::Usage> GenerateAnswer::usage() const {
  api::Usage used;
  for (std::size_t i = 0; i < choices_.size(); ++i) {
    const Choice& choice = choices_[i];
    used.input_tokens += choice.prompt_tokens;
    if (choice.prompt_tokens > 0) used.cached_input_tokens += choice.cached_tokens;
    used.output_tokens += choice.tokens + waiter_.inbox().tokens_waiting(i);
  }
  return used;
}

std::uint64_t GenerateAnswer::engine_us() const {
  return waiter_.inbox().engine_us();
}

EmbedAnswer::EmbedAnswer(std::shared_ptr<const LocalModel> model, const boost::asio::any_io_executor& executor,
                         std::string model_name, api::EncodingFormat format, const Call& call)
    : model_(std::move(model)),
      model_name_(std::move(model_name)),
      format_(format),
      deadline_(call.deadline),
      cancel_(call.cancel),
      head_(json_head()),
      waiter_(std::make_shared<EventInbox>(executor, 0), executor) {}

core::Result<std::unique_ptr<EmbedAnswer>> EmbedAnswer::submit(std::shared_ptr<const LocalModel> model,
                                                               const boost::asio::any_io_executor& executor,
                                                               std::vector<std::vector<std::int32_t>> inputs,
                                                               std::string model_name, api::EncodingFormat format,
                                                               const Call& call) {
  std::unique_ptr<EmbedAnswer> answer(new EmbedAnswer(std::move(model), executor, std::move(model_name), format, call));
  auto handle = answer->model_->parts().embedder->submit(
      std::move(inputs), answer->waiter_.inbox().embed_sink(),
      call.tier == api::Tier::fast ? local::Priority::fast : local::Priority::regular);
  if (!handle) return std::unexpected(handle.error());
  answer->handle_ = *handle;
  return answer;
}

EmbedAnswer::~EmbedAnswer() {
  if (handle_) model_->parts().embedder->cancel(*handle_);
}

boost::asio::awaitable<core::Result<void>> EmbedAnswer::begin() {
  std::optional<core::Result<local::EmbedResult>> result;
  while (!result) {
    if (auto waited = co_await waiter_.wait(deadline_, *cancel_); !waited) co_return waited;
    result = waiter_.inbox().take().embedded;
  }
  handle_.reset();
  if (!*result) co_return std::unexpected(result->error());
  prompt_tokens_ = static_cast<std::uint64_t>((*result)->prompt_tokens);
  engine_us_ = static_cast<std::uint64_t>((*result)->engine_us);
  body_ = api::embedding_body(model_name_, (*result)->vectors, format_, prompt_tokens_);
  co_return core::Result<void>{};
}

boost::asio::awaitable<core::Result<std::string_view>> EmbedAnswer::next() {
  if (cancel_->cancelled()) co_return core::fail(core::ErrorKind::cancelled, "the request was cancelled");
  co_return piece(body_, sent_);
}

std::optional<api::Usage> EmbedAnswer::usage() const {
  return api::Usage{.input_tokens = prompt_tokens_};
}

}  // namespace ganglion::backends
