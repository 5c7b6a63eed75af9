// See local_property.hpp.

#include "tests/fuzz/local_property.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "backends/local/grammar/compile.hpp"
#include "backends/local/grammar/matcher.hpp"
#include "backends/local/tokenizer/stream_decoder.hpp"
#include "backends/local/tokenizer/tokenizer.hpp"
#include "backends/local/tool_calls.hpp"
#include "backends/local/weights/safetensors.hpp"
#include "core/assert.hpp"
#include "metering/segment_scan.hpp"

namespace ganglion::fuzz {
namespace {

namespace grammar = local::grammar;

constexpr std::int32_t kEnd = 256;

// Every byte, an end token, and pieces that reach over the ends of rules.
std::shared_ptr<const grammar::Vocabulary> vocabulary() {
  static const auto kMade = [] {
    std::vector<std::string> bytes;
    for (int c = 0; c < 256; ++c) bytes.emplace_back(1, static_cast<char>(c));
    bytes.emplace_back("</s>");
    for (const char* piece :
         {"\":", "\": ", "\",", "\"}", "\"]", "{\"", "[\"", "}}", "]}",       "},",   "[[", "true", "null",
          "12",  "0.",   "-1",  "e+",  "1,",  "ab",  "\\u", "d8", "\xe6\x97", "\xa5", "é",  " \n",  "a\": {"})
      bytes.emplace_back(piece);
    return std::make_shared<const grammar::Vocabulary>(bytes, std::vector<std::int32_t>{kEnd});
  }();
  return kMade;
}

// What to pick next follows from the input alone.
class Dice {
 public:
  explicit Dice(std::string_view bytes) {
    for (const char c : bytes) state_ = (state_ ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
  }
  std::size_t below(std::size_t n) {
    state_ = state_ * 6364136223846793005U + 1442695040888963407U;
    return static_cast<std::size_t>(state_ >> 33U) % n;
  }

 private:
  std::uint64_t state_ = 0xcbf29ce484222325U;
};

std::vector<std::int32_t> allowed(const std::vector<std::uint32_t>& words, std::int64_t size) {
  std::vector<std::int32_t> out;
  for (std::int32_t id = 0; id < size; ++id)
    if ((words[static_cast<std::size_t>(id) / 32] >> (static_cast<std::uint32_t>(id) % 32) & 1U) != 0)
      out.push_back(id);
  return out;
}

// A text of what the masks allow, in the end rather what closes than what opens.
void walk(const std::shared_ptr<const grammar::Grammar>& made, Dice dice, bool json) {
  constexpr int kStepsMax = 160;
  grammar::Matcher matcher(made);
  std::string text;
  std::vector<std::uint32_t> words(made->vocabulary().words());
  for (int step = 0; step < kStepsMax && !matcher.over(); ++step) {
    const bool any = matcher.fill(words);
    GW_ASSERT(any || matcher.complete());
    if (!any) break;
    auto ids = allowed(words, made->vocabulary().size());
    for (int i = 0; i < 3; ++i) {
      const auto id = static_cast<std::int32_t>(dice.below(static_cast<std::size_t>(made->vocabulary().size())));
      grammar::Matcher tried = matcher;
      GW_ASSERT(tried.advance(id) == std::ranges::binary_search(ids, id));
    }
    if (matcher.complete() && dice.below(2) == 0) break;
    std::vector<std::int32_t> closing;
    for (const std::int32_t id : ids)
      if (id == kEnd || std::string_view{"\"}]"}.contains(made->vocabulary().bytes(id).back())) closing.push_back(id);
    if (!closing.empty() && dice.below(4) < (step < 40 ? 1U : 3U)) ids = std::move(closing);
    const std::int32_t id = ids[dice.below(ids.size())];
    GW_ASSERT(matcher.advance(id));
    if (id != kEnd) text += made->vocabulary().bytes(id);
  }
  if (json && matcher.complete()) GW_ASSERT(nlohmann::json::accept(text));
}

}  // namespace

void check_json_schema(std::string_view bytes) {
  constexpr std::size_t kBytesMax = 8 * 1024;
  if (bytes.empty() || bytes.size() > kBytesMax) return;
  const auto flags = static_cast<unsigned char>(bytes.front());
  const std::string text{bytes.substr(1)};
  grammar::Source source;
  source.strict = (flags & 1U) != 0;
  if ((flags & 2U) != 0) {
    source.calls = grammar::Source::Calls::must;
    source.parallel = (flags & 4U) != 0;
    source.functions = {{.name = "f", .parameters = text, .strict = source.strict}};
    source.syntax = {.opening = "",
                     .begin = "<call>{\"name\": \"",
                     .arguments = "\", \"arguments\": ",
                     .end = "}",
                     .between = "\n",
                     .closing = ""};
  } else {
    source.json = grammar::Source::Json::schema;
    source.schema = text;
  }
  const auto made = grammar::compile(source, vocabulary());
  if (!made) {
    GW_ASSERT(!made.error().message.empty());
    GW_ASSERT(made.error().kind == core::ErrorKind::invalid_value || made.error().kind == core::ErrorKind::unsupported);
    return;
  }
  walk(*made, Dice{bytes}, source.json == grammar::Source::Json::schema);
  GW_ASSERT((*made)->bytes_held() <= std::size_t{256} << 20U);
}

void check_tool_calls(std::string_view bytes) {
  constexpr std::size_t kBytesMax = 16 * 1024;
  constexpr unsigned kStyles = 5;
  if (bytes.empty() || bytes.size() > kBytesMax) return;
  const auto style = static_cast<backends::ToolStyle>(static_cast<unsigned char>(bytes.front()) % kStyles);
  bytes.remove_prefix(1);
  using Piece = backends::ToolCallReader::Piece;
  struct Found {
    std::string text;
    std::vector<std::pair<std::string, std::string>> calls;
    bool operator==(const Found&) const = default;
  };
  const auto find = [&](std::size_t step) {
    backends::ToolCallReader reader(style, {"f", "get_weather"});
    std::vector<Piece> out;
    for (std::size_t at = 0; at < bytes.size(); at += step) reader.read(bytes.substr(at, step), out);
    reader.finish(out);
    Found found;
    for (const Piece& piece : out) {
      if (piece.kind == Piece::Kind::text) found.text += piece.text;
      if (piece.kind == Piece::Kind::call) found.calls.emplace_back(piece.text, "");
      if (piece.kind == Piece::Kind::arguments) {
        GW_ASSERT(!found.calls.empty());
        found.calls.back().second += piece.text;
      }
    }
    GW_ASSERT(static_cast<std::size_t>(reader.calls()) == found.calls.size());
    return found;
  };
  const Found whole = find(std::max<std::size_t>(bytes.size(), 1));
  GW_ASSERT(whole.text.size() <= bytes.size());
  for (const auto& [name, arguments] : whole.calls) GW_ASSERT(name == "f" || name == "get_weather");
  for (const std::size_t step : {1U, 2U, 3U, 7U, 64U}) GW_ASSERT(find(step) == whole);
}

void check_safetensors(std::string_view bytes) {
  const auto data = std::as_bytes(std::span(bytes));
  const auto header = local::parse_safetensors(data, "fuzz");
  if (!header) return;
  std::size_t covered = 0;
  for (const local::TensorView& view : header->tensors) {
    GW_ASSERT(view.data.data() >= data.data() && view.data.size() <= data.size() &&
              view.data.data() + view.data.size() <= data.data() + data.size());
    GW_ASSERT(static_cast<std::uint64_t>(view.numel()) * static_cast<std::uint64_t>(local::dtype_bits(view.dtype)) ==
              view.data.size() * 8);
    covered += view.data.size();
  }
  GW_ASSERT(covered <= data.size());
}

void check_tokenizer_json(std::string_view bytes) {
  const auto tokenizer = local::Tokenizer::parse(bytes);
  if (!tokenizer) {
    GW_ASSERT(!tokenizer.error().message.empty());
    return;
  }
  // The file's own bytes serve as text too, which brings its tokens into it.
  for (const std::string_view text :
       {std::string_view("Hello  w\xC3\xB6rld\n'S 123 \xF0\x9F\x98\x80 \xFF"), bytes.substr(0, 512)}) {
    const auto ids = tokenizer->encode(text, true);
    for (const bool skip : {false, true}) {
      local::StreamDecoder stream(*tokenizer, skip);
      std::string streamed;
      for (const std::int32_t id : ids) streamed += stream.push(id);
      streamed += stream.flush();
      GW_ASSERT(streamed == tokenizer->decode(ids, skip));
    }
  }
}

namespace {

struct Scanned {
  metering::ScanEnd end;
  std::vector<std::uint64_t> sequences;
};

Scanned scan(std::string_view bytes) {
  Scanned out;
  metering::ChainState state;
  metering::Replay replay;
  out.end = metering::scan_segment(
      bytes, true, state, replay,
      [&](const metering::Frame& frame, const metering::LedgerRecord&) { out.sequences.push_back(frame.sequence); });
  return out;
}

// As payloads of valid frames, so that their decoders are reached too.
std::string framed(std::string_view data) {
  std::string out;
  metering::ChainHasher hasher;
  metering::ChainState state;
  std::size_t start = metering::begin_frame(out);
  metering::encode_segment(out, {.epoch = 1});
  metering::finish_frame(out, start, metering::RecordType::segment, 0, state, hasher);
  while (data.size() >= 2) {
    const auto type = static_cast<metering::RecordType>(1 + static_cast<std::uint8_t>(data[0]) % 7);
    const std::size_t size = std::min<std::size_t>(static_cast<std::uint8_t>(data[1]), data.size() - 2);
    start = metering::begin_frame(out);
    out.append(data.substr(2, size));
    metering::finish_frame(out, start, type, 0, state, hasher);
    data.remove_prefix(2 + size);
  }
  return out;
}

}  // namespace

void check_ledger(std::string_view raw) {
  for (const std::string& bytes : {std::string{raw}, framed(raw)}) {
    const Scanned first = scan(bytes);
    GW_ASSERT(first.end.offset <= bytes.size());
    for (std::size_t i = 1; i < first.sequences.size(); ++i)
      GW_ASSERT(first.sequences[i] == first.sequences[i - 1] + 1);
    if (first.end.kind == metering::ScanEnd::Kind::bad)
      static_cast<void>(metering::was_durable(bytes, first.end.offset, first.end.first_sequence));
    std::string cut = bytes;
    std::fill(cut.begin() + static_cast<std::ptrdiff_t>(first.end.offset), cut.end(), '\0');
    const Scanned second = scan(cut);
    GW_ASSERT(second.end.kind == metering::ScanEnd::Kind::end && second.sequences == first.sequences);
  }
}

}  // namespace ganglion::fuzz
