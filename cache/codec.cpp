// See cache/codec.hpp.

#include "cache/codec.hpp"

#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <limits>

namespace ganglion::cache {
namespace {

constexpr std::string_view kMagic = "GCE";
constexpr std::size_t kHeadBytes = 64;
constexpr std::size_t kSealBytes = 16;
constexpr int kZstdLevel =
    1;  // answers are text: level 1 takes 2.5-4x at over 300 MB/s; higher levels gain a few percent
constexpr std::size_t kFieldBytesMax = 4096;
constexpr std::size_t kPaceMarksMax = 16'384;
constexpr std::int64_t kStampMax = 7'258'118'400'000'000;  // the year 2200, in us

enum Flag : std::uint8_t {
  kCompressed = 1,
  kStream = 2,
  kRefusal = 4,
  kUsage = 8,
  kUsageEstimated = 16,
  kUsageEvent = 32
};

template <class T>
void put(std::string& out, T value) {
  static_assert(std::is_unsigned_v<T>);
  for (std::size_t i = 0; i < sizeof value; ++i) out.push_back(static_cast<char>(value >> (8 * i)));
}

void put_text(std::string& out, std::string_view text) {
  put(out, static_cast<std::uint16_t>(text.size()));
  out.append(text);
}

void put_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

// Reads from the front; after the first read past the end everything is zero and ok() false.
class Input {
 public:
  explicit Input(std::string_view bytes) : bytes_(bytes) {}

  template <class T>
  T get() {
    const std::string_view raw = take(sizeof(T));
    T value = 0;
    for (std::size_t i = 0; i < raw.size(); ++i) {
      value = static_cast<T>(value | static_cast<T>(static_cast<T>(static_cast<unsigned char>(raw[i])) << (8 * i)));
    }
    return value;
  }
  std::string_view take(std::size_t size) {
    if (size > bytes_.size()) {
      ok_ = false;
      bytes_ = {};
      return {};
    }
    const std::string_view out = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return out;
  }
  std::string text() {
    const std::size_t size = get<std::uint16_t>();
    if (size > kFieldBytesMax) ok_ = false;
    return std::string{take(size)};
  }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto byte = get<std::uint8_t>();
      value |= std::uint64_t{byte & 0x7FU} << shift;
      if ((byte & 0x80) == 0) return value;
    }
    ok_ = false;
    return 0;
  }
  bool ok() const { return ok_; }
  bool at_end() const { return bytes_.empty(); }

 private:
  std::string_view bytes_;
  bool ok_ = true;
};

std::uint64_t wall_us(core::WallTime time) {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(time.time_since_epoch()).count());
}

// Only if it saves something.
std::optional<std::string> compressed(std::string_view body) {
  std::string out(ZSTD_compressBound(body.size()), '\0');
  const std::size_t size = ZSTD_compress(out.data(), out.size(), body.data(), body.size(), kZstdLevel);
  if (ZSTD_isError(size) != 0 || size >= body.size()) return std::nullopt;
  out.resize(size);
  return out;
}

std::uint8_t flags_of(const Entry& entry, bool is_compressed) {
  unsigned flags = is_compressed ? kCompressed : 0;
  if (entry.recorded_as == RecordedAs::stream) flags |= kStream;
  if (entry.refusal) flags |= kRefusal;
  if (entry.usage) flags |= kUsage;
  if (entry.usage && entry.usage->estimated) flags |= kUsageEstimated;
  if (!entry.usage_event.empty()) flags |= kUsageEvent;
  return static_cast<std::uint8_t>(flags);
}

std::string details_of(const Entry& entry) {
  std::string out;
  for (const std::string* text :
       {&entry.tenant, &entry.gateway, &entry.model, &entry.content_type, &entry.custom_key}) {
    put_text(out, *text);
  }
  put(out, static_cast<std::uint8_t>(entry.tags.size()));
  for (const std::string& tag : entry.tags) put_text(out, tag);
  for (const auto seconds : {entry.ttl, entry.stale_while_revalidate, entry.stale_if_error}) {
    put(out, static_cast<std::uint32_t>(seconds.count()));
  }
  put(out, entry.generation);
  if (!entry.usage_event.empty()) {
    put_varint(out, entry.usage_event.offset);
    put_varint(out, entry.usage_event.length);
  }
  if (entry.usage) {
    put_varint(out, entry.usage->input_tokens);
    put_varint(out, entry.usage->cached_input_tokens);
    put_varint(out, entry.usage->output_tokens);
  }
  const std::size_t marks = std::min(entry.pace.size(), kPaceMarksMax);
  put_varint(out, marks);
  PaceMark last;
  for (std::size_t i = 0; i < marks; ++i) {
    put_varint(out, entry.pace[i].end - last.end);
    put_varint(out, entry.pace[i].at_ms - last.at_ms);
    last = entry.pace[i];
  }
  return out;
}

bool read_details(Input& in, std::uint8_t flags, Entry& entry) {
  for (std::string* text : {&entry.tenant, &entry.gateway, &entry.model, &entry.content_type, &entry.custom_key}) {
    *text = in.text();
  }
  const std::size_t tags = in.get<std::uint8_t>();
  if (tags > kEntryTagsMax) return false;
  for (std::size_t i = 0; i < tags; ++i) entry.tags.push_back(in.text());
  for (auto* seconds : {&entry.ttl, &entry.stale_while_revalidate, &entry.stale_if_error}) {
    *seconds = std::chrono::seconds{in.get<std::uint32_t>()};
  }
  entry.generation = in.get<std::uint64_t>();
  if ((flags & kUsageEvent) != 0) {
    entry.usage_event.offset = in.varint();
    entry.usage_event.length = in.varint();
  }
  if ((flags & kUsage) != 0) {
    auto& usage = entry.usage.emplace();
    usage.input_tokens = in.varint();
    usage.cached_input_tokens = in.varint();
    usage.output_tokens = in.varint();
    usage.estimated = (flags & kUsageEstimated) != 0;
  }
  const std::uint64_t marks = in.varint();
  if (!in.ok() || marks > kPaceMarksMax) return false;
  PaceMark last;
  for (std::uint64_t i = 0; i < marks; ++i) {
    last.end += static_cast<std::uint32_t>(in.varint());
    last.at_ms += static_cast<std::uint32_t>(in.varint());
    entry.pace.push_back(last);
  }
  return in.ok() && in.at_end();
}

// Whether its parts fit each other; what a seal cannot promise if a gateway wrote nonsense.
bool sane(const Entry& entry) {
  const api::Span& usage = entry.usage_event;
  if (usage.offset > entry.body.size() || usage.length > entry.body.size() - usage.offset) return false;
  PaceMark last;
  for (const PaceMark& mark : entry.pace) {
    if (mark.end < last.end || mark.at_ms < last.at_ms || mark.end > entry.body.size()) return false;
    last = mark;
  }
  return entry.status >= 100 && entry.status <= 599 && entry.endpoint < api::Endpoint::kCount;
}

std::expected<std::string, CodecError> read_body(std::string_view stored, std::size_t raw_size, bool is_compressed,
                                                 std::size_t body_bytes_max) {
  if (raw_size > body_bytes_max) return std::unexpected(CodecError::too_large);
  if (!is_compressed) {
    if (stored.size() != raw_size) return std::unexpected(CodecError::corrupt);
    return std::string{stored};
  }
  std::string out(raw_size, '\0');
  const std::size_t size = ZSTD_decompress(out.data(), out.size(), stored.data(), stored.size());
  if (ZSTD_isError(size) != 0 || size != raw_size) return std::unexpected(CodecError::corrupt);
  return out;
}

}  // namespace

bool encodable(const Entry& entry) {
  for (const std::string* text :
       {&entry.tenant, &entry.gateway, &entry.model, &entry.content_type, &entry.custom_key}) {
    if (text->size() > kFieldBytesMax) return false;
  }
  return entry.tags.size() <= kEntryTagsMax && entry.body.size() <= std::numeric_limits<std::uint32_t>::max() / 2 &&
         std::ranges::all_of(entry.tags, [](const std::string& tag) { return tag.size() <= kTagBytesMax; });
}

std::string encode_entry(const Entry& entry, const StoreKey& key, const StoreSecret& secret,
                         std::size_t compress_above) {
  std::optional<std::string> small;
  if (compress_above != 0 && entry.body.size() > compress_above) small = compressed(entry.body);
  const std::string_view body = small ? std::string_view{*small} : std::string_view{entry.body};
  const std::string details = details_of(entry);
  std::string out;
  out.reserve(kHeadBytes + details.size() + body.size() + kSealBytes);
  out.append(kMagic);
  put(out, kEntryFormat);
  put(out, flags_of(entry, small.has_value()));
  put(out, static_cast<std::uint8_t>(entry.endpoint));
  put(out, static_cast<std::uint16_t>(entry.status));
  put(out, wall_us(entry.stored_wall));
  put(out, static_cast<std::uint32_t>(details.size()));
  put(out, static_cast<std::uint32_t>(body.size()));
  put(out, static_cast<std::uint32_t>(entry.body.size()));
  put(out, std::uint32_t{0});
  out.append(key.view());
  out.append(details);
  out.append(body);
  const auto seal = secret.seal(out);
  out.append(reinterpret_cast<const char*>(seal.data()), seal.size());
  return out;
}

std::expected<std::shared_ptr<Entry>, CodecError> decode_entry(std::string_view bytes, const StoreKey& key,
                                                               const StoreSecret& secret, std::size_t body_bytes_max,
                                                               core::SteadyTime now, core::WallTime wall_now) {
  if (!bytes.starts_with(kMagic) || bytes.size() < kHeadBytes + kSealBytes) return std::unexpected(CodecError::corrupt);
  if (static_cast<std::uint8_t>(bytes[kMagic.size()]) != kEntryFormat) return std::unexpected(CodecError::foreign);
  const std::string_view sealed = bytes.substr(0, bytes.size() - kSealBytes);
  const auto seal = secret.seal(sealed);
  const std::string_view expected{reinterpret_cast<const char*>(seal.data()), seal.size()};
  if (!core::equal_constant_time(bytes.substr(sealed.size()), expected)) return std::unexpected(CodecError::corrupt);
  Input in{sealed.substr(kMagic.size() + 1)};
  const auto flags = in.get<std::uint8_t>();
  auto entry = std::make_shared<Entry>();
  entry->endpoint = static_cast<api::Endpoint>(in.get<std::uint8_t>());
  entry->status = in.get<std::uint16_t>();
  const auto stored_us = static_cast<std::int64_t>(in.get<std::uint64_t>());
  const std::size_t details_size = in.get<std::uint32_t>();
  const std::size_t body_size = in.get<std::uint32_t>();
  const std::size_t raw_size = in.get<std::uint32_t>();
  in.get<std::uint32_t>();
  if (in.take(key.bytes.size()) != key.view()) return std::unexpected(CodecError::corrupt);
  Input details{in.take(details_size)};
  const std::string_view stored_body = in.take(body_size);
  if (!in.ok() || !in.at_end() || !read_details(details, flags, *entry)) return std::unexpected(CodecError::corrupt);
  auto body = read_body(stored_body, raw_size, (flags & kCompressed) != 0, body_bytes_max);
  if (!body) return std::unexpected(body.error());
  entry->body = *std::move(body);
  entry->recorded_as = (flags & kStream) != 0 ? RecordedAs::stream : RecordedAs::whole;
  entry->refusal = (flags & kRefusal) != 0;
  if (!sane(*entry) || stored_us < 0 || stored_us > kStampMax) return std::unexpected(CodecError::corrupt);
  entry->stored_wall = core::WallTime{std::chrono::microseconds{stored_us}};
  entry->stored = now - std::max<core::SteadyTime::duration>(wall_now - entry->stored_wall, {});
  return entry;
}

std::string_view stamp_of(std::string_view bytes) {
  return bytes.size() < kHeadBytes ? std::string_view{} : bytes.substr(kStampOffset, kStampBytes);
}

std::string stamp_of(const Entry& entry) {
  std::string out;
  put(out, wall_us(entry.stored_wall));
  return out;
}

}  // namespace ganglion::cache
