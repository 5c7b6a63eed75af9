#pragma once
// Where exactly a damaged record is damaged. CRC32C tells which single byte, changed back, would make the checksum
// right, and the hash chain proves that it is the one; two or more wrong bytes cannot be placed.

#include <cstddef>
#include <optional>
#include <string_view>

#include "metering/record_codec.hpp"

namespace ganglion::metering {

// `bytes` begin with a record that does not check and that should follow `before`. The offset of its one wrong byte.
std::optional<std::size_t> find_wrong_byte(std::string_view bytes, const ChainState& before);

}  // namespace ganglion::metering
