#pragma once
// Removes chunked coding, strictly and sans-I/O. Well-formed extensions are ignored up to a cap; trailers are checked
// and dropped.

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "net/http1_grammar.hpp"

namespace ganglion::net::http1 {

inline constexpr std::size_t kChunkLineBytesMax = 256;        // size, extensions and CRLF of one chunk
inline constexpr std::size_t kChunkExtensionBytesMax = 4096;  // extensions of one body
inline constexpr std::size_t kTrailerBytesMax = 4096;         // trailer section of one body

class ChunkDecoder {
 public:
  enum class Step : std::uint8_t { more, data, end, broken };
  struct Piece {
    Step step = Step::more;
    std::size_t consumed = 0;  // bytes of `in` that are dealt with, the data included
    std::string_view data;     // a part of `in`; not empty for Step::data
  };

  void reset() { *this = {}; }
  // Unconsumed bytes must be given again, with more behind them.
  Piece next(std::string_view in);
  Why why() const { return why_; }  // after broken

 private:
  enum class State : std::uint8_t { size, data, data_end, trailer, done };
  std::size_t short_size_line(std::string_view in);
  Why size_line(std::string_view line);

  State state_ = State::size;
  std::uint64_t left_ = 0;
  std::size_t extension_bytes_ = 0;
  std::size_t trailer_bytes_ = 0;
  Why why_ = nullptr;
};

}  // namespace ganglion::net::http1
