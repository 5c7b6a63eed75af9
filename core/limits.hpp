#pragma once
// Hard maxima that no configuration may lift. Configurable caps are in the folders' options.hpp.

#include <cstddef>

namespace ganglion::core {

inline constexpr std::size_t kStreamBufferBytesMax = 64 * 1024;  // bytes held per stream between upstream and client
inline constexpr std::size_t kHeaderBlockBytesMax = 16 * 1024;   // request head, start line included
inline constexpr std::size_t kHeaderLinesMax = 101;
inline constexpr std::size_t kUriBytesMax = 8 * 1024;
inline constexpr std::size_t kJsonDepthMax = 64;
inline constexpr std::size_t kModelNameBytesMax = 128;
inline constexpr std::size_t kSseEventBytesMax = 16UL * 1024 * 1024;      // one event of an upstream stream: an image
inline constexpr std::size_t kUpstreamBodyBytesMax = 64UL * 1024 * 1024;  // one non-streamed upstream answer

}  // namespace ganglion::core
