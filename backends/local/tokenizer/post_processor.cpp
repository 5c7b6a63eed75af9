// Post-processors: offsets and type ids, which they also set, mean nothing here.

#include "backends/local/tokenizer/post_processor.hpp"

#include <nlohmann/json.hpp>

#include "backends/local/tokenizer/vocab.hpp"

namespace ganglion::local::tok {
namespace {

constexpr int kDepthMax = 8;

// ["[CLS]", 101]
std::int32_t pair_id(const Spec& spec, std::string_view key) {
  const Spec pair = spec.at(key);
  if (!pair.json().is_array() || pair.json().size() != 2 || !pair.json()[1].is_number_unsigned() ||
      pair.json()[1].get<std::uint64_t>() > static_cast<std::uint64_t>(kTokenIdMax)) {
    pair.bad("is not [token, id]");
  }
  return pair.json()[1].get<std::int32_t>();
}

}  // namespace

PostProcessor::PostProcessor(const Spec& spec) {
  add(spec, 0);
}

void PostProcessor::add_template(const Spec& spec) {
  std::vector<std::int32_t> before;
  std::vector<std::int32_t> after;
  int sequences = 0;
  for (const Spec& item : spec.list("single")) {
    if (const auto sequence = item.find("Sequence")) {
      if (sequence->string("id") != "A") sequence->unsupported("a sequence other than A in \"single\"");
      ++sequences;
      continue;
    }
    const std::string name = item.at("SpecialToken").string("id");
    const Spec known = spec.at("special_tokens").at(name);
    const Spec ids = known.at("ids");
    if (!ids.json().is_array()) ids.bad("is not a list");
    for (const nlohmann::json& id : ids.json()) {
      if (!id.is_number_unsigned() || id.get<std::uint64_t>() > static_cast<std::uint64_t>(kTokenIdMax)) {
        ids.bad("holds something that is no id");
      }
      (sequences == 0 ? before : after).push_back(id.get<std::int32_t>());
    }
  }
  if (sequences != 1) spec.unsupported("a \"single\" template without exactly one sequence");
  before_.insert(before_.begin(), before.begin(), before.end());
  after_.insert(after_.end(), after.begin(), after.end());
}

void PostProcessor::add(const Spec& spec, int depth) {
  if (depth > kDepthMax) spec.bad("is nested too deeply");
  const std::string type = spec.type();
  if (type == "Sequence") {
    for (const Spec& item : spec.list("processors")) add(item, depth + 1);
  } else if (type == "TemplateProcessing") {
    add_template(spec);
  } else if (type == "BertProcessing" || type == "RobertaProcessing") {
    before_.insert(before_.begin(), pair_id(spec, "cls"));
    after_.push_back(pair_id(spec, "sep"));
  } else if (type != "ByteLevel") {  // ByteLevel trims offsets only
    spec.unsupported("post_processor type \"" + type + "\"");
  }
}

}  // namespace ganglion::local::tok
