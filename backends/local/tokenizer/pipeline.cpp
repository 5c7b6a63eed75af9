// Encoding: added tokens, normalizer, added tokens again, pre-tokenizer, model.

#include "backends/local/tokenizer/pipeline.hpp"

#include <algorithm>

#include "backends/local/tokenizer/utf8.hpp"

namespace ganglion::local::tok {
namespace {

template <class Component>
Component read(const Spec& spec, std::string_view key) {
  const auto found = spec.find(key);
  return found ? Component(*found) : Component();
}

}  // namespace

std::unique_ptr<Scratch> ScratchPool::borrow() {
  {
    const std::lock_guard lock(mutex_);
    if (!free_.empty()) {
      std::unique_ptr<Scratch> scratch = std::move(free_.back());
      free_.pop_back();
      return scratch;
    }
  }
  return std::make_unique<Scratch>();
}

void ScratchPool::give_back(std::unique_ptr<Scratch> scratch) {
  scratch->trim();
  const std::lock_guard lock(mutex_);
  if (free_.size() < kKept) free_.push_back(std::move(scratch));
}

Pipeline::Pipeline(const Spec& spec)
    : normalizer(read<Normalizer>(spec, "normalizer")),
      pre_tokenizer(read<PreTokenizer>(spec, "pre_tokenizer")),
      model(make_model(spec.at("model"))),
      post_processor(read<PostProcessor>(spec, "post_processor")),
      decoder(read<Decoder>(spec, "decoder")),
      added(spec.has("added_tokens") ? spec.list("added_tokens") : std::vector<Spec>(), model->vocab(), normalizer) {
  end_id = model->vocab().end_id();
  for (const AddedToken& token : added.all()) {
    end_id = std::max(end_id, token.id + 1);
    if (token.special) special_ids.push_back(token.id);
  }
  std::ranges::sort(special_ids);
}

std::string_view Pipeline::token(std::int32_t id) const {
  if (const AddedToken* token = added.by_id(id)) return token->content;
  return model->vocab().token(id);
}

std::string_view Pipeline::shown(std::int32_t id) const {
  if (const AddedToken* token = added.by_id(id)) return token->shown;
  return model->vocab().token(id);
}

void Pipeline::encode_words(std::string_view text, bool at_start, Scratch& scratch,
                            std::vector<std::int32_t>& ids) const {
  Pieces& pieces = scratch.pieces;
  pieces.clear();
  pieces.list.push_back({text, at_start});
  pre_tokenizer.apply(pieces);
  for (const Piece& piece : pieces.list) {
    if (!piece.text.empty()) model->encode(piece.text, pieces.byte_level, scratch, ids);
  }
}

void Pipeline::encode_text(Normalized text, bool plain_special, Scratch& scratch,
                           std::vector<std::int32_t>& ids) const {
  normalizer.apply(text);
  std::vector<Segment> segments;
  added.split_normalized(text.text, plain_special, segments);
  for (const Segment& segment : segments) {
    if (segment.id >= 0) {
      ids.push_back(segment.id);
    } else {
      encode_words(std::string_view(text.text).substr(segment.begin, segment.end - segment.begin),
                   text.at_start && segment.begin == 0, scratch, ids);
    }
  }
}

void Pipeline::encode(std::string_view input, bool plain_special, std::vector<std::int32_t>& ids) const {
  std::string storage;
  const std::string_view text = repaired(input, storage);
  std::vector<Segment> segments;
  added.split_raw(text, plain_special, segments);
  std::unique_ptr<Scratch> scratch = scratches_.borrow();
  for (const Segment& segment : segments) {
    if (segment.id >= 0) {
      ids.push_back(segment.id);
    } else {
      encode_text({std::string(text.substr(segment.begin, segment.end - segment.begin)), segment.begin == 0},
                  plain_special, *scratch, ids);
    }
  }
  scratches_.give_back(std::move(scratch));
}

}  // namespace ganglion::local::tok
