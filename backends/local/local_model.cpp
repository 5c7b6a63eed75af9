// Loading one model folder, and what can be asked of it.

#include <algorithm>
#include <utility>

#include "backends/local/event_inbox.hpp"
#include "backends/local/local_parts.hpp"
#include "backends/local/weights/model_config.hpp"
#include "core/log.hpp"

namespace ganglion::backends {

namespace {

core::Result<local::Quantize> quantize_of(const std::string& name, const std::string& quantize) {
  if (quantize == "none") return local::Quantize::none;
  if (quantize == "int8") return local::Quantize::int8;
  if (quantize == "w8a8") return local::Quantize::w8a8;
  if (quantize == "fp8") return local::Quantize::fp8;
  if (quantize == "int4") return local::Quantize::int4;
  return core::fail(core::ErrorKind::invalid_value,
                    "model '" + name + "': quantize must be \"none\", \"int8\", \"w8a8\", \"fp8\" or \"int4\", not \"" +
                        quantize + "\"",
                    "quantize");
}

core::Result<local::KvType> kv_type_of(const LocalModelOptions& options) {
  if (options.kv_type == "auto") return local::KvType::automatic;
  if (options.kv_type == "fp16") return local::KvType::f16;
  if (options.kv_type == "bf16") return local::KvType::bf16;
  if (options.kv_type == "int8") return local::KvType::i8;
  if (options.kv_type == "fp8") return local::KvType::f8;
  return core::fail(core::ErrorKind::invalid_value,
                    "model '" + options.name +
                        "': kv_type must be \"auto\", \"fp16\", \"bf16\", \"int8\" or \"fp8\", not \"" +
                        options.kv_type + "\"",
                    "kv_type");
}

// What the engine says of its device goes to the log: a restart is good news, the rest is not.
std::function<void(std::string_view event, std::string_view problem)> notice_of(const std::string& model) {
  return [model](std::string_view event, std::string_view problem) {
    const auto level = event == "engine_restarted" ? core::LogLevel::warn : core::LogLevel::error;
    core::log(level, event, {{"model", model}, {"problem", problem}});
  };
}

local::EngineHooks hooks_of(const std::string& model, local::RunnerFactory make_runner) {
  return {.make_runner = std::move(make_runner), .notice = notice_of(model), .telling = [](bool begins) {
            EventInbox::gather_wakes(begins);
          }};
}

core::Result<void> load_generator(LocalModel::Parts& parts, local::Quantize quantize,
                                  local::RunnerFactory make_runner) {
  const LocalModelOptions& options = parts.options;
  std::vector<local::AdapterOptions> adapters;
  for (const LocalAdapterOptions& adapter : options.adapters) adapters.push_back({adapter.id, adapter.directory});
  const auto draft_quantize =
      quantize_of(options.name + "', its draft '" + options.draft.directory, options.draft.quantize);
  if (!draft_quantize) return std::unexpected(draft_quantize.error());
  // The template first: it is small, and a mistake in it should not cost the time to load the weights.
  auto chat = local::load_chat_template(options.directory);
  if (!chat) return std::unexpected(chat.error());
  parts.chat = std::move(*chat);
  const auto kv_type = kv_type_of(options);
  if (!kv_type) return std::unexpected(kv_type.error());
  const local::EngineOptions settings{.dir = options.directory,
                                      .device = options.device,
                                      .threads = static_cast<int>(options.threads),
                                      .kv_bytes = options.kv_bytes,
                                      .gpu_bytes = options.gpu_bytes,
                                      .queue_max = static_cast<int>(options.queue_max),
                                      .batch_max = static_cast<int>(options.batch_max),
                                      .quantize = quantize,
                                      .kv_type = *kv_type,
                                      .context_max = static_cast<int>(options.context_max),
                                      .fast_reserved_percent = static_cast<int>(options.fast_reserved_percent),
                                      .adapters = std::move(adapters),
                                      .speculation = options.speculation == "prompt_lookup"
                                                         ? local::Speculation::prompt_lookup
                                                         : local::Speculation::none,
                                      .speculation_tokens = static_cast<int>(options.speculation_tokens),
                                      .speculation_batch_max = static_cast<int>(options.speculation_batch_max),
                                      .draft = {.dir = options.draft.directory,
                                                .tokens = static_cast<int>(options.draft.tokens),
                                                .quantize = *draft_quantize}};
  auto engine = local::Replicas::load(settings, static_cast<int>(options.replicas),
                                      hooks_of(options.name, std::move(make_runner)));
  if (!engine) return std::unexpected(engine.error());
  parts.engine = std::move(*engine);
  return {};
}

core::Result<void> load_embedder(LocalModel::Parts& parts, local::Quantize quantize) {
  const LocalModelOptions& options = parts.options;
  if (!options.adapters.empty()) {
    return core::fail(core::ErrorKind::unsupported,
                      "model '" + options.name + "': adapters are for models that generate text", "adapters");
  }
  if (options.kv_type != "auto") {
    return core::fail(core::ErrorKind::unsupported,
                      "model '" + options.name + "': an embedding model keeps no keys and values", "kv_type");
  }
  if (!options.draft.directory.empty()) {
    return core::fail(core::ErrorKind::unsupported,
                      "model '" + options.name + "': a draft is for models that generate text", "draft");
  }
  auto embedder =
      local::EmbeddingEngine::load({.dir = options.directory,
                                    .device = quantize == local::Quantize::none ? options.device : "cpu",
                                    .threads = static_cast<int>(options.threads),
                                    .queue_max = static_cast<int>(options.queue_max),
                                    .inputs_max = kEmbeddingInputsMax,
                                    .quantize = quantize,
                                    .fast_reserved_percent = static_cast<int>(options.fast_reserved_percent)},
                                   {.notice = notice_of(options.name)});
  if (!embedder) return std::unexpected(embedder.error());
  parts.embedder = std::move(*embedder);
  return {};
}

}  // namespace

LocalModel::LocalModel(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
LocalModel::~LocalModel() = default;

const std::string& LocalModel::name() const {
  return parts_->options.name;
}
LocalKind LocalModel::kind() const {
  return parts_->engine ? LocalKind::generate : LocalKind::embed;
}
int LocalModel::context_max() const {
  return parts_->engine ? parts_->engine->context_max() : parts_->embedder->context_max();
}
std::string LocalModel::device() const {
  return parts_->engine ? parts_->engine->device() : parts_->embedder->device();
}
bool LocalModel::has_chat_template() const {
  return parts_->chat.has_value();
}
local::EngineStats LocalModel::stats() const {
  return parts_->engine ? parts_->engine->stats() : parts_->embedder->stats();
}

TokenCounter LocalModel::counter(std::shared_ptr<const LocalModel> model) {
  return TokenCounter([model = std::move(model)](std::string_view text) -> std::uint64_t {
    return model->parts().tokenizer().count(text);
  });
}

core::Result<std::shared_ptr<LocalModel>> load_local_model(const LocalModelOptions& options,
                                                           local::RunnerFactory make_runner) {
  const auto quantize = quantize_of(options.name, options.quantize);
  if (!quantize) return std::unexpected(quantize.error());
  const auto config = local::load_model_config(options.directory);
  if (!config) return std::unexpected(config.error());
  auto parts = std::make_unique<LocalModel::Parts>();
  parts->options = options;
  const bool embeds = config->family == local::ModelFamily::bert;
  const auto loaded =
      embeds ? load_embedder(*parts, *quantize) : load_generator(*parts, *quantize, std::move(make_runner));
  if (!loaded) return std::unexpected(loaded.error());
  const local::Tokenizer& tokenizer = parts->tokenizer();
  parts->guard = std::make_unique<SpecialTokenGuard>(tokenizer);
  for (std::int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    parts->token_bytes_max = std::max(parts->token_bytes_max, tokenizer.id_to_token(id).size());
  }
  return std::make_shared<LocalModel>(std::move(parts));
}

}  // namespace ganglion::backends
