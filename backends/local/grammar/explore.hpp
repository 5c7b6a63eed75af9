#pragma once
// A deterministic automaton from what its states mean: all that is reached from a start, byte by byte.

#include <map>
#include <optional>
#include <string>

#include "backends/local/grammar/builder.hpp"

namespace ganglion::local::grammar {

inline constexpr std::size_t kTableRowsMax = 20'000;

// `next(key, byte)` gives std::optional<Key>, `final(key)` says whether a text may end there. Keys need an order.
template <class Key, class Next, class Final>
core::Result<ByteTable> explore(AutomatonBuilder& builder, const Key& start, Next next, Final final) {
  ByteTable out;
  std::map<Key, std::uint32_t> known;
  std::vector<Key> keys;
  const auto id_of = [&](const Key& key) {
    const auto [at, fresh] = known.try_emplace(key, static_cast<std::uint32_t>(keys.size()));
    if (fresh) {
      keys.push_back(key);
      out.rows.emplace_back();
      out.rows.back().final = final(key);
    }
    return at->second;
  };
  id_of(start);
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (keys.size() > kTableRowsMax) {
      return core::fail(core::ErrorKind::invalid_value,
                        "a part of the schema has more than " + std::to_string(kTableRowsMax) + " states");
    }
    if (auto ok = builder.spend(512); !ok) return std::unexpected(ok.error());
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const Key key = keys[i];
      if (const std::optional<Key> to = next(key, static_cast<std::uint8_t>(byte))) {
        const std::uint32_t id = id_of(*to);
        out.rows[i].next[byte] = id;
      }
    }
  }
  return out;
}

}  // namespace ganglion::local::grammar
