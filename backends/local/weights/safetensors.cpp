// Parses and checks a safetensors header. Every rule of the format is enforced, because a view that passes here is
// read by kernels without further checks.

#include "backends/local/weights/safetensors.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <unordered_set>

namespace ganglion::local {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kDimsMax = 16;  // no model comes near; bounds messages and loops

std::unexpected<core::Error> bad(std::string_view origin, const std::string& what) {
  return core::fail(core::ErrorKind::invalid_value, std::string(origin) + ": " + what);
}

// Header bytes may hold anything: show a short, printable form of a name.
std::string shown(std::string_view name) {
  std::string text = "\"";
  for (char c : name.substr(0, 120)) text += static_cast<unsigned char>(c) < 0x20 ? '?' : c;
  return text + (name.size() > 120 ? "...\"" : "\"");
}

core::Result<std::string_view> header_text(std::span<const std::byte> file, std::string_view origin) {
  if (file.size() < 8) return bad(origin, "shorter than the 8-byte header length");
  std::uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | std::to_integer<std::uint64_t>(file[static_cast<std::size_t>(i)]);
  if (length > kSafetensorsHeaderBytesMax) {
    return bad(origin, "header of " + std::to_string(length) + " bytes is over the format's limit of " +
                           std::to_string(kSafetensorsHeaderBytesMax));
  }
  if (length > file.size() - 8) {
    return bad(origin, "header of " + std::to_string(length) + " bytes reaches past the end of the file (" +
                           std::to_string(file.size()) + " bytes)");
  }
  std::string_view text(reinterpret_cast<const char*>(file.data()) + 8, static_cast<std::size_t>(length));
  if (text.empty() || text.front() != '{') return bad(origin, "header does not start with '{'");
  return text;
}

// The DOM keeps the last of equal keys, so duplicates are looked for while parsing.
core::Result<Json> parse_header(std::string_view text, std::string_view origin) {
  std::unordered_set<std::string> seen;
  std::string duplicate;
  bool too_deep = false;
  auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > 4) too_deep = true;
    if (event == Json::parse_event_t::key && depth == 1 && !seen.insert(parsed.get<std::string>()).second) {
      duplicate = parsed.get<std::string>();
    }
    return !too_deep;
  };
  Json json = Json::parse(text.begin(), text.end(), watch, /*allow_exceptions=*/false);
  if (too_deep) return bad(origin, "header is nested too deeply");
  if (json.is_discarded() || !json.is_object()) return bad(origin, "header is not valid JSON");
  if (!duplicate.empty()) return bad(origin, "tensor " + shown(duplicate) + " is listed twice");
  return json;
}

// Non-negative and exactly an integer.
std::optional<std::uint64_t> natural(const Json& value) {
  if (value.is_number_unsigned()) return value.get<std::uint64_t>();
  return std::nullopt;
}

struct Entry {
  TensorView view;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

// Fills shape and returns the number of bits, or an error text.
std::expected<std::uint64_t, std::string> read_shape(const Json& entry, TensorView& view) {
  const auto shape = entry.find("shape");
  if (shape == entry.end() || !shape->is_array()) return std::unexpected("has no shape array");
  if (shape->size() > kDimsMax) return std::unexpected("has more than 16 dimensions");
  std::uint64_t bits = static_cast<std::uint64_t>(dtype_bits(view.dtype));
  for (const Json& dim : *shape) {
    const auto size = natural(dim);
    if (!size || *size > static_cast<std::uint64_t>(INT64_MAX)) {
      return std::unexpected("has a dimension that is not a non-negative integer");
    }
    if (__builtin_mul_overflow(bits, *size, &bits)) return std::unexpected("has a size that overflows 64 bits");
    view.shape.push_back(static_cast<std::int64_t>(*size));
  }
  return bits;
}

std::expected<Entry, std::string> read_entry(const Json& json, std::uint64_t data_size) {
  if (!json.is_object()) return std::unexpected("is not described by an object");
  Entry entry;
  const auto dtype = json.find("dtype");
  if (dtype == json.end() || !dtype->is_string()) return std::unexpected("has no dtype");
  const auto known = dtype_from_name(dtype->get_ref<const std::string&>());
  if (!known) return std::unexpected("has the unknown dtype " + shown(dtype->get_ref<const std::string&>()));
  entry.view.dtype = *known;
  auto bits = read_shape(json, entry.view);
  if (!bits) return std::unexpected(bits.error());
  const auto offsets = json.find("data_offsets");
  if (offsets == json.end() || !offsets->is_array() || offsets->size() != 2 || !natural((*offsets)[0]) ||
      !natural((*offsets)[1])) {
    return std::unexpected("has no data_offsets [begin, end]");
  }
  entry.begin = *natural((*offsets)[0]);
  entry.end = *natural((*offsets)[1]);
  if (entry.begin > entry.end) return std::unexpected("has data_offsets that end before they begin");
  if (entry.end > data_size) {
    return std::unexpected("reaches to byte " + std::to_string(entry.end) + " of " + std::to_string(data_size) +
                           " data bytes (file cut short?)");
  }
  const std::uint64_t bytes = entry.end - entry.begin;
  if (*bits % 8 != 0 || bytes != *bits / 8) {
    return std::unexpected("holds " + std::to_string(bytes) + " bytes, but " + std::string(dtype_name(*known)) + " " +
                           shape_text(entry.view.shape) + " needs " + std::to_string(*bits / 8));
  }
  return entry;
}

// Tensors must tile the data exactly: overlap would alias weights, a hole could hide anything.
core::Result<void> check_tiling(const std::vector<Entry>& entries, std::uint64_t data_size, std::string_view origin) {
  std::uint64_t at = 0;
  for (const Entry& entry : entries) {
    if (entry.begin != at) {
      return bad(origin, "tensor " + shown(entry.view.name) +
                             (entry.begin < at ? " overlaps" : " leaves a hole after") +
                             " the tensor before it (begins at " + std::to_string(entry.begin) + ", expected " +
                             std::to_string(at) + ")");
    }
    at = entry.end;
  }
  if (at != data_size) {
    return bad(origin, std::to_string(data_size - at) + " bytes after the last tensor belong to none");
  }
  return {};
}

core::Result<void> check_metadata(const Json& metadata, std::string_view origin) {
  if (!metadata.is_object()) return bad(origin, "__metadata__ is not an object");
  for (const auto& [key, value] : metadata.items()) {
    if (!value.is_string()) return bad(origin, "__metadata__ value of " + shown(key) + " is not a string");
  }
  return {};
}

}  // namespace

core::Result<SafetensorsHeader> parse_safetensors(std::span<const std::byte> file, std::string_view origin) {
  auto text = header_text(file, origin);
  if (!text) return std::unexpected(text.error());
  auto json = parse_header(*text, origin);
  if (!json) return std::unexpected(json.error());
  const std::span<const std::byte> data = file.subspan(8 + text->size());

  SafetensorsHeader header;
  std::vector<Entry> entries;
  entries.reserve(json->size());
  for (const auto& [name, value] : json->items()) {
    if (name == "__metadata__") {
      if (auto ok = check_metadata(value, origin); !ok) return std::unexpected(ok.error());
      continue;
    }
    auto entry = read_entry(value, data.size());
    if (!entry) return bad(origin, "tensor " + shown(name) + " " + entry.error());
    header.names.push_back(std::make_unique<std::string>(name));
    entry->view.name = *header.names.back();
    entries.push_back(std::move(*entry));
  }
  std::ranges::sort(entries, {}, [](const Entry& e) { return std::pair(e.begin, e.end); });
  if (auto ok = check_tiling(entries, data.size(), origin); !ok) return std::unexpected(ok.error());
  header.tensors.reserve(entries.size());
  for (Entry& entry : entries) {
    entry.view.data =
        data.subspan(static_cast<std::size_t>(entry.begin), static_cast<std::size_t>(entry.end - entry.begin));
    header.tensors.push_back(std::move(entry.view));
  }
  return header;
}

}  // namespace ganglion::local
