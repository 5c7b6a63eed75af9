// Whether a draft model can guess for another: what must be equal, and what differs where it is not.

#include <algorithm>
#include <string>

#include "backends/local/engine/draft.hpp"
#include "backends/local/tokenizer/tokenizer.hpp"

namespace ganglion::local {

namespace {

std::string spelled(const Tokenizer& tokenizer, std::int32_t id) {
  const std::string_view token = id < tokenizer.vocab_size() ? tokenizer.id_to_token(id) : std::string_view{};
  if (token.empty()) return "nothing";
  return '"' + std::string(token) + '"' + (tokenizer.is_special(id) ? " (special)" : "");
}

}  // namespace

EngineOptions draft_options(const EngineOptions& options, const std::string& device) {
  EngineOptions out = options;
  out.dir = options.draft.dir;
  out.device = device;
  out.quantize = options.draft.quantize;
  out.batch_max = std::min(options.batch_max, options.speculation_batch_max);
  out.gpu_bytes = 0;
  out.adapters.clear();
  out.speculation = Speculation::none;
  out.draft = {};
  return out;
}

core::Result<void> same_vocabulary(const Tokenizer& model, const Tokenizer& draft) {
  const std::int32_t ids = std::max(model.vocab_size(), draft.vocab_size());
  for (std::int32_t id = 0; id < ids; ++id) {
    const std::string here = spelled(model, id), there = spelled(draft, id);
    if (here == there) continue;
    return core::fail(core::ErrorKind::invalid_value,
                      "its vocabulary is not the model's: token " + std::to_string(id) + " is " + there +
                          " in the draft and " + here + " in the model (" + std::to_string(draft.vocab_size()) +
                          " tokens and " + std::to_string(model.vocab_size()) + ")",
                      "draft");
  }
  return {};
}

}  // namespace ganglion::local
